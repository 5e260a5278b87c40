"""Screens: locations, and the checks that find every problem of the data at once."""

import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFile

from moa_ray.screens import (
    Problem,
    check_fields,
    check_files,
    check_hold_out,
    check_images,
    listing,
    numbers,
    open_image,
    read_field,
    well_names,
)
from moa_ray.tables import COMPOUND, CONCENTRATION, CONTROL, FIELD, LABEL, PLATE, WEEK, WELL


def tiff(path: Path, pixels: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) if pixels is None else pixels).save(path)
    return path


def archive(path: Path, **members: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, source in members.items():
            file.write(source, name)


def sound_fields() -> pd.DataFrame:
    """Two labels of two compounds each and a control, all on one plate."""
    rows = [("W1", "B02", "a", "A"), ("W1", "B03", "b", "A"), ("W2", "B04", "c", "B"), ("W2", "B05", "d", "B")]
    table = pd.DataFrame([*rows, ("W1", "H12", "DMSO", None)], columns=[WEEK, WELL, COMPOUND, LABEL])
    return table.assign(**{PLATE: "p1", FIELD: "1", CONCENTRATION: 1.0, CONTROL: table[COMPOUND] == "DMSO"})


def errors(problems: list[Problem]) -> list[str]:
    return [problem.message for problem in problems if problem.severity == "error"]


def test_plain_file_and_zip_member_hold_the_same_field(tmp_path: Path) -> None:
    source = tiff(tmp_path / "p/a.tif")
    archive(tmp_path / "z.zip", **{"p/a.tif": source})
    plain, member = read_field(tmp_path, ["p/a.tif", "z.zip!p/a.tif"])
    assert plain.shape == (3, 4)
    np.testing.assert_array_equal(plain, member)


def test_threads_that_read_one_archive_do_not_share_its_handle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(tmp_path / "z.zip", **{"a.tif": tiff(tmp_path / "a.tif")})
    read, together, handles = zipfile.ZipFile.read, threading.Barrier(2), []

    def reading(self: zipfile.ZipFile, name: str) -> bytes:
        handles.append(self)
        together.wait(timeout=60)  # breaks unless two read at once
        return read(self, name)

    monkeypatch.setattr(zipfile.ZipFile, "read", reading)
    with ThreadPoolExecutor(2) as pool:
        fields = list(pool.map(lambda _: read_field(tmp_path, ["z.zip!a.tif"]), range(2)))
    np.testing.assert_array_equal(*fields)
    assert len({id(handle) for handle in handles}) == 2


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_member_that_is_damaged_is_named(tmp_path: Path, compression: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 9, (60, 60)).astype(np.uint16)
    with zipfile.ZipFile(tmp_path / "z.zip", "w", compression) as file:
        file.write(tiff(tmp_path / "a.tif", pixels), "a.tif")
    content = bytearray((tmp_path / "z.zip").read_bytes())
    content[500:900] = bytes(400)
    (tmp_path / "z.zip").write_bytes(content)
    with pytest.raises(ValueError, match=r"^z\.zip!a\.tif: "):
        read_field(tmp_path, ["z.zip!a.tif"])


def test_channels_of_different_shape_are_named(tmp_path: Path) -> None:
    tiff(tmp_path / "a.tif")
    tiff(tmp_path / "b.tif", np.zeros((2, 2), np.uint16))
    with pytest.raises(ValueError, match=r"b\.tif: shape \(2, 2\)"):
        read_field(tmp_path, ["a.tif", "b.tif"])


@pytest.mark.parametrize("location", ["../out.tif", "sub/../a.tif", "link.tif", "z.zip!../evil.tif", "linked/out.tif"])
def test_location_that_leaves_the_root_is_refused_and_named_with_its_row(tmp_path: Path, location: str) -> None:
    root = tmp_path / "root"
    source = tiff(root / "a.tif")
    tiff(tmp_path / "out.tif")
    (root / "sub").mkdir()
    (root / "link.tif").symlink_to(tmp_path / "out.tif")
    (root / "linked").symlink_to(tmp_path)
    archive(root / "z.zip", **{"../evil.tif": source})
    with pytest.raises(ValueError, match="leads out of"):
        open_image(root, location)
    fields = sound_fields().iloc[:1].assign(Path_G=location)
    (message,) = errors(check_images(fields, root, ["Path_G"]))
    assert "lead out of the screen's root" in message
    assert f"p1 B02 1: {location}" in message


def test_absolute_location_is_refused_even_inside_the_root(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="leads out of"):
        open_image(tmp_path, str(path))


def test_link_that_stays_inside_the_root_is_read(tmp_path: Path) -> None:
    tiff(tmp_path / "a.tif")
    (tmp_path / "link.tif").symlink_to(tmp_path / "a.tif")
    assert check_files(tmp_path, ["link.tif"]) == []
    assert read_field(tmp_path, ["link.tif"])[0].shape == (3, 4)


def test_folder_that_links_to_its_own_parent_is_listed_once(tmp_path: Path) -> None:
    tiff(tmp_path / "p/a.tif")
    (tmp_path / "p/loop").symlink_to(tmp_path)
    assert listing(tmp_path) == ["p/a.tif"]


def test_every_kind_of_bad_file_is_reported_in_one_go(tmp_path: Path) -> None:
    good = [f"{index}.tif" for index in range(5)]
    for name in good:
        tiff(tmp_path / name)
    tiff(tmp_path / "small.tif", np.zeros((2, 2), np.uint16))
    tiff(tmp_path / "byte.tif", np.zeros((3, 4), np.uint8))
    (tmp_path / "corrupt.tif").write_bytes(b"II*\0 and then nothing")
    missing = [f"gone{index}.tif" for index in range(5)]
    found = errors(check_files(tmp_path, [*good, "small.tif", "byte.tif", "corrupt.tif", *missing]))
    assert len(found) == 4
    assert found[0].startswith("5 of 13 image files are missing")
    assert "gone0.tif, gone1.tif, gone2.tif, ..." in found[0]
    assert "corrupt.tif" in found[1]
    assert "small.tif (2, 2)" in found[2]
    assert "byte.tif uint8" in found[3]


def test_files_are_checked_by_their_headers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(tmp_path / "z.zip", **{"a.tif": tiff(tmp_path / "a.tif")})
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("pixels were decoded"))
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda self, name: pytest.fail("a member was unpacked whole"))
    assert check_files(tmp_path, ["a.tif", "z.zip!a.tif"]) == []


