"""BBBC014: which wells count, whatever their files are called and wherever they lie, and what becomes of a well."""

import zipfile
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from moa_ray import plan
from moa_ray.common.errors import InputError
from moa_ray.common.schema import BACKBONE, CANDIDATE, CELL_LINE, FIELD, FOLD, LABEL, TILE, TREATMENT, WELL
from moa_ray.config import sweep_file
from moa_ray.config.painting import Translocation
from moa_ray.config.preparation import Preparation
from moa_ray.config.sweep_file import Sweep
from moa_ray.screens import bbbc014
from moa_ray.screens.painted_bbbc014 import paint
from moa_ray.screens.reading import read_field
from moa_ray.screens.screen import Screen
from moa_ray.statistics import aggregation, leaderboard, scores
from moa_ray.study import Study
from moa_ray.tiles.build import prepare
from moa_ray.tiles.store import TileStore
from moa_ray.tiles.workers import ThreadExecutor

PUBLISHED = "Channel {channel}-{number:02}-{row}-{column:02}-00.Bmp"
SPELLINGS = [PUBLISHED, "Channel{channel}-{number:02}-{row}-{column:02}.BMP", PUBLISHED.replace(".Bmp", ".tif")]


def write_plate(root: Path, spelling: str = PUBLISHED, height: int = 20, width: int = 27) -> Path:
    """All 96 wells, their grey levels drawn; the first pixel is 10 x row + column, and 1 more in channel 2."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(96):
        row, column = divmod(number, 12)
        for channel in (1, 2):
            pixels = rng.integers(0, 256, (height, width)).astype(np.uint8)
            pixels[0, 0] = 10 * row + column + channel
            name = spelling.format(channel=channel, number=number + 1, row="ABCDEFGH"[row], column=column + 1)
            Image.fromarray(pixels).save(root / name)
    return root


def messages(root: Path) -> list[str]:
    screen = bbbc014.open_screen(root)
    assert len(screen.fields) == 64  # whatever is missing
    assert {problem.severity for problem in screen.problems} <= {"error"}
    return [problem.message for problem in screen.problems]


# Wells ----------------------------------------------------------------------------------------------------------------


def test_first_four_columns_are_positive_and_last_four_negative(tmp_path: Path) -> None:
    screen = bbbc014.open_screen(write_plate(tmp_path))
    assert screen.problems == ()
    expected = {}
    for row in "ABCDEFGH":
        line = "MCF7" if row in "ABCD" else "A549"
        expected |= {f"{row}0{column}": (line, "positive") for column in (1, 2, 3, 4)}
        expected |= {f"{row}{column}": (line, "negative") for column in ("09", "10", "11", "12")}
    wells = screen.fields[[WELL, CELL_LINE, LABEL]].itertuples(index=False, name=None)
    assert {well: (line, label) for well, line, label in wells} == expected
    assert len(screen.labelled) == 64
    assert screen.controls.empty


def test_each_well_is_a_treatment_of_its_own(tmp_path: Path) -> None:
    assert not bbbc014.open_screen(write_plate(tmp_path)).fields.duplicated(TREATMENT).any()


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("zipped", [False, True])
def test_each_spelling_is_found_in_folders_and_in_an_archive(tmp_path: Path, spelling: str, zipped: bool) -> None:
    folder = write_plate(tmp_path / ("elsewhere" if zipped else "root/BBBC014_v1_images"), spelling)
    (tmp_path / "root").mkdir(exist_ok=True)
    if zipped:
        with zipfile.ZipFile(tmp_path / "root" / "BBBC014_v1_images.zip", "w") as file:
            for path in folder.iterdir():
                file.write(path, f"BBBC014_v1_images/{path.name}")
            file.writestr(f"__MACOSX/._{path.name}", b"no image")
    screen = bbbc014.open_screen(tmp_path / "root")
    assert screen.problems == ()
    assert screen.channels == (None, "FITC", "DAPI")
    for well, value in (("A01", 0), ("C12", 31), ("H09", 78)):
        paths = screen.fields.loc[screen.fields[WELL] == well, screen.path_columns].iloc[0].tolist()
        assert [int(plane[0, 0]) for plane in read_field(screen.root, paths)] == [value + 1, value + 2]
        assert all(("!" in path) == zipped for path in paths)


def test_an_archive_beside_what_was_unpacked_of_it_is_no_second_file(tmp_path: Path) -> None:
    write_plate(tmp_path / "BBBC014_v1_images")
    with zipfile.ZipFile(tmp_path / "BBBC014_v1_images.zip", "w") as file:
        for path in (tmp_path / "BBBC014_v1_images").iterdir():
            file.write(path, f"BBBC014_v1_images/{path.name}")
    screen = bbbc014.open_screen(tmp_path)
    assert screen.problems == ()
    assert not screen.fields["Path_FITC"].str.contains("!").any()


def test_channels_may_be_others_but_must_be_known(tmp_path: Path) -> None:
    assert bbbc014.open_screen(write_plate(tmp_path), ["DAPI"]).channels == ("DAPI", None, None)
    for channels in (["GFP"], [None], ["FITC", "DAPI", None, None]):
        with pytest.raises(InputError, match=r"screen\.channels: up to three of FITC, DAPI and null, but got"):
            bbbc014.open_screen(tmp_path, channels)


# Problems -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_a_root_without_images_is_one_message(tmp_path: Path, folder: str) -> None:
    (message,) = messages(tmp_path / folder)
    assert message.startswith("64 of 64 wells have no image file below ")
    assert message.endswith("look at screen.root: A01, A02, A03, ...")


def test_missing_wells_and_missing_channels_are_told_apart(tmp_path: Path) -> None:
    write_plate(tmp_path)
    for name in ("Channel 1-14-B-02-00.Bmp", "Channel 2-14-B-02-00.Bmp", "Channel 2-96-H-12-00.Bmp"):
        (tmp_path / name).unlink()
    well, channel = messages(tmp_path)
    assert well.startswith("1 of 64 wells have no image file below ")
    assert well.endswith(": B02")
    assert channel.startswith("1 wells lack an image below ")
    assert channel.endswith(": H12 has no DAPI")


def test_a_well_that_is_left_out_may_be_missing(tmp_path: Path) -> None:
    (write_plate(tmp_path) / "Channel 1-05-A-05-00.Bmp").unlink()
    assert messages(tmp_path) == []


def test_a_channel_that_is_not_used_may_be_missing(tmp_path: Path) -> None:
    for path in write_plate(tmp_path).glob("Channel 1*"):
        path.unlink()
    assert bbbc014.open_screen(tmp_path, ["DAPI"]).problems == ()


@pytest.mark.parametrize("name", ["Channel 1-97-I-01.Bmp", "Channel 2-13-A-13.bmp", "Channel 1-01-AB-01-00.Bmp"])
def test_a_well_outside_the_plate_is_named(tmp_path: Path, name: str) -> None:
    (write_plate(tmp_path) / name).write_bytes(b"")
    (message,) = messages(tmp_path)
    assert message.startswith(
        "1 image files name a channel other than 1 (FITC) and 2 (DAPI) or a well outside A01 to H12"
    )
    assert message.endswith(f": {name}")


def test_a_third_channel_is_named_and_other_files_are_passed_over(tmp_path: Path) -> None:
    write_plate(tmp_path)
    (tmp_path / "Channel 3-01-A-01-00.Bmp").write_bytes(b"")
    (tmp_path / "BBBC014_v1_platemap_all.txt").write_text("well dose")
    (message,) = messages(tmp_path)
    assert message.endswith(": Channel 3-01-A-01-00.Bmp")


def test_two_files_of_one_image_are_named(tmp_path: Path) -> None:
    write_plate(tmp_path)
    for copy in ("copy/Channel 1-03-A-03-00.Bmp", "Channel2-04-A-04.TIF", "copy/Channel 1-05-A-05-00.Bmp"):
        (tmp_path / copy).parent.mkdir(exist_ok=True)
        Image.new("L", (27, 20)).save(tmp_path / copy)
    (message,) = messages(tmp_path)
    assert message == (
        "2 images have more than one file; keep one of each: "
        "A03 FITC (Channel 1-03-A-03-00.Bmp, copy/Channel 1-03-A-03-00.Bmp), "
        "A04 DAPI (Channel 2-04-A-04-00.Bmp, Channel2-04-A-04.TIF)"
    )


def test_images_that_are_broken_or_of_another_shape_are_named(tmp_path: Path) -> None:
    write_plate(tmp_path)
    (tmp_path / "Channel 1-01-A-01-00.Bmp").write_bytes(b"no image")
    Image.new("L", (5, 5)).save(tmp_path / "Channel 2-02-A-02-00.Bmp")
    broken, odd = messages(tmp_path)
    assert broken.startswith("1 image files cannot be read: Channel 1-01-A-01-00.Bmp")
    assert odd.endswith("Channel 2-02-A-02-00.Bmp (5, 5)")


# Tiles ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper(repo: Path) -> Callable[..., Sweep]:
    """The sweep file of the paper, with some keys set."""
    return lambda *overrides: sweep_file.load(repo / "sweeps" / "kensert2019_bbbc014.yaml", overrides)


def _prepare(screen: Screen, preparation: Preparation, size: int, folder: Path) -> TileStore:
    return prepare(screen, preparation, [size], folder, ThreadExecutor(2), lambda done, total: None)


def _by_name(store: TileStore, well: str, size: int) -> dict[str, NDArray[np.uint8]]:
    rows = store.table[store.table[WELL] == well]
    return {name: store.array(size)[row] for name, row in zip(rows[TILE], rows["row"], strict=True)}


def _slow_resize(plane: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float64]:
    """The mean of the area under each new pixel in exact fractions, rounded to a whole grey level."""
    down, across = Fraction(plane.shape[0], height), Fraction(plane.shape[1], width)
    new = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            total = Fraction(0)
            for y in range(plane.shape[0]):
                for x in range(plane.shape[1]):
                    high = min(Fraction(y + 1), (i + 1) * down) - max(Fraction(y), i * down)
                    wide = min(Fraction(x + 1), (j + 1) * across) - max(Fraction(x), j * across)
                    if high > 0 and wide > 0:
                        total += high * wide * int(plane[y, x])
            new[i, j] = round(total / (down * across))
    return new


def _slow_tiles(planes: list[NDArray[np.float64]], grid: int) -> dict[str, NDArray[np.float64]]:
    """Tiles of two resized planes: cropped, Anscombe, then by one map of both channels to 0..255, tile by tile."""
    side = len(planes[0]) // grid
    tiles = {}
    for row in range(grid):
        for column in range(grid):
            crops = [p[row * side : (row + 1) * side, column * side : (column + 1) * side] for p in planes]
            stable = [2 * np.sqrt(crop + 3 / 8) for crop in crops]
            low, high = min(crop.min() for crop in stable), max(crop.max() for crop in stable)
            fitc, dapi = (np.floor((crop - low) / (high - low) * 255) for crop in stable)
            tiles[f"{row}-{column}"] = np.stack([np.zeros((side, side)), fitc, dapi], axis=-1)
    return tiles


def _assert_alike(tiles: dict[str, NDArray[np.uint8]], slow: dict[str, NDArray[np.float64]]) -> None:
    assert tiles.keys() == slow.keys()
    for name, tile in tiles.items():
        np.testing.assert_allclose(tile.astype(float), slow[name], atol=1)


@pytest.mark.slow
def test_tiles_are_what_a_slow_loop_makes_of_the_paper(tmp_path: Path, paper: Callable[..., Sweep]) -> None:
    screen = bbbc014.open_screen(write_plate(tmp_path / "plate"))
    store = _prepare(screen, paper("images.field_size=16").images, 4, tmp_path / "store")
    assert (store.table.groupby(WELL).size() == 16).all()
    for well in ("A01", "E12"):
        paths = screen.fields.loc[screen.fields[WELL] == well, screen.path_columns].iloc[0]
        planes = [_slow_resize(np.asarray(Image.open(screen.root / path)), 16, 16) for path in paths]
        _assert_alike(_by_name(store, well, 4), _slow_tiles(planes, 4))


def test_real_wells_are_what_the_paper_makes_of_them(shared: Path, tmp_path: Path, paper: Callable[..., Sweep]) -> None:
    screen = bbbc014.open_screen(shared / "data" / "bbbc014_two_wells")
    (problem,) = screen.problems
    assert problem.message.startswith("62 of 64 wells have no image file below ")
    there = screen.fields[screen.fields[WELL].isin(["A01", "A12"])]
    assert there[LABEL].tolist() == ["positive", "negative"]
    store = _prepare(replace(screen, fields=there), paper().images, 256, tmp_path)
    assert (store.table.groupby(WELL).size() == 16).all()
    for _, row in there.iterrows():
        planes = read_field(screen.root, row[screen.path_columns].tolist())
        assert [(plane.shape, plane.dtype) for plane in planes] == [((1024, 1360), np.uint8)] * 2
        resized = [cv2.resize(plane, (1024, 1024), interpolation=cv2.INTER_AREA).astype(float) for plane in planes]
        _assert_alike(_by_name(store, row[WELL], 256), _slow_tiles(resized, 4))


def test_a_well_without_light_keeps_its_tiles(tmp_path: Path, paper: Callable[..., Sweep]) -> None:
    write_plate(tmp_path / "plate")
    for channel in (1, 2):
        Image.new("L", (27, 20)).save(tmp_path / "plate" / f"Channel {channel}-01-A-01-00.Bmp")
    store = _prepare(bbbc014.open_screen(tmp_path / "plate"), paper("images.field_size=16").images, 4, tmp_path)
    tiles = _by_name(store, "A01", 4)
    assert len(tiles) == 16
    assert not any(tile.any() for tile in tiles.values())


# The sweep ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plate") / "painted"
    paint(root, Translocation(height=64, width=80, cells=4))
    return root


@pytest.fixture(scope="module")
def study(painted: Path, paper: Callable[..., Sweep], tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The paper's on a painted plate, by a small network."""
    tiles = tmp_path_factory.mktemp("tiles")
    overrides = ("search.space={}", "recipe={backbone: SmallCNN, weights: random, image_size: 16}")
    return Study.open(paper(f"screen.root={painted}", f"tiles={tiles}", "images.field_size=64", *overrides))


