"""Screens from the names of files: parts become fields, tables say what stands in the wells, nothing is guessed."""

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from screen_files import archive, tiff

from moa_ray.common.errors import InputError
from moa_ray.common.schema import COMPOUND, CONCENTRATION, FIELD, LABEL, PLATE, WELL
from moa_ray.config import sweep_file
from moa_ray.screens.opening import open_screen
from moa_ray.screens.reading import read_field
from moa_ray.screens.screen import Screen

WELLS = {"A01": ("a", "X"), "A02": ("b", "X"), "B01": ("c", "Y"), "B02": ("d", "Y"), "B03": ("DMSO", "")}
PATTERN = "{plate}/{well}_s{field}_w{channel}.tif"
COLUMNS = {COMPOUND: "drug", LABEL: "moa"}


def write_images(root: Path, names: Sequence[str]) -> None:
    """Write small images of one size that differ, quickly."""
    file = io.BytesIO()
    Image.fromarray(np.full((3, 4), 0xABCD, np.uint16)).save(file, "TIFF")
    head, tail = file.getvalue().split(struct.pack("<12H", *[0xABCD] * 12))
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(head + struct.pack("<6H", *divmod(number + 1, 60000), 2, 3, 4, 5) * 2 + tail)


def write_map(root: Path, name: str = "map.csv", **more: Any) -> None:
    rows = [(well, *of_well) for well, of_well in WELLS.items()]
    pd.DataFrame(rows, columns=["well", "drug", "moa"]).assign(**more).to_csv(root / name, index=False)


