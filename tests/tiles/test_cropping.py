"""Images: what is read, what is refused, and the paper's recipe against slow obvious loops."""

import io
import subprocess
import sys
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError

from moa_ray.images import (
    Curve,
    Moments,
    Normalise,
    Preparation,
    anscombe,
    crops,
    field_tiles,
    image_header,
    is_empty,
    read_image,
    resize_crops,
    resize_plane,
    to_8bit,
)


def written(picture: Image.Image, form: str) -> io.BytesIO:
    file = io.BytesIO()
    picture.save(file, form)
    file.seek(0)
    return file


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiff_is_read_as_it_was_written(dtype: str) -> None:
    pixels = np.arange(12, dtype=dtype).reshape(3, 4)
    file = written(Image.fromarray(pixels), "TIFF")
    assert image_header(file) == ((3, 4), dtype)
    file.seek(0)
    read = read_image(file)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, pixels)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "float32"])
@pytest.mark.parametrize("rows_per_strip", [7, 1000])
def test_tiff_on_disk_is_read_as_it_was_written(
    tmp_path: Path, dtype: str, compression: str | None, rows_per_strip: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 250, (40, 30)).astype(dtype)
    path = tmp_path / "a.tif"
    native = pixels.astype(pixels.dtype.newbyteorder("="))
    Image.fromarray(pixels if dtype == ">u2" else native).save(
        path, compression=compression, strip_size=rows_per_strip * 30 * pixels.itemsize
    )
    with path.open("rb") as file:
        read = read_image(file)
    np.testing.assert_array_equal(read, native)
    assert read.dtype == native.dtype


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"rowsperstrip": 7},
        {"tile": (16, 16)},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"photometric": "minisblack", "metadata": None, "description": "a microscope", "resolution": (3, 3)},
        {"photometric": "miniswhite"},
    ],
    ids=str,
)
def test_tiff_of_another_program_is_read_as_pillow_reads_it(tmp_path: Path, dtype: str, options: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 120, (40, 32)).astype(dtype)
    path = tmp_path / "a.tif"
    if dtype == "float32":
        options = {key: value for key, value in options.items() if key != "predictor"}
    tifffile.imwrite(path, pixels, **options)
    try:
        with Image.open(path) as image:
            expected = np.asarray(image)
    except UnidentifiedImageError:
        with path.open("rb") as file, pytest.raises(ValueError, match="unreadable"):
            read_image(file)
        return
    with path.open("rb") as file:
        np.testing.assert_array_equal(read_image(file), expected)
    np.testing.assert_array_equal(read_image(io.BytesIO(path.read_bytes())), expected)


