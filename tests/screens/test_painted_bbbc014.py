"""The painted plate of BBBC014: its layout, the same for the same seed, and that protein moves as it says."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from moa_ray.common.errors import InputError
from moa_ray.common.schema import CELL_LINE, LABEL
from moa_ray.config import sweep_file
from moa_ray.config.painting import Translocation
from moa_ray.config.screens import Bbbc014Settings
from moa_ray.screens import bbbc014
from moa_ray.screens.painted_bbbc014 import paint
from moa_ray.screens.reading import read_field
from moa_ray.screens.screen import Screen
from moa_ray.study import Study

SMALL = Translocation(height=64, width=72, cells=2)


def _contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_96_wells_have_two_8_bit_bitmaps_each_by_their_published_names(tmp_path: Path) -> None:
    paint(tmp_path / "painted", SMALL)
    files = {path.name: path for path in (tmp_path / "painted").rglob("*.Bmp")}
    numbers = [(row, column) for row in "ABCDEFGH" for column in range(1, 13)]
    assert files.keys() == {
        f"Channel {channel}-{number:02}-{row}-{column:02}-00.Bmp"
        for channel in (1, 2)
        for number, (row, column) in enumerate(numbers, 1)
    }
    for path in files.values():
        with Image.open(path) as image:
            assert (image.format, image.mode, image.height, image.width) == ("BMP", "L", 64, 72)
    assert bbbc014.open_screen(tmp_path / "painted").problems == ()


def test_names_are_those_of_the_real_files(shared: Path) -> None:
    real = {path.stem for path in (shared / "data" / "bbbc014_two_wells").iterdir()}
    wells = [("A", 1), ("A", 12)]
    assert real == {Path(bbbc014.file_name(channel, *well)).stem for channel in ("FITC", "DAPI") for well in wells}


def test_the_same_seed_paints_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        paint(tmp_path / name, Translocation(**{**vars(SMALL), "seed": seed}))
    first, again, other = (_contents(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert not [name for name in first if first[name] == other[name]]


def test_a_painting_that_is_there_is_left_untouched_and_another_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "painted"
    paint(root, SMALL)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    paint(root, SMALL)
    with pytest.raises(InputError, match=r"another painting; give another screen\.root"):
        paint(root, Translocation(**{**vars(SMALL), "seed": 5}))
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.parametrize("change", [{"cells": 0}, {"height": 63}, {"width": 9}, {"effect": 1.1}, {"effect": -0.1}])
def test_a_painting_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        Translocation(**change)


# The demo's plate -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Screen:
    """The plate of the demo, opened by the code that opens the real one."""
    root = tmp_path_factory.mktemp("demo") / "painted"
    study = Study.open(sweep_file.load(repo / "sweeps" / "demo_bbbc014.yaml", [f"screen.root={root}"]))
    assert isinstance(study.sweep.screen, Bbbc014Settings)
    study.require_sound()
    return study.screen


@pytest.fixture(scope="module")
def measured(demo: Screen) -> pd.DataFrame:
    """For each well: FITC within nuclei over FITC outside of them, and the mean light of both channels."""
    rows = []
    for _, row in demo.labelled.iterrows():
        fitc, dapi = (plane.astype(float) for plane in read_field(demo.root, row[demo.path_columns].tolist()))
        nuclei = dapi > 45
        rows.append((fitc[nuclei].mean() / fitc[~nuclei].mean(), fitc.mean(), dapi.mean()))
    return pd.DataFrame(rows, columns=["ratio", "fitc", "dapi"]).join(demo.labelled[[CELL_LINE, LABEL]])


@pytest.mark.slow
def test_ratio_of_nuclei_to_the_rest_tells_the_labels_within_and_across_lines(measured: pd.DataFrame) -> None:
    ratio = measured.groupby([CELL_LINE, LABEL])["ratio"]
    least, most = ratio.min(), ratio.max()
    assert least.xs("positive", level=LABEL).min() > 1.5 * most.xs("negative", level=LABEL).max()


@pytest.mark.parametrize(("line", "other"), [("MCF7", "A549"), ("A549", "MCF7")])
def test_brightness_that_tells_the_labels_of_one_line_is_at_chance_on_the_other(
    measured: pd.DataFrame, line: str, other: str
) -> None:
    # Where the protein lies must be seen, not how bright a well is.
    seen, unseen = (measured[measured[CELL_LINE] == name] for name in (line, other))
    threshold = seen.groupby(LABEL)["fitc"].mean().mean()
    right = {
        name: ((part["fitc"] > threshold) == (part[LABEL] == "negative")).mean()
        for name, part in (("seen", seen), ("unseen", unseen))
    }
    assert right["seen"] > 0.9
    assert right["unseen"] < 0.6


def test_cell_lines_differ_in_light(measured: pd.DataFrame) -> None:
    light = measured.groupby(CELL_LINE)["dapi"]
    assert light.min()["A549"] > light.max()["MCF7"]


def test_protein_leaves_the_nucleus_from_column_to_column(demo: Screen) -> None:
    means = []
    for column in range(1, 13):
        ratios = []
        for row in "ABCD":
            names = [next(demo.root.rglob(bbbc014.file_name(channel, row, column))) for channel in ("FITC", "DAPI")]
            fitc, dapi = (np.asarray(Image.open(name)).astype(float) for name in names)
            ratios.append(fitc[dapi > 45].mean() / fitc[dapi <= 45].mean())
        means.append(np.mean(ratios))
    # Far from the middle of the fall the noise of cells is larger than its steps.
    assert np.all(np.diff(means[3:9]) < 0)
    assert min(means[:4]) > 2 * max(means[8:])
