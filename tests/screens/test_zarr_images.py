"""OME-Zarr images of versions 0.4 and 0.5: which plane is read, and what is refused."""

import itertools
import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr_plates import zarr_image, zarr_plate

from moa_ray.common.errors import InputError
from moa_ray.config.planes import Plane
from moa_ray.screens.checks import check_files
from moa_ray.screens.reading import listing, read_field
from moa_ray.screens.zarr_images import is_zarr, zarr_header, zarr_version

VERSIONS = ("0.4", "0.5")


def stack(*outer: int, dtype: str = "uint16") -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(1, 250, (*outer, 40, 37)).astype(dtype)


def both(root: Path, location: str, plane: Plane | None) -> np.ndarray[Any, Any]:
    """Read a plane, and check that its header says what it is."""
    (pixels,) = read_field(root, [location], [plane])
    assert zarr_header(root, location, plane) == (pixels.shape, str(pixels.dtype))
    return pixels


def refused(root: Path, location: str, plane: Plane | None, message: str) -> None:
    for read in (zarr_header, lambda *given: read_field(given[0], [given[1]], [given[2]])):
        with pytest.raises(InputError, match=message):
            read(root, location, plane)


@pytest.mark.parametrize("version", VERSIONS)
def test_plane_is_read_by_number_name_and_projection(tmp_path: Path, version: str) -> None:
    pixels = stack(2, 3, 4)
    zarr_image(tmp_path / "a.zarr", pixels, version)
    for plane in (Plane(1, 3, 1), Plane("ER", 3, 1)):
        np.testing.assert_array_equal(both(tmp_path, "a.zarr", plane), pixels[1, 1, 3])
    np.testing.assert_array_equal(both(tmp_path, "a.zarr", Plane(2, "max", 0)), pixels[0, 2].max(axis=0))
    refused(tmp_path, "a.zarr", None, r"holds 24 planes \(2 points in time x 3 channels: DNA, ER, Actin x 4 planes in")
    refused(tmp_path, "a.zarr", Plane("Aktin", 0, 0), "did you mean 'Actin'")
    refused(tmp_path, "a.zarr", Plane(series=1), r"holds 1 images \(multiscales\); there is no series 1")


@pytest.mark.parametrize("axes", ["yx", "cyx", "zyx", "czyx"])
@pytest.mark.parametrize("version", VERSIONS)
def test_image_has_the_axes_that_it_names(tmp_path: Path, version: str, axes: str) -> None:
    outer = {"c": 3, "z": 2}
    pixels = stack(*(outer[axis] for axis in axes[:-2]))
    zarr_image(tmp_path / "a.zarr", pixels, version, axes=axes)
    plane = Plane(2 if "c" in axes else None, 1 if "z" in axes else None)
    place = tuple({"c": 2, "z": 1}[axis] for axis in axes[:-2])
    np.testing.assert_array_equal(both(tmp_path, "a.zarr", plane), pixels[place])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("dtype", "read_as"),
    [
        *(("uint8", "uint8"), ("uint16", "uint16"), ("int8", "int32"), ("int16", "int32"), ("uint32", "int32")),
        *(("float16", "float32"), ("float32", "float32"), ("float64", "float32"), (">u2", "uint16")),
    ],
)
def test_numbers_are_read_as_those_of_other_files(tmp_path: Path, version: str, dtype: str, read_as: str) -> None:
    pixels = np.minimum(stack(), 100).astype(dtype)
    zarr_image(tmp_path / "a.zarr", pixels, version, axes="yx")
    read = both(tmp_path, "a.zarr", None)
    assert read.dtype == read_as
    np.testing.assert_array_equal(read, pixels)


