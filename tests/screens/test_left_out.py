"""Rows left out: each is counted once, under its reason, plate and compound."""

from collections import Counter
from pathlib import Path

import pandas as pd
from screen_files import BBBC021_WELLS, bbbc021_rows, bbbc021_tables

from moa_ray.common.schema import COMPOUND, PLATE
from moa_ray.screens.bbbc021 import open_screen
from moa_ray.screens.left_out import ROWS, count_left_out, join_left_out, left_out_sentences, none_left_out


def test_counts_are_those_of_a_loop_over_the_rows() -> None:
    names = [("p1", "x"), ("p1", None), ("p2", "x"), ("p1", "x"), (None, "y")]
    rows = pd.DataFrame(names, columns=[PLATE, COMPOUND])
    reasons = pd.Series(["no label", "no label", "chosen", "no label", "chosen"])
    counts = count_left_out(rows, reasons)
    loop = Counter((reason, plate or "", name or "") for reason, (plate, name) in zip(reasons, names, strict=True))
    assert {(reason, plate, name): n for reason, plate, name, n in counts.itertuples(index=False)} == loop


def test_reason_of_most_rows_is_told_first_with_its_compounds() -> None:
    rows = pd.DataFrame({PLATE: "p1", COMPOUND: ["a", None, "b", "b", "c", "d"]})
    table = join_left_out([count_left_out(rows[:1], "few"), none_left_out(), count_left_out(rows[1:], "no label")])
    assert left_out_sentences(table) == [
        "5 rows: no label (4 compounds on 1 plate: b 2, (no name) 1, c 1, ...)",
        "1 row: few (1 compound on 1 plate: a 1)",
    ]


def test_nothing_left_out_has_the_columns_of_a_count() -> None:
    counts = count_left_out(pd.DataFrame({PLATE: ["p"], COMPOUND: ["a"]}), "why")
    assert join_left_out([]).columns.tolist() == counts.columns.tolist()
    assert left_out_sentences(none_left_out()) == []


def test_bbbc021_counts_what_has_no_label_and_taxol_as_a_control(tmp_path: Path) -> None:
    table = pd.concat([BBBC021_WELLS, bbbc021_rows(("Week1_10", "C02", "taxol", "0.3"))])
    screen = open_screen(bbbc021_tables(tmp_path, table))
    assert len(screen.fields) + screen.left_out[ROWS].sum() == len(table)
    assert dict(zip(screen.left_out[COMPOUND], screen.left_out["reason"], strict=True)) == {
        "taxol": "taxol as a control of the plate",
        "unknown": "no label",
    }
