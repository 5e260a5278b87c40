"""Ledgers of sweeps over four compounds, and trials to write into them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from factories import study

from moa_ray.common.schema import (
    BACKBONE,
    CANDIDATE,
    COMPOUND,
    CONCENTRATION,
    FIELD,
    FOLD,
    LABEL,
    PLATE,
    TILE,
    WELL,
    probability_column,
)
from moa_ray.config import sweep_file
from moa_ray.config.recipe import Recipe
from moa_ray.config.sweep_file import Sweep
from moa_ray.tracking.ledger import Ledger
from moa_ray.tracking.results import Proposal, Result, TrialKind

LABELS = ("Alpha", "Beta & <co>")
COMPOUNDS = {"a1": "Alpha", "a2": "Alpha", "b1": "Beta & <co>", "b2": "Beta & <co>"}
SEARCH = {
    "mode": "optuna",
    "candidates": 3,
    "space": {"learning_rate": [0.1, 0.01, 0.001]},
    "race": {"first_folds": 1, "keep": 1},
}


def grid(folder: Path, candidates: int = 2, unit: str = "treatment", **told: Any) -> tuple[Sweep, Ledger]:
    """A sweep of two candidates on four folds, and its ledger, with more that the study tells: nothing trained yet."""
    plain = {
        "study": "reported",
        "out": str(folder / "out"),
        "screen": {"name": "synthetic", "root": str(folder / "painted")},
        "recipe": {"backbone": "SmallCNN", "weights": "random"},
        "search": {"space": {"learning_rate": [0.1, 0.01][:candidates]}},
        "score": {"unit": unit},
    }
    sweep = sweep_file.check(plain, "test.yaml")
    ledger = Ledger(sweep.out)
    folds = [f"compound={name}" for name in COMPOUNDS]
    record = study(folds, study=sweep.study, labels=list(LABELS), tile_store=str(sweep.out / "nowhere"))
    excluded = {"compound=x": "no training field left"}
    told = {"warnings": ["2 plates have no control wells"], "versions": {"python": "3.11"}, **told}
    ledger.open(sweep, {**record, **told, "folds": {**dict.fromkeys(folds), **excluded}})
    return sweep, ledger


def finished(sweep: Sweep, candidate: int, compound: str, predicted: str) -> Result:
    """A trial that took all wells of a compound for one label."""
    return trial_of(sweep.grid_recipes[candidate], compound, predicted)


def trial_of(recipe: Recipe, compound: str, predicted: str) -> Result:
    """A trial of any recipe that took all wells of a compound for one label."""
    rows = pd.DataFrame(
        {
            PLATE: ["P1", "P1", "P2"],
            WELL: f"B{list(COMPOUNDS).index(compound) + 2:02}",
            FIELD: ["1", "2", "1"],
            TILE: "0-0",
            COMPOUND: compound,
            CONCENTRATION: 1.0,
            LABEL: COMPOUNDS[compound],
            FOLD: f"compound={compound}",
            CANDIDATE: recipe.candidate,
            BACKBONE: recipe.backbone,
            **{probability_column(label): 0.8 if label == predicted else 0.2 for label in LABELS},
        }
    )
    history = pd.DataFrame({"epoch": [1, 2], "loss": [1.0, 0.5], "accuracy": [0.5, 0.8], "learning_rate": 0.1})
    history = history.assign(validation_loss=np.nan, validation_accuracy=np.nan, seconds=1.0, images_per_second=10.0)
    fold = f"compound={compound}"
    return Result(
        recipe.candidate,
        fold,
        "finished",
        recipe.as_dict(),
        TrialKind.of(recipe),
        epochs=2,
        seconds=2.0,
        history=history,
        predictions=rows,
    )


def searched(
    tmp_path: Path, search_folds: list[str], confirm_folds: list[str], seeds: list[int] | None = None
) -> tuple[Sweep, Ledger]:
    """A ledger of three candidates on the way, nothing trained yet."""
    plain = {
        "study": "searched",
        "seeds": seeds,
        "out": str(tmp_path / "out"),
        "screen": {"name": "synthetic", "root": str(tmp_path / "painted")},
        "recipe": {"backbone": "SmallCNN", "weights": "random", "image_size": 32},
        "search": SEARCH,
    }
    sweep = sweep_file.check(plain, "test.yaml")
    ledger = Ledger(sweep.out)
    ledger.open(sweep, study(search_folds, confirm_folds, labels=list(LABELS)))
    for number, rate in enumerate(SEARCH["space"]["learning_rate"]):
        recipe = sweep.space.recipe({"learning_rate": rate})
        ledger.propose(Proposal(number, recipe, {"learning_rate": rate}))
    return sweep, ledger


def ended(ledger: Ledger, number: int, compound: str, right: bool, status: str = "finished") -> None:
    recipe = ledger.proposals()[number].recipe
    label = COMPOUNDS[compound]
    other = next(name for name in LABELS if name != label)
    trial = trial_of(recipe, compound, label if right else other)
    if status != "finished":
        trial = dataclasses.replace(trial, status=status, predictions=None, epochs=1)  # type: ignore[arg-type]
    ledger.write(trial)
