"""Cropping: areas averaged as in exact fractions, tiles named by their place, empty ones dropped."""

import subprocess
import sys
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_ray.config.preparation import Preparation
from moa_ray.tiles.cropping import crops, field_tiles, is_empty, resize_crops, resize_plane, tile_names
from moa_ray.tiles.intensities import Curve


def test_crops_are_even_and_pixels_left_over_belong_to_none() -> None:
    parts = crops(np.arange(10).reshape(2, 5), 2)
    assert [part.tolist() for part in parts] == [[[0, 1], [5, 6]], [[2, 3], [7, 8]]]


def test_tile_is_empty_up_to_the_share_and_not_above_it() -> None:
    tile = np.zeros((10, 50, 1), np.uint8)  # 500 values: 0.2 % is one of them
    tile[0, 0] = 51
    assert is_empty(tile, above=50, share=0.002)
    tile[0, 1] = 51
    assert not is_empty(tile, above=50, share=0.002)
    assert is_empty(np.full((10, 50, 1), 50, np.uint8), above=50, share=0.002)


def _resized(tile: np.ndarray, size: int) -> np.ndarray:
    [resized] = resize_crops(np.ascontiguousarray(tile.swapaxes(1, 2), dtype=np.uint16), 1, size)
    return resized


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_resizing_averages_areas_and_keeps_the_channel_axis(channels: int) -> None:
    tile = np.random.default_rng(1).integers(0, 256, (8, 16, channels)).astype(np.uint8)
    slow = tile.reshape(4, 2, 4, 4, channels).mean(axis=(1, 3))
    resized = _resized(tile, 4)
    assert resized.shape == (4, 4, channels)
    np.testing.assert_allclose(resized, slow, atol=0.51)


def _slow_shares(length: int, size: int) -> np.ndarray:
    """The share of each pixel in the mean of each of `size` stretches, in exact fractions."""
    step = Fraction(length, size)
    return np.array(
        [
            [float(max(min((i + 1) * step, p + 1) - max(i * step, Fraction(p)), 0) / step) for p in range(length)]
            for i in range(size)
        ]
    )


@settings(deadline=None, max_examples=60)
@given(st.integers(5, 400), st.integers(5, 400), st.integers(1, 5), st.integers(1, 3))
def test_resizing_to_any_size_averages_areas(height: int, width: int, size: int, channels: int) -> None:
    tile = np.random.default_rng(height).integers(0, 256, (height, width, channels)).astype(np.uint8)
    exact = np.einsum(
        "yh,xw,hwc->yxc", _slow_shares(height, size), _slow_shares(width, size), tile.astype(float), optimize=True
    )
    resized = _resized(tile, size)
    assert (resized.dtype, resized.shape) == (np.uint8, (size, size, channels))
    assert resized.flags.c_contiguous
    np.testing.assert_allclose(resized, exact, atol=0.501)


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(*[st.integers(1, 60)] * 2),
    st.tuples(*[st.integers(1, 60)] * 2),
    st.sampled_from(["uint8", "uint16", "int32", "float32"]),
)
def test_field_of_any_shape_is_resized_to_any_other_by_areas(
    before: tuple[int, int], after: tuple[int, int], kind: str
) -> None:
    plane = (np.random.default_rng(before).random(before) * 250).astype(kind)
    down, across = (_slow_shares(*lengths) for lengths in zip(before, after, strict=True))
    resized = resize_plane(plane, after)
    assert (resized.dtype, resized.shape) == (plane.dtype, after)
    assert resized.flags.c_contiguous
    np.testing.assert_allclose(resized, down @ plane @ across.T, atol=1e-3 if kind == "float32" else 0.501)


def test_crops_of_a_band_are_resized_as_if_each_were_alone() -> None:
    band = np.random.default_rng(3).integers(0, 256, (40, 2, 61)).astype(np.uint16)
    alone = [_resized(crop.swapaxes(1, 2), 12) for crop in crops(band, 3)]
    np.testing.assert_array_equal(resize_crops(band, 3, 12), alone)


def test_halves_are_rounded_to_the_even_level() -> None:
    plane = np.array([[0, 1, 1, 2, 65535, 65534]], np.uint16)
    np.testing.assert_array_equal(resize_plane(plane, (1, 3)), [[0, 2, 65534]])


