"""Reading: locations of files and zip members below a screen's root, and nothing outside of it."""

import io
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from screen_files import archive, tiff

from moa_ray.common.errors import InputError
from moa_ray.common.object_store import Store
from moa_ray.common.uri import place
from moa_ray.screens.checks import check_files
from moa_ray.screens.reading import listing, open_image, read_field


def test_plain_file_and_zip_member_hold_the_same_field(tmp_path: Path) -> None:
    source = tiff(tmp_path / "p/a.tif")
    archive(tmp_path / "z.zip", **{"p/a.tif": source})
    plain, member = read_field(tmp_path, ["p/a.tif", "z.zip!p/a.tif"])
    assert plain.shape == (3, 4)
    np.testing.assert_array_equal(plain, member)


def test_threads_that_read_one_archive_do_not_share_its_handle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(tmp_path / "z.zip", **{"a.tif": tiff(tmp_path / "a.tif")})
    read, together, handles = zipfile.ZipFile.read, threading.Barrier(2), []

    def reading(self: zipfile.ZipFile, name: str) -> bytes:
        handles.append(self)
        together.wait(timeout=60)  # breaks unless two read at once
        return read(self, name)

    monkeypatch.setattr(zipfile.ZipFile, "read", reading)
    with ThreadPoolExecutor(2) as pool:
        fields = list(pool.map(lambda _: read_field(tmp_path, ["z.zip!a.tif"]), range(2)))
    np.testing.assert_array_equal(*fields)
    assert len({id(handle) for handle in handles}) == 2


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_member_that_is_damaged_is_named(tmp_path: Path, compression: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 9, (60, 60)).astype(np.uint16)
    with zipfile.ZipFile(tmp_path / "z.zip", "w", compression) as file:
        file.write(tiff(tmp_path / "a.tif", pixels), "a.tif")
    content = bytearray((tmp_path / "z.zip").read_bytes())
    content[500:900] = bytes(400)
    (tmp_path / "z.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"^z\.zip!a\.tif: "):
        read_field(tmp_path, ["z.zip!a.tif"])


def test_channels_of_different_shape_are_named(tmp_path: Path) -> None:
    tiff(tmp_path / "a.tif")
    tiff(tmp_path / "b.tif", np.zeros((2, 2), np.uint16))
    with pytest.raises(InputError, match=r"b\.tif: shape \(2, 2\)"):
        read_field(tmp_path, ["a.tif", "b.tif"])


def test_absolute_location_is_refused_even_inside_the_root(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif")
    with pytest.raises(InputError, match="leads out of"):
        open_image(tmp_path, str(path))


def test_link_that_stays_inside_the_root_is_read(tmp_path: Path) -> None:
    tiff(tmp_path / "a.tif")
    (tmp_path / "link.tif").symlink_to(tmp_path / "a.tif")
    assert check_files(tmp_path, ["link.tif"]) == []
    assert read_field(tmp_path, ["link.tif"])[0].shape == (3, 4)


def test_folder_that_links_to_its_own_parent_is_listed_once(tmp_path: Path) -> None:
    tiff(tmp_path / "p/a.tif")
    (tmp_path / "p/loop").symlink_to(tmp_path)
    assert listing(tmp_path) == ["p/a.tif"]


def test_file_in_a_bucket_is_fetched_in_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = tiff(tmp_path / "a.tif").read_bytes()
    reads: list[int] = []

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            reads.append(-1 if size is None else size)
            return super().read(size)

        def readinto(self, buffer: Any) -> int:
            pytest.fail("a part was read")

    monkeypatch.setattr(Store, "open", lambda self, name: Counted(content))
    root = place("s3://bucket/screen?endpoint_override=http://localhost:1")
    (plane,) = read_field(root, ["a.tif"])
    assert reads == [-1]
    np.testing.assert_array_equal(plane, np.arange(12).reshape(3, 4))
