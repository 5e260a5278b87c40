"""Frozen features in the tile store: known by all that shapes them, written whole or not at all."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from moa_ray.config.recipe import NO_AUGMENTATION, Recipe
from moa_ray.tiles.features import FrozenFeatures

RECIPE = Recipe("SmallCNN", "a.weights.h5", 32, freeze="all", augment=NO_AUGMENTATION)
TURNED = dataclasses.replace(NO_AUGMENTATION, orientations=8)
VALUES = np.random.default_rng(0).random((8, 10, 3), dtype=np.float32)


def stretches() -> Iterator[tuple[int, NDArray[np.float32]]]:
    for first in (4, 0, 8):  # as they come
        yield first, VALUES[:, first : first + 4]


def quiet(done: int, total: int) -> None:
    pass


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "VGG16"},
        {"image_size": 64},
        {"input_scaling": "none"},
        {"precision": "float32"},
        {"augment": TURNED},
    ],
)
def test_what_shapes_features_gives_another_file(change: dict[str, object], tmp_path: Path) -> None:
    other = dataclasses.replace(RECIPE, **change)  # type: ignore[arg-type]
    assert FrozenFeatures.of(tmp_path, other, "w").path != FrozenFeatures.of(tmp_path, RECIPE, "w").path


@pytest.mark.parametrize(
    "change", [{"learning_rate": 0.5}, {"epochs": 3}, {"batch_size": 8}, {"weights": "b.weights.h5"}]
)
def test_heads_and_the_name_of_the_weights_share_a_file(change: dict[str, object], tmp_path: Path) -> None:
    other = dataclasses.replace(RECIPE, **change)  # type: ignore[arg-type]
    assert FrozenFeatures.of(tmp_path, other, "w").path == FrozenFeatures.of(tmp_path, RECIPE, "w").path


def test_weights_of_another_content_are_another_file(tmp_path: Path) -> None:
    assert FrozenFeatures.of(tmp_path, RECIPE, "w").path != FrozenFeatures.of(tmp_path, RECIPE, "x").path


def test_stretches_in_any_order_make_the_array_and_a_file_that_says_what_it_holds(tmp_path: Path) -> None:
    features = FrozenFeatures.of(tmp_path, RECIPE, "content")
    counted: list[tuple[int, int]] = []
    features.write(10, stretches, lambda done, total: counted.append((done, total)))
    np.testing.assert_array_equal(np.load(features.path), VALUES)
    assert counted == [(0, 10), (4, 10), (8, 10), (10, 10)]
    beside = json.loads(features.path.with_suffix(".json").read_text())
    assert (beside["shape"], beside["weights"], beside["orientations"]) == ([8, 10, 3], "content", 1)


def test_interrupted_set_is_not_there_and_is_made_the_next_time(tmp_path: Path) -> None:
    features = FrozenFeatures.of(tmp_path, RECIPE, "w")

    def killed() -> Iterator[tuple[int, NDArray[np.float32]]]:
        yield 0, VALUES[:, :4]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features.write(10, killed, quiet)
    assert not features.path.exists()
    features.write(10, stretches, quiet)
    np.testing.assert_array_equal(np.load(features.path), VALUES)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_set_that_lacks_tiles_is_not_written(tmp_path: Path) -> None:
    features = FrozenFeatures.of(tmp_path, RECIPE, "w")
    with pytest.raises(AssertionError, match="1 of 11 tiles without features"):
        features.write(11, stretches, quiet)
    assert not features.path.exists()


def test_set_that_is_there_is_not_asked_for(tmp_path: Path) -> None:
    features = FrozenFeatures.of(tmp_path, RECIPE, "w")
    features.write(10, stretches, quiet)
    before = features.path.stat().st_mtime_ns

    def never() -> Iterator[tuple[int, NDArray[np.float32]]]:
        raise AssertionError("asked for")

    features.write(10, never, quiet)
    assert features.path.stat().st_mtime_ns == before