def test_plan_of_the_paper_names_two_folds_and_64_wells(study: Study) -> None:
    study.require_sound()
    text = plan.describe(study)
    for words in (
        "64 fields of 64 treated wells, 64 treatments",
        "folds        2 (held out: cell_line)",
        "trials       2",
        "errors       0",
        "warnings     0",
    ):
        assert words in text


def test_the_paper_trains_three_networks_on_both_folds(painted: Path, paper: Callable[..., Sweep]) -> None:
    whole = Study.open(paper(f"screen.root={painted}"))
    assert len(whole.trials) == 6
    assert {recipe.image_size for recipe in whole.sweep.grid_recipes} == {256}
    assert whole.sweep.images.field_size == (1024, 1024)


def test_a_fold_is_trained_on_one_cell_line_and_judged_on_32_wells_of_the_other(study: Study) -> None:
    material = study.trial_data(study.prepare(lambda done, total: None))
    assert {fold.name for fold in study.trained_folds} == {"cell_line=A549", "cell_line=MCF7"}
    for name, other in (("cell_line=A549", "MCF7"), ("cell_line=MCF7", "A549")):
        parts = {part: material.table.iloc[rows] for part, rows in material.split(name).items()}
        assert set(parts["train"][CELL_LINE]) == {other}
        assert set(parts["test"][CELL_LINE]) == {name.removeprefix("cell_line=")}
        assert [parts[part][WELL].nunique() for part in ("train", "test")] == [32, 32]
        assert parts["test"].drop_duplicates(WELL)[LABEL].value_counts().to_dict() == {"positive": 16, "negative": 16}


