"""A whole sweep of an ensemble with Monte Carlo dropout: what it leaves, and that a stop changes nothing."""

import json
from pathlib import Path

import factories
import pandas as pd
import pytest
from commands import predictions, results, run_here, stopped_here, times

pytestmark = pytest.mark.usefixtures("one_ray", "untracked")


def test_stopped_ensemble_goes_on_to_the_samples_of_an_undisturbed_one(tmp_path: Path) -> None:
    recipe = factories.recipe(epochs=1, dropout=0.5)
    path = factories.sweep_file(tmp_path, seeds=[1, 2], recipe=recipe, predict={"mc_dropout": 3})
    run_here(path)
    stopped_here(path, tmp_path / "stopped", 3, "resources.concurrent=1")
    kept = times(tmp_path / "stopped")
    run_here(path, f"out={tmp_path / 'stopped'}")
    assert kept.items() <= times(tmp_path / "stopped").items()
    assert len(results(tmp_path / "stopped")) == 2 * 4
    pd.testing.assert_frame_equal(predictions(tmp_path / "stopped"), predictions(tmp_path / "out"), atol=1e-6)
    resumed, undisturbed = (
        pd.read_parquet(tmp_path / name / "treatment_samples.parquet") for name in ("stopped", "out")
    )
    pd.testing.assert_frame_equal(resumed, undisturbed, atol=1e-6)
    assert resumed.groupby("method").size().to_dict() == {"ensemble": 2 * 4, "mc_dropout": 3 * 4}
    assert "; seeds 1, 2: " in json.loads((tmp_path / "out/summary.json").read_text())["headline"]
