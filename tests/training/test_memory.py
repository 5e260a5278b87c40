"""The table of the networks' dimensions against Keras' networks, and estimates from it by hand."""

import subprocess
import sys

import pytest
from counted import dimensions, tabulated
from lazy import Lazy

from moa_ray.common.errors import InputError
from moa_ray.config.backbones import BACKBONES
from moa_ray.config.recipe import Recipe
from moa_ray.training import memory

keras = Lazy("keras")
models = Lazy("moa_ray.training.models")


def test_every_backbone_has_its_line_in_the_table():
    assert list(memory._table()) == list(BACKBONES)


@pytest.mark.parametrize(("name", "size"), [("SmallCNN", 16), ("SmallCNN", 61), ("MobileNetV2", 75)])
def test_the_table_has_what_keras_builds(name, size):
    """Of all other backbones `test_models` says it, where it builds them anyway."""
    assert tabulated(name, size) == dimensions(models.backbone(name, size))


def test_the_least_size_is_that_which_keras_takes():
    for name in set(BACKBONES) - {"SmallCNN"}:
        least = memory.network(name).minimum
        shape = (least - 1, least - 1, 3)
        with pytest.raises(ValueError, match=f"at least {least}x{least}"):
            getattr(keras.applications, name)(include_top=False, weights=None, input_shape=shape)


def test_an_estimate_for_images_that_are_too_small_says_the_least_size():
    with pytest.raises(InputError, match=r"image_size: InceptionV3 cannot take 64 pixels: .* at least 75x75"):
        memory.expected_memory(Recipe(backbone="InceptionV3", image_size=64), 2)


SLOW = [("ResNet50", 224), ("InceptionV3", 299), ("InceptionResNetV2", 299)]


@pytest.mark.parametrize(
    ("name", "size"), [("MobileNetV2", 96), *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW)]
)
def test_an_estimate_is_what_counting_the_built_network_gives(name, size):
    """But for the few numbers that the layers of augmentation and dropout hold, and the penalty's factor."""
    recipe = Recipe(backbone=name, weights="random", image_size=size, optimizer="adam")
    model = models.build(recipe, 12)
    values = dimensions(model.get_layer("backbone"))[0]
    counted = 1_000_000_000 + 4 * (1 + 3) * model.count_params() + 4 * values * recipe.batch_size
    assert 0 <= counted - memory.expected_memory(recipe, 12) < 1000


def test_expected_memory_grows_with_the_batch_by_its_activations():
    by_batch = [
        memory.expected_memory(Recipe(backbone="SmallCNN", image_size=16, batch_size=n), 2) for n in (1, 2, 100)
    ]
    # conv, norm and relu of each block at its size, and the input
    values = 16 * 16 * 3 + sum(3 * side * side * filters for side, filters in [(8, 16), (4, 32), (2, 64), (1, 128)])
    assert by_batch[1] - by_batch[0] == 4 * values
    assert by_batch[2] - by_batch[0] == 99 * 4 * values


def test_estimates_and_what_a_training_takes_load_no_keras():
    script = (
        "import sys; from moa_ray.config.recipe import Recipe; from moa_ray.training import Data, Diverged, Split\n"
        "from moa_ray.training import memory\n"
        "memory.expected_memory(Recipe(), 12); print({'keras', 'tensorflow', 'jax', 'torch'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