def test_the_leaderboard_counts_64_wells_by_the_mean_of_their_tiles(study: Study) -> None:
    table = study.trial_data(study.prepare(lambda done, total: None)).table
    # In every well 6 tiles are sure of the truth and 10 doubt it a little: the mean is right, the median is not.
    sure = table[TILE].isin(["0-0", "0-1", "0-2", "0-3", "1-0", "1-1"])
    right = np.where(sure, 1.0, 0.45)
    positive = np.where(table[LABEL] == "positive", right, 1 - right)
    predictions = table.drop(columns="row").assign(
        **{CANDIDATE: "one", BACKBONE: "SmallCNN", FOLD: "cell_line=" + table[CELL_LINE]},
        prob_negative=1 - positive,
        prob_positive=positive,
    )
    assert study.sweep.aggregate == "mean"
    trials = pd.DataFrame(
        [
            {"candidate": "one", "fold": fold.name, "status": "finished", "epochs": 1, "seconds": 1.0}
            for fold in study.folds
        ]
    )
    standing = leaderboard.leaderboard(
        predictions, trials, {"one": study.sweep.grid_recipes[0].as_dict()}, 2, study.sweep.aggregate
    )
    assert (standing["k"].item(), standing["n"].item()) == (64, 64)
    assert scores.accuracy(aggregation.treatments(predictions, "median")) == 0
    by_fold = aggregation.treatments(predictions, "mean").groupby(FOLD).size()
    assert by_fold.to_dict() == {"cell_line=A549": 32, "cell_line=MCF7": 32}


def test_painted_plates_are_called_painted(painted: Path, paper: Callable[..., Sweep]) -> None:
    assert paper(f"screen.root={painted}", "screen.painting={}").is_painted
    assert not paper(f"screen.root={painted}").is_painted
    assert bbbc014.open_screen(painted).fields[FIELD].unique().tolist() == ["1"]
