"""Joined tables: by key, never by position; what does not join is counted and named on either side."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from screen_files import table_rows, table_sweep

from moa_ray.common.errors import InputError
from moa_ray.common.schema import COMPOUND, CONCENTRATION, FIELD, LABEL, PLATE, WELL
from moa_ray.config import sweep_file
from moa_ray.config.joined_tables import JoinSettings, joins_of
from moa_ray.screens.opening import open_screen
from moa_ray.screens.screen import Screen

ON_WELL = {WELL: "well_position"}
MAP = {"file": "map.csv", "on": ON_WELL}
COLUMNS = {PLATE: "plate", WELL: "well", FIELD: "site", COMPOUND: "drug", LABEL: "moa"}
FIELDS = ["plate", "well", "site", "path"]


def plate_map() -> pd.DataFrame:
    """The plate map of `table_rows`, in another order and with other names of wells."""
    rows = table_rows()
    wells = rows["well"].str.replace(r"^([A-H])0", r"\1", regex=True).str.lower()
    return pd.DataFrame({"well_position": wells, "drug": rows["compound"], "moa": rows["moa"]}).iloc[::-1]


def opened(
    folder: Path, tables: dict[str, pd.DataFrame] | None = None, rows: pd.DataFrame | None = None, **screen: Any
) -> Screen:
    """A table screen that knows its wells alone, with what `tables` say of them."""
    rows = table_rows() if rows is None else rows
    plain = table_sweep(folder, rows, screen={"columns": COLUMNS, "platemap": MAP, **screen})
    root = folder / "screen"
    rows[[column for column in rows if column not in ("compound", "moa", "dose")]].to_csv(
        root / "fields.csv", index=False
    )
    for name, table in (tables or {"map.csv": plate_map()}).items():
        (root / name).parent.mkdir(exist_ok=True)
        table.to_csv(root / name, index=False)
    return open_screen(sweep_file.check(plain, "sweep.yaml"), root)


def messages(screen: Screen, severity: str = "error") -> list[str]:
    return [problem.message for problem in screen.problems if problem.severity == severity]


def test_plate_map_is_joined_by_well_whatever_its_order_and_spelling(tmp_path: Path) -> None:
    screen = opened(tmp_path)
    assert screen.problems == ()
    expected = table_rows().set_index("well")
    assert screen.fields[COMPOUND].tolist() == expected.loc[screen.fields[WELL], "compound"].tolist()
    assert len(screen.controls) == 4


def test_row_and_column_of_a_plate_map_are_a_well(tmp_path: Path) -> None:
    table = plate_map()
    table["row"] = [ord(well[0]) - 96 for well in table["well_position"]]
    table["col"] = table["well_position"].str[1:].astype(float)
    by_numbers = {"file": "map.csv", "on": {WELL: ["row", "col"]}}
    screen = opened(tmp_path, {"map.csv": table.drop(columns="well_position")}, platemap=by_numbers)
    assert screen.problems == ()
    assert screen.fields.set_index(WELL).loc["A03", COMPOUND] == "b"


def test_each_plate_has_its_own_map(tmp_path: Path) -> None:
    rows = pd.concat([table_rows().assign(plate=plate) for plate in ("P1", "P2")], ignore_index=True)
    rows["path"] = rows["plate"] + rows["path"]
    other = plate_map().replace({"drug": {"a": "e"}})
    of_plates = {"file": "maps/{plate}.csv", "on": ON_WELL}
    screen = opened(tmp_path, {"maps/P1.csv": plate_map(), "maps/P2.csv": other}, rows, platemap=of_plates)
    assert screen.problems == ()
    assert set(screen.fields.loc[screen.fields[PLATE] == "P1", COMPOUND]) == {"a", "b", "c", "d", "DMSO"}
    assert set(screen.fields.loc[screen.fields[PLATE] == "P2", COMPOUND]) == {"e", "b", "c", "d", "DMSO"}
    (tmp_path / "screen/maps/P2.csv").unlink()
    with pytest.raises(InputError, match=r"maps/P2\.csv: missing; screen\.platemap\.file is relative to screen\.root"):
        opened(tmp_path, {"maps/P1.csv": plate_map()}, rows, platemap=of_plates)


def test_barcodes_lead_to_maps_and_compounds_to_what_they_do(tmp_path: Path) -> None:
    """Three tables as those of JUMP-Target-2 and LINCS: barcodes, plate maps, annotated compounds."""
    names = plate_map().replace({"drug": {"DMSO": None}}).drop(columns="moa").assign(solvent="DMSO")
    screen = opened(
        tmp_path,
        {
            "barcodes.csv": pd.DataFrame({"barcode": ["P1", "P9"], "plate_map_name": ["layout", "none"]}),
            "layout.csv": names,
            "moa.csv": table_rows()[["compound", "moa"]].drop_duplicates().query("moa != ''"),
        },
        platemap=[{"file": "barcodes.csv", "on": {PLATE: "barcode"}}, {"file": "{plate_map_name}.csv", "on": ON_WELL}],
        annotation={"file": "moa.csv", "on": {COMPOUND: "compound"}},
        control={"drug": [None]},
    )
    assert messages(screen) == []
    assert messages(screen, "warning") == ["1 rows of screen.platemap are of no field: P9 (barcodes.csv row 3)"]
    assert (len(screen.controls), screen.labels) == (4, ("A", "B"))


def test_what_does_not_join_is_counted_on_either_side(tmp_path: Path) -> None:
    table = plate_map().replace({"well_position": {"a1": "h12"}})
    screen = opened(tmp_path, {"map.csv": table})
    assert messages(screen) == []
    assert messages(screen, "warning") == [
        "1 wells have no row in screen.platemap and are left out: P1 A01",
        "1 rows of screen.platemap are of no field: H12 (map.csv row 13)",
    ]
    assert "A01" not in set(screen.fields[WELL])
    (row,) = screen.left_out.to_dict("records")
    assert (row["reason"], row["rows"]) == ("the plate map has no row of the well (screen.platemap)", 1)


def test_compounds_of_an_annotation_are_named_without_the_controls(tmp_path: Path) -> None:
    known = pd.DataFrame({"name": ["a", "b", "c", "x"], "moa": ["A", "A", "B", "B"]})
    annotation = {"file": "moa.csv", "on": {COMPOUND: "name"}}
    tables = {"map.csv": plate_map().drop(columns="moa"), "moa.csv": known}
    screen = opened(tmp_path, tables, annotation=annotation)
    assert messages(screen, "warning") == [
        "1 compounds have no row in screen.annotation and get no values: d",
        "1 rows of screen.annotation are of no field: x (moa.csv row 5)",
    ]
    assert screen.left_out[["reason", "rows"]].to_numpy().tolist() == [["no label", 2]]


def test_spelling_alone_keeps_no_compound_from_its_annotation_in_silence(tmp_path: Path) -> None:
    known = pd.DataFrame({"name": ["A", "b", "c", "d"], "moa": ["A", "A", "B", "B"]})
    more: dict[str, Any] = {"annotation": {"file": "moa.csv", "on": {COMPOUND: "name"}}}
    tables = {"map.csv": plate_map().drop(columns="moa"), "moa.csv": known}
    (error,) = messages(opened(tmp_path, tables, **more))
    assert error.startswith("1 compounds of two tables are spelled in several ways; screen.aliases: ")
    assert messages(opened(tmp_path, tables, **more, aliases={"a": ["A"]})) == []


def test_keys_in_two_rows_are_an_error_that_names_them(tmp_path: Path) -> None:
    table = pd.concat([plate_map(), plate_map().iloc[:1].assign(drug="other")])
    (error,) = messages(opened(tmp_path, {"map.csv": table}))
    assert error == "1 keys stand in more than one row of screen.platemap: map.csv: A12 (rows 2, 14)"


@pytest.mark.parametrize("kind", ["platemap", "annotation"])
def test_table_that_joins_nothing_is_an_error_that_shows_both_sides(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError) as error:
        opened(tmp_path, **{kind: {"file": "map.csv", "on": {PLATE: "well_position"}}})
    assert str(error.value) == (
        f"screen.{kind}: map.csv joins no field: Metadata_Plate is 'P1', well_position is 'a12', 'a11', 'a10', ...; "
        f"look at screen.{kind}.on"
    )


def test_column_of_two_tables_is_called_by_its_table_where_they_differ(tmp_path: Path) -> None:
    known = pd.DataFrame({"name": ["a", "b", "c", "d"], "moa": ["A2", "A2", "B2", "B2"], "drug": ["a", "b", "c", "d"]})
    annotation = {"file": "moa.csv", "on": {COMPOUND: "name"}}
    tables = {"map.csv": plate_map(), "moa.csv": known}
    with pytest.raises(InputError, match=r"a column 'moa', with other values; say platemap\.moa or annotation\.moa"):
        opened(tmp_path, tables, annotation=annotation)
    for name, labels in (("platemap", ("A", "B")), ("annotation", ("A2", "B2"))):
        screen = opened(tmp_path, tables, annotation=annotation, columns=COLUMNS | {LABEL: f"{name}.moa"})
        assert screen.labels == labels
        assert messages(screen) == []


def test_concentrations_join_by_their_value(tmp_path: Path) -> None:
    table = plate_map().drop(columns="moa").assign(dose="0.10")
    known = pd.DataFrame({"name": ["a", "b", "c", "d"], "um": ["0.1000"] * 4, "moa": ["A", "A", "B", "B"]})
    on = {COMPOUND: "name", CONCENTRATION: "um"}
    columns = COLUMNS | {CONCENTRATION: "dose"}
    tables = {"map.csv": table, "moa.csv": known}
    screen = opened(tmp_path, tables, columns=columns, annotation={"file": "moa.csv", "on": on})
    assert set(screen.labelled[COMPOUND]) == {"a", "b", "c", "d"}


@pytest.mark.parametrize(
    ("join", "message"),
    [
        ({"file": "map.csv"}, r"screen\.platemap\.on: this key is missing"),
        ({"fil": "map.csv", "on": ON_WELL}, "screen.platemap: unknown key 'fil'; did you mean 'file'"),
        (
            {"file": "map.csv", "on": {WELL: ["a", "b", "c"]}},
            r"on\.Metadata_Well: a column, or those of row and column",
        ),
        ({"file": "map.csv", "on": {WELL: "wel"}}, r"map\.csv: column wel is missing"),
        ({"file": "map.csv", "on": {"wel": "well_position"}}, "the fields have no column 'wel'; did you mean 'well'"),
        (
            {"file": "map_{plat}.csv", "on": ON_WELL},
            "platemap.file: the fields have no column 'plat'; did you mean 'plate'",
        ),
        ({"file": "../map.csv", "on": ON_WELL}, "leads out of the screen's root"),
        ({"file": "none.csv", "on": ON_WELL}, "none.csv: missing; screen.platemap.file is relative to screen.root"),
    ],
)
def test_wrong_join_is_named(tmp_path: Path, join: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(tmp_path, platemap=join)


def test_one_table_is_a_list_of_one() -> None:
    join = JoinSettings(file="map.csv", on=ON_WELL)
    assert (joins_of(None), joins_of(join), joins_of((join, join))) == ((), (join,), (join, join))
    assert join.model_dump()["on"] == ON_WELL
