"""The table screen: one CSV or parquet of fields, any number of channels."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from screen_files import table_sweep, tiff

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


# Cells, names, controls, rows ----------------------------------------------------------------------------------------


def messages(screen: Screen, severity: str = "error") -> list[str]:
    return [problem.message for problem in screen.problems if problem.severity == severity]


def test_blanks_and_accents_make_no_other_compound_label_plate_or_control(tmp_path: Path) -> None:
    content = fields()
    content.loc[[0, 4], "plate"] = ["001\u00a0", "\u200b001"]
    content["drug"] = ["a", "NA ", "Lo\u0308sung", "d\t", "DMSO ", "DMSO"]
    content["class"] = ["A", "A ", "B\u00a0", "B", "", " "]
    screen = opened(tmp_path, content.rename(columns={"drug": " drug\u00a0"}))
    assert screen.problems == ()
    assert screen.labels == ("A", "B")
    assert set(screen.labelled[COMPOUND]) == {"a", "NA", "Lösung", "d"}
    assert (len(screen.controls), set(screen.fields[PLATE])) == (2, {"001", "002"})


def test_spellings_of_compounds_and_of_labels_are_errors_until_they_are_settled(tmp_path: Path) -> None:
    content = fields().assign(drug=["c1", "C-1", "c", "d", "DMSO", "Dmso"])
    content.loc[2, "class"] = "b"
    screen = opened(tmp_path, content)
    compounds, labels = messages(screen)
    assert compounds.startswith("2 compounds are spelled in several ways")
    assert compounds.endswith('"C-1" (1 row) and "c1" (1 row), "DMSO" (1 row) and "Dmso" (1 row)')
    assert labels.endswith('"B" (1 row) and "b" (1 row)')
    merged = opened(tmp_path, content, aliases={"C1": ["c1", "C-1"], "DMSO": ["Dmso"], "B": ["b"]})
    assert merged.problems == ()
    assert set(merged.labelled[COMPOUND]) == {"C1", "c", "d"}
    assert len(merged.controls) == 2
    assert messages(opened(tmp_path, content, aliases="distinct")) == []


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_words_for_missing_and_empty_text_are_no_label(tmp_path: Path, form: str) -> None:
    words = ["NA", "n/a", "NaN", "null", "None", "UNKNOWN", "-", "", " ", "#N/A"]
    rows = pd.concat([fields(), fields().iloc[[0] * len(words)].assign(**{"class": words, "drug": "x"})])
    rows = rows.assign(well=[f"A{number:02}" for number in range(len(rows))])
    screen = opened(tmp_path, rows, form)
    assert screen.labels == ("A", "B")
    assert screen.left_out["rows"].sum() == len(words)
    reasons = set(screen.left_out["reason"])
    assert {"no label", "label 'UNKNOWN' is a word for none (screen.missing)"} <= reasons
    assert len(reasons) == len(words) - 1  # both empty cells have one
    assert "NA" in opened(tmp_path, rows, form, missing=[]).labels


def test_controls_by_a_column_need_no_compound_no_label_and_no_dose(tmp_path: Path) -> None:
    """A plate map as those of LINCS and JUMP-Target-2: tabs, DMSO without a name, doses where there are compounds."""
    header = "plate_map_name\twell_position\tbroad_sample\tmmoles_per_liter\tpert_type\tcontrol_type\tmoa\tpath"
    rows = [
        ("P1", "A01", "BRD-K1", "10", "trt", "", "A"),
        ("P1", "A02", "BRD-K2", "3.33333333333", "trt", "", "A"),
        ("P1", "A03", "BRD-K3", "10", "trt", "", "B"),
        ("P1", "A04", "BRD-K4", "10", "control", "poscon_cp", "B"),
        ("P1", "A05", "BRD-K5", "", "control", "poscon_diverse", ""),
        ("P1", "A06", "", "", "control", "negcon", ""),
        ("P1", "A07", "", "", "control", "negcon", ""),
        ("P1", "A08", "", "", "", "", ""),
    ]
    lines = ["\t".join([*row, f"{row[1]}.tif"]) for row in rows]
    (tmp_path / "map.txt").write_text("\r\n".join([header, *lines, ""]))
    for number, row in enumerate(rows):
        tiff(tmp_path / f"{row[1]}.tif", np.random.default_rng(number).integers(99, size=(4, 4), dtype=np.uint16))
    columns = {PLATE: "plate_map_name", WELL: "well_position", COMPOUND: "broad_sample", LABEL: "moa"}
    columns |= {CONCENTRATION: "mmoles_per_liter"}
    settings = {"columns": columns, "images": {"DNA": "path"}, "control": {"control_type": ["negcon"]}}
    settings |= {"where": {"pert_type": ["trt", "control"]}}
    screen = table.open_screen(tmp_path, TableSettings(name="table", root=tmp_path, fields="map.txt", **settings))
    assert screen.problems == ()
    assert screen.controls[[WELL, COMPOUND, CONCENTRATION]].to_numpy().tolist() == [
        ["A06", "control", 0.0],
        ["A07", "control", 0.0],
    ]
    assert screen.labelled[CONCENTRATION].tolist() == [10.0, 3.333333333, 10.0, 10.0]
    assert dict(zip(screen.left_out[COMPOUND], screen.left_out["reason"], strict=True)) == {
        "BRD-K5": "no label",
        "": "screen.where: pert_type: [trt, control]",
    }


def test_dose_is_needed_by_rows_with_a_label_alone(tmp_path: Path) -> None:
    content = fields().assign(dose=["0,5", "1", "high", "1", "", "NA"])
    content.loc[2, "class"] = None
    screen = opened(tmp_path, content, columns=COLUMNS | {CONCENTRATION: "dose"})
    assert dict(zip(screen.fields[COMPOUND], screen.fields[CONCENTRATION], strict=True)) == {
        **{"a": 0.5, "NA": 1.0, "d": 1.0, "DMSO": 0.0}
    }


def test_control_that_names_no_row_is_a_problem_with_the_nearest(tmp_path: Path) -> None:
    assert messages(opened(tmp_path, control="dsmo")) == ["screen.control: no row has 'dsmo'; did you mean 'DMSO'?"]


def test_control_is_a_class_where_the_sweep_file_says_so(tmp_path: Path) -> None:
    content = fields().assign(**{"class": ["A", "A", "B", "B", "negative", "none"]})
    assert opened(tmp_path, content).labels == ("A", "B")
    screen = opened(tmp_path, content, control_is_class=True)
    assert screen.labels == ("A", "B", "negative")
    assert screen.fields[screen.fields[CONTROL]][LABEL].fillna("").tolist() == ["negative", ""]
    (warning,) = messages(screen, "warning")
    assert warning.startswith("1 control fields carry a label too (negative) and are learnt and scored")
    assert messages(screen) == []


def test_where_keeps_rows_and_counts_those_left_out(tmp_path: Path) -> None:
    content = fields().assign(site=["1", "02", "1", "1", "1", "2"])
    where = {FIELD: [1], "class": {"not": ["A"]}}
    screen = opened(tmp_path, content, columns=COLUMNS | {FIELD: "site"}, where=where)
    assert screen.fields[COMPOUND].tolist() == ["c", "d", "DMSO"]
    assert dict(zip(screen.left_out[COMPOUND], screen.left_out["reason"], strict=True)) == {
        "a": "screen.where: class: {not: [A]}",
        "NA": "screen.where: Metadata_Field: [1]",
        "DMSO": "screen.where: Metadata_Field: [1]",
    }


def test_rows_of_messages_are_those_of_the_file(tmp_path: Path) -> None:
    content = pd.concat([fields(), fields().iloc[[1]]]).assign(note="of\ntwo lines")
    text = content.to_csv(index=False).replace("class", "class", 1)
    first, rest = text.split("\n", 1)
    opened(tmp_path)
    (tmp_path / "rows.csv").write_text(f"{first}\n\n{rest}")
    (message,) = [
        p.message
        for p in table.open_screen(tmp_path, settings_of(tmp_path, "rows.csv")).problems
        if p.severity == "error" and "word for word" in p.message
    ]
    assert message.endswith("rows 5 and 15")


def test_image_that_stands_twice_stops_a_sweep(tmp_path: Path) -> None:
    content = fields()
    content.loc[1, "DAPI"] = "./DAPI\\2.tif"
    content["Actin"] = content["DAPI"]
    rows, channels = messages(opened(tmp_path, content, images={"DAPI": "DAPI", "Actin": "Actin"}))
    assert rows == "1 image files stand in more than one row: DAPI/2.tif (rows 3 and 4: NA and c)"
    assert channels.startswith("6 rows name one image file for two channels in use: row 2 (DAPI and Actin: DAPI/0.tif)")


def test_column_that_stands_twice_is_named_where_it_is_used(tmp_path: Path) -> None:
    opened(tmp_path)
    text = (tmp_path / "fields.csv").read_text()
    (tmp_path / "twice.csv").write_text(text.replace("Tubulin", "drug", 1))
    with pytest.raises(InputError, match=r"twice\.csv: column drug stands there more than once"):
        table.open_screen(tmp_path, settings_of(tmp_path, "twice.csv"))