@pytest.mark.parametrize(
    "options",
    [{"chunks": (1, 2, 8, 8)}, {"chunks": (3, 4, 40, 37)}, {"chunks": (1, 1, 8, 8), "shards": (1, 1, 16, 16)}],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_chunks_and_shards_of_any_shape(tmp_path: Path, version: str, options: Any) -> None:
    if "shards" in options and version == "0.4":
        options = {"chunks": (1, 1, 8, 8), "chunk_key_encoding": {"name": "v2", "separator": "/"}}
    pixels = stack(3, 4)
    zarr_image(tmp_path / "a.zarr", pixels, version, **options)
    np.testing.assert_array_equal(both(tmp_path, "a.zarr", Plane(2, 3)), pixels[2, 3])
    assert check_files(tmp_path, [("a.zarr", Plane(2, 3))]) == []
    assert len(listing(tmp_path)) <= 9  # no chunk is listed


@pytest.mark.parametrize("version", VERSIONS)
def test_only_the_chunks_of_a_plane_are_read(tmp_path: Path, version: str) -> None:
    """The referee is the disk: without the chunks of the others, the plane is the same."""
    zarr_image(tmp_path / "a.zarr", stack(3), version, axes="cyx")
    for channel, row, column in itertools.product((0, 2), range(3), range(3)):
        key = f"c/{channel}/{row}/{column}" if version == "0.5" else f"{channel}.{row}.{column}"
        (tmp_path / "a.zarr" / "0" / key).write_bytes(b"no chunk at all")
    np.testing.assert_array_equal(both(tmp_path, "a.zarr", Plane(1)), stack(3)[1])
    with pytest.raises(InputError, match=r"a\.zarr: unreadable"):
        read_field(tmp_path, ["a.zarr"], [Plane(0)])


@pytest.mark.parametrize("version", VERSIONS)
def test_plane_of_which_no_chunk_is_there_is_an_error(tmp_path: Path, version: str) -> None:
    zarr_image(tmp_path / "a.zarr", stack(3), version, axes="cyx")
    for path in (tmp_path / "a.zarr" / "0").rglob("*"):
        if path.is_file() and path.name[0] in "012":
            path.unlink()
    (problem,) = check_files(tmp_path, [("a.zarr", Plane(1))])
    assert "a.zarr: unreadable: none of the plane's chunks is there" in problem.message


def test_memory_of_a_plane_is_its_own_and_that_of_some_chunks(tmp_path: Path) -> None:
    pixels = np.zeros((3, 2000, 2000), np.uint16)
    pixels[:, ::7] = 9
    zarr_image(tmp_path / "a.zarr", pixels, axes="cyx", chunks=(1, 250, 250))
    tracemalloc.start()
    try:
        read_field(tmp_path, ["a.zarr"], [Plane(1)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * pixels[0].nbytes


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_no_image_is_said(tmp_path: Path, version: str) -> None:
    zarr_plate(tmp_path / "p.zarr", ["A/1"], 1, version)
    refused(tmp_path, "p.zarr", None, r"is a plate of an OME-Zarr store and no image; give an image")
    refused(tmp_path, "p.zarr/A/1", None, "is a well of an OME-Zarr store")
    refused(tmp_path, "p.zarr/A/1/0/0", None, "no group|no multiscales")
    refused(tmp_path, "p.zarr/B/1/0", None, "missing")
    problems = check_files(tmp_path, ["p.zarr/B/1/0", "p.zarr/A/1"])
    assert "1 of 2 image files are missing" in problems[0].message
    assert "is a well of an OME-Zarr store" in problems[1].message


@pytest.mark.parametrize("level", ["../b", "/etc", "../../b"])
def test_full_resolution_that_leads_out_of_the_image_is_refused(tmp_path: Path, level: str) -> None:
    zarr_image(tmp_path / "a.zarr", stack(), "0.4", axes="yx")
    attributes = json.loads((tmp_path / "a.zarr" / ".zattrs").read_text())
    attributes["multiscales"][0]["datasets"][0]["path"] = level
    (tmp_path / "a.zarr" / ".zattrs").write_text(json.dumps(attributes))
    refused(tmp_path, "a.zarr", None, "leads out of it")
    attributes["multiscales"][0]["datasets"][0]["path"] = "link"
    (tmp_path / "a.zarr" / ".zattrs").write_text(json.dumps(attributes))
    shutil.copytree(tmp_path / "a.zarr" / "0", tmp_path / "elsewhere")
    (tmp_path / "a.zarr" / "link").symlink_to(tmp_path / "elsewhere")
    refused(tmp_path, "a.zarr", None, "leads out of it")


@pytest.mark.parametrize("location", ["../a.zarr", "x/../a.zarr", "link.zarr"])
def test_image_outside_of_the_root_is_refused(tmp_path: Path, location: str) -> None:
    zarr_image(tmp_path / "a.zarr", stack(), axes="yx")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link.zarr").symlink_to(tmp_path / "a.zarr")
    with pytest.raises(InputError, match="leads out of the screen's root"):
        read_field(tmp_path / "root", [location])


def test_folder_is_told_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "A/1/0").mkdir(parents=True)
    (tmp_path / "plain").write_bytes(b"")
    assert is_zarr(tmp_path, "A/1/0")
    assert is_zarr(tmp_path, "p.ome.zarr/A/1/0")
    assert not any(is_zarr(tmp_path, name) for name in ("plain", "a.tif", "z.zip!p.zarr/0", "gone"))


@pytest.mark.parametrize("version", VERSIONS)
def test_version_changes_with_a_chunk(tmp_path: Path, version: str) -> None:
    zarr_image(tmp_path / "a.zarr", stack(), version, axes="yx")
    before = zarr_version(tmp_path, "a.zarr")
    assert zarr_version(tmp_path, "a.zarr") == before
    chunk = tmp_path / "a.zarr" / "0" / ("c/0/0" if version == "0.5" else "0.0")
    chunk.write_bytes(chunk.read_bytes() + b"x")
    assert zarr_version(tmp_path, "a.zarr") != before
    assert zarr_version(tmp_path, "b.zarr") == "missing"
