"""Concentrations: decimal points and commas, and who needs one."""

from typing import Any

import pandas as pd
import pytest

from moa_ray.common.errors import InputError
from moa_ray.screens.doses import doses


def parsed(values: list[str | None], needed: list[bool] | None = None, decimal: Any = None) -> list[float]:
    rows = range(2, len(values) + 2)
    column = pd.Series(values, rows, name="dose", dtype="str")
    return doses(column, pd.Series([True] * len(values) if needed is None else needed, rows), "t.csv", decimal).tolist()


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["0.3", "1", "1e-3"], [0.3, 1, 0.001]),
        (["0,3", "1", "10"], [0.3, 1, 10]),
        (["1,000", "0,1"], [1, 0.1]),
        ([",5", "1,5e3"], [0.5, 1500]),
    ],
)
def test_decimal_sign_is_found_out(values: list[str | None], numbers: list[float]) -> None:
    assert parsed(values) == numbers


def test_thousands_or_decimals_are_asked_for() -> None:
    with pytest.raises(InputError, match=r"t\.csv: row 3: dose: '1,000' could be .* say screen\.decimal: ','"):
        parsed(["1", "1,000"])
    assert parsed(["1", "1,000"], decimal=",") == [1, 1]
    with pytest.raises(InputError, match=r"row 3: dose must be a number of at least 0, but got '1,000'"):
        parsed(["1", "1,000"], decimal=".")


def test_points_and_commas_together_are_no_numbers() -> None:
    with pytest.raises(InputError, match=r"row 2: dose must be a number of at least 0, but got '1,5'"):
        parsed(["1,5", "1.5"])
    with pytest.raises(InputError, match=r"row 3: dose: decimals come after a comma, but got '1\.500,0'"):
        parsed(["1,5", "1.500,0"], decimal=",")


@pytest.mark.parametrize("value", [None, "NA", "-666", "inf", "vehicle"])
def test_control_without_a_number_gets_zero_and_a_treatment_is_an_error(value: str | None) -> None:
    assert parsed(["1", value], [True, False]) == [1, 0]
    with pytest.raises(InputError, match=r"t\.csv: row 3: dose must be a number of at least 0, but got "):
        parsed(["1", value])


def test_control_with_a_number_keeps_it() -> None:
    assert parsed(["0,5", "0,25"], [True, False]) == [0.5, 0.25]
