"""Weights of backbones: real ones, from every kind of file, and what is said of files that do not fit."""

import inspect

import h5py
import numpy as np
import pytest
from lazy import Lazy

from moa_ray.common.errors import InputError
from moa_ray.config.backbones import BACKBONES
from moa_ray.config.recipe import NO_AUGMENTATION, Recipe

keras = Lazy("keras")
models, pretrained = (Lazy(f"moa_ray.training.{name}") for name in ("models", "pretrained"))

SMALL = Recipe(backbone="SmallCNN", weights="random", image_size=16)


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file", "size"),
    [
        ("MobileNetV2", "mobilenet_v2_notop.weights.h5", 96),
        ("InceptionV3", "inception_v3_notop.weights.h5", 75),
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
    model.get_layer("backbone").set_weights(pretrained.pretrained(name, str(path), size))
    features = keras.Model(model.input, model.get_layer("pooled").output).predict(images, verbose=0)
    assert expected.std() > 0.1
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)


def write_legacy(network, path):
    from keras.src.legacy.saving import legacy_h5_format

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
    loaded = pretrained.pretrained("SmallCNN", str(tmp_path / file), 16)
    for mine, theirs in zip(loaded, network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_model_of_ours_saved_whole_gives_its_backbone(tmp_path):
    model = models.build(SMALL, 3)
    scrambled(model.get_layer("backbone"))
    model.save(tmp_path / "model.keras")
    loaded = pretrained.pretrained("SmallCNN", str(tmp_path / "model.keras"), 16)
    for mine, theirs in zip(loaded, model.get_layer("backbone").get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
def test_a_saved_backbone_that_holds_models_itself_gives_all_its_weights(tmp_path):
    network = scrambled(models.backbone("ConvNeXtTiny", 32))
    network.save(tmp_path / "convnext.keras")
    loaded = pretrained.pretrained("ConvNeXtTiny", str(tmp_path / "convnext.keras"), 32)
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
    with pytest.raises(InputError, match=f"does not fit SmallCNN: the first layer that differs is {layer}: ") as caught:
        pretrained.pretrained("SmallCNN", str(tmp_path / file), 16)
    assert str(tmp_path / file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", WRITERS)
def test_a_file_of_a_longer_network_does_not_fit(file, tmp_path):
    WRITERS[file](small_network(filters=(16, 32, 64, 128, 128)), tmp_path / file)
    with pytest.raises(InputError, match=r"does not fit SmallCNN: .*the file goes on"):
        pretrained.pretrained("SmallCNN", str(tmp_path / file), 16)


@pytest.mark.parametrize("file", ["a.h5", "a.weights.h5", "a.keras"])
def test_a_file_that_holds_something_else_gets_one_line(file, tmp_path):
    (tmp_path / file).write_text("no weights")
    with pytest.raises(InputError, match=f"weights: .*{file} ") as caught:
        pretrained.pretrained("SmallCNN", str(tmp_path / file), 16)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_absent_or_of_another_kind_is_named(tmp_path):
    with pytest.raises(InputError, match=r"a\.h5 is not there"):
        pretrained.pretrained("SmallCNN", str(tmp_path / "a.h5"), 16)
    with pytest.raises(InputError, match=r"a\.pt must end in \.h5, \.weights\.h5, \.keras"):
        pretrained.pretrained("SmallCNN", str(tmp_path / "a.pt"), 16)


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
    ours = features_of_ours(pretrained.pretrained("EfficientNetB0", str(tmp_path / "a.weights.h5"), 64))
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
    ours = features_of_ours(pretrained.pretrained("EfficientNetB0", "imagenet", 64))
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
    with pytest.raises(InputError, match="imagenet for") as caught:
        pretrained.pretrained(name, "imagenet", 96)
    ((file, address),) = asked
    message = str(caught.value)
    assert f"weights: imagenet for {name} cannot be fetched" in message
    assert f"fetch {file} from {address} and put it into /some/keras/models " in message
    assert "\n" not in message


def test_small_cnn_has_no_imagenet_weights():
    with pytest.raises(InputError, match="SmallCNN was never trained on ImageNet; take random, or a file"):
        pretrained.pretrained("SmallCNN", "imagenet", 64)
