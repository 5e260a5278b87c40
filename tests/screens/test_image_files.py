"""Image files: what is read, what is refused, and with which words."""

import io
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError

from moa_ray.common.errors import InputError
from moa_ray.screens.image_files import image_header, read_image


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
        with path.open("rb") as file, pytest.raises(InputError, match="unreadable"):
            read_image(file)
        return
    with path.open("rb") as file:
        np.testing.assert_array_equal(read_image(file), expected)
    np.testing.assert_array_equal(read_image(io.BytesIO(path.read_bytes())), expected)


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
    with path.open("rb") as file, pytest.raises(InputError, match="unreadable"):
        read_image(file)


@pytest.mark.parametrize("form", ["TIFF", "BMP"])
def test_palette_is_read_through_its_colours_not_as_indices(form: str) -> None:
    picture = Image.fromarray(np.array([[0, 1], [1, 0]], dtype=np.uint8)).convert("P")
    picture.putpalette([200, 200, 200, 7, 7, 7] + [0] * 762)
    picture.putdata([0, 1, 1, 0])
    np.testing.assert_array_equal(read_image(written(picture, form)), [[200, 7], [7, 200]])


@pytest.mark.parametrize("form", ["TIFF", "BMP", "PNG", "GIF"])
@pytest.mark.parametrize("read", [read_image, image_header])
def test_palette_of_colours_is_refused_by_its_header(form: str, read: Any) -> None:
    picture = Image.new("P", (2, 2))
    picture.putpalette([200, 0, 0] + [0] * 765)
    with pytest.raises(InputError, match="palette of colours"):
        read(written(picture, form))


def test_black_and_white_has_the_dtype_that_its_header_says() -> None:
    file = written(Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1"), "TIFF")
    header = image_header(file)
    file.seek(0)
    pixels = read_image(file)
    assert header == (pixels.shape, str(pixels.dtype))
    np.testing.assert_array_equal(pixels, [[0, 255]])


@pytest.mark.parametrize("read", [read_image, image_header])
def test_several_channels_in_one_file_are_refused(read: Any) -> None:
    with pytest.raises(InputError, match="several channels"):
        read(written(Image.new("RGB", (2, 2)), "TIFF"))


@pytest.mark.parametrize("read", [read_image, image_header])
@pytest.mark.parametrize("content", [b"", b"II*\0", b"no image at all"])
def test_what_is_no_image_is_unreadable(read: Any, content: bytes) -> None:
    with pytest.raises(InputError, match="unreadable"):
        read(io.BytesIO(content))


def test_tiff_cut_short_is_unreadable() -> None:
    whole = written(Image.fromarray(np.zeros((60, 60), np.uint16)), "TIFF").getvalue()
    with pytest.raises(InputError, match="unreadable"):
        read_image(io.BytesIO(whole[: len(whole) // 2]))


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd", "packbits", "lzma"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "read_as"),
    [
        ("uint8", "uint8"),
        ("uint16", "uint16"),
        ("int16", "int32"),
        ("int32", "int32"),
        ("uint32", "int32"),
        ("float16", "float32"),
        ("float32", "float32"),
        ("float64", "float32"),
    ],
)
@pytest.mark.parametrize("layout", [{"rowsperstrip": 7}, {"tile": (16, 16)}, {"bigtiff": True}], ids=str)
def test_compressed_tiff_holds_what_was_written(
    dtype: str, read_as: str, compression: str | None, byteorder: Any, layout: Any
) -> None:
    pixels = np.random.default_rng(0).integers(0, 1 << 8, (40, 37)).astype(dtype)
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, compression=compression, byteorder=byteorder, **layout)
    file.seek(0)
    assert image_header(file) == ((40, 37), read_as)
    file.seek(0)
    read = read_image(file)
    assert (read.dtype, read.dtype.isnative, read.flags.c_contiguous) == (read_as, True, True)
    np.testing.assert_array_equal(read, pixels)


@pytest.mark.parametrize("compression", ["jpeg2000", "jpegxl", "png", "lerc"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_tiff_of_another_codec_without_loss_holds_what_was_written(dtype: str, compression: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 1 << 8, (40, 37)).astype(dtype)
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, compression=compression)
    file.seek(0)
    np.testing.assert_array_equal(read_image(file), pixels)


def test_predictor_of_floats_is_undone() -> None:
    pixels = np.random.default_rng(0).random((40, 37)).astype(np.float32)
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, compression="zstd", predictor="floatingpoint")
    file.seek(0)
    np.testing.assert_array_equal(read_image(file), pixels)


@pytest.mark.parametrize(("bits", "step"), [(1, 255), (2, 85), (4, 17)])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_levels_of_a_few_bits_are_spread_over_8(bits: int, step: int, white_is_zero: bool) -> None:
    levels = np.random.default_rng(0).integers(0, 1 << bits, (9, 13)).astype(np.uint8)
    file = io.BytesIO()
    photometric: Any = "miniswhite" if white_is_zero else "minisblack"
    pixels, options = (levels.astype(bool), {}) if bits == 1 else (levels, {"bitspersample": bits})
    tifffile.imwrite(file, pixels, photometric=photometric, **options)
    file.seek(0)
    assert image_header(file) == ((9, 13), "uint8")
    file.seek(0)
    np.testing.assert_array_equal(read_image(file), 255 - levels * step if white_is_zero else levels * step)


def test_levels_of_12_bits_keep_their_numbers() -> None:
    levels = np.random.default_rng(0).integers(0, 1 << 12, (9, 14)).astype(np.uint16)
    file = io.BytesIO()
    tifffile.imwrite(file, levels, bitspersample=12)
    file.seek(0)
    np.testing.assert_array_equal(read_image(file), levels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_header_has_the_shape_of_the_pixels_put_upright(orientation: int) -> None:
    file = io.BytesIO()
    extra = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(file, np.zeros((3, 4), np.uint16), compression="zlib", extratags=extra)
    file.seek(0)
    shape, _ = image_header(file)
    file.seek(0)
    assert read_image(file).shape == shape == ((3, 4) if orientation < 5 else (4, 3))


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((8, 9, 3), {"photometric": "rgb"}),
        ((3, 8, 9), {"photometric": "rgb", "planarconfig": "separate"}),
        ((8, 9, 2), {"photometric": "minisblack", "planarconfig": "contig"}),
        ((2, 8, 9), {"photometric": "minisblack", "planarconfig": "separate"}),
    ],
)
@pytest.mark.parametrize("read", [read_image, image_header])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_samples_of_several_channels_are_refused(shape: Any, options: Any, read: Any, compression: str | None) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros(shape, np.uint16), compression=compression, **options)
    file.seek(0)
    with pytest.raises(InputError, match="several channels"):
        read(file)


