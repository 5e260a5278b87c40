"""OME-Zarr plates of versions 0.4 and 0.5 as screens, and as paths in a table."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from screen_files import table_rows, table_sweep
from zarr_plates import zarr_plate

from moa_ray.common.errors import InputError
from moa_ray.common.schema import COMPOUND, FIELD, FIELD_KEY, LABEL, PLATE, WELL
from moa_ray.config import sweep_file
from moa_ray.config.planes import Plane
from moa_ray.config.screens import OmeZarrSettings
from moa_ray.screens import ome_zarr
from moa_ray.screens.opening import open_screen
from moa_ray.screens.reading import read_field
from moa_ray.screens.screen import Screen
from moa_ray.study import Study

WELLS = ("A/1", "A/2", "B/1", "B/2", "C/12")
COLUMNS = {COMPOUND: "drug", LABEL: "moa"}
PLATEMAP = {"file": "labels.csv", "on": {WELL: "well"}}


@pytest.fixture(scope="module", params=["0.4", "0.5"])
def plate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plate of five wells with two fields each, which no test may change."""
    path: Path = tmp_path_factory.mktemp("plate") / "data" / "p1.ome.zarr"
    zarr_plate(path, WELLS, 2, request.param)
    return path


def labels(**more: Any) -> pd.DataFrame:
    rows = [("A1", "a", "A"), ("a02", "b", "A"), ("B1", "c", "B"), ("B02", "d", "B"), ("C12", "DMSO", "")]
    return pd.DataFrame(rows, columns=["well", "drug", "moa"]).assign(**more)


def opened(plate: Path, table: pd.DataFrame, root: Path | None = None, **changes: Any) -> Screen:
    """Open a plate with a table that lies beside it."""
    table.to_csv(plate.parent / "labels.csv", index=False)
    settings = {"columns": COLUMNS, "control": "DMSO", "images": {"DNA": 0, "ER": "ER"}, "platemap": PLATEMAP} | changes
    root = root or plate
    return ome_zarr.open_screen(root, OmeZarrSettings(name="ome_zarr", root=root, **settings))


def test_wells_and_fields_come_from_the_plate_and_labels_from_the_table(plate: Path) -> None:
    screen = opened(plate, labels())
    assert screen.problems == ()
    assert screen.channels == ("DNA", "ER", None)
    assert screen.used_planes == (Plane(0), Plane("ER"))
    keys = [("P1", well, field) for well in ("A01", "A02", "B01", "B02", "C12") for field in ("0", "1")]
    assert list(screen.fields[FIELD_KEY].itertuples(index=False, name=None)) == keys
    assert screen.fields[COMPOUND].tolist() == [name for name in ("a", "b", "c", "d", "DMSO") for _ in range(2)]
    assert len(screen.controls) == 2
    row = screen.fields[screen.fields[WELL] == "B01"].iloc[1]
    stored = np.asarray(zarr.open_array(str(plate / "B/1/1/0"), mode="r")[:])
    dna, er = read_field(screen.root, row[screen.path_columns].tolist(), screen.used_planes)
    np.testing.assert_array_equal(dna, stored[0, 0, 0])
    np.testing.assert_array_equal(er, stored[0, 1, 0])


def test_folder_of_plates_is_a_screen(plate: Path, tmp_path: Path) -> None:
    for name in ("p1.zarr", "p2.zarr"):
        shutil.copytree(plate, tmp_path / name)
    group = zarr.open_group(str(tmp_path / "p2.zarr"), mode="a")
    attributes = dict(group.attrs)
    section = attributes.get("ome", attributes)["plate"]
    section.pop("name")
    group.attrs.put(attributes)
    table = pd.concat([labels(plate="P1"), labels(plate="p2")])
    table.to_csv(tmp_path / "labels.csv", index=False)
    by_plate = {"file": "labels.csv", "on": {PLATE: "plate", WELL: "well"}}
    settings: Any = {"columns": COLUMNS, "control": "DMSO", "images": {"DNA": 0}, "platemap": by_plate}
    screen = ome_zarr.open_screen(tmp_path, OmeZarrSettings(name="ome_zarr", root=tmp_path, **settings))
    assert screen.fields[PLATE].value_counts().to_dict() == {"P1": 10, "p2": 10}


