"""BBBC021: the official tables give the published numbers, whatever their spelling and wherever the images lie."""

import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from moa_ray.screens import Screen, bbbc021, read_field
from moa_ray.tables import COMPOUND, CONCENTRATION, FIELD, LABEL, PLATE, REPLICATE, TREATMENT, WEEK, WELL, WELL_KEY

IMAGES, MOA = "BBBC021_v1_image.csv", "BBBC021_v1_moa.csv"


@pytest.fixture(scope="module")
def official(shared: Path) -> Screen:
    return bbbc021.open_screen(shared / "data" / "bbbc021_csv")


def rows(*wells: tuple[str, str, str, str]) -> pd.DataFrame:
    """An image table of one field a well, from plate, well, compound and concentration."""
    made = []
    for plate, well, compound, dose in wells:
        row = {"Image_Metadata_Plate_DAPI": plate, "Image_Metadata_Well_DAPI": well, "Replicate": "1"}
        row |= {"Image_Metadata_Compound": compound, "Image_Metadata_Concentration": dose}
        for wave, channel in enumerate(("DAPI", "Tubulin", "Actin"), 1):
            row[f"Image_FileName_{channel}"] = f"{well}_s1_w{wave}ABCD-{plate[-2:]}.tif"
            row[f"Image_PathName_{channel}"] = f"{plate.split('_')[0]}/{plate}"
        made.append(row)
    return pd.DataFrame(made)


WELLS = rows(
    ("Week1_10", "B2", "x", "3.0"), ("Week1_10", "B03", "y", "0.1"), ("Week1_11", "B04", "z", "1"),
    ("Week1_11", "B05", "w", "1"), ("Week1_10", "B11", "DMSO", "0"), ("Week1_11", "B11", "DMSO", "0"),
    ("Week1_11", "C05", "unknown", "1"),
)  # fmt: skip
LABELS = 'compound,concentration,moa\nx,3.000000,A\ny,0.1000,A\nz,1,B\nw,1,B\n"DMSO",0.000000,"DMSO"\n'


def tables(root: Path, table: pd.DataFrame = WELLS, labels: str = LABELS) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    table.to_csv(root / IMAGES, index=False)
    (root / MOA).write_text(labels)
    return root


def paint(root: Path, layout: str) -> None:
    """Every image of WELLS, in one of the layouts that people have."""
    for index, row in WELLS.iterrows():
        plate = row["Image_Metadata_Plate_DAPI"]
        folder = root / (f"Week1/{plate}" if layout == "weeks" else plate)
        folder.mkdir(parents=True, exist_ok=True)
        for channel in ("DAPI", "Tubulin", "Actin"):
            pixels = np.full((2, 3), 10 * int(str(index)) + len(channel), np.uint16)
            Image.fromarray(pixels).save(folder / row[f"Image_FileName_{channel}"])
    if layout != "zips":
        return
    for plate in WELLS["Image_Metadata_Plate_DAPI"].unique():
        with zipfile.ZipFile(root / f"BBBC021_v1_images_{plate}.zip", "w") as file:
            for path in (root / plate).iterdir():
                file.write(path, f"{plate}/{path.name}")
        shutil.rmtree(root / plate)


def test_official_tables_give_the_published_counts(official: Screen) -> None:
    treated, controls = official.labelled, official.controls
    assert (treated.groupby(WELL_KEY).ngroups, len(treated)) == (302, 1208)
    assert (controls.groupby(WELL_KEY).ngroups, len(controls)) == (330, 1320)
    assert (treated.groupby(TREATMENT).ngroups, treated[COMPOUND].nunique(), len(official.labels)) == (103, 38, 12)


def test_official_replicates_are_wells_and_the_column_is_kept_beside(official: Screen) -> None:
    wells = official.labelled.drop_duplicates(WELL_KEY).groupby(TREATMENT)
    assert Counter(wells.size()) == {3: 96, 2: 7}
    assert Counter(wells[REPLICATE].nunique()) == {3: 91, 2: 12}


def test_official_taxol_counts_in_its_nine_wells_alone(official: Screen) -> None:
    taxol = official.labelled.query(f"{COMPOUND} == 'taxol'")
    plates = ("Week1_22123", "Week1_22141", "Week1_22161")
    assert set(zip(taxol[PLATE], taxol[WELL], strict=True)) == {(p, w) for p in plates for w in ("D03", "D04", "D05")}


def test_official_dmso_is_no_label(official: Screen) -> None:
    assert "DMSO" not in official.labels
    assert official.controls[LABEL].isna().all()


def test_absent_images_are_reported_once_with_a_count(official: Screen) -> None:
    (problem,) = official.problems
    assert problem.severity == "error"
    assert problem.message.startswith("7584 of 7584 image files are missing")


