"""Frozen features on a real Ray: taken by several processes, of which one may be lost."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from lazy import Lazy

from moa_ray.config.recipe import NO_AUGMENTATION, Recipe
from moa_ray.execution import cluster, frozen_features, sharing
from moa_ray.execution.capacity import Slots

frozen, pretrained = Lazy("moa_ray.training.frozen"), Lazy("moa_ray.training.pretrained")  # import Keras

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with cluster.connect(None):
        yield


@pytest.mark.parametrize("orientations", [1, 8])
def test_stretches_of_several_processes_are_the_features_of_all_tiles(
    orientations: int, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (600, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "tiles-32.npy", tiles)
    augment = dataclasses.replace(NO_AUGMENTATION, orientations=orientations == 8)
    recipe = Recipe("SmallCNN", str(weights), 32, freeze="all", augment=augment)
    taken = np.full((orientations, 600, 128), np.nan, np.float32)
    for first, stretch in frozen_features.extract(recipe, tmp_path / "tiles-32.npy", Slots(1, 0, 2)):
        assert np.isnan(taken[:, first : first + stretch.shape[1]]).all()
        taken[:, first : first + stretch.shape[1]] = stretch
    expected = frozen.extract_features(recipe, tiles, pretrained.pretrained("SmallCNN", str(weights), 32))
    np.testing.assert_allclose(taken, expected, rtol=1e-4, atol=1e-5)


def test_more_processes_than_the_machine_holds_take_turns(weights: Path, tmp_path: Path) -> None:
    import ray

    np.save(tmp_path / "tiles-32.npy", np.zeros((700, 32, 32, 3), np.uint8))
    recipe = Recipe("SmallCNN", str(weights), 32, freeze="all", augment=NO_AUGMENTATION)
    slots = Slots(ray.cluster_resources()["CPU"], 0, 3)
    assert sorted(first for first, _ in frozen_features.extract(recipe, tmp_path / "tiles-32.npy", slots)) == [
        0,
        256,
        512,
    ]


def test_process_that_is_killed_is_begun_anew(weights: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "tiles-32.npy", np.zeros((700, 32, 32, 3), np.uint8))
    recipe = Recipe("SmallCNN", str(weights), 32, freeze="all", augment=NO_AUGMENTATION)
    stretches = frozen_features.extract(recipe, tmp_path / "tiles-32.npy", Slots(1, 0, 1))
    taken = [next(stretches)[0]]
    family = psutil.Process().children(recursive=True)
    (process,) = [
        child for child in family if "_FeatureActor" in child.name() or "_FeatureActor" in " ".join(child.cmdline())
    ]
    process.kill()
    taken += [first for first, _ in stretches]
    assert taken == [0, 256, 512]


def test_weights_that_cannot_be_had_are_said_as_for_any_recipe(tmp_path: Path) -> None:
    np.save(tmp_path / "tiles-32.npy", np.zeros((4, 32, 32, 3), np.uint8))
    trained = Recipe("SmallCNN", "imagenet", 32, freeze=1.0, augment=NO_AUGMENTATION)
    with pytest.raises(ValueError, match="never trained on ImageNet") as expected:
        sharing.share_pretrained([trained])
    frozen = dataclasses.replace(trained, freeze="all")
    with pytest.raises(ValueError, match="never trained on ImageNet") as error:
        next(frozen_features.extract(frozen, tmp_path / "tiles-32.npy", Slots(1, 0, 1)))
    assert str(error.value) == str(expected.value)
