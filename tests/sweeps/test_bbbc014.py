"""A whole sweep over a painted plate of BBBC014: both cell lines are held out, and every well is scored."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from commands import predictions, results, run

from moa_ray.tables import CELL_LINE, WELL

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_both_cell_lines_are_held_out_and_64_wells_scored(tmp_path: Path) -> None:
    out = tmp_path / "out"
    plain = {
        "study": "tiny014",
        "seed": 3,
        "out": str(out),
        "screen": {
            "name": "bbbc014",
            "root": str(tmp_path / "painted"),
            "painting": {"height": 96, "width": 128, "cells": 8},
        },
        "images": {
            "field_size": 96,
            "normalise": {"by": "none"},
            "range_over": "tile",
            "rows": 4,
            "columns": 4,
            "empty_share": None,
        },
        "folds": {"hold_out": "cell_line"},
        "recipe": {"backbone": "SmallCNN", "weights": "random", "image_size": 24, "epochs": 1, "batch_size": 32},
        "aggregate": "mean",
    }
    sweep = tmp_path / "tiny014.yaml"
    sweep.write_text(yaml.safe_dump(plain))
    run(sweep)
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