def test_zip_that_is_broken_makes_its_members_missing(tmp_path: Path) -> None:
    (tmp_path / "z.zip").write_bytes(b"PK no archive")
    assert "1 of 1 image files are missing" in errors(check_files(tmp_path, ["z.zip!a.tif"]))[0]


def test_empty_image_path_is_named_not_looked_for(tmp_path: Path) -> None:
    fields = sound_fields().iloc[:1].assign(Path_G=None)
    assert errors(check_images(fields, tmp_path, ["Path_G"])) == ["1 image paths are empty: p1 B02 1 Path_G"]


def test_sound_fields_have_no_problems() -> None:
    assert check_fields(sound_fields()) == []
    assert check_hold_out(sound_fields(), COMPOUND) == []


def test_all_problems_of_a_table_are_found_together() -> None:
    bad = sound_fields()
    torn = bad.iloc[[0]].assign(**{LABEL: "B", WELL: "C02"})
    bare = bad.iloc[[1]].assign(**{PLATE: "p2"})
    problems = check_fields(pd.concat([bad, bad.iloc[[2]], torn, bare], ignore_index=True))
    assert [problem.severity for problem in problems] == ["error", "error", "warning"]
    assert "p1 B04 1" in problems[0].message
    assert "a at 1 (A, B)" in problems[1].message
    assert "p2" in problems[2].message


def test_row_without_a_plate_is_a_problem_not_a_crash() -> None:
    fields = sound_fields()
    fields.loc[[0, 1], PLATE] = None
    assert any("2 fields have no Metadata_Plate" in message for message in errors(check_fields(fields)))


def test_label_of_a_single_compound_is_an_error_where_compounds_are_held_out() -> None:
    fields = sound_fields().query(f"{COMPOUND} != 'b'")
    (message,) = errors(check_hold_out(fields, COMPOUND))
    assert message.startswith("1 labels have a single Compound and cannot be held out: A")


def test_label_of_a_single_week_is_a_warning() -> None:
    assert [problem.severity for problem in check_hold_out(sound_fields(), WEEK)] == ["warning"]


def test_wells_spelled_differently_are_one_well() -> None:
    assert well_names(pd.Series(["B2", "b02", " B002", "B12", "AA3"])).tolist() == ["B02", "B02", "B02", "B12", "AA03"]


@pytest.mark.parametrize("value", ["three", "", "nan", "inf", "-1"])
def test_concentration_that_is_none_is_named_by_row_and_value(value: str) -> None:
    with pytest.raises(ValueError, match=rf"t\.csv: row 3: dose must be a number of at least 0, but got '{value}'"):
        numbers(pd.Series(["1", value], name="dose"), "t.csv")
