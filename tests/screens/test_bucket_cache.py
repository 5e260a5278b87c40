"""A screen in a bucket: the copy that the driver keeps of it, and nodes that read it in place."""

import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
from buckets import Server
from pyarrow import fs
from zarr_plates import zarr_image

from moa_ray import prepare
from moa_ray.common.errors import InputError
from moa_ray.common.object_store import Store
from moa_ray.common.uri import Place, Uri, place
from moa_ray.config import sweep_file
from moa_ray.config.painting import Painting
from moa_ray.config.planes import Plane
from moa_ray.config.preparation import Preparation
from moa_ray.execution import preparers
from moa_ray.screens import bucket_cache
from moa_ray.screens.downloads import Progress
from moa_ray.screens.painted_bbbc021 import paint
from moa_ray.screens.reading import read_field
from moa_ray.screens.screen import Screen
from moa_ray.study import Study
from moa_ray.tiles import build, fingerprint, workers
from moa_ray.tiles.store import TileStore
from moa_ray.tiles.workers import ThreadExecutor

PAINTING = Painting(labels=2, compounds=1, concentrations=1, replicates=1, fields=1, height=64, width=64, cells=3)
PREPARATION = Preparation()


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("screen") / "painted"
    paint(root, PAINTING)
    return root


@pytest.fixture
def bucket(s3: Server, painted: Path) -> Uri:
    """The painted screen in a bucket."""
    fs.copy_files(str(painted), "ours/data/painted", destination_filesystem=s3.system)
    return uri(s3, "ours/data/painted")


def uri(s3: Server, path: str) -> Uri:
    parsed = place(s3.uri(path))
    assert isinstance(parsed, Uri)
    return parsed


def opened(root: Place, tmp_path: Path) -> Study:
    plain = {
        "study": "test",
        "out": str(tmp_path / "out"),
        "screen": {"name": "bbbc021", "root": str(root)},
        "recipe": {"backbone": "SmallCNN", "weights": "random"},
    }
    return Study.open(sweep_file.check(plain, "test.yaml"))


