import inspect
import subprocess
import sys

import pytest
from lazy import Lazy

from moa_ray.config.backbones import BACKBONES, native_size

keras = Lazy("keras")


def test_the_backbones_are_those_of_keras_applications_and_the_small_one():
    theirs = {
        name for name, value in vars(keras.applications).items() if name[0].isupper() and inspect.isfunction(value)
    }
    assert set(BACKBONES) == theirs | {"SmallCNN"}


def test_each_backbones_module_is_the_one_that_defines_it():
    for name in BACKBONES.keys() - {"SmallCNN"}:
        defined_in = inspect.unwrap(getattr(keras.applications, name)).__module__.rpartition(".")[2]
        assert BACKBONES[name][1] == defined_in
        assert callable(getattr(keras.applications, defined_in).preprocess_input)


# From the tables of the papers, as in Keras' documentation of each.
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("SmallCNN", 64),
        ("ResNet50", 224),
        ("VGG16", 224),
        ("InceptionV3", 299),
        ("InceptionResNetV2", 299),
        ("Xception", 299),
        ("NASNetMobile", 224),
        ("NASNetLarge", 331),
        ("EfficientNetB0", 224),
        ("EfficientNetB7", 600),
        ("EfficientNetV2S", 384),
        ("EfficientNetV2L", 480),
    ],
)
def test_native_size_is_the_published_one(name, size):
    assert native_size(name) == size


@pytest.mark.parametrize("name", sorted(set(BACKBONES) - {"SmallCNN"}))
def test_native_size_is_what_keras_builds_by_default(name, monkeypatch):
    """Keras tells its default only while building; the build is stopped there."""

    class Stop(Exception):  # noqa: N818 - ends a build, no error
        pass

    sizes = []

    def remember(shape=None, **_):
        sizes.append(shape)
        raise Stop

    monkeypatch.setattr(inspect.unwrap(keras.applications.VGG16).__globals__["layers"], "Input", remember)
    with pytest.raises(Stop):
        getattr(keras.applications, name)(weights=None)
    any_size = name.startswith("MobileNetV3")  # its documentation says 224
    assert sizes == [(None, None, 3) if any_size else (native_size(name), native_size(name), 3)]


def test_an_unknown_backbone_is_a_key_error():
    with pytest.raises(KeyError):
        native_size("ResNet5")


def test_the_names_load_no_keras():
    command = "import sys, moa_ray.config.backbones, moa_ray.config.recipe; assert 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", command], check=True)
