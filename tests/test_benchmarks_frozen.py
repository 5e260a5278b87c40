"""The benchmark of frozen features: a tiny run goes through all that it measures."""

from pathlib import Path

import pytest
from lazy import Lazy

from moa_ray.config.recipe import NO_AUGMENTATION, Recipe

frozen = Lazy("benchmarks.frozen")


@pytest.mark.slow
def test_each_tile_is_held_out_once_and_an_epoch_trains_on_all_others(tmp_path: Path) -> None:
    held = frozen.trial_data(tmp_path, tiles=60, size=32, folds=5)
    tested = [row for fold in held.folds for row in held.split(fold)["test"]]
    assert sorted(tested) == list(range(60))
    epoch = frozen.Epoch(held, Recipe("SmallCNN", "random", 32, epochs=1, batch_size=8, augment=NO_AUGMENTATION))
    assert sum(map(len, epoch._halves)) == 48
    epoch.half()
    before = epoch.seconds
    epoch.half()
    assert 0 < before < epoch.seconds
    assert epoch._halves == []


@pytest.mark.ray
@pytest.mark.slow
def test_a_tiny_comparison_runs_every_fold() -> None:
    row, notes = frozen.compare("SmallCNN", size=32, tiles=60, folds=5, epochs=2)
    assert row.ratio > 0
    assert "5-fold sweep on frozen features, SmallCNN, 60 tiles of 32 pixels" in row.what
    assert "10 epochs of heads" in notes
