"""A sweep on frozen features against one epoch of fine-tuning, on the same tiles and cores.

    python -m tests.benchmarks.frozen [--backbone MobileNetV2] [--size 160] [--tiles 5000] [--folds 38] [--epochs 30]

The sweep: Ray is started, the features of all tiles are taken and written into a tile store, and a head is trained on
each fold by the standard linear probe, its results written into a ledger, all as `python -m moa_ray.sweep` does it.
What is left out is what both need or neither: preparing tiles, MLflow, the report.

The epoch: every layer is trained, by the training core alone, on the training tiles of one fold. What is compiled was
compiled before, so that the epoch is measured at its best. Half of it runs before the sweep and half after, so that a
machine that is disturbed for a while disturbs both.

Tiles are drawn grey levels and weights are draws in a file: how long it takes depends on neither.
"""

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from moa_ray.common.schema import COMPOUND, CONCENTRATION, FIELD, LABEL, PLATE, TILE, WELL
from moa_ray.config.recipe import NO_AUGMENTATION, Recipe, linear_probe_of
from moa_ray.config.resources import Resources
from moa_ray.execution import cluster, frozen_features, tune
from moa_ray.execution.trial_data import TrialData, WorkerSettings
from moa_ray.screens.folds import Fold
from moa_ray.search.grid import Grid
from moa_ray.tiles.features import FrozenFeatures
from moa_ray.tracking.ledger import Ledger
from moa_ray.training import models
from moa_ray.training.data import Data, Split
from moa_ray.training.trainer import Trainer

from .results import Row, write

LABELS = tuple("ABCDEFGHIJKL")


def trial_data(folder: Path, tiles: int, size: int, folds: int) -> TrialData:
    """Drawn tiles in a store, dealt out to so many compounds."""
    rng = np.random.default_rng(0)
    path = folder / f"tiles-{size}.npy"
    np.save(path, rng.integers(0, 256, (tiles, size, size, 3), dtype=np.uint8))
    number = np.arange(tiles)
    compounds = [f"c{n}" for n in range(folds)]
    table = pd.DataFrame(
        {
            PLATE: "P",
            WELL: [f"W{n % folds}" for n in number],
            FIELD: number.astype(str),
            TILE: "0",
            COMPOUND: [compounds[n % folds] for n in number],
            CONCENTRATION: 1.0,
            LABEL: [LABELS[n % folds % len(LABELS)] for n in number],
            "row": number,
        }
    )
    named = {f"compound={name}": Fold(f"compound={name}", COMPOUND, name) for name in compounds}
    return TrialData(table, LABELS, named, {size: path}, seed=0)


class Writer:
    """A listener that writes trials into a ledger."""

    def __init__(self, book: Ledger) -> None:
        self.book = book

    def started(self, assignment: object) -> None:
        """Nothing."""

    def epoch(self, assignment: object, epoch: object) -> None:
        """Nothing."""

    def ended(self, result, final: bool) -> None:
        assert result.status == "finished", result.error
        self.book.write(result)


def sweep(held: TrialData, recipe: Recipe, folder: Path) -> dict[str, float]:
    """Seconds of a sweep over all folds, from starting Ray to the last trial in the ledger."""
    book = Ledger(folder / "out")
    book.root.mkdir(parents=True)
    tiles = held.tiles[int(recipe.image_size)]
    clock = [time.perf_counter()]
    with cluster.connect(None):
        slots = cluster.slots(Resources(), [recipe.backbone], None)
        clock.append(time.perf_counter())
        features = FrozenFeatures.of(folder, recipe, "draws")
        features.write(
            len(held.table), partial(frozen_features.extract, recipe, tiles, slots), lambda done, total: None
        )
        clock.append(time.perf_counter())
        settings = WorkerSettings(held, {recipe.features_key: features.path})
        plan = Grid([(recipe, fold) for fold in held.folds], retries=0)
        tune.run(plan, tune.trainable(settings, [recipe]), slots, [Writer(book)])
        clock.append(time.perf_counter())
    assert len(list(book.results())) == len(held.folds)
    return dict(zip(("Ray", "features", "heads"), np.diff(clock).tolist(), strict=True))


class Epoch:
    """One epoch of fine-tuning on a fold, in halves."""

    def __init__(self, held: TrialData, recipe: Recipe) -> None:
        size = int(recipe.image_size)
        tiles = {size: np.load(held.tiles[size], mmap_mode="r")}
        self._trainer = Trainer(Data(tiles, held.labels(), held.classes), on_device=0)
        self._recipe = recipe
        self._halves = np.array_split(held.split(next(iter(held.folds)))["train"], 2)
        self.seconds = 0.0
        self._train(self._halves[0][: recipe.batch_size])  # compiles

    def half(self) -> None:
        """Train on what is left of the fold's tiles, one half of all."""
        self.seconds += self._train(self._halves.pop())

    def _train(self, rows: np.ndarray) -> float:
        none = np.zeros(0, dtype=np.int64)
        (epoch,) = self._trainer.start(self._recipe, Split(rows, none, none), [0]).epochs()
        return epoch.seconds


def compare(backbone: str, size: int, tiles: int, folds: int, epochs: int) -> tuple[Row, str]:
    """The row of the table, and what the sweep's time went into."""
    with tempfile.TemporaryDirectory(prefix="moa_ray-benchmark-") as scratch:
        folder = Path(scratch)
        weights = folder / "draws.weights.h5"
        models.backbone(backbone, size).save_weights(weights)
        held = trial_data(folder, tiles, size, folds)
        tuned = Recipe(backbone, str(weights), size, epochs=1, augment=NO_AUGMENTATION)
        head = Recipe.from_dict({**linear_probe_of(tuned).as_dict(), "epochs": epochs})
        epoch = Epoch(held, tuned)
        epoch.half()
        parts = sweep(held, head, folder)
        epoch.half()
    total = sum(parts.values())
    row = Row(
        f"{folds}-fold sweep on frozen features, {backbone}, {tiles:,} tiles of {size} pixels, one orientation, "
        f"features included, heads of {epochs} epochs: {total:.0f} s",
        f"one epoch of fine-tuning on one fold of the same tiles, compiled before: {epoch.seconds:.0f} s",
        total / epoch.seconds,
        "< 1",
    )
    went = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items())
    trained = folds * epochs
    return (
        row,
        f"The sweep's time went into: {went}; {trained:,} epochs of heads. Both sides had {os.cpu_count()} cores.",
    )


def main() -> None:
    """Run the comparison and write its table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--backbone", default="MobileNetV2")
    for name, default in (("size", 160), ("tiles", 5000), ("folds", 38), ("epochs", 30)):
        arguments.add_argument(f"--{name}", type=int, default=default)
    given = vars(arguments.parse_args())
    row, notes = compare(**given)
    command = "python -m tests.benchmarks.frozen" + "".join(
        f" --{name} {value}" for name, value in given.items() if value != arguments.get_default(name)
    )
    write("frozen", "Frozen features against fine-tuning", command, [row], notes)


if __name__ == "__main__":
    main()