def test_real_cells_open_with_one_warning(shared: Path) -> None:
    screen = bbbc021.open_screen(shared / "data" / "bbbc021_cells")
    assert len(screen.fields) == 683
    (problem,) = screen.problems
    assert problem.severity == "warning"
    assert problem.message.startswith("10 plates have no control wells")
    assert screen.labelled[COMPOUND].nunique() == 38
    assert screen.fields[FIELD].str.fullmatch(r"\d+_\d+").all()
    planes = read_field(screen.root, screen.fields[screen.path_columns].iloc[0].tolist())
    assert [plane.shape for plane in planes] == [(68, 68)] * 3


@pytest.mark.parametrize("layout", ["weeks", "flat", "zips"])
def test_images_are_found_in_each_layout(tmp_path: Path, layout: str) -> None:
    paint(tables(tmp_path), layout)
    screen = bbbc021.open_screen(tmp_path)
    assert screen.problems == ()
    first = screen.fields.query(f"{COMPOUND} == 'x'").iloc[0]
    planes = read_field(tmp_path, first[screen.path_columns].tolist())
    assert [int(plane[0, 0]) for plane in planes] == [5, 7, 4]  # Actin, Tubulin, DAPI
    assert (first[WEEK], first[FIELD], first[WELL]) == ("Week1", "1", "B02")
    assert ("!" in first["Path_DAPI"]) == (layout == "zips")


def test_reading_zips_unpacks_nothing(tmp_path: Path) -> None:
    paint(tables(tmp_path), "zips")
    before = sorted(tmp_path.rglob("*"))
    bbbc021.open_screen(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_spelling_of_the_tables_does_not_matter(tmp_path: Path, end: str, quoted: bool, mark: bytes) -> None:
    plain = bbbc021.open_screen(tables(tmp_path / "plain"))
    other = tables(tmp_path / "other")
    for name in (IMAGES, MOA):
        text = pd.read_csv(other / name, dtype=str).to_csv(index=False, quoting=1 if quoted else 0, lineterminator=end)
        (other / name).write_bytes(mark + text.encode())
    pd.testing.assert_frame_equal(bbbc021.open_screen(other).fields, plain.fields)


@pytest.mark.parametrize("dose", ["3", "3.0", "3.000000", "3e0", " 3"])
def test_concentration_joins_by_value(tmp_path: Path, dose: str) -> None:
    root = tables(tmp_path, labels=LABELS.replace("3.000000", dose))
    assert 3.0 in bbbc021.open_screen(root).labelled[CONCENTRATION].tolist()


def test_unannotated_treatment_is_left_out(tmp_path: Path) -> None:
    assert "unknown" not in set(bbbc021.open_screen(tables(tmp_path)).fields[COMPOUND])


def test_taxol_rule_spares_compounds_of_like_names(tmp_path: Path) -> None:
    table = pd.concat([WELLS, rows(("Week1_10", "E02", "taxol", "1"), ("Week1_10", "E03", "taxol-like", "1"))])
    root = tables(tmp_path, table, LABELS + "taxol,1,A\ntaxol-like,1,A\n")
    assert set(bbbc021.open_screen(root).labelled[COMPOUND]) == {"x", "y", "z", "w", "taxol-like"}


@pytest.mark.parametrize("name", [IMAGES, MOA])
def test_missing_table_is_named_with_where_to_get_it(tmp_path: Path, name: str) -> None:
    (tables(tmp_path) / name).unlink()
    with pytest.raises(ValueError, match=rf"{name}: missing; .*Broad Bioimage Benchmark"):
        bbbc021.open_screen(tmp_path)


def test_missing_column_is_named(tmp_path: Path) -> None:
    tables(tmp_path, WELLS.drop(columns="Replicate"))
    with pytest.raises(ValueError, match="column Replicate is missing"):
        bbbc021.open_screen(tmp_path)


@pytest.mark.parametrize("name", [IMAGES, MOA])
def test_unparsable_concentration_is_named_by_file_row_and_value(tmp_path: Path, name: str) -> None:
    table = pd.read_csv(tables(tmp_path) / name, dtype=str)
    column = "concentration" if name == MOA else "Image_Metadata_Concentration"
    table.loc[1, column] = "3 uM"
    table.to_csv(tmp_path / name, index=False)
    with pytest.raises(ValueError, match=rf"{name}: row 3: {column} must be a number .*'3 uM'"):
        bbbc021.open_screen(tmp_path)


def test_two_labels_for_a_treatment_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x at 3 carries two labels"):
        bbbc021.open_screen(tables(tmp_path, labels=LABELS + "x,3,B\n"))


def test_fewer_channels_are_padded_with_none(tmp_path: Path) -> None:
    assert bbbc021.open_screen(tables(tmp_path), ["DAPI"]).channels == ("DAPI", None, None)
