"""The table screen: one CSV or parquet of fields, any number of channels."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from screen_files import table_sweep

from moa_ray.common.errors import InputError
from moa_ray.common.schema import CELL_LINE, COMPOUND, CONCENTRATION, CONTROL, FIELD, LABEL, PLATE, WELL
from moa_ray.config import sweep_file
from moa_ray.config.planes import Plane
from moa_ray.config.screens import TableSettings
from moa_ray.screens import table
from moa_ray.screens.reading import read_field
from moa_ray.screens.screen import Screen

COLUMNS = {PLATE: "plate", WELL: "well", COMPOUND: "drug", LABEL: "class"}
NAMES = ("DAPI", "Tubulin", "Actin", "ER")


def fields() -> pd.DataFrame:
    rows = [("001", "B2", "a", "A"), ("001", "B03", "NA", "A"), ("002", "B04", "c", "B"), ("002", "B5", "d", "B")]
    rows += [("001", "H12", "DMSO", "none"), ("002", "H12", "DMSO", "none")]
    frame = pd.DataFrame(rows, columns=["plate", "well", "drug", "class"])
    return frame.assign(**{name: [f"{name}/{i}.tif" for i in range(len(frame))] for name in NAMES})


def opened(root: Path, content: pd.DataFrame | None = None, form: str = "csv", **changes: Any) -> Screen:
    """A screen of `content`, with images of all the channels that are named."""
    content = fields() if content is None else content
    path = root / f"fields.{form}"
    content.to_csv(path, index=False) if form == "csv" else content.to_parquet(path, index=False)
    for channel, name in enumerate(NAMES):
        (root / name).mkdir(exist_ok=True)
        for index in range(len(content)):
            pixels = np.random.default_rng([channel, index]).integers(256, size=(2, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.tif")
    settings = {"columns": COLUMNS, "images": {"DAPI": "DAPI"}, "control": "DMSO", "channels": None} | changes
    return table.open_screen(root, TableSettings(name="table", root=root, fields=path.name, **settings))


def settings_of(root: Path, name: str) -> TableSettings:
    return TableSettings(name="table", root=root, fields=name, columns=COLUMNS, images={"DAPI": "DAPI"})


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_csv_and_parquet_give_the_same_sound_screen(tmp_path: Path, form: str) -> None:
    screen = opened(tmp_path, form=form)
    assert screen.problems == ()
    assert screen.labels == ("A", "B")
    assert screen.fields[PLATE].tolist() == ["001", "001", "001", "002", "002", "002"]
    assert set(screen.labelled[COMPOUND]) == {"a", "NA", "c", "d"}
    assert len(screen.controls) == 2


def test_wells_are_normalised_and_defaults_filled_in(tmp_path: Path) -> None:
    screen = opened(tmp_path)
    assert set(screen.labelled[WELL]) == {"B02", "B03", "B04", "B05"}
    assert set(screen.fields[FIELD]) == {"1"}
    assert set(screen.fields[CONCENTRATION]) == {0.0}


def test_field_numbers_do_not_depend_on_the_order_of_the_rows(tmp_path: Path) -> None:
    content = fields().assign(well="B2")
    (tmp_path / "other").mkdir()
    ordered, reversed_ = opened(tmp_path, content), opened(tmp_path / "other", content.iloc[::-1])
    key = ["Path_DAPI"]
    pd.testing.assert_frame_equal(
        ordered.fields.sort_values(key, ignore_index=True), reversed_.fields.sort_values(key, ignore_index=True)
    )


def test_further_columns_can_be_held_out(tmp_path: Path) -> None:
    screen = opened(tmp_path, fields().assign(line="MCF7"), columns=COLUMNS | {CELL_LINE: "line"})
    assert set(screen.fields[CELL_LINE]) == {"MCF7"}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_than_three_channels_are_padded(tmp_path: Path, count: int) -> None:
    screen = opened(tmp_path, images={name: name for name in NAMES[:count]})
    assert screen.channels == (*NAMES[:count], *[None] * (3 - count))


def test_more_than_three_channels_must_be_picked_from(tmp_path: Path) -> None:
    every = {name: name for name in NAMES}
    with pytest.raises(InputError, match=r"pick three with screen\.channels"):
        opened(tmp_path, images=every)
    assert opened(tmp_path, images=every, channels=["ER", None, "DAPI"]).channels == ("ER", None, "DAPI")


def test_unknown_channel_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown channel 'Tubuline'; did you mean 'Tubulin'"):
        opened(tmp_path, images={"Tubulin": "Tubulin"}, channels=["Tubuline"])


def test_only_the_channels_in_use_are_checked(tmp_path: Path) -> None:
    content = fields().assign(ER="nowhere.tif")
    assert opened(tmp_path, content, images={"DAPI": "DAPI", "ER": "ER"}, channels=["DAPI"]).problems == ()


def test_paths_of_other_spelling_are_found(tmp_path: Path) -> None:
    content = fields()
    content["DAPI"] = ["./DAPI\\" + path.removeprefix("DAPI/") for path in content["DAPI"]]
    assert opened(tmp_path, content).problems == ()


def test_all_problems_come_together(tmp_path: Path) -> None:
    content = fields().assign(site="1")
    content.loc[0, "DAPI"] = "../out.tif"
    content.loc[1, "DAPI"] = None
    content.loc[2, "DAPI"] = "gone.tif"
    content.loc[3, "plate"] = None
    problems = opened(tmp_path, content, columns=COLUMNS | {FIELD: "site"}).problems
    text = "\n".join(problem.message for problem in problems if problem.severity == "error")
    for part in ("no Metadata_Plate", "001 B02 1: ../out.tif", "paths are empty: 001 B03 1", "gone.tif"):
        assert part in text


def test_without_a_control_every_plate_lacks_one(tmp_path: Path) -> None:
    screen = opened(tmp_path, fields().query("drug != 'DMSO'"), control=None)
    assert not screen.fields[CONTROL].any()
    assert [problem.severity for problem in screen.problems] == ["warning"]


@pytest.mark.parametrize("value", ["high", "inf", "-1"])
def test_bad_concentration_is_named_by_row_and_value(tmp_path: Path, value: str) -> None:
    content = fields().assign(dose=["1", value, "1", "1", "0", "0"])
    with pytest.raises(InputError, match=rf"fields\.csv: row 3: dose .*'{value}'"):
        opened(tmp_path, content, columns=COLUMNS | {CONCENTRATION: "dose"})


def test_missing_table_and_missing_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: missing"):
        table.open_screen(tmp_path, settings_of(tmp_path, "none.csv"))
    with pytest.raises(InputError, match="column drug is missing"):
        opened(tmp_path, fields().drop(columns="drug"))
    with pytest.raises(InputError, match="Metadata_Label must be mapped"):
        opened(tmp_path, columns={key: value for key, value in COLUMNS.items() if key != LABEL})


def test_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(InputError, match=r"bad\.parquet: no table of fields"):
        table.open_screen(tmp_path, settings_of(tmp_path, "bad.parquet"))


def stacked(root: Path, **images: Any) -> Screen:
    """A screen whose one column of paths leads to stacks of three named channels, two deep."""
    content = fields().assign(stack=[f"stack/{i}.ome.tif" for i in range(len(fields()))])
    (root / "stack").mkdir(exist_ok=True)
    for index, path in enumerate(content["stack"]):
        planes = np.arange(6, dtype=np.uint16).reshape(3, 2, 1, 1) + np.full((3, 2, 4, 5), 100 * index, np.uint16)
        metadata = {"axes": "CZYX", "Channel": {"Name": ["DNA", "ER", "Actin"]}}
        tifffile.imwrite(root / path, planes, ome=True, metadata=metadata)
    return opened(root, content, images=images)


def test_stack_of_which_no_plane_is_chosen_is_an_error_with_count_and_axes(tmp_path: Path) -> None:
    screen = stacked(tmp_path, DNA="stack", ER={"path": "stack", "channel": "ER"})
    problem, of_er = screen.problems
    assert problem.severity == of_er.severity == "error"
    assert "as in {path: COLUMN, project: max}: stack/0.ome.tif holds 6 planes" in of_er.message
    assert problem.message.startswith(
        "6 image files hold more than one plane; say in screen.images which is meant, as in {path: COLUMN, "
        "channel: 0, project: max}: stack/0.ome.tif holds 6 planes (3 channels: DNA, ER, Actin x 2 planes in depth), "
    )


def test_planes_of_a_stack_are_channels_by_number_and_by_name(tmp_path: Path) -> None:
    screen = stacked(
        tmp_path,
        DNA={"path": "stack", "channel": 0, "project": "max"},
        ER={"path": "stack", "channel": "ER", "project": {"z": 0}},
        Actin={"path": "stack", "channel": "Actin", "project": "mean"},
    )
    assert screen.problems == ()
    assert screen.used_planes == (Plane(0, "max"), Plane("ER", 0), Plane("Actin", "mean"))
    row = screen.fields[screen.path_columns].iloc[0].tolist()
    assert [plane[0, 0] for plane in read_field(screen.root, row, screen.used_planes)] == [1, 2, 4]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"path": "stack", "chanel": 0}, "screen.images.DNA: unknown key 'chanel'; did you mean 'channel'"),
        ({"path": "stack", "z": 0}, r"screen.images.DNA.z: a plane of a stack is project: \{z: 3\}"),
        ({"path": "stack", "channel": -1}, "screen.images.DNA.channel: must be greater than or equal to 0, but got -1"),
        ({"path": "stack", "channel": True}, "screen.images.DNA.channel: must be a valid integer"),
        ({"path": "stack", "project": "sum"}, "screen.images.DNA.project: must be 'max' or 'mean', but got 'sum'"),
        ({"path": "stack", "project": {"y": 0}}, "screen.images.DNA.project: unknown key 'y'; known are z, time"),
        ({"path": "stack", "project": {"time": 0}, "time": 1}, "time and project.time say the same"),
        ({"channel": 1}, "screen.images.DNA.path: this key is missing"),
        (3, "screen.images.DNA: must be a valid string, but got 3"),
    ],
)
def test_wrong_choice_is_named_with_its_place(tmp_path: Path, source: Any, message: str) -> None:
    plain = table_sweep(tmp_path, screen={"images": {"DNA": source}})
    with pytest.raises(InputError, match=message):
        sweep_file.check(plain, "sweep.yaml")
