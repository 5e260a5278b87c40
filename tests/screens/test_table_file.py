"""Files of tables: what people and programs write is read alike, and a message names the row of the file."""

import bz2
import csv
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from screen_files import archive

from moa_ray.common.errors import InputError
from moa_ray.screens.table_file import read_table

CELLS = [["P1", "A01", "c0", "0.3"], ["001", "A02", "NA", ""], ["P1", "A03", "Lösung, 5 µM", "1"]]
HEADER = ["plate", "well", "compound", "dose"]


def written(path: Path, separator: str = ",", end: str = "\n") -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator, lineterminator=end).writerows([HEADER, *CELLS])
    return path.read_bytes().decode()


@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separator_and_unicode_are_found_out(tmp_path: Path, separator: str, encoding: str, end: str) -> None:
    path = tmp_path / "map.txt"
    path.write_bytes(written(path, separator, end).encode(encoding))
    table = read_table(path)
    assert table.columns.tolist() == HEADER
    assert table.fillna("").to_numpy().tolist() == CELLS
    assert table["dose"].isna().tolist() == [False, True, False]
    assert table.index.tolist() == [2, 3, 4]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_tables_are_unpacked_whatever_they_are_called(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "fields.csv.packed"
    path.write_bytes(pack(written(path).encode()))
    assert read_table(path)["compound"].tolist() == ["c0", "NA", "Lösung, 5 µM"]


def test_zip_archive_of_one_file_is_unpacked_and_of_two_is_not(tmp_path: Path) -> None:
    written(tmp_path / "map.csv")
    archive(tmp_path / "map.zip", **{"map.csv": tmp_path / "map.csv"})
    assert read_table(tmp_path / "map.zip")["well"].tolist() == ["A01", "A02", "A03"]
    archive(tmp_path / "two.zip", **{"a.csv": tmp_path / "map.csv", "b.csv": tmp_path / "map.csv"})
    with pytest.raises(InputError, match=r"two\.zip: no table of fields: the archive holds 2 files; unpack it"):
        read_table(tmp_path / "two.zip")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_table_that_is_cut_short_is_named(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "map.csv.gz").write_bytes(pack(b"well,moa\n" * 100)[:-12])
    with pytest.raises(InputError, match=r"map\.csv\.gz: no table of fields"):
        read_table(tmp_path / "map.csv.gz")


def test_latin_1_is_asked_for_by_row_and_read_where_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_bytes(written(path).encode("latin-1"))
    with pytest.raises(InputError, match=r"map\.csv: row 4: byte 0xf6 is no utf-8; .*screen\.encoding: latin-1"):
        read_table(path)
    assert read_table(path, encoding="latin-1")["compound"].iloc[2] == "Lösung, 5 µM"


def test_separator_that_two_could_be_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_text("a;b,c\n1;2,3\n")
    with pytest.raises(InputError, match=r"comma and semicolon part it into 2 columns each; .*screen\.separator"):
        read_table(path)
    assert read_table(path, separator=";").columns.tolist() == ["a", "b,c"]


def test_decimal_commas_do_not_hide_the_semicolon_nor_a_comma_in_a_name_the_tab(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_text("well;low;high\nA01;0,1;1,5\n")
    assert read_table(path)["high"].tolist() == ["1,5"]
    path.write_text("well\tdose, uM\nA01\t0,1\n")
    assert read_table(path)["dose, uM"].tolist() == ["0,1"]


def test_excel_s_line_that_names_the_separator_is_a_row_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_text("sep=;\r\nwell;moa\r\nA01;a\r\n")
    assert read_table(path).to_dict("index") == {3: {"well": "A01", "moa": "a"}}


def test_rows_are_those_of_an_editor(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    text = '\nwell,name\nA01,x\n\n,,\n"A\n02",y\nA03\n'
    path.write_text(text.replace(",,", ","))
    table = read_table(path)
    assert table["well"].to_dict() == {3: "A01", 6: "A\n02", 8: "A03"}
    assert table["name"].isna().tolist() == [False, False, True]


@given(st.lists(st.lists(st.text("ab ,;\n\t\"'", max_size=5), min_size=2, max_size=2), max_size=5))
def test_each_row_number_is_the_line_where_the_record_begins(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "map.csv"
    lines, beginnings = "x,y\n", []
    for row in rows:
        if any(map(str.strip, row)):
            beginnings.append(lines.count("\n") + 1)
        lines += ",".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\n"
    path.write_text(lines)
    table = read_table(path, separator=",")
    assert table.index.tolist() == beginnings
    assert table.fillna("").to_numpy().tolist() == [
        [c.strip() for c in row] for row in rows if any(map(str.strip, row))
    ]


def test_row_with_more_cells_than_the_header_is_named(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_text("well,dose,moa\nA01,1,a\n\nA02,0,5,b\n")
    with pytest.raises(InputError, match=r"map\.csv: row 4 has 4 cells, but the header has 3: A02 \| 0 \| 5 \| b;"):
        read_table(path)


def test_quotes_that_do_not_end_are_named_by_row_and_swallow_nothing(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_text('well,moa\nA01,a\nA02,"b\nA03,c\n')
    with pytest.raises(InputError, match=r"map\.csv: row 3: .*look at its quotes"):
        read_table(path)


@pytest.mark.parametrize(
    ("name", "content"), [("a.xlsx", b"PK\x03\x04.."), ("a.xls", b"\xd0\xcf\x11\xe0"), ("a.csv", b"PK\x03\x04")]
)
def test_spreadsheet_is_to_be_saved_as_csv(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"a spreadsheet or archive, no text; save the sheet as CSV"):
        read_table(tmp_path / name)


def test_blanks_around_names_and_cells_are_cut_off_but_a_path_keeps_its_accents(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_text(
        ' well ,\u00a0Lo\u0308sung\u200b\n A01\t,"  images/Lo\u0308sung.tif "\nA02,\u00a0\n', encoding="utf-8"
    )
    table = read_table(path)
    assert table.columns.tolist() == ["well", "Lösung"]
    assert table["well"].tolist() == ["A01", "A02"]
    assert table["Lösung"].iloc[0] == "images/Lo\u0308sung.tif"
    assert table["Lösung"].isna().tolist() == [False, True]


def test_rows_of_parquet_are_numbered_like_those_of_the_same_text(tmp_path: Path) -> None:
    pd.DataFrame({"well ": ["A01", ""], "dose": [1.5, 2]}).to_parquet(tmp_path / "map.parquet")
    table = read_table(tmp_path / "map.parquet")
    assert table["well"].to_dict() == {2: "A01", 3: ""}


def test_empty_file_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_text("\n\n")
    with pytest.raises(InputError, match="it is empty"):
        read_table(tmp_path / "map.csv")
