"""Evidence out of a ledger: samples of ensembles, and what a study says of fields and of lost treatments."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moa_ray import plan
from moa_ray.common.schema import (
    CANDIDATE,
    COMPOUND,
    CONCENTRATION,
    FIELD_KEY,
    LABEL,
    TILE,
    TREATMENT,
    probability_column,
)
from moa_ray.config import sections, sweep_file
from moa_ray.reporting.from_ledger import Contents, samples
from moa_ray.reporting.write import write
from moa_ray.study import Study
from moa_ray.tiles.store import TileStore
from moa_ray.tracking.ledger import Ledger
from reporting.ledgers import COMPOUNDS, finished, grid

pytestmark = pytest.mark.usefixtures("undrawn")


def test_samples_of_the_first_member_become_treatments_one_by_one(tmp_path: Path) -> None:
    sweep, ledger = grid(tmp_path)
    seeded = sweep.model_copy(update={"seeds": (5, 2), "predict": sections.Predict(mc_dropout=2)})
    for number in (0, 1):
        for compound, label in COMPOUNDS.items():
            trial = finished(seeded, number, compound, label)
            assert trial.predictions is not None
            drawn = [trial.predictions.assign(method="mc_dropout", sample=sample) for sample in (0, 1)]
            column = probability_column(label)
            drawn[1] = drawn[1].assign(**{column: [0.1 + number, 0.4 + number, 0.3 + number]})
            ledger.write(dataclasses.replace(trial, samples=pd.concat(drawn)))
    contents = dataclasses.replace(Contents.read(sweep.out), sweep=seeded)
    drawn_samples = samples(contents)
    assert set(drawn_samples[CANDIDATE]) == {seeded.grid_recipes[0].ensemble.candidate}
    assert drawn_samples["method"].value_counts().to_dict() == {"mc_dropout": 8, "ensemble": 8}
    rows = drawn_samples[drawn_samples["method"] == "mc_dropout"]
    shares = [row[probability_column(row[LABEL])] for row in rows.to_dict("records")]
    # Over the two tiles of one well, then over the two wells.
    assert shares == pytest.approx([0.8] * 4 + [np.median([np.median([0.1, 0.4]), 0.3])] * 4)


def begun(root: Path, tmp_path: Path) -> tuple[sweep_file.Sweep, Study]:
    """A sweep of real tables that leaves out compound and week, with its report before any trial."""
    plain = {
        "study": "begun",
        "out": str(tmp_path / "out"),
        "screen": {"name": "bbbc021", "root": str(root)},
        "folds": {"hold_out": ["compound", "week"]},
        "recipe": {"backbone": "SmallCNN", "weights": "random", "image_size": 32},
    }
    sweep = sweep_file.check(plain, "test.yaml")
    study = Study.open(sweep)
    tiles = study.screen.labelled[FIELD_KEY].assign(**{TILE: "0-0"})
    store = TileStore(tmp_path, "mark", (32,), tiles, ())
    Ledger(sweep.out).open(sweep, study.record(store, "command"))
    write(sweep.out)
    return sweep, study


def test_the_study_says_which_fields_to_show_and_which_treatments_are_lost(shared: Path, tmp_path: Path) -> None:
    sweep, study = begun(shared / "data" / "bbbc021_cells", tmp_path)
    assert (sweep.out / "figures" / "example_fields.png").exists()
    html = (sweep.out / "report.html").read_text()
    assert "68 x 68 pixels" in html
    summary = json.loads((sweep.out / "summary.json").read_text())
    lost = summary["treatments_not_scored"]
    assert f"{103 - len(lost)} of {summary['treatments']} treatments can be scored" in plan.describe(study)
    assert {"bryostatin", "simvastatin"} <= {row[COMPOUND] for row in lost}
    assert all(row[COMPOUND] in html and row["reason"] for row in lost)


def test_without_their_week_92_of_103_official_treatments_can_be_scored(shared: Path, tmp_path: Path) -> None:
    sweep, _ = begun(shared / "data" / "bbbc021_csv", tmp_path)
    html = " ".join((sweep.out / "report.html").read_text().split())
    assert "92 of 103 treatments can be scored. The other 11 lie in folds that cannot be trained" in html
    assert "Fields that cannot be read are not shown: Actin disruptors" in html  # the images are not there
    lost = json.loads((sweep.out / "summary.json").read_text())["treatments_not_scored"]
    assert len(lost) == 11
    scored = pd.DataFrame(Ledger(sweep.out).study()["scored"])
    assert len(scored.drop_duplicates(TREATMENT)) == 92
    for row in lost:
        assert f'<td>{row[COMPOUND]}</td><td class="number">{row[CONCENTRATION]:g}</td><td>{row[LABEL]}</td>' in html
