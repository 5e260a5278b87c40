"""Images: what is read, what is refused, and the paper's recipe against slow obvious loops."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from moa_ray.images import (
    Moments,
    Normalise,
    Preparation,
    anscombe,
    crop_grid,
    field_tiles,
    image_header,
    is_empty,
    normalise,
    read_image,
    resize_area,
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
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(0, 10_000))
def test_moments_added_field_by_field_are_those_of_all_pixels(heights: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    fields = [rng.integers(0, 65536, (height, 3, 2)).astype(np.uint16) for height in heights]
    total = sum((Moments.of(field) for field in fields), Moments.zero(2))
    pixels = np.concatenate([field.reshape(-1, 2) for field in fields]).astype(np.float64)
    assert total.count == len(pixels)
    np.testing.assert_allclose(total.mean, pixels.mean(axis=0))
    np.testing.assert_allclose(total.std, pixels.std(axis=0))


def test_no_fields_at_all_stay_no_fields() -> None:
    total = Moments.zero(2) + Moments.zero(2)
    assert total.count == 0
    np.testing.assert_array_equal(total.std, [0, 0])


def test_controls_normalised_by_themselves_have_mean_0_and_deviation_1() -> None:
    field = np.random.default_rng(3).normal(900, 30, (40, 50, 3)).astype(np.float32)
    moments = Moments.of(field)
    normalised = normalise(field, moments.mean, moments.std)
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised.mean(axis=(0, 1)), 0, atol=1e-3)
    np.testing.assert_allclose(normalised.std(axis=(0, 1)), 1, atol=1e-3)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_8_bit_equals_a_slow_loop_over_all_channels_together(seed: int) -> None:
    field = np.random.default_rng(seed).normal(0, 100, (3, 4, 2)).astype(np.float32)
    low, high = float(field.min()), float(field.max())
    slow = [[[int((float(v) - low) / (high - low) * 255.0) for v in x] for x in y] for y in field]
    mapped = to_8bit(field)
    np.testing.assert_array_equal(mapped, slow)
    assert (mapped.min(), mapped.max()) == (0, 255)


def test_a_field_of_one_value_becomes_zeros() -> None:
    assert not to_8bit(np.full((2, 2, 3), 7, np.float32)).any()


def test_grid_of_the_paper_is_four_tiles_of_512_by_640() -> None:
    field = np.arange(1024 * 1280).reshape(1024, 1280, 1)
    tiles = {(row, column): tile for row, column, tile in crop_grid(field, 2, 2)}
    assert {tile.shape for tile in tiles.values()} == {(512, 640, 1)}
    assert tiles[1, 0][0, 0, 0] == 512 * 1280


def test_pixels_left_over_belong_to_no_tile() -> None:
    tiles = [tile[..., 0].tolist() for _, _, tile in crop_grid(np.arange(15).reshape(3, 5, 1), 2, 2)]
    assert tiles == [[[0, 1]], [[2, 3]], [[5, 6]], [[7, 8]]]


def test_tile_is_empty_up_to_the_share_and_not_above_it() -> None:
    tile = np.zeros((10, 50, 1), np.uint8)  # 500 values: 0.2 % is one of them
    tile[0, 0] = 51
    assert is_empty(tile, above=50, share=0.002)
    tile[0, 1] = 51
    assert not is_empty(tile, above=50, share=0.002)
    assert is_empty(np.full((10, 50, 1), 50, np.uint8), above=50, share=0.002)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_resizing_averages_areas_and_keeps_the_channel_axis(channels: int) -> None:
    tile = np.random.default_rng(1).integers(0, 256, (8, 16, channels)).astype(np.uint8)
    slow = tile.reshape(4, 2, 4, 4, channels).mean(axis=(1, 3))
    resized = resize_area(tile, 4)
    assert resized.shape == (4, 4, channels)
    np.testing.assert_allclose(resized, slow, atol=0.51)


def test_field_becomes_named_tiles_without_the_empty_one() -> None:
    field = np.full((4, 4, 2), 1000, np.uint16)
    field[:2, :2] = 100  # the darkest quarter maps to 0
    tiles = dict(field_tiles(field, Preparation(), None, None))
    assert list(tiles) == ["0-1", "1-0", "1-1"]
    assert all((tile == 255).all() for tile in tiles.values())


def test_range_over_a_tile_stretches_each_tile_by_itself() -> None:
    field = np.arange(32, dtype=np.uint16).reshape(4, 4, 2)
    by_tile = dict(field_tiles(field, Preparation(range_over="tile"), None, None))
    assert {int(tile.max()) for tile in by_tile.values()} == {255}
    by_field = dict(field_tiles(field, Preparation(), None, None))
    assert len({int(tile.max()) for tile in by_field.values()}) > 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Normalise(min_control_fields=0),
        lambda: Preparation(rows=0),
        lambda: Preparation(columns=0),
        lambda: Preparation(empty_share=1.5),
    ],
)
def test_settings_check_themselves(make: Any) -> None:
    with pytest.raises(ValueError, match="but got"):
        make()
