"""What each layer of augmentation does to images, how often, and that its draws follow from the seed alone."""

import numpy as np
import pytest
from lazy import Lazy
from painted import eight

from moa_ray.config.recipe import NO_AUGMENTATION, Augmentation

keras = Lazy("keras")
augmentation = Lazy("moa_ray.training.augmentation")

LAYERS = {
    "orientations": lambda: augmentation.Orientations(),
    "jitter": lambda: augmentation.ChannelJitter((0.5, 1.0, 2.0)),
    "blur": lambda: augmentation.MeanFilter(0.5),
    "noise": lambda: augmentation.GaussianNoise(0.5, 50.0),
}


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(0, 255, (400, 6, 6, 3)).astype("float32")


def augmented(layer, images, seed=1):
    """What a layer makes of images in training, its draws seeded."""
    layer.seed_generator.state.assign(np.array([seed, 7], dtype="uint32"))
    return np.asarray(keras.ops.convert_to_numpy(layer(images, training=True)))


def test_all_eight_orientations_occur_evenly_and_no_other_image(images):
    result = augmented(augmentation.Orientations(), images)
    drawn = []
    for before, after in zip(images, result, strict=True):
        (which,) = [k for k, turned in enumerate(eight(before)) if np.array_equal(turned, after)]
        drawn.append(which)
    counts = np.bincount(drawn, minlength=8)
    # 400 draws: 50 each, standard deviation 6.6
    assert counts.min() > 25
    assert counts.max() < 80


def test_jitter_multiplies_each_channel_of_each_image_by_a_factor_of_the_list(images):
    factors = (1.0, 1.0, 0.75, 1.25)
    ratios = augmented(augmentation.ChannelJitter(factors), images) / images
    per_channel = ratios[:, 0, 0]
    np.testing.assert_allclose(ratios, np.broadcast_to(per_channel[:, None, None], ratios.shape), rtol=1e-5)
    nearest = np.abs(per_channel[..., None] - np.unique(factors)).argmin(axis=-1)
    np.testing.assert_allclose(per_channel, np.unique(factors)[nearest], rtol=1e-5)
    shares = np.bincount(nearest.ravel()) / nearest.size
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.06)
    assert (np.ptp(nearest, axis=1) > 0).mean() > 0.5  # channels of one image draw by themselves


def test_blur_is_the_mean_filter_with_a_mirrored_border(images):
    from scipy.ndimage import uniform_filter

    result = augmented(augmentation.MeanFilter(1.0), images)
    expected = uniform_filter(images, size=(1, 3, 3, 1), mode="mirror")
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("name", "arguments"), [("MeanFilter", (0.3,)), ("GaussianNoise", (0.3, 50.0))])
def test_the_share_of_changed_images_is_the_probability(name, arguments, images):
    layer = getattr(augmentation, name)(*arguments)
    changed = (augmented(layer, images) != images).any(axis=(1, 2, 3))
    assert abs(changed.mean() - 0.3) < 0.1  # 4 standard deviations
    untouched = ~changed
    np.testing.assert_array_equal(augmented(layer, images)[untouched], images[untouched])


def test_noise_has_its_variance_and_no_mean(images):
    noise = augmented(augmentation.GaussianNoise(1.0, 50.0), images) - images
    n = noise.size
    assert abs(noise.mean()) < 5 * np.sqrt(50.0 / n)
    assert abs(noise.var() - 50.0) < 5 * 50.0 * np.sqrt(2 / n)


@pytest.mark.parametrize("name", LAYERS)
def test_inference_passes_images_through(name, images):
    np.testing.assert_array_equal(np.asarray(LAYERS[name]()(images, training=False)), images)
    np.testing.assert_array_equal(np.asarray(LAYERS[name]()(images)), images)


@pytest.mark.parametrize("name", LAYERS)
def test_the_same_seed_draws_the_same_whatever_came_before(name, images):
    fresh = augmented(LAYERS[name](), images)
    used = LAYERS[name]()
    augmented(used, images[:17], seed=5)
    augmented(used, images[::-1], seed=9)
    np.testing.assert_array_equal(augmented(used, images), fresh)


@pytest.mark.parametrize("name", LAYERS)
def test_another_seed_and_the_next_batch_draw_otherwise(name, images):
    layer = LAYERS[name]()
    first = augmented(layer, images)
    following = np.asarray(layer(images, training=True))
    assert not np.array_equal(first, following)
    assert not np.array_equal(first, augmented(layer, images, seed=2))


def test_values_end_up_within_grey_levels(images):
    x = images
    for layer in augmentation.layers(Augmentation(channel_jitter=(2.0,), noise=1.0, noise_variance=400.0)):
        x = np.asarray(layer(x, training=True))
    assert x.min() == 0.0
    assert x.max() == 255.0


def kinds(settings):
    return [type(layer).__name__ for layer in augmentation.layers(settings)]


def test_everything_is_on_in_the_papers_order_by_default():
    expected = ["Orientations", "ChannelJitter", "MeanFilter", "GaussianNoise", "ClipToGrey"]
    assert kinds(Augmentation()) == expected


@pytest.mark.parametrize(
    ("switched_off", "absent"),
    [
        ({"orientations": False}, "Orientations"),
        ({"channel_jitter": ()}, "ChannelJitter"),
        ({"blur": 0}, "MeanFilter"),
        ({"noise": 0}, "GaussianNoise"),
        ({"noise_variance": 0}, "GaussianNoise"),
    ],
)
def test_what_is_switched_off_is_not_there_and_the_rest_is(switched_off, absent):
    assert kinds(Augmentation(**switched_off)) == [kind for kind in kinds(Augmentation()) if kind != absent]


def test_no_augmentation_is_no_layer():
    assert kinds(NO_AUGMENTATION) == []


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_survives_its_configuration(name):
    layer = LAYERS[name]()
    again = type(layer).from_config(layer.get_config())
    ours = {key: value for key, value in vars(layer).items() if isinstance(value, float | tuple) and key[0] != "_"}
    for key, value in ours.items():
        assert getattr(again, key) == value
