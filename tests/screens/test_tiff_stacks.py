"""TIFF files of several planes: which of them is read, by OME, ImageJ and plain pages, and which are cut short."""

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from moa_ray.common.errors import InputError
from moa_ray.config.planes import Plane
from moa_ray.screens import tiff_pixels
from moa_ray.screens.image_files import image_header, read_image

NAMES = ("DNA", "ER", "Actin")
SHAPE = (8, 9)


def stack(*outer: int, dtype: str = "uint16") -> np.ndarray[Any, Any]:
    """Planes of noise, each unlike all others."""
    return np.random.default_rng(0).integers(0, 250, (*outer, *SHAPE)).astype(dtype)


def written(pixels: np.ndarray[Any, Any], **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    file.seek(0)
    return file


def ome(axes: str, pixels: np.ndarray[Any, Any], **options: Any) -> io.BytesIO:
    return written(pixels, ome=True, metadata={"axes": axes, "Channel": {"Name": list(NAMES)}}, **options)


def both(file: io.BytesIO, plane: Plane | None) -> np.ndarray[Any, Any]:
    """Read a plane, and check that its header says what it is."""
    content = file.getvalue()
    pixels = read_image(io.BytesIO(content), plane)
    assert image_header(io.BytesIO(content), None, plane) == (pixels.shape, str(pixels.dtype))
    return pixels


def refused(file: io.BytesIO, plane: Plane | None, message: str) -> None:
    """Check that reading and the header alone say the same."""
    for read in (read_image, image_header):
        with pytest.raises(InputError, match=message):
            read(io.BytesIO(file.getvalue()), plane=plane)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"bigtiff": True}], ids=str)
@pytest.mark.parametrize("axes", ["CYX", "ZCYX", "CZYX", "TZCYX", "TCZYX", "CTZYX"])
def test_ome_plane_is_read_by_its_axes(axes: str, options: Any) -> None:
    outer = {"C": 3, "Z": 2, "T": 4}
    pixels = stack(*(outer[axis] for axis in axes[:-2]))
    file = ome(axes, pixels, **options)
    at = {"C": 2, "Z": 1, "T": 3}
    expected = pixels[tuple(at[axis] for axis in axes[:-2])]
    z, time = 1 if "Z" in axes else None, 3 if "T" in axes else None
    np.testing.assert_array_equal(both(file, Plane(2, z, time)), expected)
    np.testing.assert_array_equal(both(file, Plane("Actin", z, time)), expected)


def test_ome_stack_without_a_choice_is_refused_with_count_and_names() -> None:
    file = ome("CYX", stack(3))
    refused(file, None, r"holds 3 planes \(3 channels: DNA, ER, Actin\); say in screen.images which is meant")
    refused(file, Plane("Aktin"), "no channel is named 'Aktin'; did you mean 'Actin'")
    refused(file, Plane(3), "there is no channel 3, counted from 0")


def test_projections_of_an_ome_stack() -> None:
    pixels = stack(2, 3)
    file = ome("ZCYX", pixels)
    np.testing.assert_array_equal(both(file, Plane("ER", "max")), pixels[:, 1].max(axis=0))
    np.testing.assert_array_equal(both(file, Plane("ER", "mean")), np.rint(pixels[:, 1].mean(axis=0)))


def data_set(uuids: list[str], own: str | None, pages: int) -> str:
    """OME-XML of a data set of a file a channel."""
    data = "".join(
        f'<TiffData FirstC="{c}" IFD="0" PlaneCount="{pages}"><UUID FileName="f{c}.tif">{uuid}</UUID></TiffData>'
        for c, uuid in enumerate(uuids)
    )
    names = "".join(f'<Channel ID="Channel:0:{c}" Name="{NAMES[c]}" SamplesPerPixel="1"/>' for c in range(len(uuids)))
    return (
        f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
        f'{f" UUID={own!r}".replace(chr(39), chr(34)) if own else ""}><Image ID="Image:0"><Pixels ID="Pixels:0" '
        f'DimensionOrder="XYZCT" SizeX="9" SizeY="8" SizeC="{len(uuids)}" SizeZ="{pages}" SizeT="1" Type="uint16">'
        f"{names}{data}</Pixels></Image></OME>"
    )


