"""Networks as their parts one after the other, in their precision, with their layers frozen."""

import ast
from pathlib import Path

import numpy as np
import pytest
from counted import dimensions, tabulated
from lazy import Lazy

from moa_ray.config.backbones import BACKBONES
from moa_ray.config.recipe import NO_AUGMENTATION, Augmentation, Recipe
from moa_ray.training import memory

keras = Lazy("keras")
augmentation, models = (Lazy(f"moa_ray.training.{name}") for name in ("augmentation", "models"))

PACKAGE = Path(__file__).resolve().parents[2] / "moa_ray"
SMALL = Recipe(backbone="SmallCNN", weights="random", image_size=16)


# The network


def test_the_network_is_its_parts_one_after_the_other(pixels):
    model = models.build(SMALL, n_classes=4)
    features = model.get_layer("backbone").predict(pixels / 127.5 - 1.0, verbose=0)
    kernel, bias = (np.asarray(w) for w in model.get_layer("probabilities").get_weights()[:2])
    scores = np.exp(features.mean(axis=(1, 2)) @ kernel + bias)
    np.testing.assert_allclose(
        model.predict(pixels, verbose=0), scores / scores.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-6
    )


def test_without_input_scaling_grey_levels_reach_the_backbone(pixels):
    unscaled = models.build(Recipe(backbone="SmallCNN", image_size=16, input_scaling="none"), 2)
    scaled = models.build(SMALL, 2)
    scaled.set_weights(unscaled.get_weights())
    raw = unscaled.get_layer("backbone").predict(pixels.astype("float32"), verbose=0).mean(axis=(1, 2))
    pooled = keras.Model(unscaled.input, unscaled.get_layer("pooled").output).predict(pixels, verbose=0)
    np.testing.assert_allclose(pooled, raw, rtol=1e-4, atol=1e-5)
    assert not np.allclose(unscaled.predict(pixels, verbose=0), scaled.predict(pixels, verbose=0), atol=1e-4)


APPLICATIONS = sorted(set(BACKBONES) - {"SmallCNN"})
SIZE = 77  # small enough for all of them, and a multiple of nothing


def random_network(name):
    """An application with drawn weights and three classes."""
    recipe = Recipe(backbone=name, weights="random", image_size=SIZE, augment=NO_AUGMENTATION)
    return models.build(recipe, n_classes=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_application_has_the_tabulated_dimensions_and_a_name_for_each_variable(name):
    model = random_network(name)
    assert tabulated(name, SIZE) == dimensions(model.get_layer("backbone"))
    assert len({variable.path for variable in model.variables}) == len(model.variables)
    keras.utils.clear_session()


def smallest_of_each_module():
    """Applications of one module scale their input alike: the one of the fewest weights stands for them."""
    by_weights = sorted(APPLICATIONS, key=lambda name: memory.network(name).parameters, reverse=True)
    return sorted({BACKBONES[name][1]: name for name in by_weights}.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", smallest_of_each_module())
def test_every_kind_of_application_gives_probabilities_of_images_on_its_own_scale(name):
    module, model, size = BACKBONES[name][1], random_network(name), SIZE
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    probabilities = np.asarray(model(images, training=False))
    assert probabilities.shape == (2, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    own_scale = getattr(keras.applications, module).preprocess_input(images.astype("float32"))
    pooled = np.asarray(model.get_layer("backbone")(own_scale, training=False)).mean(axis=(1, 2))
    expected = np.asarray(model.get_layer("probabilities")(pooled))
    np.testing.assert_allclose(probabilities, expected, rtol=1e-3, atol=1e-5)
    keras.utils.clear_session()


def test_native_is_a_size_too():
    assert models.build(Recipe(backbone="SmallCNN"), 2).input_shape == (None, 64, 64, 3)


def test_an_image_too_small_for_a_backbone_is_named_with_the_least_size():
    with pytest.raises(ValueError, match=r"image_size: InceptionV3 cannot take 64 pixels: .* at least 75x75"):
        models.build(Recipe(backbone="InceptionV3", image_size=64), 2)


@pytest.mark.parametrize(("share", "frozen"), [(0.0, 0), (0.5, 6), (1.0, 13)])
def test_freezing_takes_a_share_of_the_layers_from_the_input_on(share, frozen):
    layers = models.build(Recipe(backbone="SmallCNN", image_size=16, freeze=share), 2).get_layer("backbone").layers
    assert len(layers) == 13
    assert [layer.trainable for layer in layers] == [False] * frozen + [True] * (13 - frozen)


def test_small_cnn_has_about_a_hundred_thousand_weights():
    assert models.backbone("SmallCNN", 64).count_params() == 98_160


# Precision


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_computes_in_16_bit_and_keeps_weights_and_probabilities_in_32(name, pixels):
    model = models.build(Recipe(backbone="SmallCNN", image_size=16, precision=name), 3)
    half = name.removeprefix("mixed_")
    assert {layer.compute_dtype for layer in model.get_layer("backbone").layers} == {half}
    assert {keras.backend.standardize_dtype(w.dtype) for w in model.weights} == {"float32"}
    # bfloat16 rounds grey levels, and float16 the sum of the exponentials.
    around = [layer for layer in model.layers if layer.name not in ("pixels", "backbone", "pooled")]
    assert {layer.compute_dtype for layer in around} == {"float32"}
    probabilities = model.predict(pixels, verbose=0)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_building_leaves_the_global_precision_as_it_was():
    before = keras.config.dtype_policy()
    models.build(Recipe(backbone="SmallCNN", image_size=16, precision="mixed_bfloat16"), 2)
    with pytest.raises(ValueError, match="image_size"):
        models.build(Recipe(backbone="VGG16", image_size=16, precision="mixed_bfloat16"), 2)
    assert keras.config.dtype_policy() == before


# The rest


@pytest.mark.parametrize(
    "path",
    [*sorted(PACKAGE.glob("training/*.py")), PACKAGE / "config/backbones.py", PACKAGE / "config/recipe.py"],
    ids=lambda path: path.stem,
)
def test_the_core_names_no_backend(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    imported |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    named = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    assert not (imported | named) & {"tf", "tensorflow", "jax", "torch", "ray", "optuna", "mlflow"}


def test_augmentation_stands_between_the_pixels_and_the_input_scaling():
    names = [type(layer).__name__ for layer in models.build(Recipe(backbone="ResNet50", image_size=32), 2).layers]
    expected = ["InputLayer", "Rescaling", *(type(layer).__name__ for layer in augmentation.layers(Augmentation()))]
    assert names[: len(expected) + 1] == [*expected, "InputScaling"]