def opened(root: Path, **screen: Any) -> Screen:
    plain = {
        "study": "files",
        "out": str(root.parent / "out"),
        "screen": {
            **{"name": "files", "root": str(root), "pattern": PATTERN, "images": {"DNA": 1}, "columns": COLUMNS},
            **{"platemap": {"file": "map.csv", "on": {WELL: "well"}}, "control": "DMSO", **screen},
        },
        "recipe": {"backbone": "SmallCNN", "weights": "random"},
    }
    return open_screen(sweep_file.check(plain, "sweep.yaml"), root)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A plate of five wells, two fields of two channels each, and its map."""
    folder = tmp_path / "screen"
    write_images(folder, [f"P1/{well}_s{field}_w{channel}.tif" for well in WELLS for field in "12" for channel in "12"])
    write_map(folder)
    return folder


def messages(screen: Screen, severity: str = "error") -> list[str]:
    return [problem.message for problem in screen.problems if problem.severity == severity]


def test_plate_of_384_wells_and_five_channels_opens_by_its_pattern_alone(tmp_path: Path) -> None:
    root = tmp_path / "screen"
    rows, columns = range(1, 17), range(1, 25)
    measurement = "BR00116991__2020-11-05T19_51_35-Measurement1/Images"
    names = [
        f"{measurement}/r{r:02}c{c:02}f01p01-ch{n}sk1fk1fl1.tiff" for r in rows for c in columns for n in range(1, 6)
    ]
    write_images(root, names)
    (root / measurement / "Index.idx.xml").write_text("<x/>")
    wells = [f"{chr(64 + row)}{column}" for row in rows for column in columns]
    compounds = ["" if number % 24 == 0 else f"BRD-{number % 24}" for number in range(384)]
    doses = [0 if not compound else 10.0 for compound in compounds]
    (root / "maps").mkdir()
    plate_map = pd.DataFrame({"well_position": wells, "broad_sample": compounds, "dose": doses})
    plate_map.assign(control=np.where(plate_map["broad_sample"] == "", "negcon", "")).to_csv(
        root / "maps/BR00116991.txt", index=False, sep="\t"
    )
    annotation = pd.DataFrame({"broad_sample": [f"BRD-{number}" for number in range(1, 24)]})
    annotation.assign(moa=[f"moa {number % 6}" for number in range(23)]).to_csv(root / "compounds.csv", index=False)
    screen = opened(
        root,
        pattern="opera_phenix",
        images={"DNA": 1, "ER": 2, "RNA": 3, "AGP": 4, "Mito": 5},
        channels=["Mito", "AGP", "DNA"],
        columns={COMPOUND: "broad_sample", CONCENTRATION: "dose", LABEL: "moa"},
        platemap={"file": "maps/{plate}.txt", "on": {WELL: "well_position"}},
        annotation={"file": "compounds.csv", "on": {COMPOUND: "broad_sample"}},
        control={"control": ["negcon"]},
    )
    assert messages(screen) == []
    (left,) = messages(screen, "warning")
    assert left.startswith(f"1 files below {root} do not match screen.pattern and are left out: ")
    assert (len(screen.fields), len(screen.controls), len(screen.labels)) == (384, 16, 6)
    assert set(screen.fields[PLATE]) == {"BR00116991"}
    field = screen.fields.set_index(WELL).loc["P24"]
    assert field["Path_Mito"] == f"{measurement}/r16c24f01p01-ch5sk1fk1fl1.tiff"
    assert (field[COMPOUND], field[CONCENTRATION], field[LABEL]) == ("BRD-23", 10.0, "moa 4")


def test_parts_of_the_names_are_the_fields(root: Path) -> None:
    screen = opened(root, images={"DNA": "01", "ER": 2})
    assert screen.problems == ()
    assert len(screen.fields) == 10
    row = screen.fields.set_index([WELL, FIELD]).loc[("B02", "2")]
    assert (row[PLATE], row[COMPOUND], row[LABEL]) == ("P1", "d", "Y")
    assert (row["Path_DNA"], row["Path_ER"]) == ("P1/B02_s2_w1.tif", "P1/B02_s2_w2.tif")


def test_compound_and_label_may_stand_in_folders_and_no_table_is_needed(tmp_path: Path) -> None:
    names = [f"{label}/{compound}/{well}.tif" for well, (compound, label) in WELLS.items() if label]
    write_images(tmp_path / "screen", names)
    pattern = "{Metadata_Label}/{Metadata_Compound}/{well}.tif"
    more = {"images": {"DNA": "*"}, "columns": {}, "platemap": None, "control": None, "plate": "mine"}
    screen = opened(tmp_path / "screen", pattern=pattern, **more)
    assert messages(screen) == []
    assert screen.labels == ("X", "Y")
    assert set(screen.fields[PLATE]) == {"mine"}
    assert set(opened(tmp_path / "screen", pattern=pattern, **{**more, "plate": None}).fields[PLATE]) == {"screen"}


def test_members_of_archives_are_files(root: Path) -> None:
    members = {path.relative_to(root).as_posix(): path for path in sorted(root.glob("P1/*.tif"))}
    archive(root / "P1.zip", **members)
    for path in members.values():
        path.unlink()
    screen = opened(root)
    assert screen.problems == ()
    location = screen.fields["Path_DNA"].iloc[0]
    assert location == "P1.zip!P1/A01_s1_w1.tif"
    assert read_field(root, [location])[0].shape == (3, 4)


def test_no_match_shows_names_and_where_the_first_fails(root: Path) -> None:
    with pytest.raises(InputError) as error:
        opened(root, pattern="{plate}/{well}_f{field}_w{channel}.tif")
    assert "matches none of 20 files" in str(error.value)
    assert "P1/A01_s1_w1.tif, P1/A01_s1_w2.tif, P1/A01_s2_w1.tif, ..." in str(error.value)
    assert str(error.value).endswith("P1/A01_s1_w1.tif does not go on as '_f'")
    with pytest.raises(InputError, match="'cv8000' matches none of 20 files"):
        opened(root, pattern="cv8000")


def test_files_that_do_not_match_are_counted_images_first(root: Path) -> None:
    (root / "P1/A01.xml").touch()
    (root / ".DS_Store").touch()
    tiff(root / "P1/thumbs/A01_s1_w1_thumb.tif")
    (warning,) = messages(opened(root, pattern="{plate}/{well}_s{field}_w{channel:[0-9]}.tif"), "warning")
    assert warning.startswith("2 files below")
    assert warning.endswith("left out: P1/thumbs/A01_s1_w1_thumb.tif, P1/A01.xml")


def test_field_without_a_channel_in_use_is_named(root: Path) -> None:
    (root / "P1/A02_s1_w2.tif").unlink()
    assert messages(opened(root)) == []
    (error,) = messages(opened(root, images={"DNA": 1, "ER": 2}))
    assert error == "1 image paths are empty: P1 A02 1 Path_ER"
    assert messages(opened(root, images={"DNA": 1, "ER": 2}, where={WELL: {"not": ["A02"]}})) == []


def test_field_that_has_no_file_of_what_is_chosen_is_named_and_not_dropped(tmp_path: Path) -> None:
    root = tmp_path / "screen"
    write_images(root, [f"{well}_z{z}_w1.tif" for well in WELLS for z in (1, 2)] + ["C01_z1_w1.tif", "C02_z2_w9.tif"])
    write_map(root)
    pd.DataFrame(
        {"well": [*WELLS, "C01", "C02"], "drug": [*"abcd", "DMSO", "a", "b"], "moa": [*"XXYY", "", "X", "X"]}
    ).to_csv(root / "map.csv", index=False)
    (error,) = messages(opened(root, pattern="{well}_z{z}_w{channel}.tif", z=2))
    assert error == "2 image paths are empty: screen C01 1 Path_DNA, screen C02 1 Path_DNA"


def test_plate_in_several_folders_that_the_pattern_does_not_name_is_a_warning(root: Path) -> None:
    (root / "P1/B02_s1_w1.tif").rename(root / "B02_s1_w1.tif")
    (warning,) = messages(opened(root, pattern="{well}_s{field}_w{channel}.tif", plate="P1"), "warning")
    assert warning.endswith("does not name, as {plate}/ may: P1 (., P1)")


@pytest.mark.parametrize(
    ("axis", "words"), [("z", "planes in depth; choose one with screen.z"), ("t", "points in time; choose one with")]
)
def test_several_planes_or_times_must_be_chosen_from(tmp_path: Path, axis: str, words: str) -> None:
    root = tmp_path / "screen"
    write_images(root, [f"{well}_{number:02}.tif" for well in WELLS for number in (2, 10)])
    write_map(root)
    more = {"pattern": f"{{well}}_{{{axis}}}.tif", "images": {"DNA": "*"}}
    with pytest.raises(InputError) as error:
        opened(root, **more)
    assert "of 5 images there are two files and more (screen A01: A01_02.tif and A01_10.tif; " in str(error.value)
    assert words in str(error.value)
    assert str(error.value).endswith("(2, 10)")
    assert opened(root, **more, **{axis: 10}).fields["Path_DNA"].iloc[0] == "A01_10.tif"
    with pytest.raises(InputError, match=rf"screen.{axis}: no file is number 3 of the .*; known are 2, 10"):
        opened(root, **more, **{axis: 3})


def test_two_plates_that_the_pattern_does_not_tell_apart_are_an_error(root: Path) -> None:
    write_images(root, ["P2/A01_s1_w1.tif"])
    with pytest.raises(InputError, match=r"P1/A01_s1_w1\.tif and P2/A01_s1_w1\.tif.*as folders are by \{plate\}/"):
        opened(root, pattern="{well}_s{field}_w{channel}.tif")


def test_planes_of_files_are_chosen_as_in_a_table(tmp_path: Path) -> None:
    root = tmp_path / "screen"
    write_map(root.parent.joinpath("screen") if root.mkdir() is None else root)
    for number, well in enumerate(WELLS):
        pages = [
            Image.fromarray(np.full((3, 4), 10 * number + page, np.uint16) + np.eye(3, 4).astype(np.uint16))
            for page in (0, 1)
        ]
        pages[0].save(root / f"{well}.tif", save_all=True, append_images=pages[1:])
    images = {"DNA": {"path": "*", "channel": 0}, "ER": {"path": "*", "channel": 1}}
    screen = opened(root, pattern="{well}.tif", images=images)
    assert screen.problems == ()
    row = screen.fields.iloc[1]
    read = read_field(root, row[screen.path_columns].tolist(), screen.used_planes)
    assert [int(plane[0, 1]) for plane in read] == [10, 11]


@pytest.mark.parametrize(
    ("screen", "message"),
    [
        ({"pattern": "opera_fenix"}, "screen.pattern: unknown pattern 'opera_fenix'; did you mean 'opera_phenix'"),
        ({"pattern": "{wel}_{channel}.tif"}, "screen.pattern: unknown part '{wel}'; did you mean 'well'"),
        ({"images": {"DNA": 7}}, "screen.images.DNA: no file name has the channel '7'; known are 1, 2"),
        ({"images": {"DNA": "*"}}, r"images.DNA: '\*' is for a pattern without a part \{channel\}"),
        ({"images": {}}, "screen.images"),
        ({"z": 1}, r"z: no part of the pattern is \{z\}"),
        ({"patern": "x"}, "unknown key 'patern'; did you mean 'pattern'"),
        ({"columns": {COMPOUND: "drug"}}, "screen.columns: Metadata_Label must be mapped"),
        ({"columns": {COMPOUND: "drug", LABEL: "mao"}}, "column mao is missing"),
    ],
)
def test_wrong_key_is_named(root: Path, screen: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(root, **screen)
