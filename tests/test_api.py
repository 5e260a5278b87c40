"""A sweep from Python: what it returns, what it raises, and that a notebook's thread may run it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import yaml

from moa_ray import InputError, run_sweep
from moa_ray.common.schema import CANDIDATE


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep file over a small painted screen, one epoch."""
    folder = tmp_path_factory.mktemp("api")
    painting = {"labels": 2, "compounds": 2, "concentrations": 1, "replicates": 1, "height": 96, "width": 96}
    plain = {
        "study": "api",
        "out": str(folder / "out"),
        "screen": {"name": "synthetic", "root": str(folder / "painted"), "painting": painting},
        "recipe": {"backbone": "SmallCNN", "weights": "random", "image_size": 32, "epochs": 2},
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


@pytest.mark.ray
def test_sweep_from_a_thread_returns_its_tables(sweep: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        result = executor.submit(run_sweep, sweep, "recipe.epochs=1").result()
    assert result.finished
    assert result.sent
    assert list(result.leaderboard["folds_finished"]) == [4]
    assert len(result.treatments) == result.summary["best"]["n"] == 4
    assert set(result.predictions[CANDIDATE]) == set(result.leaderboard[CANDIDATE])
    assert result.headline == result.summary["headline"]
    assert result.report.is_file()
    assert {path.suffix for path in result.figures} == {".png", ".svg"}
    assert "epochs: 1" in (result.out / "sweep.yaml").read_text()
    pd.testing.assert_frame_equal(result.treatments, pd.read_parquet(result.out / "treatments.parquet"))


def test_wrong_input_is_raised_not_an_exit_status(sweep: Path) -> None:
    with pytest.raises(InputError, match="epochs must be at least 1, but got -1"):
        run_sweep(sweep, "recipe.epochs=-1")