def test_what_does_not_join_is_named_on_both_sides(plate: Path) -> None:
    table = labels()
    table.loc[0, "well"] = "H9"
    screen = opened(plate, table)
    messages = [problem.message for problem in screen.problems]
    assert "1 wells have no row in screen.platemap and are left out: P1 A01" in messages
    assert "1 rows of screen.platemap are of no field: H09 (labels.csv row 2)" in messages
    assert screen.left_out["rows"].sum() == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": {COMPOUND: "drug"}}, "Metadata_Label must be mapped"),
        ({"platemap": None}, "column drug, moa is missing"),
        ({"platemap": {"file": "none.csv", "on": {WELL: "well"}}}, "none.csv: missing"),
        ({"platemap": {"file": "labels.csv", "on": {FIELD: "well"}}}, "joins no field"),
    ],
)
def test_table_that_cannot_be_joined_is_refused(plate: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(plate, labels(), **changes)


def test_table_may_name_fields(plate: Path) -> None:
    table = labels().merge(pd.DataFrame({"site": [0, 1]}), how="cross").drop(index=1)
    screen = opened(plate, table, platemap={"file": "labels.csv", "on": {WELL: "well", FIELD: "site"}})
    assert len(screen.fields) == 9


def test_channel_that_the_images_lack_is_an_error(plate: Path) -> None:
    (problem,) = opened(plate, labels(), images={"DNA": "DMA"}).problems
    assert "(3 channels: DNA, ER, Actin); no channel is named 'DMA'; did you mean 'DNA'" in problem.message


def test_acquisitions_can_be_chosen(tmp_path: Path) -> None:
    zarr_plate(tmp_path / "p.zarr", WELLS, 2, acquisitions=[{"id": 0}, {"id": 1}])
    screen = opened(tmp_path / "p.zarr", labels(), where={"acquisition": [1]})
    assert set(screen.fields[FIELD]) == {"1"}


def test_plate_that_was_copied_in_part_and_folder_without_a_plate_are_named(plate: Path, tmp_path: Path) -> None:
    shutil.copytree(plate, tmp_path / "p.zarr")
    shutil.rmtree(tmp_path / "p.zarr" / "B" / "2")
    with pytest.raises(InputError, match=r"p\.zarr: well B/2 of the plate is missing; it may be copied in part"):
        opened(tmp_path / "p.zarr", labels())
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no OME-Zarr plate; screen"):
        opened(tmp_path / "p.zarr", labels(), root=tmp_path / "empty")


def test_field_without_its_chunks_is_an_error(plate: Path, tmp_path: Path) -> None:
    shutil.copytree(plate, tmp_path / "p.zarr")
    image = tmp_path / "p.zarr" / "B" / "2" / "0" / "0"
    for path in image.rglob("*"):
        if path.is_file() and path.name[0].isdigit():
            path.unlink()
    messages = [problem.message for problem in opened(tmp_path / "p.zarr", labels()).problems]
    assert messages == ["1 image files cannot be read: B/2/0: unreadable: none of the plane's chunks is there"]


def test_table_leads_into_plates(plate: Path, tmp_path: Path) -> None:
    """Paths into a plate beside the tiles of the same plate as a screen of its own."""
    rows = table_rows().iloc[:0]
    compounds: Sequence[tuple[str, str, str]] = list(labels().itertuples(index=False, name=None))
    for number, (_, drug, moa) in enumerate(compounds):
        for field in range(2):
            path = f"p1.ome.zarr/{WELLS[number]}/{field}"
            rows.loc[len(rows)] = {"compound": drug, "moa": moa, "plate": "P1", "well": WELLS[number].replace("/", ""),
                                   "site": str(field), "dose": 0, "path": path}  # fmt: skip
    shutil.copytree(plate, tmp_path / "screen" / "p1.ome.zarr")
    rows.to_csv(tmp_path / "screen" / "fields.csv", index=False)
    images = {"DNA": {"path": "path", "channel": 0}, "ER": {"path": "path", "channel": "ER"}}
    written = table_sweep(tmp_path / "other", screen={"root": str(tmp_path / "screen"), "images": images})
    study = Study.open(sweep_file.check(written, "sweep.yaml"))
    assert [problem.message for problem in study.problems if problem.severity == "error"] == []
    by_table = study.screen
    by_plate = opened(plate, labels())
    for (_, of_table), (_, of_plate) in zip(by_table.fields.iterrows(), by_plate.fields.iterrows(), strict=True):
        planes = read_field(by_table.root, of_table[by_table.path_columns].tolist(), by_table.used_planes)
        others = read_field(by_plate.root, of_plate[by_plate.path_columns].tolist(), by_plate.used_planes)
        np.testing.assert_array_equal(planes, others)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"DNA": -1}, "screen.images.DNA: must be greater than or equal to 0, but got -1"),
        ({"DNA": {"channel": 0, "path": "x"}}, "screen.images.DNA: unknown key 'path'"),
        ({"DNA": {"channel": 0, "projct": "max"}}, "unknown key 'projct'; did you mean 'project'"),
    ],
)
def test_wrong_choice_is_named_with_its_place(tmp_path: Path, images: dict[str, Any], message: str) -> None:
    plain = table_sweep(tmp_path)
    screen = {"name": "ome_zarr", "root": str(tmp_path), "columns": COLUMNS, "images": images}
    with pytest.raises(InputError, match=message):
        sweep_file.check({**plain, "screen": screen}, "sweep.yaml")


def test_sweep_file_opens_it(plate: Path, tmp_path: Path) -> None:
    labels().to_csv(plate.parent / "labels.csv", index=False)
    screen = {"name": "ome_zarr", "root": str(plate), "platemap": PLATEMAP, "columns": COLUMNS, "images": {"DNA": 0}}
    sweep = sweep_file.check({**table_sweep(tmp_path), "screen": {**screen, "control": "DMSO"}}, "sweep.yaml")
    assert len(open_screen(sweep, plate).fields) == 10
