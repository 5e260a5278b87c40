"""Checks: every problem of a screen's table and files is found, all at once."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import ImageFile
from screen_files import archive, sound_fields, tiff

from moa_ray.common.errors import InputError
from moa_ray.common.schema import COMPOUND, LABEL, PLATE, WEEK, WELL
from moa_ray.screens.checks import check_fields, check_files, check_hold_out, check_images
from moa_ray.screens.reading import open_image
from moa_ray.screens.screen import Problem


def errors(problems: list[Problem]) -> list[str]:
    return [problem.message for problem in problems if problem.severity == "error"]


@pytest.mark.parametrize("location", ["../out.tif", "sub/../a.tif", "link.tif", "z.zip!../evil.tif", "linked/out.tif"])
def test_location_that_leaves_the_root_is_refused_and_named_with_its_row(tmp_path: Path, location: str) -> None:
    root = tmp_path / "root"
    source = tiff(root / "a.tif")
    tiff(tmp_path / "out.tif")
    (root / "sub").mkdir()
    (root / "link.tif").symlink_to(tmp_path / "out.tif")
    (root / "linked").symlink_to(tmp_path)
    archive(root / "z.zip", **{"../evil.tif": source})
    with pytest.raises(InputError, match="leads out of"):
        open_image(root, location)
    fields = sound_fields().iloc[:1].assign(Path_G=location)
    (message,) = errors(check_images(fields, root, ["Path_G"]))
    assert "lead out of the screen's root" in message
    assert f"p1 B02 1: {location}" in message


def test_every_kind_of_bad_file_is_reported_in_one_go(tmp_path: Path) -> None:
    good = [f"{index}.tif" for index in range(5)]
    for name in good:
        tiff(tmp_path / name)
    tiff(tmp_path / "small.tif", np.zeros((2, 2), np.uint16))
    tiff(tmp_path / "byte.tif", np.zeros((3, 4), np.uint8))
    (tmp_path / "corrupt.tif").write_bytes(b"II*\0 and then nothing")
    missing = [f"gone{index}.tif" for index in range(5)]
    messages = errors(check_files(tmp_path, [*good, "small.tif", "byte.tif", "corrupt.tif", *missing]))
    assert len(messages) == 4
    assert messages[0].startswith("5 of 13 image files are missing")
    assert "gone0.tif, gone1.tif, gone2.tif, ..." in messages[0]
    assert "corrupt.tif" in messages[1]
    assert "small.tif (2, 2)" in messages[2]
    assert "byte.tif uint8" in messages[3]


def test_missing_file_that_lies_in_a_folder_says_so(tmp_path: Path) -> None:
    tiff(tmp_path / "P1/a.tif")
    (message,) = errors(check_files(tmp_path, ["a.tif", "b.tif"]))
    assert "look at screen.root and at the column of folders, since P1/a.tif is there: a.tif, b.tif" in message


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_are_checked_by_their_headers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: int
) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w", compression) as file:
        file.write(tiff(tmp_path / "a.tif"), "a.tif")
        file.write(tiff(tmp_path / "a.png"), "a.png")
    seek = zipfile.ZipExtFile.seek

    def seeking(self: zipfile.ZipExtFile, offset: int, whence: int = 0) -> int:
        if whence == 2 and self.name.endswith(".tif"):
            pytest.fail("a member was unpacked to its end")
        return seek(self, offset, whence)

    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("pixels were decoded"))
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda self, **options: pytest.fail("pixels were decoded"))
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda self, name: pytest.fail("a member was unpacked whole"))
    monkeypatch.setattr(zipfile.ZipExtFile, "seek", seeking)
    assert check_files(tmp_path, ["a.tif", "a.png", "z.zip!a.tif", "z.zip!a.png"]) == []


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
    assert message.startswith("1 labels have a single Compound and cannot be held out (folds.min_compounds: 2 leaves")
    assert message.endswith("): A (Metadata_Compound a)")


def test_label_of_a_single_week_is_a_warning() -> None:
    assert [problem.severity for problem in check_hold_out(sound_fields(), WEEK)] == ["warning"]
