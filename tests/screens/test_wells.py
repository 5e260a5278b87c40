"""Names of wells in all the ways in which tables and file names have them."""

import pandas as pd
import pytest

from moa_ray.screens.wells import spelled_wells, well_of


@pytest.mark.parametrize(
    ("row", "column", "well"),
    [("1", "1", "A01"), ("b", "3", "B03"), ("02", "012", "B12"), ("27", "48", "AA48"), ("2.0", "3.0", "B03")],
)
def test_row_and_column_name_a_well(row: str, column: str, well: str) -> None:
    assert well_of(row, column) == well


def test_wells_of_any_usual_spelling_are_one() -> None:
    wells = pd.Series(["A1", "a01", "A001", "A - 1", "A-01", "A_1", "r1c1", "R01C01", "row 1, col 1", None, "blank"])
    assert spelled_wells(wells).fillna("missing").tolist() == ["A01"] * 9 + ["missing", "BLANK"]
