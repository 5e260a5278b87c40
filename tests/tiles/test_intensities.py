"""Intensities: the paper's recipe against slow obvious loops."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_ray.tiles.intensities import Curve, anscombe, to_8bit
from moa_ray.tiles.moments import Moments


def test_anscombe_is_twice_the_root_of_the_count_and_three_eighths() -> None:
    np.testing.assert_allclose(
        anscombe(np.array([[[0, 1, 65535]]], np.uint16))[0, 0], [1.224745, 2.345208, 512.0], 1e-5
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(0, 10_000), st.booleans())
def test_moments_added_field_by_field_are_those_of_all_pixels(heights: list[int], seed: int, stabilised: bool) -> None:
    rng = np.random.default_rng(seed)
    kinds = [np.uint8, np.uint16, np.int32, np.float32]
    fields = [
        [(rng.random((height, 3)) * top).astype(kind) for kind, top in zip(kinds, (256, 65536, 9e5, 40), strict=True)]
        for height in heights
    ]
    total = sum((Moments.of(planes, Curve(stabilised)) for planes in fields), Moments.zero(len(kinds)))
    for channel in range(len(kinds)):
        pixels = np.concatenate([planes[channel].ravel() for planes in fields]).astype(np.float64)
        pixels = 2 * np.sqrt(pixels + 3 / 8) if stabilised else pixels
        assert total.count == len(pixels)
        np.testing.assert_allclose(total.mean[channel], pixels.mean(), rtol=1e-5)
        np.testing.assert_allclose(total.std[channel], pixels.std(), rtol=1e-4, atol=1e-4)


def test_no_fields_at_all_stay_no_fields() -> None:
    total = Moments.zero(2) + Moments.zero(2)
    assert total.count == 0
    np.testing.assert_array_equal(total.std, [0, 0])


def test_controls_normalised_by_themselves_have_mean_0_and_deviation_1() -> None:
    plane = np.random.default_rng(3).normal(900, 30, (40, 50)).astype(np.uint16)
    moments = Moments.of([plane], Curve(anscombe=True))
    normalised = Curve(anscombe=True, mean=float(moments.mean[0]), std=float(moments.std[0]))(plane)
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised.mean(), 0, atol=1e-3)
    np.testing.assert_allclose(normalised.std(), 1, atol=1e-3)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from(["uint8", "uint16", "int32", "float32"]), st.booleans())
def test_8_bit_equals_a_slow_loop_over_all_channels_together(seed: int, kind: str, stabilised: bool) -> None:
    rng = np.random.default_rng(seed)
    planes = [(rng.random((3, 4)) * 250).astype(kind) for _ in range(2)]
    curves = [Curve(stabilised, mean=10.0 + channel, std=3.0 + channel) for channel in range(2)]
    field = np.stack([curve(plane) for plane, curve in zip(planes, curves, strict=True)], axis=-1)
    low, high = float(field.min()), float(field.max())
    slow = [[[int((float(v) - low) / (high - low) * 255.0) for v in x] for x in y] for y in field]
    mapped = to_8bit(planes, curves)
    np.testing.assert_array_equal(mapped.swapaxes(1, 2), slow)
    assert (mapped.min(), mapped.max()) == (0, 255)


def test_a_field_of_one_value_becomes_zeros() -> None:
    mapped = to_8bit([np.full((2, 2), 7, np.uint16)] * 3, [Curve(anscombe=True)] * 3)
    assert mapped.shape == (2, 3, 2)
    assert not mapped.any()