@pytest.mark.parametrize("dtype", ["uint64", "int64", "complex64"])
@pytest.mark.parametrize("read", [read_image, image_header])
def test_numbers_that_are_no_grey_levels_are_refused(read: Any, dtype: str) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((8, 9), dtype))
    file.seek(0)
    with pytest.raises(InputError, match="unreadable: TIFF sample format"):
        read(file)


@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd", "packbits"])
@pytest.mark.parametrize("layout", [{"rowsperstrip": 7}, {"tile": (16, 16)}], ids=str)
def test_compressed_tiff_cut_short_is_unreadable(tmp_path: Path, compression: str, layout: Any) -> None:
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 1 << 16, (60, 60)).astype(np.uint16)
    tifffile.imwrite(path, pixels, compression=compression, **layout)
    path.write_bytes(path.read_bytes()[:-100])
    with path.open("rb") as file, pytest.raises(InputError, match="unreadable"):
        read_image(file)


@pytest.mark.parametrize("tag", ["StripOffsets", "StripByteCounts"])
def test_strip_that_is_not_there_makes_a_tiff_unreadable(tmp_path: Path, tag: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((60, 60), np.uint16), compression="zlib", rowsperstrip=20)
    with tifffile.TiffFile(path, mode="r+") as file:
        values = file.pages.first.tags[tag]
        values.overwrite((*values.value[:2], 0))
    with path.open("rb") as file, pytest.raises(InputError, match="unreadable: strips or tiles of pixels are missing"):
        read_image(file)


@settings(deadline=None, max_examples=200)
@given(st.data(), st.sampled_from([None, "zlib", "lzw", "zstd"]), st.booleans())
def test_tiff_of_any_kind_with_a_wrong_byte_is_read_or_refused_in_words(
    data: st.DataObject, compression: Any, tiled: bool
) -> None:
    file = io.BytesIO()
    layout: Any = {"tile": (16, 16)} if tiled else {"rowsperstrip": 7}
    tifffile.imwrite(file, np.zeros((20, 20), np.uint16), compression=compression, metadata=None, **layout)
    content = bytearray(file.getvalue())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of what it makes of such a file
        try:
            pixels = read_image(io.BytesIO(content))
        except InputError:
            return
    assert pixels.ndim == 2


def test_odd_tag_of_no_concern_is_not_spoken_of(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((3, 4), np.uint16), description="a microscope that knows it all")
    content = path.read_bytes()
    position = content.index(b"\x0e\x01\x02\x00")  # tag 270 of ASCII: its offset points behind the file
    path.write_bytes(content[: position + 8] + b"\xff\xff\xff\x7f" + content[position + 12 :])
    code = f"from moa_ray.screens.image_files import *; print(read_image(open({str(path)!r}, 'rb')).shape)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(3, 4)\n", "")
