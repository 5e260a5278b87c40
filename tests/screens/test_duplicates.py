"""What stands in two places: wells, rows and images, by path and by content, named by the rows of the file."""

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from screen_files import archive, sound_fields, tiff

from moa_ray.common.schema import COMPOUND, CONCENTRATION, LABEL, WELL
from moa_ray.config.planes import Plane
from moa_ray.screens import duplicates
from moa_ray.screens.duplicates import check_contents, check_places, check_repeated_rows, check_wells

DNA, ER = "Path_DNA", "Path_ER"


def located(**paths: list[str]) -> pd.DataFrame:
    fields = sound_fields().iloc[: len(paths[DNA])]
    return fields.assign(**paths).set_axis(range(2, len(fields) + 2))


def noise(path: Path, seed: int) -> Path:
    return tiff(path, np.random.default_rng(seed).integers(1000, size=(8, 9), dtype=np.uint16))


def messages(problems: list[duplicates.Problem]) -> list[tuple[str, str]]:
    return [(problem.severity, problem.message) for problem in problems]


def test_well_of_two_compounds_and_well_of_two_doses_are_named() -> None:
    fields = sound_fields()
    two = pd.concat(
        [fields, fields.iloc[[0]].assign(**{COMPOUND: "x"}), fields.iloc[[1]].assign(**{CONCENTRATION: 2.5})]
    )
    assert messages(check_wells(two)) == [
        ("error", "1 wells hold two compounds: p1 B02 (a, x)"),
        ("error", "1 wells hold a compound in two doses: p1 B03 b (1, 2.5)"),
    ]
    assert check_wells(pd.concat([fields, fields])) == []


def test_well_of_a_compound_and_a_control_holds_two_compounds() -> None:
    fields = sound_fields()
    (problem,) = check_wells(pd.concat([fields, fields.iloc[[4]].assign(**{WELL: "B02"})]))
    assert problem.message == "1 wells hold two compounds: p1 B02 (a, DMSO)"


def test_rows_that_are_repeated_word_for_word_are_named() -> None:
    rows = located(**{DNA: ["a.tif", "b.tif", "c.tif"]})
    repeated = pd.concat([rows, rows.iloc[[1, 1, 2]].set_axis([5, 6, 7])])
    (problem,) = check_repeated_rows(repeated.assign(**{LABEL: None}))
    assert problem.message.endswith("keep one row of each: rows 3, 5 and 6, rows 4 and 7")
    assert check_repeated_rows(rows) == []


def test_one_file_in_two_rows_and_in_two_channels_is_named_with_rows_and_compounds() -> None:
    fields = located(**{DNA: ["a.tif", "b.tif", "a.tif"], ER: ["a2.tif", "b.tif", "c2.tif"]})
    assert messages(check_places(fields, [DNA, ER])) == [
        ("error", "1 image files stand in more than one row: a.tif (rows 2 and 4: a and c)"),
        ("error", "1 rows name one image file for two channels in use: row 3 (DNA and ER: b.tif)"),
    ]
    assert len(check_places(fields, [DNA])) == 1
    assert check_places(fields, [ER, ER]) == []  # one channel shown twice is what was asked for


def test_two_planes_of_one_file_are_two_images() -> None:
    fields = located(**{DNA: ["a.tif", "b.tif"], ER: ["a.tif", "b.tif"]})
    assert check_places(fields, [DNA, ER], {"DNA": Plane(channel=0), "ER": Plane(channel=1)}) == []
    assert len(check_places(fields, [DNA, ER], {"DNA": Plane(channel=0), "ER": Plane(channel=0)})) == 1


def test_places_are_those_of_a_loop_over_pairs() -> None:
    rng = np.random.default_rng(1)
    fields = pd.DataFrame({COMPOUND: "x", DNA: rng.integers(40, size=30).astype(str)})
    pairs = [(a, b) for a, b in combinations(fields.index, 2) if fields.at[a, DNA] == fields.at[b, DNA]]
    (problem,) = check_places(fields, [DNA])
    assert int(problem.message.split()[0]) == len({fields.at[a, DNA] for a, _ in pairs}) > 3


@pytest.mark.parametrize("packed", [False, True])
def test_copies_are_found_under_other_names_in_folders_and_archives(tmp_path: Path, packed: bool) -> None:
    names = ["a.tif", "b.tif", "c.tif"]
    for seed, name in enumerate(names):
        noise(tmp_path / name, seed % 2)
    archive(tmp_path / "z.zip", **{name: tmp_path / name for name in names})
    prefix = "z.zip!" if packed else ""
    fields = located(**{DNA: [prefix + name for name in names]})
    assert messages(check_contents(fields, [DNA], tmp_path)) == [
        ("error", f"1 image files have copies in other rows: {prefix}a.tif = {prefix}c.tif (rows 2 and 4: a and c)")
    ]


def test_copy_for_another_channel_is_found(tmp_path: Path) -> None:
    for name, seed in (("a.tif", 1), ("a2.tif", 1), ("b.tif", 2), ("b2.tif", 3)):
        noise(tmp_path / name, seed)
    fields = located(**{DNA: ["a.tif", "b.tif"], ER: ["a2.tif", "b2.tif"]})
    (problem,) = check_contents(fields, [DNA, ER], tmp_path)
    assert problem.message.endswith("for two channels in use: row 2 (DNA and ER: a.tif = a2.tif)")


def test_link_to_another_image_is_a_copy_of_it(tmp_path: Path) -> None:
    noise(tmp_path / "a.tif", 1)
    (tmp_path / "b.tif").symlink_to("a.tif")
    assert len(check_contents(located(**{DNA: ["a.tif", "b.tif"]}), [DNA], tmp_path)) == 1


def test_copies_of_a_single_grey_level_are_a_warning(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif", "c.tif"):
        tiff(tmp_path / name, np.full((8, 9), 7, np.uint16))
    (problem,) = check_contents(located(**{DNA: ["a.tif", "b.tif", "c.tif"]}), [DNA], tmp_path)
    assert problem.severity == "warning"
    assert problem.message.startswith("1 image files of a single grey level have copies in other rows: a.tif = b.tif")


def test_images_that_differ_in_one_pixel_are_no_copies_and_are_not_read_whole_where_a_sample_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: Counter[str] = Counter()
    whole = duplicates._digest
    monkeypatch.setattr(duplicates, "_digest", lambda root, name: opened.update([name]) or whole(root, name))
    pixels = np.random.default_rng(0).integers(1000, size=(100, 100), dtype=np.uint16)
    changed = pixels.copy()
    changed[0, 0] += 1  # far from where files are sampled
    for name, content in (("a.tif", pixels), ("b.tif", changed), ("c.tif", pixels[::-1]), ("d.tif", pixels[:50])):
        tiff(tmp_path / name, np.ascontiguousarray(content))
    assert check_contents(located(**{DNA: ["a.tif", "b.tif", "c.tif", "d.tif"]}), [DNA], tmp_path) == []
    assert opened == {"a.tif": 1, "b.tif": 1}


def test_file_that_cannot_be_read_is_left_to_the_checks_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"")
    (tmp_path / "b.tif").write_bytes(b"")
    fields = located(**{DNA: ["a.tif", "b.tif", "../c.tif", "z.zip!d.tif"]})
    assert check_contents(fields, [DNA], tmp_path) == []
