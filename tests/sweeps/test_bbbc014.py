"""A whole sweep over a painted plate of BBBC014: both cell lines are held out, and every well is scored."""

import json
from pathlib import Path

import factories
import pandas as pd
import pytest
from commands import predictions, results, run_here

from moa_ray.common.schema import CELL_LINE, WELL

pytestmark = pytest.mark.usefixtures("untracked", "quick_trials")


def test_both_cell_lines_are_held_out_and_64_wells_scored(tmp_path: Path) -> None:
    out = tmp_path / "out"
    screen = {
        "name": "bbbc014",
        "root": str(tmp_path / "painted"),
        "painting": {"height": 96, "width": 128, "cells": 8},
    }
    images = {
        "field_size": 96,
        "normalise": {"by": "none"},
        "range_over": "tile",
        "rows": 4,
        "columns": 4,
        "empty_share": None,
    }
    recipe = factories.recipe(image_size=24, epochs=1, batch_size=32)
    more = {"folds": {"hold_out": "cell_line"}, "recipe": recipe, "aggregate": "mean"}
    run_here(factories.sweep_file(tmp_path, study="tiny014", screen=screen, images=images, **more))
    assert {result["fold"]: result["status"] for result in results(out)} == {
        "cell_line=A549": "finished",
        "cell_line=MCF7": "finished",
    }
    tiles = predictions(out)
    assert (tiles.groupby(WELL).size() == 16).all()
    assert tiles.drop_duplicates(WELL)[CELL_LINE].value_counts().to_dict() == {"MCF7": 32, "A549": 32}
    assert pd.read_csv(out / "leaderboard.csv")["n"].item() == 64
    assert len(pd.read_parquet(out / "treatments.parquet")) == 64
    assert json.loads((out / "summary.json").read_text())["trials"] == {"finished": 2}
    assert "painted, not photographed" in (out / "report.html").read_text()
