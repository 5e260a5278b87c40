"""Rows chosen by values: which are kept, which are controls, and what is said of values that no row has."""

from typing import Any

import pandas as pd
import pytest

from moa_ray.common.errors import InputError
from moa_ray.common.schema import COMPOUND, FIELD, LABEL, WELL
from moa_ray.config.screen_rows import read_condition
from moa_ray.screens.selection import Columns, check_control_classes, chosen_rows, control_rows

TABLE = pd.DataFrame(
    {
        "well": ["A01", "A02", "A03", "A04", "A05"],
        "site": ["01", "2", "3", "1.0", None],
        "drug": ["DMSO", "dmso", "a", "b", None],
        "type": ["negcon ", "negcon", "trt", "poscon_cp", "NegCon"],
        "moa": [None, None, "toxic", "A", None],
        "ok": [True, True, False, True, True],
    },
    index=range(2, 7),
)
MAPPED = {WELL: "well", FIELD: "site", COMPOUND: "drug", LABEL: "moa"}
COLUMNS = Columns(pd.DataFrame({name: TABLE[source] for name, source in MAPPED.items()}), TABLE)
ALL = pd.Series(True, index=TABLE.index)


def kept(**where: Any) -> list[int]:
    reasons, problems = chosen_rows(COLUMNS, {name: read_condition(written) for name, written in where.items()})
    assert problems == []
    return reasons.index[reasons.isna()].tolist()


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({}, [2, 3, 4, 5, 6]),
        ({FIELD: 1}, [2, 5]),
        ({FIELD: [1, 2]}, [2, 3, 5]),
        ({FIELD: ["2"]}, [3]),
        ({FIELD: {"not": [1, None]}}, [3, 4]),
        ({LABEL: {"not": "toxic"}}, [2, 3, 5, 6]),
        ({WELL: ["a1", "A003"]}, [2, 4]),
        ({"ok": True, FIELD: [1, 3]}, [2, 5]),
        ({"type": ["negcon"]}, [2, 3]),
    ],
)
def test_rows_are_kept_where_all_conditions_hold(where: dict[str, Any], rows: list[int]) -> None:
    assert kept(**where) == rows


def test_reason_is_the_first_condition_that_does_not_hold() -> None:
    where = {FIELD: read_condition([1, 2]), "type": read_condition({"not": ["negcon"]})}
    reasons, _ = chosen_rows(COLUMNS, where)
    sites, types = f"screen.where: {FIELD}: [1, 2]", "screen.where: type: {not: [negcon]}"
    assert reasons.fillna("").tolist() == [types, types, sites, "", sites]


def test_value_that_no_row_has_is_an_error_with_the_nearest() -> None:
    _, problems = chosen_rows(COLUMNS, {LABEL: read_condition({"not": ["Toxik"]}), FIELD: read_condition([9, None])})
    assert [problem.severity for problem in problems] == ["error", "error"]
    assert problems[0].message == f"screen.where.{LABEL}: no row has 'Toxik'; did you mean 'toxic'?"
    assert problems[1].message == f"screen.where.{FIELD}: no row has 9; known are 01, 2, 3, 1.0"


def test_unknown_column_is_an_error_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"screen\.where\.typ: the table has no column 'typ'; did you mean 'type'\?"):
        kept(typ="negcon")


def controls(control: Any, aliases: Any = None, kept: pd.Series = ALL) -> tuple[list[int], list[str]]:
    is_control, problems = control_rows(COLUMNS, control, aliases, kept)
    return is_control.index[is_control].tolist(), [problem.message for problem in problems]


@pytest.mark.parametrize(
    ("control", "rows"),
    [
        (None, []),
        ("DMSO", [2]),
        (("DMSO", "dmso"), [2, 3]),
        ({"type": read_condition(["negcon", "NegCon"])}, [2, 3, 6]),
        ({COMPOUND: read_condition([None])}, [6]),
        ({"type": read_condition(["negcon", "NegCon"]), "ok": read_condition([True]), FIELD: read_condition([2])}, [3]),
    ],
)
def test_controls_are_told_by_their_compound_or_by_any_columns(control: Any, rows: list[int]) -> None:
    assert controls(control) == (rows, [])


def test_control_that_names_no_row_is_an_error_with_the_nearest() -> None:
    assert controls("DMS") == ([], ["screen.control: no row has 'DMS'; did you mean 'DMSO'?"])
    _, messages = controls({"type": read_condition(["negcom"])})
    assert messages == ["screen.control.type: no row has 'negcom'; did you mean 'negcon'?"]


def test_control_that_where_leaves_out_is_an_error() -> None:
    _, messages = controls("DMSO", kept=TABLE["drug"] != "DMSO")
    assert messages == [
        "screen.control: screen.where keeps no row that is a control; look at their values, or leave out the key"
    ]


def test_values_that_are_spelled_like_a_chosen_one_are_named() -> None:
    _, (message,) = controls({"type": read_condition(["negcon"])})
    assert message.endswith(
        'not chosen by screen.control.type, but spelled like one that is; name them too: "NegCon" (1 rows)'
    )


def test_control_goes_by_the_name_that_its_alias_stands_for() -> None:
    assert controls("vehicle", {"DMSO": ("vehicle",)}) == ([2], [])


def test_condition_goes_by_the_name_that_an_alias_stands_for_too() -> None:
    aliases = {"DMSO": ("vehicle",), "A": ("alpha",)}
    assert controls({COMPOUND: read_condition(["vehicle"])}, aliases) == ([2], [])
    reasons, problems = chosen_rows(COLUMNS, {LABEL: read_condition({"not": ["alpha", "A"]})}, aliases)
    assert (reasons.index[reasons.notna()].tolist(), problems) == ([5], [])


def test_controls_that_are_a_class_are_told_of() -> None:
    (problem,) = check_control_classes(pd.Series(["negative", "negative"]))
    assert problem.severity == "warning"
    assert problem.message.startswith("2 control fields carry a label too (negative) and are learnt and scored")
    assert check_control_classes(pd.Series([], dtype="str"))[0].severity == "error"
