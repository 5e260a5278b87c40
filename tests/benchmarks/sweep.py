"""What does a trial cost beside its training? Whole sweeps of the demo's painted screen on two slots of one CPU each.

    python -m tests.benchmarks.sweep                    # sweep.md

moa_ray      `python -m moa_ray.sweep` on five learning rates x 12 folds, the whole command from its start to its
             report, MLflow included; only the tiles are there already.
as the Ray documentation shows it
             a function trainable that builds, compiles and fits the same network on `tf.data` from image files (the
             same tiles, as PNG), reports each epoch and predicts the held-out tiles; one process a trial. Ray has
             started, and the files are written, before the clock is.

How many times as many trials an hour this gives depends on how long the steps take, which are the same in either way.
So it is told of two recipes: a fine-tuned MobileNetV2, which is what moa_ray is for (a graph that takes long to compile
and an epoch that is short), and the demo's own small network.

The time outside training steps is 1 - (seconds that trials trained and predicted) / (wall x slots), of the demo's
recipe at the paper's 10 epochs. Compiling counts as outside: what the first trial of a process takes longer for its
first epoch than trials on a warm model do.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from ray import tune

from moa_ray.config import sweep_file
from moa_ray.config.recipe import Recipe
from moa_ray.execution import cluster
from moa_ray.execution.trial_data import TrialData
from moa_ray.study import Study
from moa_ray.tracking.ledger import Ledger
from moa_ray.training import models

from .results import Row, write

SLOTS = 2
RATES = [3e-3, 1e-3, 3e-4, 1e-4, 3e-5]
DEMO = Path(__file__).parents[2] / "sweeps" / "demo.yaml"


def ours(overrides: list[str]) -> tuple[float, pd.DataFrame]:
    """Wall seconds of the command, and a row a trial."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "moa_ray.sweep", str(DEMO), *overrides], check=True, stdout=subprocess.DEVNULL
    )
    wall = time.perf_counter() - begun
    book = Ledger(sweep_file.load(DEMO, overrides).out)
    rows = []
    for result in book.results():
        assert result.status == "finished", result
        history = book.load(result).history
        assert history is not None
        steps = result.seconds - result.setup_seconds
        rows.append({"steps": steps, "first": history["seconds"].iloc[0], "setup": result.setup_seconds})
    return wall, pd.DataFrame(rows)


def outside(wall: float, trials: pd.DataFrame) -> float:
    """The share of the slots' time in which nothing was trained or predicted."""
    # The first trial of each process traces the graph within its first epoch.
    warm = trials["first"].median()
    compiling = (trials["first"].nlargest(SLOTS) - warm).clip(lower=0).sum()
    return float(1 - (trials["steps"].sum() - compiling) / (wall * SLOTS))


