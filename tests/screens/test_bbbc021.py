"""BBBC021: the official tables give the published numbers, whatever their spelling and wherever the images lie."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from screen_files import (
    BBBC021_IMAGES,
    BBBC021_LABELS,
    BBBC021_MOA,
    BBBC021_WELLS,
    bbbc021_rows,
    bbbc021_tables,
    paint_bbbc021,
)

from moa_ray.common.errors import InputError
from moa_ray.common.schema import (
    COMPOUND,
    CONCENTRATION,
    FIELD,
    LABEL,
    PLATE,
    REPLICATE,
    TREATMENT,
    WEEK,
    WELL,
    WELL_KEY,
)
from moa_ray.screens import bbbc021
from moa_ray.screens.reading import read_field
from moa_ray.screens.screen import Screen


@pytest.fixture(scope="module")
def official(shared: Path) -> Screen:
    return bbbc021.open_screen(shared / "data" / "bbbc021_csv")


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
    paint_bbbc021(bbbc021_tables(tmp_path), layout)
    screen = bbbc021.open_screen(tmp_path)
    assert screen.problems == ()
    first = screen.fields.query(f"{COMPOUND} == 'x'").iloc[0]
    planes = read_field(tmp_path, first[screen.path_columns].tolist())
    assert [int(plane[0, 0]) for plane in planes] == [5, 7, 4]  # Actin, Tubulin, DAPI
    assert (first[WEEK], first[FIELD], first[WELL]) == ("Week1", "1", "B02")
    assert ("!" in first["Path_DAPI"]) == (layout == "zips")


def test_reading_zips_unpacks_nothing(tmp_path: Path) -> None:
    paint_bbbc021(bbbc021_tables(tmp_path), "zips")
    before = sorted(tmp_path.rglob("*"))
    bbbc021.open_screen(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_spelling_of_the_tables_does_not_matter(tmp_path: Path, end: str, quoted: bool, mark: bytes) -> None:
    plain = bbbc021.open_screen(bbbc021_tables(tmp_path / "plain"))
    other = bbbc021_tables(tmp_path / "other")
    for name in (BBBC021_IMAGES, BBBC021_MOA):
        text = pd.read_csv(other / name, dtype=str).to_csv(index=False, quoting=1 if quoted else 0, lineterminator=end)
        (other / name).write_bytes(mark + text.encode())
    pd.testing.assert_frame_equal(bbbc021.open_screen(other).fields, plain.fields)


@pytest.mark.parametrize("dose", ["3", "3.0", "3.000000", "3e0", " 3"])
def test_concentration_joins_by_value(tmp_path: Path, dose: str) -> None:
    root = bbbc021_tables(tmp_path, labels=BBBC021_LABELS.replace("3.000000", dose))
    assert 3.0 in bbbc021.open_screen(root).labelled[CONCENTRATION].tolist()


def test_unannotated_treatment_is_left_out(tmp_path: Path) -> None:
    assert "unknown" not in set(bbbc021.open_screen(bbbc021_tables(tmp_path)).fields[COMPOUND])


def test_taxol_rule_spares_compounds_of_like_names(tmp_path: Path) -> None:
    table = pd.concat(
        [BBBC021_WELLS, bbbc021_rows(("Week1_10", "E02", "taxol", "1"), ("Week1_10", "E03", "taxol-like", "1"))]
    )
    root = bbbc021_tables(tmp_path, table, BBBC021_LABELS + "taxol,1,A\ntaxol-like,1,A\n")
    assert set(bbbc021.open_screen(root).labelled[COMPOUND]) == {"x", "y", "z", "w", "taxol-like"}


@pytest.mark.parametrize("name", [BBBC021_IMAGES, BBBC021_MOA])
def test_missing_table_is_named_with_where_to_get_it(tmp_path: Path, name: str) -> None:
    (bbbc021_tables(tmp_path) / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: missing; .*Broad Bioimage Benchmark"):
        bbbc021.open_screen(tmp_path)


def test_missing_column_is_named(tmp_path: Path) -> None:
    bbbc021_tables(tmp_path, BBBC021_WELLS.drop(columns="Replicate"))
    with pytest.raises(InputError, match="column Replicate is missing"):
        bbbc021.open_screen(tmp_path)


@pytest.mark.parametrize("name", [BBBC021_IMAGES, BBBC021_MOA])
def test_unparsable_concentration_is_named_by_file_row_and_value(tmp_path: Path, name: str) -> None:
    table = pd.read_csv(bbbc021_tables(tmp_path) / name, dtype=str)
    column = "concentration" if name == BBBC021_MOA else "Image_Metadata_Concentration"
    table.loc[1, column] = "3 uM"
    table.to_csv(tmp_path / name, index=False)
    with pytest.raises(InputError, match=rf"{name}: row 3: {column} must be a number .*'3 uM'"):
        bbbc021.open_screen(tmp_path)


def test_two_labels_for_a_treatment_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="x at 3 carries two labels"):
        bbbc021.open_screen(bbbc021_tables(tmp_path, labels=BBBC021_LABELS + "x,3,B\n"))


def test_fewer_channels_are_padded_with_none(tmp_path: Path) -> None:
    assert bbbc021.open_screen(bbbc021_tables(tmp_path), ["DAPI"]).channels == ("DAPI", None, None)


def test_compound_that_is_spelled_otherwise_in_one_table_is_an_error_until_it_is_settled(tmp_path: Path) -> None:
    root = bbbc021_tables(tmp_path, labels=BBBC021_LABELS.replace("\nx,", "\n X\u00a0,"))
    spelled = [problem.message for problem in bbbc021.open_screen(root).problems if "several ways" in problem.message]
    assert len(spelled) == 1
    assert spelled[0].endswith('"X" (1 row) and "x" (1 row)')
    screen = bbbc021.open_screen(root, aliases={"x": ("X",)})
    assert "x" in set(screen.labelled[COMPOUND])
    assert not [problem for problem in screen.problems if "several ways" in problem.message]


def test_stray_taxol_is_no_treatment_under_another_name_either(tmp_path: Path) -> None:
    table = pd.concat([BBBC021_WELLS, bbbc021_rows(("Week1_10", "C02", "taxol", "3"))])
    root = bbbc021_tables(tmp_path, table, BBBC021_LABELS + "taxol,3,A\n")
    assert "Taxol" not in set(bbbc021.open_screen(root, aliases={"Taxol": ("taxol",)}).labelled[COMPOUND])
