"""A tile store made before the modules were put into wings (tests/data/before_house) is known, opened and read."""

import hashlib
import os
import shutil
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tile_stores import by_key, quiet, same

from moa_ray.config.recipe import NO_AUGMENTATION, Recipe
from moa_ray.config.sweep_file import load
from moa_ray.screens.screen import Screen
from moa_ray.study import Study
from moa_ray.tiles.features import FrozenFeatures

DATA = Path("tests", "data", "before_house", "tiles")
PAINTED_AT = 1_577_836_800  # seconds since 1970: when the files of the painting were changed, as the sweep file says


class NoWorkers:
    """An executor for a store that needs no work."""

    def root(self, screen: Screen) -> Path:
        return screen.root

    def map(self, work: Callable[..., Any], jobs: Iterable[Any]) -> Generator[Any, None, None]:
        raise AssertionError("a field is read")
        yield


@pytest.fixture
def study(repo: Path, tmp_path: Path) -> Study:
    """The study of the old sweep file, its screen painted anew, with a copy of the old store."""
    shutil.copytree(repo / DATA, tmp_path / "tiles")
    places = [f"screen.root={tmp_path / 'painted'}", f"tiles={tmp_path / 'tiles'}"]
    study = Study.open(load(repo / DATA / "sweep.yaml", places))
    for path in (tmp_path / "painted").rglob("*.*"):
        os.utime(path, (PAINTED_AT, PAINTED_AT))
    return study


def test_store_made_before_the_house_is_up_to_date_and_reads_the_tiles_that_are_made_today(
    study: Study, tmp_path: Path
) -> None:
    store = study.prepare(quiet, NoWorkers())
    assert store.path == tmp_path / "tiles" / "synthetic-81b359b41f07"
    assert store.fingerprint == "81b359b41f076e6fa1aaf7ea0e16446c08987ff6e5c4e18fe3f646b5fd437d72"
    assert hashlib.sha256(store.array(16).tobytes()).hexdigest() == (
        "d8b5f6039b92c68e89f394d0b59f2732882c071cea918d48e2dc1e161c24b9c9"
    )
    assert [warning.split(" and are")[0] for warning in store.warnings] == [
        "2 plates have fewer than 4 control fields of their own"
    ]
    old_tiles = by_key(store, 16)
    shutil.rmtree(store.path)
    today = study.prepare(quiet)
    assert today.path == store.path
    assert same(old_tiles, by_key(today, 16))
    pd.testing.assert_frame_equal(today.table, store.table)
    assert today.warnings == store.warnings


def test_frozen_features_written_before_the_house_are_known_and_read(study: Study) -> None:
    store = study.prepare(quiet, NoWorkers())
    recipe = Recipe("SmallCNN", "a.weights.h5", 16, freeze="all", augment=NO_AUGMENTATION)
    frozen_features = FrozenFeatures.of(store.path, recipe, "content of the weights")
    assert frozen_features.path.name == "features-ecb49be1a3584b6a.npy"
    values = np.load(frozen_features.path, allow_pickle=False)
    np.testing.assert_array_equal(values, np.arange(24, dtype=np.float32).reshape(1, 8, 3))