def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that are fetched from now on."""
    names: list[str] = []
    fetch = Store.fetch
    monkeypatch.setattr(Store, "fetch", lambda store, name, *more: (names.append(name), fetch(store, name, *more))[1])
    return names


def test_screen_in_a_bucket_is_the_one_that_was_put_there(bucket: Uri, painted: Path, tmp_path: Path) -> None:
    in_bucket, in_folder = opened(bucket, tmp_path), opened(painted, tmp_path)
    pd.testing.assert_frame_equal(in_bucket.screen.fields, in_folder.screen.fields)
    assert in_bucket.problems == in_folder.problems
    assert in_bucket.screen.origin == bucket
    paths = in_folder.screen.fields[in_folder.screen.path_columns].iloc[0].tolist()
    for plane, painted_plane in zip(read_field(in_bucket.screen.root, paths), read_field(painted, paths), strict=True):
        np.testing.assert_array_equal(plane, painted_plane)


def test_screen_is_known_again_on_another_machine(bucket: Uri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprints = []
    for machine in ("one", "another"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        fingerprints.append(fingerprint.fingerprint(opened(bucket, tmp_path).screen, PREPARATION, [16]))
    assert fingerprints[0] == fingerprints[1]


def test_only_what_has_changed_is_fetched_again(
    bucket: Uri, s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = sorted(name for name in s3.names("ours/data/painted") if name.endswith(".tif"))
    opened(bucket, tmp_path)
    names = fetched(monkeypatch)
    opened(bucket, tmp_path)
    assert names == []
    with s3.system.open_output_stream(f"ours/data/painted/{images[-1]}") as file:
        file.write(b"no image")
    s3.system.delete_file(f"ours/data/painted/{images[-2]}")
    errors = [problem.message for problem in opened(bucket, tmp_path).problems if problem.severity == "error"]
    assert names == [images[-1]]
    assert "missing" in errors[0]
    assert images[-2] in errors[0]
    assert images[-1] in errors[1]


def test_progress_ends_with_all_files_and_bytes(bucket: Uri, s3: Server) -> None:
    seen: list[Progress] = []
    bucket_cache.fetch(bucket, seen.append)
    files = Store(bucket).files()
    size = sum(version.size for version in files.values())
    assert [step.files for step in seen] == list(range(1, len(files) + 1))
    assert seen[-1] == Progress(len(files), len(files), size, size)


def test_half_a_file_of_a_killed_fetch_is_cleared_away(bucket: Uri) -> None:
    bucket.copy.mkdir(parents=True)
    (bucket.copy / ".0123.part").write_text("half")
    bucket_cache.fetch(bucket, lambda progress: None)
    assert not (bucket.copy / ".0123.part").exists()


def test_bucket_with_nothing_at_the_root_is_one_sentence(s3: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^screen.root: s3://ours/none\?.*: nothing is there"):
        opened(uri(s3, "ours/none"), tmp_path)


def test_screen_that_is_too_large_for_the_disk_is_not_begun(bucket: Uri, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InputError, match=r"are to be fetched, but the disk of .* set XDG_CACHE_HOME"):
        bucket_cache.fetch(bucket, lambda progress: pytest.fail("begun"))


def test_nothing_is_downloaded_into_a_bucket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("study: x\nout: out\nscreen: {name: bbbc021, root: s3://bucket/x}\n")
    assert prepare.main([str(sweep), "--download"]) == 2
    assert "screen.root: files are downloaded to a folder, but got s3://bucket/x" in capsys.readouterr().err


# Nodes ----------------------------------------------------------------------------------------------------------------


class Elsewhere(ThreadExecutor):
    """Workers as on nodes that have no copy."""

    def root(self, screen: Screen) -> Place:
        return screen.origin


def packed(painted: Path, folder: Path) -> Path:
    """The same screen with its plates as zip files."""
    folder.mkdir()
    for table in painted.glob("*.csv"):
        shutil.copy(table, folder)
    for plate in painted.glob("Week*/*"):
        with ZipFile(folder / f"{plate.name}.zip", "w") as archive:
            for image in plate.iterdir():
                archive.write(image, f"{plate.name}/{image.name}")
    return folder


def prepared(screen: Screen, executor: workers.FieldExecutor, folder: Path) -> TileStore:
    return build.prepare(screen, PREPARATION, [16], folder, executor, lambda done, total: None)


@pytest.mark.parametrize("zipped", [False, True])
def test_tiles_read_in_the_bucket_are_those_of_the_files(
    s3: Server, painted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    root = packed(painted, tmp_path / "packed") if zipped else painted
    fs.copy_files(str(root), "ours/data/screen", destination_filesystem=s3.system)
    in_bucket = opened(uri(s3, "ours/data/screen"), tmp_path).screen
    of_files = prepared(opened(root, tmp_path).screen, ThreadExecutor(1), tmp_path / "one")
    monkeypatch.setattr("moa_ray.screens.reading._place", lambda *given: pytest.fail(f"read {given}"))
    of_bucket = prepared(in_bucket, Elsewhere(1), tmp_path / "other")
    pd.testing.assert_frame_equal(of_files.table, of_bucket.table)
    np.testing.assert_array_equal(of_files.array(16), of_bucket.array(16))


@pytest.mark.parametrize("location", ["../secret.tif", "/etc/passwd", "a.zip!../x"])
def test_no_path_of_a_table_leaves_the_root_in_a_bucket(s3: Server, location: str) -> None:
    with s3.system.open_output_stream("ours/data/secret.tif") as file:
        file.write(b"secret")
    with pytest.raises(InputError, match="leads out of the screen's root"):
        read_field(uri(s3, "ours/data/painted"), [location])


def test_file_that_is_not_in_the_bucket_is_called_missing(bucket: Uri) -> None:
    with pytest.raises(InputError, match=r"none\.tif: missing"):
        read_field(bucket, ["none.tif"])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_node_reads_a_plane_of_a_zarr_store_in_place(s3: Server, tmp_path: Path, version: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 250, (3, 40, 40)).astype(np.uint16)
    zarr_image(tmp_path / "p.zarr" / "A" / "1" / "0", pixels, version, axes="cyx")
    fs.copy_files(str(tmp_path), "ours/data/zarr", destination_filesystem=s3.system)
    for root, location in (("ours/data/zarr", "p.zarr/A/1/0"), ("ours/data/zarr/p.zarr", "A/1/0")):
        (plane,) = read_field(uri(s3, root), [location], [Plane("ER")])
        np.testing.assert_array_equal(plane, pixels[1])
    with pytest.raises(InputError, match="missing, or no group"):
        read_field(uri(s3, "ours/data/zarr"), ["p.zarr/A/1/7"])
    with pytest.raises(InputError, match="leads out of"):
        read_field(uri(s3, "ours/data/zarr/p.zarr"), ["../p.zarr"])


def test_node_without_credentials_sees_nothing(bucket: Uri, s3: Server) -> None:
    (name, version), *_ = Store(bucket).files().items()
    assert preparers._sees(bucket / name, version.size)
    assert not preparers._sees(bucket / name, version.size + 1)
    assert not preparers._sees(bucket / "none", version.size)
    s3.deny(True)
    try:
        assert not preparers._sees(bucket / name, version.size)
    finally:
        s3.deny(False)
