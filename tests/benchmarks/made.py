"""A study whose trials nobody trained: what the benchmarks of the driver and of the report have in common."""

import multiprocessing
from pathlib import Path

import numpy as np
import pandas as pd

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
from moa_ray.tracking.results import Result

LABELS = tuple(f"mechanism {number:02}" for number in range(12))
TREATMENTS = 12  # of a fold: one compound at as many concentrations


def sweep(out: Path, candidates: int, epochs: int) -> Sweep:
    """A grid over learning rates."""
    plain = {
        "study": "made",
        "out": str(out),
        "screen": {"name": "synthetic", "root": str(out / "painted")},
        "recipe": {"backbone": "SmallCNN", "weights": "random", "image_size": 32, "epochs": epochs},
        "search": {"space": {"learning_rate": [round(1e-4 * (1 + number), 6) for number in range(candidates)]}},
    }
    return sweep_file.check(plain, "made.yaml")


def folds(number: int) -> list[str]:
    """Names of folds that hold out one compound each."""
    return [f"compound=c{index:03}" for index in range(number)]


def begin(sweep: Sweep, folds: list[str]) -> Ledger:
    """The ledger of the study, without a trial."""
    book = Ledger(sweep.out)
    study = {
        "study": sweep.study,
        "command": "python -m moa_ray.sweep made.yaml",
        "seed": 0,
        "tiles": "fingerprint",
        "tile_store": str(sweep.out / "nowhere"),
        "labels": list(LABELS),
        "channels": ["Actin", "Tubulin", "DAPI"],
        "folds": dict.fromkeys(folds),
        "weights": {},
        "search_folds": folds,
        "confirm_folds": [],
        "warnings": [],
        "versions": {},
    }
    book.open(sweep, study)
    return book


def history(epochs: int) -> pd.DataFrame:
    """What a training leaves of its epochs."""
    number = np.arange(1, epochs + 1)
    return pd.DataFrame(
        {
            "epoch": number,
            "loss": 2.0 / number,
            "accuracy": 1 - 0.9 / number,
            "validation_loss": 2.2 / number,
            "validation_accuracy": 1 - 0.95 / number,
            "learning_rate": 1e-3,
            "seconds": 1.5,
            "images_per_second": 100.0,
        }
    )


def predictions(recipe: Recipe, fold: str, replicates: int, tiles: int, rng: np.random.Generator) -> pd.DataFrame:
    """Probabilities of the tiles of every replicate of a fold's treatments, right more often than not."""
    compound = fold.removeprefix("compound=")
    true = int(compound.removeprefix("c")) % len(LABELS)
    rows = TREATMENTS * replicates * tiles
    treatment, replicate = np.divmod(np.arange(rows) // tiles, replicates)
    raw = rng.random((rows, len(LABELS)), dtype=np.float32)
    raw[:, true] += rng.random(rows, dtype=np.float32)
    probabilities = pd.DataFrame(raw / raw.sum(axis=1, keepdims=True), columns=list(map(probability_column, LABELS)))
    keys = pd.DataFrame(
        {
            PLATE: [f"P{number}" for number in replicate],
            WELL: [f"{compound}-{number:02}" for number in treatment],
            FIELD: "1",
            TILE: [f"0-{number}" for number in np.arange(rows) % tiles],
            COMPOUND: compound,
            CONCENTRATION: 0.1 * (1 + treatment),
            LABEL: LABELS[true],
            FOLD: fold,
            CANDIDATE: recipe.candidate,
            BACKBONE: recipe.backbone,
        }
    )
    return pd.concat([keys, probabilities], axis=1)


def fill(sweep: Sweep, folds: list[str], replicates: int, tiles: int, epochs: int) -> None:
    """Record every trial of the study as finished."""
    given = [(sweep.out, recipe, folds, replicates, tiles, epochs) for recipe in sweep.grid_recipes]
    with multiprocessing.get_context("spawn").Pool() as pool:
        pool.starmap(_fill, given, chunksize=1)


def _fill(out: Path, recipe: Recipe, folds: list[str], replicates: int, tiles: int, epochs: int) -> None:
    rng = np.random.default_rng(sum(recipe.candidate.encode()))
    book, own = Ledger(out), history(epochs)
    for fold in folds:
        table = predictions(recipe, fold, replicates, tiles, rng)
        book.write(
            Result(
                *(recipe.candidate, fold, "finished", recipe.as_dict()),
                epochs=epochs,
                seconds=float(own["seconds"].sum()),
                history=own,
                predictions=table,
            )
        )
