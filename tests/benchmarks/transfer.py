"""Pre-trained against Xavier-initialised, on painted screens: figure 4 of Kensert et al. 2019 without natural images.

    python -m tests.benchmarks.transfer                 # transfer.md, transfer.png

The source task is the painted translocation assay (other cells, two other labels): the training core fits SmallCNN on
all its tiles and writes the backbone's weights. The target is the demo's screen: `python -m moa_ray.sweep` trains every
fold from these weights and from random ones, three learning rates each, and predicts the held-out compounds after every
epoch. The figure is the report's own.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from moa_ray.config import sweep_file
from moa_ray.study import Study
from moa_ray.tracking.ledger import Ledger
from moa_ray.training.data import Data, Split
from moa_ray.training.trainer import Trainer, fit

from .results import HERE, Row, write

SWEEPS = HERE.parents[1] / "sweeps"
TARGET = (
    "recipe={backbone: SmallCNN, epochs: 8, batch_size: 32, optimizer: adam, schedule: cosine, "
    "augment: {orientations: true, channel_jitter: [], blur: 0, noise: 0}}"
)


def pretrain(folder: Path) -> tuple[Path, str]:
    """Weights of a backbone that was trained on the source task, and what it was trained on in words."""
    overrides = [f"screen.root={folder}/source", f"tiles={folder}/tiles", f"out={folder}/none"]
    study = Study.open(sweep_file.load(SWEEPS / "demo_bbbc014.yaml", overrides))
    study.require_sound()
    trial_data = study.trial_data(study.prepare(lambda done, total: None))
    tiles = {size: np.load(path, mmap_mode="r", allow_pickle=False) for size, path in trial_data.tiles.items()}
    trainer = Trainer(Data(tiles, trial_data.labels(), trial_data.classes))
    rows = trial_data.table["row"].to_numpy()
    nothing = rows[:0]
    outcome = fit(trainer, replace(study.sweep.grid_recipes[0], epochs=8), Split(rows, nothing, nothing), seed=[7])
    path = folder / "source.weights.h5"
    trainer.save_backbone(path)
    seen = outcome.history["accuracy"].iloc[-1]
    return (
        path,
        f"Source: {len(rows)} tiles, labels {', '.join(trial_data.classes)}; {seen:.2f} of them right at the end.",
    )


def histories(folder: Path, weights: Path) -> pd.DataFrame:
    """Every epoch of every trial of the target, with the weights that it began from."""
    space = f"search.space={{weights: [{weights}, random], learning_rate: [3.0e-3, 1.0e-3, 3.0e-4]}}"
    overrides = [f"screen.root={folder}/target", f"tiles={folder}/tiles", f"out={folder}/out", TARGET, space]
    command = [sys.executable, "-m", "moa_ray.sweep", str(SWEEPS / "demo.yaml"), *overrides, "evaluate_every=1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    book = Ledger(folder / "out")
    parts = []
    for result in book.results():
        assert result.status == "finished", result
        history = book.history(result)
        assert history is not None
        parts.append(history.assign(random=result.recipe["weights"] == "random", rate=result.recipe["learning_rate"]))
    shutil.copy(folder / "out/figures/held_out_over_epochs.png", HERE / "transfer.png")
    return pd.concat(parts)


def main() -> None:
    """Run, and write what was found beside this file."""
    with tempfile.TemporaryDirectory() as scratch:
        weights, source = pretrain(Path(scratch))
        history = histories(Path(scratch), weights)
    mean = history.groupby(["rate", "epoch", "random"])["held_out_accuracy"].mean()
    last = int(history["epoch"].max())
    rows = [
        Row(
            f"learning rate {rate:g}, epoch {epoch}: pre-trained {mean[rate, epoch, False]:.2f} of held-out treatments",
            f"Xavier {mean[rate, epoch, True]:.2f}",
            mean[rate, epoch, False] / mean[rate, epoch, True],
            "told, no target",
        )
        for rate in sorted(history["rate"].unique(), reverse=True)
        for epoch in (1, 2, last)
    ]
    notes = f"{source} Mean over 12 folds; by epoch in transfer.png, the learning rates averaged."
    write("transfer", "Pre-trained on another painted assay", "python -m tests.benchmarks.transfer", rows, notes)


if __name__ == "__main__":
    main()
