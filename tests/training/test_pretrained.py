import ast
import inspect

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from moa_ray import augment, backbones, models, recipe, training
from moa_ray.backbones import BACKBONES
from moa_ray.recipe import NO_AUGMENTATION, Augmentation, Recipe

SMALL = Recipe(backbone="SmallCNN", weights="random", image_size=16)
# Keras refuses smaller images.
MINIMUM = {"inception_v3": 75, "inception_resnet_v2": 75, "xception": 71}


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)


def small_network(filters=(16, 32, 64, 128), use_bias=False):
    """As SmallCNN where nothing is said, written out once more."""
    image = keras.Input((16, 16, 3))
    x = image
    for block, count in enumerate(filters, start=1):
        x = keras.layers.Conv2D(count, 3, 2, padding="same", use_bias=use_bias, name=f"conv{block}")(x)
        x = keras.layers.BatchNormalization(name=f"norm{block}")(x)
        x = keras.layers.Activation("relu")(x)
    return keras.Model(image, x)


def scrambled(network, seed=0):
    """A network with weights that no initialiser gives, variances positive."""
    rng = np.random.default_rng(seed)
    network.set_weights([np.abs(rng.normal(0.5, 0.2, w.shape)) for w in network.get_weights()])
    return network


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


@pytest.mark.parametrize("module", sorted({module for _, module in BACKBONES.values() if module}))
def test_input_scaling_is_the_modules_own(module, pixels):
    images = pixels.astype("float32")
    expected = getattr(keras.applications, module).preprocess_input(images.copy())
    np.testing.assert_allclose(np.asarray(models.InputScaling(module)(images)), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(BACKBONES) - {"SmallCNN"}))
def test_every_application_gives_probabilities_of_images_on_its_own_scale(name):
    module = BACKBONES[name][1]
    size = MINIMUM.get(module, 64)
    chosen = Recipe(backbone=name, weights="random", image_size=size, augment=NO_AUGMENTATION)
    model = models.build(chosen, n_classes=3)
    assert len({variable.path for variable in model.variables}) == len(model.variables)
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


def test_dropout_zeroes_its_share_in_training_alone_and_keeps_the_mean():
    ones = np.ones((200, 50), np.float32)
    layer = models.Dropout(0.25)
    np.testing.assert_array_equal(np.asarray(layer(ones)), ones)
    dropped = np.asarray(layer(ones, training=True))
    np.testing.assert_allclose(np.unique(dropped), [0, 4 / 3], rtol=1e-6)
    assert abs((dropped == 0).mean() - 0.25) < 0.03  # 7 standard deviations


def test_the_penalty_is_the_factor_times_the_squares_of_the_heads_kernel(pixels):
    model = models.build(Recipe(backbone="SmallCNN", image_size=16, l2=0.01), 2)
    model(pixels[:2], training=True)
    kernel = np.asarray(model.get_layer("probabilities").kernel)
    np.testing.assert_allclose(float(model.losses[0]), 0.01 * (kernel**2).sum(), rtol=1e-5)


def test_small_cnn_has_about_a_hundred_thousand_weights():
    assert models.backbone("SmallCNN", 64).count_params() == 98_160


# Precision and batches


def test_prediction_takes_what_a_gpu_has_room_for_and_no_more_than_there_is(monkeypatch):
    recipe = Recipe(backbone="SmallCNN", image_size=64, batch_size=32)
    assert models.prediction_batch(recipe, 10_000) == 32
    monkeypatch.setattr(models, "has_gpu", lambda: True)
    largest = 16 * 32 * 32 * 16  # bytes: four layers of 32 x 32 x 16 float32
    for room, rows, expected in ((10 * 32 * largest, 10_000, 32), (100 * 32 * largest, 10_000, 256), (1e12, 70, 64)):
        monkeypatch.setattr(models, "gpu_memory", lambda room=room: int(room))
        assert models.prediction_batch(recipe, rows) == expected


def test_auto_is_bfloat16_on_a_gpu_that_has_it_and_float32_elsewhere(monkeypatch):
    monkeypatch.setattr(models, "has_gpu", lambda: False)
    assert models.precision(SMALL) == "float32"
    monkeypatch.setattr(models, "has_gpu", lambda: True)
    for capability, expected in ((9.0, "mixed_bfloat16"), (7.5, "float32")):
        monkeypatch.setattr(models, "_gpu_says", {"compute_cap": capability}.get)
        assert models.precision(SMALL) == expected
    assert models.precision(Recipe(precision="float32")) == "float32"


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


