"""Screens: wells and concentrations are spelled alike."""

import pandas as pd
import pytest

from moa_ray.common.errors import InputError
from moa_ray.screens.screen import numbers, well_names


def test_wells_spelled_differently_are_one_well() -> None:
    assert well_names(pd.Series(["B2", "b02", " B002", "B12", "AA3"])).tolist() == ["B02", "B02", "B02", "B12", "AA03"]


@pytest.mark.parametrize("value", ["three", "", "nan", "inf", "-1"])
def test_concentration_that_is_none_is_named_by_row_and_value(value: str) -> None:
    with pytest.raises(InputError, match=rf"t\.csv: row 3: dose must be a number of at least 0, but got '{value}'"):
        numbers(pd.Series(["1", value], name="dose"), "t.csv")
