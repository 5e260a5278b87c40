"""Whole sweeps with frozen backbones: features are taken once, and nothing is done twice."""

import json
from pathlib import Path

import factories
import numpy as np
import pandas as pd
import pytest
import yaml
from commands import predictions, results, run_here, stopped_here, times

from moa_ray.common.schema import CANDIDATE

pytestmark = pytest.mark.usefixtures("one_ray", "untracked")

QUIET = {"channel_jitter": [], "blur": 0, "noise": 0, "orientations": 1}


@pytest.fixture(scope="module")
def sweep_file(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labels, three compounds each: 6 folds; one head of each of two rates."""
    folder = tmp_path_factory.mktemp("frozen")
    screen = {"name": "synthetic", "root": str(folder / "painted"), "painting": factories.painting(compounds=3)}
    augment = {**QUIET, "orientations": 8}
    recipe = factories.recipe(weights=str(weights), freeze="all", augment=augment, epochs=3)
    search = {"space": {"learning_rate": [0.1, 0.01]}}
    sections = {"screen": screen, "recipe": recipe, "search": search, "resources": {"concurrent": 1}}
    return factories.sweep_file(folder, study="frozen", **sections)


def test_features_are_taken_once_and_a_stopped_sweep_goes_on(sweep_file: Path, tmp_path: Path) -> None:
    folder = sweep_file.parent
    output = run_here(sweep_file)
    assert "taking features of SmallCNN, 32 px" in output
    assert {trial["status"] for trial in results(folder / "out")} == {"finished"}
    assert len(results(folder / "out")) == 12
    (features,) = (folder / "tiles").glob("*/features-*.npy")
    assert np.load(features, mmap_mode="r").shape[0] == 8
    before = features.stat().st_mtime_ns
    stopped_here(sweep_file, tmp_path / "out", 2)
    kept = times(tmp_path / "out")
    output = run_here(sweep_file, f"out={tmp_path / 'out'}")
    assert "taking features" not in output
    assert features.stat().st_mtime_ns == before
    assert kept.items() <= times(tmp_path / "out").items()
    pd.testing.assert_frame_equal(predictions(tmp_path / "out"), predictions(folder / "out"), atol=1e-6)


@pytest.mark.usefixtures("quick_trials_here")
def test_linear_probe_of_a_stopped_search_is_gone_on_with_on_the_search_folds_alone(
    sweep_file: Path, tmp_path: Path
) -> None:
    plain = yaml.safe_load(sweep_file.read_text())["recipe"]
    recipe = {key: value for key, value in plain.items() if key != "freeze"}
    space = {"learning_rate": [0.1, 0.01], "freeze": ["all", 1.0]}
    search = {
        **{"mode": "optuna", "candidates": 2, "sampler": "grid", "space": space, "screen_with_frozen": {"keep": 1}},
        **{"race": {"first_folds": 1, "keep": 1}, "asha": {"grace_epochs": 1}},
    }
    out = tmp_path / "out"
    changes = (f"recipe={json.dumps(recipe)}", f"search={json.dumps(search)}")
    stopped_here(sweep_file, out, 1, *changes)
    kept = times(out)
    (probe,) = {trial["candidate"] for trial in results(out)}
    run_here(sweep_file, f"out={out}", *changes)
    assert kept.items() <= times(out).items()
    study = json.loads((out / "ledger/study.json").read_text())
    probed = {trial["fold"] for trial in results(out) if trial["candidate"] == probe}
    assert probed == set(study["search_folds"])
    assert probe not in set(pd.read_csv(out / "leaderboard.csv")[CANDIDATE])
    summary = json.loads((out / "summary.json").read_text())
    assert [probe["candidate"] for probe in summary["first_look"]["looks"]] == [probe]
    assert "judged on 4 folds that no choice saw" in summary["headline"]
    before = times(out)
    run_here(sweep_file, f"out={out}", *changes)
    assert times(out) == before


@pytest.mark.usefixtures("quick_trials_here")
def test_backbone_that_a_linear_probe_drops_is_not_trained(sweep_file: Path, weights: Path, tmp_path: Path) -> None:
    """SmallCNN against MobileNetV2, both with drawn weights; one is left."""
    from moa_ray.training import models

    other = tmp_path / "mobile.weights.h5"
    models.backbone("MobileNetV2", 32).save_weights(other)
    recipe = {
        "weights": {"SmallCNN": str(weights), "MobileNetV2": str(other)},
        **{"image_size": 32, "freeze": 1.0, "augment": QUIET, "epochs": 1, "batch_size": 8},
    }
    search = {"space": {"backbone": ["SmallCNN", "MobileNetV2"]}, "screen_with_frozen": {"keep": 1}}
    out = tmp_path / "out"
    changes = (f"out={out}", f"recipe={json.dumps(recipe)}", f"search={json.dumps(search)}")
    output = run_here(sweep_file, *changes)
    summary = json.loads((out / "summary.json").read_text())
    (dropped,) = summary["first_look"]["dropped"]
    assert f"linear probe: {dropped} dropped" in output
    trained = {trial["recipe"]["backbone"] for trial in results(out) if trial["recipe"]["freeze"] != "all"}
    assert trained == {"SmallCNN", "MobileNetV2"} - {dropped}
    assert "backbones were dropped by a look at these folds" in summary["headline"]
    before = times(out)
    run_here(sweep_file, *changes)
    assert times(out) == before
    assert not [trial for trial in results(out) if trial["attempts"] != 1]
