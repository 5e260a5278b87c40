"""A screen in a bucket: the copy that the driver keeps of it, and nodes that read it in place."""

import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
from buckets import Server
from pyarrow import fs

from moa_ray import cluster, copies, prepare, screens, spec, tiles
from moa_ray.downloads import Progress
from moa_ray.images import Preparation
from moa_ray.screens import Screen, read_field
from moa_ray.screens.synthetic import Painting, paint
from moa_ray.stores import Place, Store, Uri, place
from moa_ray.study import Study
from moa_ray.tiles import Threads, TileStore

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
    found = place(s3.uri(path))
    assert isinstance(found, Uri)
    return found


def opened(root: Place, tmp_path: Path) -> Study:
    plain = {
        "study": "test",
        "out": str(tmp_path / "out"),
        "screen": {"name": "bbbc021", "root": str(root)},
        "recipe": {"backbone": "SmallCNN", "weights": "random"},
    }
    return Study.open(spec.check(plain, "test.yaml"))


def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that are fetched from now on."""
    names: list[str] = []
    fetch = Store.fetch
    monkeypatch.setattr(Store, "fetch", lambda store, name, *more: (names.append(name), fetch(store, name, *more))[1])
    return names


def test_screen_in_a_bucket_is_the_one_that_was_put_there(bucket: Uri, painted: Path, tmp_path: Path) -> None:
    there, here = opened(bucket, tmp_path), opened(painted, tmp_path)
    pd.testing.assert_frame_equal(there.screen.fields, here.screen.fields)
    assert there.problems == here.problems
    assert there.screen.origin == bucket
    paths = here.screen.fields[here.screen.path_columns].iloc[0].tolist()
    for one, other in zip(read_field(there.screen.root, paths), read_field(painted, paths), strict=True):
        np.testing.assert_array_equal(one, other)


def test_screen_is_known_again_on_another_machine(bucket: Uri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = []
    for machine in ("one", "another"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        marks.append(tiles.fingerprint(opened(bucket, tmp_path).screen, PREPARATION, [16]))
    assert marks[0] == marks[1]


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
    copies.fetch(bucket, seen.append)
    files = Store(bucket).files()
    size = sum(mark.size for mark in files.values())
    assert [one.files for one in seen] == list(range(1, len(files) + 1))
    assert seen[-1] == Progress(len(files), len(files), size, size)


def test_half_a_file_of_a_killed_fetch_is_cleared_away(bucket: Uri) -> None:
    bucket.copy.mkdir(parents=True)
    (bucket.copy / ".0123.part").write_text("half")
    copies.fetch(bucket, lambda progress: None)
    assert not (bucket.copy / ".0123.part").exists()


def test_bucket_with_nothing_at_the_root_is_one_sentence(s3: Server, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^screen.root: s3://ours/none\?.*: nothing is there"):
        opened(uri(s3, "ours/none"), tmp_path)


def test_screen_that_is_too_large_for_the_disk_is_not_begun(bucket: Uri, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ValueError, match=r"are to be fetched, but the disk of .* set XDG_CACHE_HOME"):
        copies.fetch(bucket, lambda progress: pytest.fail("begun"))


def test_nothing_is_downloaded_into_a_bucket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("study: x\nout: out\nscreen: {name: bbbc021, root: s3://bucket/x}\n")
    assert prepare.main([str(sweep), "--download"]) == 2
    assert "screen.root: files are downloaded to a folder, but got s3://bucket/x" in capsys.readouterr().err


# Nodes ----------------------------------------------------------------------------------------------------------------


class Elsewhere(Threads):
    """A crew as on nodes that have no copy."""

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


def prepared(screen: Screen, crew: tiles.Crew, folder: Path) -> TileStore:
    return tiles.prepare(screen, PREPARATION, [16], folder, crew, lambda done, total: None)


@pytest.mark.parametrize("zipped", [False, True])
def test_tiles_read_in_the_bucket_are_those_of_the_files(
    s3: Server, painted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    root = packed(painted, tmp_path / "packed") if zipped else painted
    fs.copy_files(str(root), "ours/data/screen", destination_filesystem=s3.system)
    there = opened(uri(s3, "ours/data/screen"), tmp_path).screen
    one = prepared(opened(root, tmp_path).screen, Threads(1), tmp_path / "one")
    monkeypatch.setattr(screens, "_place", lambda *given: pytest.fail(f"read {given}"))
    other = prepared(there, Elsewhere(1), tmp_path / "other")
    pd.testing.assert_frame_equal(one.table, other.table)
    np.testing.assert_array_equal(one.array(16), other.array(16))


@pytest.mark.parametrize("location", ["../secret.tif", "/etc/passwd", "a.zip!../x"])
def test_no_path_of_a_table_leaves_the_root_in_a_bucket(s3: Server, location: str) -> None:
    with s3.system.open_output_stream("ours/data/secret.tif") as file:
        file.write(b"secret")
    with pytest.raises(ValueError, match="leads out of the screen's root"):
        read_field(uri(s3, "ours/data/painted"), [location])


def test_file_that_is_not_in_the_bucket_is_called_missing(bucket: Uri) -> None:
    with pytest.raises(ValueError, match=r"none\.tif: missing"):
        read_field(bucket, ["none.tif"])


def test_node_without_credentials_sees_nothing(bucket: Uri, s3: Server) -> None:
    (name, mark), *_ = Store(bucket).files().items()
    assert cluster._sees(bucket / name, mark.size)
    assert not cluster._sees(bucket / name, mark.size + 1)
    assert not cluster._sees(bucket / "none", mark.size)
    s3.deny(True)
    try:
        assert not cluster._sees(bucket / name, mark.size)
    finally:
        s3.deny(False)
