"""Median and MAD of pixels, field by field, against NumPy's over all pixels at once."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_ray.tiles.intensities import Curve
from moa_ray.tiles.levels import Levels


def _slow(pixels: np.ndarray) -> tuple[float, float]:
    median = np.median(pixels)
    return float(median), 1.4826022185056018 * float(np.median(np.abs(pixels - median)))


def _total(fields: list[list[np.ndarray]], curve: Curve) -> Levels:
    return sum((Levels.of(planes, curve) for planes in fields), Levels.zero(len(fields[0])))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 10_000), st.booleans())
def test_median_and_mad_of_whole_numbers_are_exact(heights: list[int], seed: int, stabilised: bool) -> None:
    rng, curve = np.random.default_rng(seed), Curve(stabilised)
    kinds = {"uint8": 256, "uint16": 65_536, "int32": 65_536, "float32": 9}
    fields = [[rng.integers(0, top, (height, 3)).astype(kind) for kind, top in kinds.items()] for height in heights]
    total = _total(fields, curve)
    for channel in range(len(kinds)):
        pixels = np.concatenate([curve(planes[channel]).ravel().astype(np.float64) for planes in fields])
        assert total.count == len(pixels)
        assert (total.center[channel], total.scale[channel]) == pytest.approx(_slow(pixels), rel=1e-12, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.floats(-3e4, 3e4), st.floats(1e-3, 1e5))
def test_of_other_pixels_they_are_off_by_no_more_than_is_said(seed: int, offset: float, width: float) -> None:
    rng = np.random.default_rng(seed)
    fields = [[(offset + width * rng.standard_normal((7, 9))).astype(np.float32)] for _ in range(3)]
    pixels = np.concatenate([planes[0].ravel() for planes in fields]).astype(np.float64)
    total = _total(fields, Curve(anscombe=False))
    median, mad = _slow(pixels)
    assert abs(total.center[0] - median) <= 2**-16 * abs(median) * 1.001
    assert abs(total.scale[0] - mad) <= 2**-16 * (2 * 1.4826 * abs(median) + mad) * 1.001


def test_many_pixels_of_floats_are_held_as_few_values() -> None:
    plane = np.random.default_rng(0).uniform(1, 4, (500, 600)).astype(np.float32)
    levels = Levels.of([plane], Curve(anscombe=False))
    assert levels.count == plane.size
    assert len(levels.values[0]) <= 2 * 32_768 + 1


def test_levels_are_read_as_they_were_saved(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    levels = Levels.of([rng.integers(0, 50, (4, 5)).astype("uint8"), rng.random((4, 5))], Curve(anscombe=True))
    levels.save(tmp_path / "a.npz")
    again = Levels.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(again.center, levels.center)
    np.testing.assert_array_equal(again.scale, levels.scale)
    assert again.count == levels.count == 20
