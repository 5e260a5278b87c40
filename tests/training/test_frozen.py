"""Features of a frozen backbone, by orientation."""

import dataclasses

import numpy as np
from lazy import Lazy
from painted import HEAD, SIZE, eight

from moa_ray.config.recipe import NO_AUGMENTATION

frozen, models = (Lazy(f"moa_ray.training.{name}") for name in ("frozen", "models"))


def test_features_are_those_of_all_orientations_the_tile_itself_first(data):
    recipe = dataclasses.replace(HEAD, augment=dataclasses.replace(NO_AUGMENTATION, orientations=8))
    weights = models.backbone("SmallCNN", SIZE).get_weights()
    features = frozen.extract_features(recipe, data.tiles[SIZE][:5], weights)
    assert features.shape == (8, 5, 128)
    network = models.build_extractor(recipe)
    network.get_layer("backbone").set_weights(weights)
    for tile in range(5):
        slow = network.predict_on_batch(np.stack(eight(data.tiles[SIZE][tile])))
        np.testing.assert_allclose(features[0, tile], slow[0], rtol=1e-4, atol=1e-5)
        for turned in features[:, tile]:
            assert min(np.abs(turned - other).max() for other in slow) < 1e-4