def _tiles(planes: list[np.ndarray], preparation: Preparation, curves: list[Curve], size: int) -> dict[str, np.ndarray]:
    return {name: by_size[size] for name, by_size in field_tiles(planes, preparation, curves, [size]).tiles}


def test_field_is_resized_before_anything_else() -> None:
    planes = [np.random.default_rng(c).integers(0, 4000, (30, 44)).astype(np.uint16) for c in range(2)]
    curves = [Curve(anscombe=True)] * 2
    whole = Preparation(field_size=(16, 20), empty_share=None)
    resized = [resize_plane(plane, (16, 20)) for plane in planes]
    tiles, expected = (
        _tiles(raw, preparation, curves, 5)
        for raw, preparation in ((planes, whole), (resized, Preparation(empty_share=None)))
    )
    assert list(tiles) == list(expected) == ["0-0", "0-1", "1-0", "1-1"]
    assert all((tile == expected[name]).all() for name, tile in tiles.items())


@pytest.mark.parametrize("size", [64, 96, 160, 224, 299])
def test_tiles_of_the_paper_are_resized_as_opencv_does(size: int) -> None:
    tile = np.random.default_rng(size).integers(0, 256, (512, 640, 3)).astype(np.uint8)
    theirs = cv2.resize(tile, (size, size), interpolation=cv2.INTER_AREA)
    differ = _resized(tile, size) != theirs
    np.testing.assert_allclose(_resized(tile, size), theirs, atol=1)
    assert differ.mean() < 0.02  # by the rounding of halves


def test_a_tile_smaller_than_the_network_wants_is_enlarged() -> None:
    tile = np.repeat(np.arange(0, 200, 50, dtype=np.uint8), 12).reshape(4, 4, 3)
    enlarged = _resized(tile, 8)
    assert enlarged.shape == (8, 8, 3)
    assert (enlarged.min(), enlarged.max()) == (0, 150)


def test_a_process_that_is_settled_makes_the_same_tiles() -> None:
    planes = [np.random.default_rng(c).poisson(300, (64, 80)).astype(np.uint16) for c in range(3)]
    code = (
        "import sys, numpy as np; from moa_ray.config.preparation import Preparation;"
        "from moa_ray.tiles.cropping import field_tiles; from moa_ray.tiles.intensities import Curve, settle_process;"
        "settle_process();"
        "planes = [np.random.default_rng(c).poisson(300, (64, 80)).astype(np.uint16) for c in range(3)];"
        "tiles = dict(field_tiles(planes, Preparation(), [Curve(True)] * 3, [16]).tiles);"
        "sys.stdout.buffer.write(b''.join(tile[16].tobytes() for tile in tiles.values()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    tiles = _tiles(planes, Preparation(), [Curve(True)] * 3, 16)
    assert done.stdout == b"".join(tile.tobytes() for tile in tiles.values())


def test_field_becomes_named_tiles_without_the_empty_one() -> None:
    plane = np.full((4, 4), 1000, np.uint16)
    plane[:2, :2] = 100  # the darkest quarter maps to 0
    made = field_tiles([plane, plane], Preparation(), [Curve(anscombe=True)] * 2, [2])
    assert [name for name, _ in made.tiles] == ["0-1", "1-0", "1-1"]
    assert made.empty == ["0-0"]
    assert tile_names(Preparation()) == ["0-0", "0-1", "1-0", "1-1"]
    assert all((tile[2] == 255).all() for _, tile in made.tiles)


def test_no_tile_is_dropped_where_the_share_is_null() -> None:
    tiles = _tiles([np.full((4, 4), 7, np.uint16)], Preparation(empty_share=None), [Curve(anscombe=True)], 2)
    assert list(tiles) == ["0-0", "0-1", "1-0", "1-1"]


def test_range_over_a_tile_stretches_each_tile_by_itself() -> None:
    planes = list(np.moveaxis(np.arange(32, dtype=np.uint16).reshape(4, 4, 2), -1, 0))
    curves = [Curve(anscombe=True)] * 2
    by_tile = _tiles(planes, Preparation(range_over="tile"), curves, 2)
    assert {int(tile.max()) for tile in by_tile.values()} == {255}
    by_field = _tiles(planes, Preparation(), curves, 2)
    assert len({int(tile.max()) for tile in by_field.values()}) > 1
