"""A whole sweep of an ensemble with Monte Carlo dropout: what it leaves, and that a kill changes nothing."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from commands import killed, predictions, results, run, times

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_killed_ensemble_goes_on_to_the_samples_of_an_undisturbed_one(tmp_path: Path) -> None:
    painting = {"labels": 2, "compounds": 2, "concentrations": 1, "replicates": 2, "height": 96, "width": 96}
    recipe = {"backbone": "SmallCNN", "weights": "random", "image_size": 32, "epochs": 1, "batch_size": 8}
    plain = {
        **{"study": "unsure", "seed": 3, "seeds": [1, 2], "out": str(tmp_path / "out")},
        "screen": {"name": "synthetic", "root": str(tmp_path / "painted"), "painting": painting},
        **{"recipe": {**recipe, "dropout": 0.5}, "predict": {"mc_dropout": 3}},
    }
    path = tmp_path / "unsure.yaml"
    path.write_text(yaml.safe_dump(plain))
    run(path)
    killed(path, tmp_path / "killed", 3, "resources.concurrent=1")
    kept = times(tmp_path / "killed")
    run(path, f"out={tmp_path / 'killed'}")
    assert kept.items() <= times(tmp_path / "killed").items()
    assert len(results(tmp_path / "killed")) == 2 * 4
    pd.testing.assert_frame_equal(predictions(tmp_path / "killed"), predictions(tmp_path / "out"), atol=1e-6)
    mine, theirs = (pd.read_parquet(tmp_path / name / "treatment_samples.parquet") for name in ("killed", "out"))
    pd.testing.assert_frame_equal(mine, theirs, atol=1e-6)
    assert mine.groupby("method").size().to_dict() == {"ensemble": 2 * 4, "mc_dropout": 3 * 4}
    assert "; seeds 1, 2: " in json.loads((tmp_path / "out/summary.json").read_text())["headline"]