def test_file_of_an_ome_data_set_is_its_own_channel_and_no_other_file_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = stack(3, 2)
    uuids = [f"urn:uuid:{c}" for c in range(3)]
    for c, uuid in enumerate(uuids):
        tifffile.imwrite(tmp_path / f"f{c}.tif", pixels[c], description=data_set(uuids, uuid, 2), metadata=None)
    opened: list[str] = []
    monkeypatch.setattr(tifffile.tifffile.FileHandle, "open", recording(opened))
    with (tmp_path / "f1.tif").open("rb") as file:
        np.testing.assert_array_equal(read_image(file, Plane("ER", 1)), pixels[1, 1])
        file.seek(0)
        with pytest.raises(InputError, match=r"holds 2 planes \(2 planes in depth\)"):
            read_image(file)
    assert set(opened) == {"image"}


def recording(names: list[str]) -> Any:
    open_ = tifffile.tifffile.FileHandle.open

    def record(self: Any) -> None:
        open_(self)
        names.append(self._name)

    return record


def test_ome_data_set_that_does_not_say_which_file_is_which_is_refused() -> None:
    file = written(stack(2), description=data_set(["urn:uuid:0", "urn:uuid:1"], None, 2), metadata=None)
    refused(file, Plane(0, 0), "does not say which of them is this one")


def test_file_of_an_ome_stack_that_was_renamed_is_read() -> None:
    pixels = stack(2)
    file = written(pixels, description=data_set(["urn:uuid:0"], None, 2), metadata=None)
    np.testing.assert_array_equal(both(file, Plane("DNA", 1)), pixels[1])


def test_ome_metadata_of_more_pages_than_there_are_is_unreadable() -> None:
    file = written(stack(2), description=data_set(["urn:uuid:0"], None, 5), metadata=None)
    refused(file, Plane(z=0, channel="DNA"), "speak of 5 pages, but it has 2")


@pytest.mark.parametrize("truncate", [False, True])
def test_imagej_hyperstack_is_read_by_its_axes(truncate: bool) -> None:
    pixels = stack(4, 2, 3)
    options = {"truncate": True} if truncate else {}
    file = written(pixels, imagej=True, metadata={"axes": "TZCYX"}, **options)
    np.testing.assert_array_equal(both(file, Plane(2, 1, 3)), pixels[3, 1, 2])
    np.testing.assert_array_equal(both(file, Plane(0, "max", 1)), pixels[1, :, 0].max(axis=0))
    refused(file, None, r"holds 24 planes \(4 points in time x 2 planes in depth x 3 channels\)")


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"truncate": True}], ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_pages_of_which_nothing_is_known_are_numbered(options: Any, dtype: str) -> None:
    pixels = stack(2, 3, dtype=dtype)
    file = written(pixels, photometric="minisblack", **options)
    np.testing.assert_array_equal(both(file, Plane(channel=4)), pixels[1, 1])
    np.testing.assert_array_equal(both(file, Plane(z="max")), pixels.max(axis=(0, 1)))
    refused(file, None, r"holds 6 planes \(6 pages\)")


def test_pages_written_one_by_one_are_numbered() -> None:
    pixels = stack(3)
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for page in pixels:
            writer.write(page, metadata=None)
    np.testing.assert_array_equal(both(file, Plane(channel=1)), pixels[1])
    refused(file, None, r"holds 3 planes \(3 pages\)")


def test_pages_of_several_shapes_are_series() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(stack(), metadata=None)
        writer.write(stack(2)[:, :4], metadata=None, photometric="minisblack")
    refused(file, None, r"holds 2 images \(series\) of 8 x 9, 4 x 9 with 2 pages; say .* series: 0")
    refused(file, Plane(series=2), "there is no series 2, counted from 0")
    refused(file, Plane(series=1), "2 pages")
    np.testing.assert_array_equal(both(file, Plane(series=0)), stack())
    np.testing.assert_array_equal(both(file, Plane(channel=1, series=1)), stack(2)[1, :4])


