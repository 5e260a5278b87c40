"""The benchmark of prepare compares two that do the same work."""

import os
from pathlib import Path

import numpy as np
import pytest
from benchmarks import prepare
from PIL import Image

from moa_ray.common.schema import CONTROL, PLATE, TILE_KEY
from moa_ray.config.preparation import Preparation
from moa_ray.screens import bbbc021
from moa_ray.screens.screen import Screen
from moa_ray.tiles import build, workers


@pytest.fixture
def screen(tmp_path: Path) -> Screen:
    root = tmp_path / "screen"
    root.mkdir()
    prepare.make_screen(root, prepare.A_PLATE + 10, height=128, width=160)
    return bbbc021.open_screen(root)


def test_the_screen_is_sound_and_has_a_control_in_ten_fields(screen: Screen) -> None:
    assert [problem for problem in screen.problems if problem.severity == "error"] == []
    assert screen.fields[PLATE].nunique() == 2
    assert screen.fields[CONTROL].mean() == 0.1


@pytest.mark.slow
def test_script_makes_the_tiles_that_prepare_makes(
    screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "SIZE", 32)
    whole = screen.fields[screen.fields[PLATE] == screen.fields[PLATE].iloc[0]]  # the other falls back to its week
    one = Screen("bbbc021", screen.root, whole, screen.channels)
    made = prepare.script(one, tmp_path / "png")
    assert made == prepare.prepare(one, tmp_path / "tiles") > 0
    store = build.prepare(
        one, Preparation(), [32], tmp_path / "tiles", workers.ThreadExecutor(1), lambda done, total: None
    )
    array = store.array(32)
    for *key, row in store.table[[*TILE_KEY, "row"]].itertuples(index=False):
        with Image.open(tmp_path / "png" / f"{'_'.join(key)}.png") as png:
            assert np.abs(np.asarray(png).astype(int) - array[row]).max() <= 2  # statistics in float32


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own(
    screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")])))
    ballast = np.ones(1 << 26)  # half a gigabyte that is not the other process's
    assert 1 << 26 < prepare.peak_memory(screen.root, tmp_path / "tiles") < ballast.nbytes
