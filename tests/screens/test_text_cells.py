"""Cells as text: cleaned alike whatever a file holds them as."""

import numpy as np
import pandas as pd
import pytest

from moa_ray.screens.text_cells import clean_cells, clean_column, is_word


@pytest.mark.parametrize("dtype", ["object", "str", "category"])
def test_blank_text_is_missing_however_a_file_keeps_it(dtype: str) -> None:
    column = pd.Series([" a\u00a0", "", "\u200b", None, "NA", "Lo\u0308sung"], dtype=dtype)
    assert clean_column(column).fillna("(missing)").tolist() == ["a", *["(missing)"] * 3, "NA", "Lösung"]


def test_numbers_are_text_as_they_were_and_rows_keep_their_names() -> None:
    table = pd.DataFrame(
        {"plate": [1, 2], "dose": np.array([0.1, np.nan], np.float32), "ok": [True, False]}, index=[2, 9]
    )
    cleaned = clean_cells(table)
    assert cleaned.index.tolist() == [2, 9]
    assert cleaned["plate"].tolist() == ["1", "2"]
    assert float(cleaned["dose"].iloc[0]) == np.float32(0.1)
    assert cleaned["dose"].isna().tolist() == [False, True]
    assert cleaned["ok"].tolist() == ["True", "False"]


def test_words_for_missing_are_told_whatever_their_case() -> None:
    column = pd.Series(["NA", "na", "nanog", None, "-", "N/A"], dtype="str")
    assert is_word(column, ["NA", "n/a", "-"]).tolist() == [True, True, False, False, True, True]