def as_documented(recipe: Recipe, trial_data: TrialData, images: list[str], folds: list[str]) -> float:
    """Wall seconds of Tune over some folds."""
    tasks = []
    labels = trial_data.labels()
    for fold in folds:
        parts = {name: trial_data.table["row"].to_numpy()[index] for name, index in trial_data.split(fold).items()}
        tasks.append({name: ([images[row] for row in rows], labels[rows].tolist()) for name, rows in parts.items()})
    fit_fold = tune.with_parameters(_fit_fold, recipe=recipe, tasks=tasks, n_classes=len(trial_data.classes))
    begun = time.perf_counter()
    found = tune.Tuner(
        tune.with_resources(fit_fold, {"cpu": 1}),
        param_space={"fold": tune.grid_search(list(range(len(folds))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=SLOTS),
        run_config=tune.RunConfig(verbose=0, storage_path=tempfile.mkdtemp()),
    ).fit()
    wall = time.perf_counter() - begun
    assert found.num_errors == 0, found.errors
    assert all(result.metrics["tiles"] > 0 for result in found)
    return wall


def _fit_fold(config: dict[str, Any], recipe: Recipe, tasks: list[dict[str, Any]], n_classes: int) -> None:
    import keras
    import tensorflow as tf

    from moa_ray.training.models import backbone

    size = int(recipe.image_size)
    (paths, labels), (held_out, _) = tasks[config["fold"]]["train"], tasks[config["fold"]]["test"]

    def read(path: Any) -> Any:
        return tf.cast(tf.io.decode_png(tf.io.read_file(path), channels=3), tf.float32)

    def turn(image: Any) -> Any:
        image = tf.image.random_flip_left_right(tf.image.random_flip_up_down(image))
        return tf.image.rot90(image, tf.random.uniform((), 0, 4, tf.int32))

    training = tf.data.Dataset.from_tensor_slices((paths, labels)).shuffle(len(paths))
    training = training.map(lambda path, label: (turn(read(path)), label), tf.data.AUTOTUNE)
    training = training.batch(recipe.batch_size).prefetch(tf.data.AUTOTUNE)
    body = backbone(recipe.backbone, size)
    if recipe.weights != "random":
        body.load_weights(recipe.weights)
    network = keras.Sequential(
        [
            keras.Input((size, size, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            body,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(n_classes, activation="softmax"),
        ]
    )
    network.compile(
        keras.optimizers.Adam(recipe.learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    told = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: tune.report({"epoch": epoch, "tiles": 0, **logs})
    )
    network.fit(training, epochs=recipe.epochs, verbose=0, callbacks=[told])
    testing = tf.data.Dataset.from_tensor_slices(held_out).map(read, tf.data.AUTOTUNE).batch(recipe.batch_size)
    tune.report({"tiles": len(network.predict(testing, verbose=0))})


def _images(folder: Path, tiles: np.ndarray) -> list[str]:
    """The tiles as PNG files."""
    folder.mkdir()
    paths = [str(folder / f"{row}.png") for row in range(len(tiles))]
    for path, tile in zip(paths, tiles, strict=True):
        Image.fromarray(tile).save(path)
    return paths


@dataclass(frozen=True)
class Case:
    """A recipe, changed from the demo's by some overrides."""

    name: str
    overrides: list[str]
    target: str

    def compare(self, common: list[str], images: list[str], documented: int) -> tuple[Row, float, pd.DataFrame, str]:
        """Trials an hour against the documented way; wall seconds and trials of ours, and what a trial is."""
        overrides = [*common, *self.overrides]
        study = Study.open(sweep_file.load(DEMO, overrides))
        trial_data, recipe = study.trial_data(study.prepare(lambda done, total: None)), study.sweep.grid_recipes[0]
        wall, trials = ours(overrides)
        folds = list(trial_data.folds)[:documented]
        with cluster.connect(None):
            theirs = as_documented(recipe, trial_data, images, folds)
        hourly, hourly_theirs = len(trials) / wall * 3600, len(folds) / theirs * 3600
        row = Row(
            f"trials an hour, {self.name}: {hourly:.0f} ({len(trials)} in {wall:.0f} s)",
            f"as the Ray documentation shows it: {hourly_theirs:.0f} ({len(folds)} in {theirs:.0f} s)",
            hourly / hourly_theirs,
            self.target,
        )
        note = (
            f"{self.name}: {recipe.backbone}, {recipe.image_size} px, {recipe.epochs} epochs over about "
            f"{len(trial_data.table)} tiles in {trials['steps'].median():.1f} s; warm, its model was ready after "
            f"{trials['setup'].median():.2f} s."
        )
        return row, wall, trials, note


def main() -> None:
    """Run, and write what was found beside this file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--recipes", type=int, default=len(RATES), help="each on 12 folds; at most 5")
    arguments.add_argument("--documented", type=int, default=12, help="trials in the documented way")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "drawn.weights.h5")
        models.backbone("MobileNetV2", 64).save_weights(weights)
        tuned = f"recipe={{backbone: MobileNetV2, weights: {weights}, image_size: 64, epochs: 1, optimizer: adam}}"
        common = [
            f"screen.root={folder}/painted",
            f"tiles={folder}/tiles",
            f"search.space.learning_rate={json.dumps(RATES[: given.recipes])}",
            "resources.cpus=1",
            f"resources.concurrent={SLOTS}",
        ]
        store = Study.open(sweep_file.load(DEMO, common)).prepare(lambda done, total: None)
        images = _images(Path(folder, "images"), store.array(64))
        cases = [
            Case("fine-tuned MobileNetV2", [tuned, f"out={folder}/tuned"], "5"),
            Case("the demo's recipe", [f"out={folder}/demo"], "told, no target"),
            Case("the demo's recipe for 10 epochs", ["recipe.epochs=10", f"out={folder}/ten"], "told, no target"),
        ]
        rows, notes = [], []
        for case in cases:
            row, wall, trials, note = case.compare(common, images, given.documented)
            rows.append(row)
            notes.append(note)
    rows.append(
        Row(
            f"time outside training steps, {len(trials)} trials of the demo's recipe for 10 epochs: "
            f"{trials['steps'].sum():.0f} s trained and predicted",
            f"{SLOTS} slots for {wall:.0f} s",
            outside(wall, trials),
            "below 0.15",
        )
    )
    write("sweep", "What a trial costs beside its training", "python -m tests.benchmarks.sweep", rows, "\n".join(notes))


if __name__ == "__main__":
    main()