# Pretrained weights


@pytest.mark.parametrize(
    ("name", "file", "size"),
    [
        ("MobileNetV2", "mobilenet_v2_notop.weights.h5", 96),
        pytest.param("InceptionV3", "inception_v3_notop.weights.h5", 75, marks=pytest.mark.slow),
    ],
)
def test_real_weights_give_the_features_that_keras_gives(name, file, size, shared):
    path = shared / "weights" / file
    referee = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(size, size, 3))
    referee.load_weights(path)
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    module = getattr(keras.applications, BACKBONES[name][1])
    expected = referee.predict(module.preprocess_input(images.astype("float32")), verbose=0).mean(axis=(1, 2))

    model = models.build(Recipe(backbone=name, image_size=size, augment=NO_AUGMENTATION), 2)
    model.get_layer("backbone").set_weights(models.pretrained(name, str(path), size))
    features = keras.Model(model.input, model.get_layer("pooled").output).predict(images, verbose=0)
    assert expected.std() > 0.1
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)


def write_legacy(network, path):
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)


WRITERS = {
    "a.weights.h5": lambda network, path: network.save_weights(path),
    "a.h5": write_legacy,
    "whole.h5": lambda network, path: network.save(path),
    "whole.keras": lambda network, path: network.save(path),
}


@pytest.mark.parametrize("file", WRITERS)
def test_weights_come_back_from_every_kind_of_file(file, tmp_path):
    network = scrambled(small_network())
    WRITERS[file](network, tmp_path / file)
    loaded = models.pretrained("SmallCNN", str(tmp_path / file), 16)
    for mine, theirs in zip(loaded, network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_model_of_ours_saved_whole_gives_its_backbone(tmp_path):
    model = models.build(SMALL, 3)
    scrambled(model.get_layer("backbone"))
    model.save(tmp_path / "model.keras")
    loaded = models.pretrained("SmallCNN", str(tmp_path / "model.keras"), 16)
    for mine, theirs in zip(loaded, model.get_layer("backbone").get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
def test_a_saved_backbone_that_holds_models_itself_gives_all_its_weights(tmp_path):
    network = scrambled(models.backbone("ConvNeXtTiny", 32))
    network.save(tmp_path / "convnext.keras")
    loaded = models.pretrained("ConvNeXtTiny", str(tmp_path / "convnext.keras"), 32)
    assert len(loaded) == len(network.get_weights())
    np.testing.assert_array_equal(loaded[-1], network.get_weights()[-1])


@pytest.mark.parametrize("file", WRITERS)
@pytest.mark.parametrize(
    ("misfit", "layer"),
    [
        ({"filters": (16, 24, 64, 128)}, "conv2"),
        ({"use_bias": True}, "conv1"),
        ({"filters": (16, 32, 64)}, "conv4"),
    ],
)
def test_a_file_that_does_not_fit_names_the_first_layer_that_differs(file, misfit, layer, tmp_path):
    WRITERS[file](small_network(**misfit), tmp_path / file)
    with pytest.raises(ValueError, match=f"does not fit SmallCNN: the first layer that differs is {layer}: ") as caught:
        models.pretrained("SmallCNN", str(tmp_path / file), 16)
    assert str(tmp_path / file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", WRITERS)
def test_a_file_of_a_longer_network_does_not_fit(file, tmp_path):
    WRITERS[file](small_network(filters=(16, 32, 64, 128, 128)), tmp_path / file)
    with pytest.raises(ValueError, match=r"does not fit SmallCNN: .*the file goes on"):
        models.pretrained("SmallCNN", str(tmp_path / file), 16)


@pytest.mark.parametrize("file", ["a.h5", "a.weights.h5", "a.keras"])
def test_a_file_that_holds_something_else_gets_one_line(file, tmp_path):
    (tmp_path / file).write_text("no weights")
    with pytest.raises(ValueError, match=f"weights: .*{file} ") as caught:
        models.pretrained("SmallCNN", str(tmp_path / file), 16)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_absent_or_of_another_kind_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"a\.h5 is not there"):
        models.pretrained("SmallCNN", str(tmp_path / "a.h5"), 16)
    with pytest.raises(ValueError, match=r"a\.pt must end in \.h5, \.weights\.h5, \.keras"):
        models.pretrained("SmallCNN", str(tmp_path / "a.pt"), 16)


def efficientnet_with_statistics(**arguments):
    """EfficientNetB0 normalising by ImageNet's mean and deviation, as its published file has it."""
    network = keras.applications.EfficientNetB0(include_top=False, input_shape=(64, 64, 3), **arguments)
    weights = scrambled(network).get_weights()
    weights[:2] = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    network.set_weights(weights)
    return network


def features_of_ours(weights):
    network = models.backbone("EfficientNetB0", 64)
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    network.predict(images, verbose=0)  # traced before the weights are assigned, as a warm model is
    network.set_weights(weights)
    return network.predict(images, verbose=0)


@pytest.mark.slow
def test_efficientnets_normalisation_comes_with_its_weights(tmp_path):
    """Keras fixes it when the layer is built, so that assigned weights would not reach it."""
    efficientnet_with_statistics(weights=None).save_weights(tmp_path / "a.weights.h5")
    referee = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(64, 64, 3))
    referee.load_weights(tmp_path / "a.weights.h5")
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    expected = referee.predict(images, verbose=0)
    ours = features_of_ours(models.pretrained("EfficientNetB0", str(tmp_path / "a.weights.h5"), 64))
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.slow
def test_efficientnets_imagenet_features_are_those_of_keras_imagenet_network(tmp_path, monkeypatch):
    """Keras builds another network, with one more scaling, where it loads ImageNet's weights."""
    write_legacy(efficientnet_with_statistics(weights=None), tmp_path / "efficientnetb0_notop.h5")
    module = inspect.unwrap(keras.applications.EfficientNetB0).__globals__
    monkeypatch.setattr(module["file_utils"], "get_file", lambda *_, **__: tmp_path / "efficientnetb0_notop.h5")
    referee = keras.applications.EfficientNetB0(include_top=False, weights="imagenet", input_shape=(64, 64, 3))
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    expected = referee.predict(images, verbose=0)
    ours = features_of_ours(models.pretrained("EfficientNetB0", "imagenet", 64))
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50", "EfficientNetB0"])
@pytest.mark.parametrize("reason", ["None -- [Errno -3] Temporary failure in name resolution", "403 -- Forbidden"])
def test_imagenet_without_network_says_which_file_to_fetch_and_where_to_put_it(name, reason, monkeypatch):
    asked = []

    def get_file(fname, origin, **_):
        asked.append((fname, origin))
        raise Exception(f"URL fetch failure on {origin}: {reason}")

    monkeypatch.setenv("KERAS_HOME", "/some/keras")
    module = inspect.unwrap(getattr(keras.applications, name)).__globals__
    monkeypatch.setattr(module["file_utils"], "get_file", get_file)
    with pytest.raises(ValueError, match="imagenet for") as caught:
        models.pretrained(name, "imagenet", 96)
    ((file, address),) = asked
    message = str(caught.value)
    assert f"weights: imagenet for {name} cannot be fetched" in message
    assert f"fetch {file} from {address} and put it into /some/keras/models " in message
    assert "\n" not in message


def test_small_cnn_has_no_imagenet_weights():
    with pytest.raises(ValueError, match="SmallCNN was never trained on ImageNet; take random, or a file"):
        models.pretrained("SmallCNN", "imagenet", 64)


# The rest


def test_expected_memory_grows_with_the_batch_by_its_activations():
    by_batch = [
        models.expected_memory(Recipe(backbone="SmallCNN", image_size=16, batch_size=n), 2) for n in (1, 2, 100)
    ]
    # conv, norm and relu of each block at its size, and the input
    values = 16 * 16 * 3 + sum(3 * side * side * filters for side, filters in [(8, 16), (4, 32), (2, 64), (1, 128)])
    assert by_batch[1] - by_batch[0] == 4 * values
    assert by_batch[2] - by_batch[0] == 99 * 4 * values


@pytest.mark.parametrize("module", [augment, backbones, models, recipe, training], ids=lambda module: module.__name__)
def test_the_core_names_no_backend(module):
    tree = ast.parse(inspect.getsource(module))
    imported = {alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    imported |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    named = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    assert not (imported | named) & {"tf", "tensorflow", "jax", "torch", "ray", "optuna", "mlflow"}


def test_augmentation_stands_between_the_pixels_and_the_input_scaling():
    names = [type(layer).__name__ for layer in models.build(Recipe(backbone="ResNet50", image_size=32), 2).layers]
    expected = ["InputLayer", "Rescaling", *(type(layer).__name__ for layer in augment.layers(Augmentation()))]
    assert names[: len(expected) + 1] == [*expected, "InputScaling"]
