"""The sections on uncertainty and unknown mechanisms, and that unknown treatments count nowhere else."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lazy import Lazy

from moa_ray.common import open_set
from moa_ray.common.schema import BACKBONE, CANDIDATE, COMPOUND, CONCENTRATION, FIELD, FOLD, LABEL, PLATE, TILE, WELL
from moa_ray.config import sweep_file
from moa_ray.config.sweep_file import Sweep
from moa_ray.reporting import page
from moa_ray.reporting.judged_uncertainty import JudgedUncertainty
from moa_ray.reporting.sections.open_set import OpenSet
from moa_ray.reporting.sections.uncertainty import Uncertainty
from moa_ray.reporting.write import write
from moa_ray.screens.folds import make_folds
from moa_ray.search.objective import loss
from moa_ray.statistics import aggregation, uncertainty
from moa_ray.statistics.uncertainty import DOUBT, METHOD, PREDICTIVE, SAMPLE, SINGLE, UNKNOWN
from moa_ray.tracking.ledger import Ledger
from moa_ray.tracking.results import Result
from reporting.evidence_factory import evidence, words_of

callbacks = Lazy("moa_ray.execution.callbacks")  # imports Ray

COMPOUNDS = {f"{label}{i}": label for label in ("Alpha", "Beta", "Gamma") for i in (1, 2)}
LABELS = sorted(set(COMPOUNDS.values()))
SCREEN = pd.DataFrame(
    {COMPOUND: list(COMPOUNDS), LABEL: list(COMPOUNDS.values()), CONCENTRATION: 1.0, WELL: list(COMPOUNDS)}
)
FOLDS = {fold.name: fold for fold in make_folds(SCREEN, "label")}
WRONG = "Alpha1"  # the known compound that the network takes for another label


def tiles(candidate: str, fold: str) -> pd.DataFrame:
    """One tile a compound held out: sure of known ones, and even where the label is unknown."""
    test = SCREEN.iloc[FOLDS[fold].split(SCREEN).test].reset_index(drop=True)
    rows = test.assign(**{PLATE: "P", FIELD: "1", TILE: "0-0", FOLD: fold, CANDIDATE: candidate, BACKBONE: "SmallCNN"})
    unknown = open_set.marks(rows)
    for label in LABELS:
        sure = np.where((rows[LABEL] == label) != (rows[COMPOUND] == WRONG), 0.9, 0.05)
        rows[f"prob_{label}"] = np.where(unknown, 1 / 3, sure)
    return rows


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("held")
    plain = {
        "study": "held",
        "out": str(folder / "out"),
        "screen": {"name": "synthetic", "root": str(folder / "painted")},
        "folds": {"hold_out": "label"},
        "recipe": {"backbone": "SmallCNN", "weights": "random", "learning_rate": 0.1},
    }
    return sweep_file.check(plain, "test.yaml")


@pytest.fixture(scope="module")
def out(sweep: Sweep) -> Path:
    """OUT of a study whose trials have all finished, reported."""
    ledger = Ledger(sweep.out)
    shared = {"study": "held", "command": "sweep", "seed": 0, "tiles": "t", "tile_store": str(sweep.out / "nowhere")}
    shared |= {"labels": LABELS, "channels": ["Actin", None, None], "folds": dict.fromkeys(FOLDS), "weights": {}}
    shared |= {"search_folds": list(FOLDS), "confirm_folds": [], "warnings": [], "versions": {}}
    ledger.open(sweep, shared)
    recipe = sweep.grid_recipes[0]
    for fold in FOLDS:
        predicted = tiles(recipe.candidate, fold)
        ledger.write(Result(recipe.candidate, fold, "finished", recipe.as_dict(), epochs=2, predictions=predicted))
    write(sweep.out)
    return sweep.out


def test_accuracy_is_of_the_known_treatments_alone(out: Path) -> None:
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["best"]["k"], summary["best"]["n"]) == (5, 6)
    assert summary["best"]["complete"]
    assert len(pd.read_parquet(out / "treatments.parquet")) == 6
    assert len(pd.read_parquet(out / "predictions.parquet")) == 12
    assert "Labels were held out" in words_of(out)


def test_every_treatment_is_measured_as_a_known_and_as_an_unknown_one(out: Path) -> None:
    table = pd.read_parquet(out / "uncertainty.parquet")
    assert table.groupby([COMPOUND, UNKNOWN]).size().tolist() == [1] * 12
    assert (table[UNKNOWN] == (table[FOLD] == "label=" + table[LABEL])).all()
    assert table.loc[table[UNKNOWN], PREDICTIVE].to_numpy() == pytest.approx(np.log(3))


def test_the_report_says_how_many_pairs_are_told_apart(out: Path) -> None:
    html = words_of(out)
    assert (
        "Of 100 pairs of a known and an unknown treatment the network is less sure of the unknown one in 100 (" in html
    )
    assert "6 treatments of 6 compounds are unknown" in html
    numbers = json.loads((out / "summary.json").read_text())["uncertainty"]
    apart = {row["measure"]: row["auroc"] for row in numbers["unknown"]["auroc"]}
    assert (apart[DOUBT], apart[PREDICTIVE]) == (1, 1)
    assert apart[uncertainty.INCREDIBILITY] > 0.5
    assert {path.stem for path in (out / "figures").glob("*.png")} >= {
        "accuracy_rejection",
        "unknown_treatments",
        "unknown_auroc",
    }


def test_a_search_and_the_board_see_known_treatments_alone() -> None:
    fold = "label=Beta"
    mixed = tiles("m", fold)
    result = Result("m", fold, "finished", {}, predictions=mixed)
    known = Result("m", fold, "finished", {}, predictions=open_set.closed_set(mixed))
    for objective in ("treatment_log_loss", "treatment_accuracy"):
        assert loss(objective, "median")(result) == loss(objective, "median")(known)
    leader = callbacks.RunningBest("median")
    leader.add(mixed)
    assert f"of {len(FOLDS[fold].known)} treatments right" in leader.words()


def measured(samples: pd.DataFrame | None = None) -> pd.DataFrame:
    """Measures of a candidate that is sure of known treatments, on every fold."""
    both = pd.concat([tiles("m", fold) for fold in FOLDS], ignore_index=True)
    parts = [aggregation.treatments(both, held_out=held_out) for held_out in (False, True)]
    return uncertainty.measures(pd.concat(parts, ignore_index=True), pd.DataFrame() if samples is None else samples)


def judged(measures: pd.DataFrame, folds: Sequence[str] = ()) -> JudgedUncertainty:
    return JudgedUncertainty.of(measures, "m", folds, seed=0)


def test_only_folds_that_judge_the_headline_count() -> None:
    held = judged(measured(), ["label=Beta"])
    assert held.counts["unknown_treatments"] == 2
    assert held.counts["known_treatments"] == len(FOLDS["label=Beta"].known)
    assert set(held.measured[FOLD]) == {"label=Beta"}


def test_methods_stand_beside_each_other() -> None:
    drawn = pd.concat([tiles("m", fold) for fold in FOLDS], ignore_index=True)
    samples = pd.concat([drawn.assign(**{METHOD: "ensemble", SAMPLE: i}) for i in (1, 2)], ignore_index=True)
    held = judged(measured(samples))
    section = Uncertainty(measured(samples), samples, held)
    table = section.table
    assert [row[0] for row in table.rows] == ["as predicted"] * 2 + ["deep ensemble"] * 4
    assert all(len(row) == len(table.headings) == len(table.numeric) for row in table.rows)
    assert len(OpenSet(held).table.rows) == 6
    single, ensemble = (held.measured[held.measured[METHOD] == method] for method in (SINGLE, "ensemble"))
    assert sorted(single[DOUBT]) == sorted(ensemble[DOUBT])
    legend = section.figures()["accuracy_rejection"].axes[0].get_legend()
    assert [text.get_text().split(",")[0] for text in legend.get_texts()[:2]] == ["as predicted", "deep ensemble"]


@pytest.mark.usefixtures("undrawn")
def test_a_report_without_held_out_labels_has_uncertainty_and_nothing_unknown() -> None:
    known = measured()[lambda table: ~table[UNKNOWN]]
    held = judged(known)
    section = Uncertainty(known, pd.DataFrame(), held)
    assert set(section.figures()) == {"accuracy_rejection"}
    assert OpenSet(held).headline is None
    assert OpenSet.of(evidence()) is None
    assert "Unknown mechanisms" not in page.render(evidence())
    numbers = section.summary()["uncertainty"]
    assert numbers["unknown"] is None
    assert numbers["rejection"][0]["accuracy_100"] == pytest.approx(5 / 6)


def test_the_best_possible_curve_is_over_all_of_the_right_ones() -> None:
    held = judged(measured())
    assert held.best_possible == pytest.approx([1, 1, 1, 1, 1, 5 / 6])