def test_thumbnail_and_pyramid_are_no_planes() -> None:
    with_thumbnail, pyramid = io.BytesIO(), io.BytesIO()
    with tifffile.TiffWriter(with_thumbnail) as writer:
        writer.write(stack(), metadata=None)
        writer.write(stack()[::2, ::2], metadata=None, subfiletype=1)
    with tifffile.TiffWriter(pyramid) as writer:
        writer.write(stack(), subifds=1)
        writer.write(stack()[::2, ::2], subfiletype=1)
    for file in (with_thumbnail, pyramid):
        np.testing.assert_array_equal(both(file, None), stack())


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_sample_of_colours_is_chosen_by_number_or_name(planarconfig: str, compression: str | None) -> None:
    pixels = stack(3)
    of_file = pixels if planarconfig == "separate" else np.moveaxis(pixels, 0, -1)
    options: Any = {"photometric": "rgb", "planarconfig": planarconfig, "compression": compression}
    file = written(of_file, **options)
    np.testing.assert_array_equal(both(file, Plane(1)), pixels[1])
    np.testing.assert_array_equal(both(file, Plane("blue")), pixels[2])
    refused(file, None, r"holds several channels \(3 samples a pixel: red, green, blue\)")
    with pytest.raises(InputError, match="its red, green and blue differ, so it is not grey"):
        read_image(file, Plane("grey"))
    of_grey = np.stack([pixels[0]] * 3, axis=0 if planarconfig == "separate" else -1)
    np.testing.assert_array_equal(both(written(of_grey, **options), Plane("grey")), pixels[0])


def test_colour_of_a_palette_is_chosen() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16) * 257
    pixels = stack(dtype="uint8")
    file = written(pixels, photometric="palette", colormap=colours)
    np.testing.assert_array_equal(both(file, Plane(1)), (colours[1] >> 8)[pixels])
    refused(file, None, "holds a palette of colours")


@pytest.mark.parametrize("pages", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        *({}, {"tile": (16, 16)}, {"rowsperstrip": 2}, {"compression": "lzw"}, {"bigtiff": True}),
        {"imagej": True, "metadata": {"axes": "ZYX"}},
    ],
    ids=str,
)
def test_file_that_is_cut_short_anywhere_is_found_by_header_and_size(options: Any, pages: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 1 << 16, (pages, 40, 40)).astype(np.uint16)
    if pages == 1:
        pixels, options = pixels[0], {key: value for key, value in options.items() if key != "metadata"}
    content = written(pixels, photometric="minisblack", **options).getvalue()
    plane = Plane(z="max") if pages > 1 else None
    assert image_header(io.BytesIO(content), None, plane)[0] == (40, 40)
    passed = 0
    for kept in range(0, len(content) - 1, 101):
        cut = io.BytesIO(content[:kept])
        try:
            image_header(cut, None, plane)
        except InputError:
            continue
        passed += 1  # as of a cut through a tag of no concern behind all pixels
        cut.seek(0)
        np.testing.assert_array_equal(read_image(cut, plane), pixels if pages == 1 else pixels.max(axis=0))
    assert passed <= 2


def test_stack_that_is_cut_short_is_no_single_page() -> None:
    pixels = stack(3)
    for options in ({"imagej": True, "truncate": True}, {"truncate": True}, {}, {"imagej": True}):
        file = written(pixels, photometric="minisblack", **options)
        cut = io.BytesIO(file.getvalue()[: -(pixels[0].nbytes + 40)])
        refused(cut, None, "holds 3 planes|unreadable")
        refused(cut, Plane(z="max"), "cut short|unreadable")


def test_volume_within_a_page_is_refused() -> None:
    refused(written(stack(16), volumetric=True, tile=(16, 16, 16)), Plane(z=0), "planes in depth within one page")


@pytest.mark.parametrize("options", [{"tile": (256, 256), "compression": "zlib"}, {"rowsperstrip": 3000}, {}], ids=str)
@pytest.mark.parametrize("dtype", ["uint16", "float64"])
def test_memory_of_a_large_image_is_that_of_its_plane_and_of_a_few_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, options: Any
) -> None:
    """A stand-in for a stitched image of 20,000 x 20,000, which needs 17 MB beside its plane."""
    monkeypatch.setattr(tiff_pixels, "_BUFFER", 1 << 20)
    pixels = np.arange(3000, dtype=dtype) + np.zeros((2000, 1), dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, bigtiff=True, **options)
    with (tmp_path / "a.tif").open("rb") as file:
        tracemalloc.start()
        try:
            read = read_image(file)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    np.testing.assert_array_equal(read, pixels)
    assert peak < read.nbytes + 5 * (1 << 20)


@pytest.mark.parametrize("dtype", ["int8", "uint32"])
def test_numbers_beyond_what_they_are_read_as_do_not_wrap(dtype: str) -> None:
    pixels = stack(dtype=dtype)
    pixels[0, 0] = np.iinfo(dtype).min
    np.testing.assert_array_equal(both(written(pixels), None), pixels.astype("int32"))
    if dtype == "uint32":
        pixels[0, 0] = 1 << 31
        with pytest.raises(InputError, match="levels of 2\\^31 and more"):
            read_image(written(pixels))