def test_first_image_of_a_stack_is_read(tmp_path: Path) -> None:
    stack = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    with (tmp_path / "a.tif").open("rb") as file:
        np.testing.assert_array_equal(read_image(file), stack[0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_that_lies_on_its_side_is_put_upright(orientation: int) -> None:
    file = io.BytesIO()
    Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4)).save(file, "TIFF", tiffinfo={274: orientation})
    file.seek(0)
    expected = np.asarray(Image.open(io.BytesIO(file.getvalue())))
    np.testing.assert_array_equal(read_image(file), expected)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_tiff_with_a_wrong_byte_is_read_or_refused_in_words(data: st.DataObject) -> None:
    content = bytearray(written(Image.fromarray(np.zeros((8, 8), np.uint16)), "TIFF").getvalue())
    content[data.draw(st.integers(0, 135))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of what it makes of such a file
        try:
            pixels = read_image(io.BytesIO(content))
        except ValueError:
            return
    assert pixels.ndim == 2


def test_tiff_on_disk_cut_short_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.zeros((60, 60), np.uint16)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with path.open("rb") as file, pytest.raises(ValueError, match="unreadable"):
        read_image(file)


@pytest.mark.parametrize("form", ["TIFF", "BMP"])
def test_palette_is_read_through_its_colours_not_as_indices(form: str) -> None:
    picture = Image.fromarray(np.array([[0, 1], [1, 0]], dtype=np.uint8)).convert("P")
    picture.putpalette([200, 200, 200, 7, 7, 7] + [0] * 762)
    picture.putdata([0, 1, 1, 0])
    np.testing.assert_array_equal(read_image(written(picture, form)), [[200, 7], [7, 200]])


@pytest.mark.parametrize("form", ["TIFF", "BMP"])
def test_palette_of_colours_is_refused(form: str) -> None:
    picture = Image.new("P", (2, 2))
    picture.putpalette([200, 0, 0] + [0] * 765)
    with pytest.raises(ValueError, match="palette of colours"):
        read_image(written(picture, form))


def test_black_and_white_has_the_dtype_that_its_header_says() -> None:
    file = written(Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1"), "TIFF")
    header = image_header(file)
    file.seek(0)
    pixels = read_image(file)
    assert header == (pixels.shape, str(pixels.dtype))
    np.testing.assert_array_equal(pixels, [[0, 255]])


@pytest.mark.parametrize("read", [read_image, image_header])
def test_several_channels_in_one_file_are_refused(read: Any) -> None:
    with pytest.raises(ValueError, match="several channels"):
        read(written(Image.new("RGB", (2, 2)), "TIFF"))


@pytest.mark.parametrize("read", [read_image, image_header])
@pytest.mark.parametrize("content", [b"", b"II*\0", b"no image at all"])
def test_what_is_no_image_is_unreadable(read: Any, content: bytes) -> None:
    with pytest.raises(ValueError, match="unreadable"):
        read(io.BytesIO(content))


def test_tiff_cut_short_is_unreadable() -> None:
    whole = written(Image.fromarray(np.zeros((60, 60), np.uint16)), "TIFF").getvalue()
    with pytest.raises(ValueError, match="unreadable"):
        read_image(io.BytesIO(whole[: len(whole) // 2]))


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
    return {name: by_size[size] for name, by_size in field_tiles(planes, preparation, curves, [size])}


def test_field_is_resized_before_anything_else() -> None:
    planes = [np.random.default_rng(c).integers(0, 4000, (30, 44)).astype(np.uint16) for c in range(2)]
    curves = [Curve(anscombe=True)] * 2
    whole = Preparation(field_size=(16, 20), empty_share=None)
    resized = [resize_plane(plane, (16, 20)) for plane in planes]
    tiles, expected = (
        _tiles(given, preparation, curves, 5)
        for given, preparation in ((planes, whole), (resized, Preparation(empty_share=None)))
    )
    assert list(tiles) == list(expected) == ["0-0", "0-1", "1-0", "1-1"]
    assert all((tile == expected[name]).all() for name, tile in tiles.items())


def test_one_number_is_both_sides_of_a_field() -> None:
    assert Preparation(field_size=64) == Preparation(field_size=(64, 64))


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
        "import sys, numpy as np; from moa_ray.images import *; settle_process();"
        "planes = [np.random.default_rng(c).poisson(300, (64, 80)).astype(np.uint16) for c in range(3)];"
        "tiles = dict(field_tiles(planes, Preparation(), [Curve(True)] * 3, [16]));"
        "sys.stdout.buffer.write(b''.join(tile[16].tobytes() for tile in tiles.values()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    tiles = _tiles(planes, Preparation(), [Curve(True)] * 3, 16)
    assert done.stdout == b"".join(tile.tobytes() for tile in tiles.values())


def test_field_becomes_named_tiles_without_the_empty_one() -> None:
    plane = np.full((4, 4), 1000, np.uint16)
    plane[:2, :2] = 100  # the darkest quarter maps to 0
    tiles = _tiles([plane, plane], Preparation(), [Curve(anscombe=True)] * 2, 2)
    assert list(tiles) == ["0-1", "1-0", "1-1"]
    assert all((tile == 255).all() for tile in tiles.values())


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


@pytest.mark.parametrize(
    "make",
    [
        lambda: Normalise(min_control_fields=0),
        lambda: Preparation(rows=0),
        lambda: Preparation(columns=0),
        lambda: Preparation(empty_share=1.5),
        lambda: Preparation(field_size=1),
        lambda: Preparation(field_size=(8, 1)),
    ],
)
def test_settings_check_themselves(make: Any) -> None:
    with pytest.raises(ValueError, match="but got"):
        make()
