"""What is chosen by the device: precision and the batch of predictions."""

from lazy import Lazy

from moa_ray.config.recipe import Recipe

devices = Lazy("moa_ray.training.devices")

SMALL = Recipe(backbone="SmallCNN", weights="random", image_size=16)


def test_prediction_takes_what_a_gpu_has_room_for_and_no_more_than_there_is(monkeypatch):
    recipe = Recipe(backbone="SmallCNN", image_size=64, batch_size=32)
    assert devices.prediction_batch(recipe, 10_000) == 32
    monkeypatch.setattr(devices, "has_gpu", lambda: True)
    largest = 16 * 32 * 32 * 16  # bytes: four layers of 32 x 32 x 16 float32
    for room, rows, expected in ((10 * 32 * largest, 10_000, 32), (100 * 32 * largest, 10_000, 256), (1e12, 70, 64)):
        monkeypatch.setattr(devices, "gpu_memory", lambda room=room: int(room))
        assert devices.prediction_batch(recipe, rows) == expected


def test_auto_is_bfloat16_on_a_gpu_that_has_it_and_float32_elsewhere(monkeypatch):
    monkeypatch.setattr(devices, "has_gpu", lambda: False)
    assert devices.precision(SMALL) == "float32"
    monkeypatch.setattr(devices, "has_gpu", lambda: True)
    for capability, expected in ((9.0, "mixed_bfloat16"), (7.5, "float32")):
        monkeypatch.setattr(devices, "_ask_gpu", {"compute_cap": capability}.get)
        assert devices.precision(SMALL) == expected
    assert devices.precision(Recipe(precision="float32")) == "float32"
