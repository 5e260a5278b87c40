"""Names: spellings of one compound are found, shown so that they can be told apart, and settled by the sweep file."""

import pandas as pd
import pytest
import yaml

from moa_ray.common.schema import CELL_LINE, COMPOUND
from moa_ray.config.screen_rows import AliasNames
from moa_ray.screens.names import check_aliases, check_groups, check_names, merge_names, one_name

NAMES = pd.Series(["Taxol", "taxol", "Taxol", "paclitaxel", "C-1", "C1", None, "x"], dtype="str")
ALL = pd.Series(True, index=NAMES.index)


def test_spellings_are_shown_with_their_rows_and_with_what_settles_them() -> None:
    (problem,) = check_names(NAMES, ALL, None, "compounds")
    assert problem.severity == "error"
    assert problem.message == (
        '2 compounds are spelled in several ways; screen.aliases: {"C-1": ["C1"]} makes them one, '
        '{"C-1": [], "C1": []} keeps them apart, distinct all such names: '
        '"C-1" (1 row) and "C1" (1 row), "Taxol" (2 rows) and "taxol" (1 row)'
    )


@pytest.mark.parametrize(
    ("aliases", "left"),
    [
        ("distinct", 0),
        ({"Taxol": ("taxol", "paclitaxel")}, 1),
        ({"Taxol": ("taxol",), "C-1": (), "C1": ()}, 0),
        ({"Taxol": ("taxol",), "C-1": ()}, 1),
        ({"C": ("C-1", "C1"), "Taxol": (), "taxol": ()}, 0),
    ],
)
def test_names_are_settled_by_aliases(aliases: AliasNames, left: int) -> None:
    problems = check_names(merge_names(NAMES, aliases), ALL, aliases, "compounds")
    assert sum(int(problem.message.split()[0]) for problem in problems) == left


def test_advice_settles_what_it_is_given_for() -> None:
    names = pd.Series(["β\u20111", "β-1", "µ", "μ"], dtype="str")
    used = pd.Series(True, index=names.index)
    (problem,) = check_names(names, used, None, "compounds")
    merging, apart = problem.message.split("screen.aliases: ")[1].split(" makes them one, ")
    merged = yaml.safe_load(merging)
    assert merge_names(names, {name: tuple(others) for name, others in merged.items()}).nunique() == 3
    settled = yaml.safe_load(apart.split(" keeps")[0])
    assert len(settled) == 2
    assert check_names(names[2:], used[2:], settled, "compounds") == []


def test_names_of_rows_that_are_left_out_count_beside_one_that_is_used() -> None:
    used = NAMES == "Taxol"
    (problem,) = check_names(NAMES, used, None, "compounds")
    assert problem.message.endswith(': "Taxol" (2 rows) and "taxol" (1 row)')
    assert check_names(NAMES, NAMES == "x", None, "compounds") == []


def test_merged_names_are_those_of_a_loop() -> None:
    aliases: AliasNames = {"Taxol": ("taxol", "paclitaxel"), "y": ("x",)}
    merged = merge_names(NAMES, aliases)
    assert merged.dropna().tolist() == [one_name(name, aliases) for name in NAMES.dropna()]
    assert merged.isna().tolist() == NAMES.isna().tolist()


def test_alias_that_no_row_has_is_a_warning() -> None:
    (problem,) = check_aliases([NAMES], {"Taxol": ("taxol", "Abraxane")})
    assert (problem.severity, problem.message) == ("warning", '1 names in screen.aliases stand in no row: "Abraxane"')


def test_groups_that_are_held_out_are_warned_of_where_they_are_spelled_alike() -> None:
    fields = pd.DataFrame({CELL_LINE: ["MCF7", "MCF-7", "A549", "A549"], COMPOUND: ["x", "X", "y", "z"]})
    (problem,) = check_groups(fields, [CELL_LINE, COMPOUND])
    assert problem.severity == "warning"
    assert problem.message.startswith("1 groups of Metadata_CellLine are spelled in several ways; ")
    assert problem.message.endswith(': "MCF-7" (1 row) and "MCF7" (1 row)')
