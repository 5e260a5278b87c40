"""A screen in a bucket: the copy that the driver keeps of it, and nodes that read it in place."""

import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
from buckets import Server
from pyarrow import fs
from screen_files import archive, table_sweep, tiff
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


# What is needed -------------------------------------------------------------------------------------------------------


def held(root: Uri) -> set[str]:
    """The files that this machine has of a screen in a bucket."""
    return {path.relative_to(root.copy).as_posix() for path in root.copy.rglob("*") if path.is_file()}


def put(s3: Server, folder: Path, path: str, *others: str) -> Uri:
    """Put a folder into a bucket, and further files that no table names."""
    for name in others:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"large")
    fs.copy_files(str(folder), path, destination_filesystem=s3.system)
    return uri(s3, path)


def test_only_the_files_that_a_table_names_are_fetched(s3: Server, tmp_path: Path) -> None:
    plain = table_sweep(tmp_path, screen={"where": {"Metadata_Well": {"not": ["A01"]}}})
    pd.DataFrame({"name": list("abcd")}).to_csv(tmp_path / "screen/known.csv", index=False)
    plain["screen"]["annotation"] = {"file": "known.csv", "on": {"Metadata_Compound": "name"}}
    root = put(s3, tmp_path / "screen", "ours/data/table", "A01.jpg", "raw/A02.tif", "z.zip")
    plain["screen"]["root"] = str(root)
    seen: list[Progress] = []
    study = Study.open(sweep_file.check(plain, "test.yaml"), seen.append)
    assert [problem.message for problem in study.problems if problem.severity == "error"] == []
    images = {f"A{number:02}.tif" for number in range(2, 13)}
    assert held(root) == images | {"fields.csv", "known.csv"}
    assert [(step.files, step.of_files) for step in seen] == [
        (1, 2),
        (2, 2),
        *[(number, 13) for number in range(3, 14)],
    ]


def test_only_the_channels_in_use_of_files_that_match_are_fetched(s3: Server, tmp_path: Path) -> None:
    folder = tmp_path / "screen"
    labels = {"A01": "a", "A02": "a", "B01": "b", "B02": "b"}
    for number, (well, label) in enumerate(labels.items()):
        for channel in (1, 2):
            pixels = np.full((3, 4), 10 * number + channel, np.uint16) + np.eye(3, 4, dtype=np.uint16)
            tiff(folder / f"{label}/{label}{number}/{well}_w{channel}.tif", pixels)
    archive(folder / "B.zip", **{"b/b9/B09_w1.tif": folder / "b/b3/B02_w1.tif"})
    for channel in (1, 2):  # all of its field: one that lacks a channel would be an error
        (folder / f"b/b3/B02_w{channel}.tif").unlink()
    root = put(s3, folder, "ours/data/files", "thumbs/A01.png", "Index.xml")
    screen = {
        "name": "files",
        "root": str(root),
        "pattern": "{Metadata_Label}/{Metadata_Compound}/{well}_w{channel}.tif",
    }
    plain = {"study": "x", "out": str(tmp_path / "out"), "recipe": {"backbone": "SmallCNN", "weights": "random"}}
    study = Study.open(sweep_file.check({**plain, "screen": {**screen, "images": {"DNA": 1}}}, "test.yaml"))
    assert held(root) == {"a/a0/A01_w1.tif", "a/a1/A02_w1.tif", "b/b2/B01_w1.tif", "B.zip"}
    (warning,) = [problem.message for problem in study.problems if "do not match" in problem.message]
    assert warning.endswith("left out: thumbs/A01.png, Index.xml")  # which are not fetched
    assert set(study.screen.fields["Path_DNA"]) == (held(root) - {"B.zip"}) | {"B.zip!b/b9/B09_w1.tif"}


def test_of_bbbc021_the_fields_of_its_tables_are_fetched(s3: Server, painted: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(painted, tmp_path / "painted")
    root = put(s3, folder, "ours/data/more", "Week9_1/a.tif", "readme.txt")
    screen = opened(root, tmp_path).screen
    images = set(screen.fields[screen.path_columns].to_numpy().ravel())
    assert held(root) == images | {"BBBC021_v1_image.csv", "BBBC021_v1_moa.csv"}


def test_of_bbbc014_the_labelled_wells_are_fetched(s3: Server, tmp_path: Path) -> None:
    plain = {
        **{"study": "x", "out": str(tmp_path / "out"), "folds": {"hold_out": "cell_line"}},
        "recipe": {"backbone": "SmallCNN", "weights": "random"},
    }
    wells = ["Channel 1-01-A-01-00.Bmp", "Channel 2-01-A-01-00.Bmp", "Channel 1-05-A-05-00.Bmp"]
    root = put(s3, tmp_path / "plate", "ours/data/bbbc014", *wells, "notes.txt")
    sweep = sweep_file.check({**plain, "screen": {"name": "bbbc014", "root": str(root)}}, "test.yaml")
    Study.open(sweep)
    assert held(root) == set(wells[:2])
