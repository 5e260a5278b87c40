"""The painted screen: BBBC021's layout, whole or not at all, the same for the same seed, and worth learning from."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from moa_ray.common.errors import InputError
from moa_ray.common.schema import COMPOUND, CONCENTRATION, CONTROL, LABEL, PLATE, TREATMENT, WEEK, WELL_KEY
from moa_ray.config.painting import Painting
from moa_ray.screens import bbbc021, painted_bbbc021
from moa_ray.screens.painted_bbbc021 import paint
from moa_ray.screens.reading import read_field
from moa_ray.screens.screen import Screen
from moa_ray.tiles.intensities import anscombe

SMALL = Painting(labels=2, compounds=2, concentrations=1, replicates=2, fields=1, height=64, width=72, cells=3)

# The header of the official BBBC021_v1_image.csv, and of BBBC021_v1_moa.csv.
IMAGE_COLUMNS = [
    "TableNumber",
    "ImageNumber",
    *(f"Image_{kind}_{channel}" for channel in ("DAPI", "Tubulin", "Actin") for kind in ("FileName", "PathName")),
    "Image_Metadata_Plate_DAPI",
    "Image_Metadata_Well_DAPI",
    "Replicate",
    "Image_Metadata_Compound",
    "Image_Metadata_Concentration",
]
MOA_COLUMNS = ["compound", "concentration", "moa"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Screen:
    """The default painting with the demo's effect, opened by the code that opens real data."""
    root = tmp_path_factory.mktemp("demo") / "painted"
    paint(root, Painting(effect=0.5, seed=7))
    return bbbc021.open_screen(root)


def _contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_default_painting_has_the_size_that_the_demo_promises(demo: Screen) -> None:
    labelled = demo.labelled
    assert not demo.problems
    assert labelled[LABEL].nunique() == 4
    assert (labelled.groupby(LABEL)[COMPOUND].nunique() == 3).all()
    assert (labelled.groupby(COMPOUND)[CONCENTRATION].nunique() == 2).all()
    assert (labelled.drop_duplicates(WELL_KEY).groupby(TREATMENT).size() == 3).all()


def test_replicates_of_a_treatment_lie_on_different_plates(demo: Screen) -> None:
    wells = demo.labelled.drop_duplicates(WELL_KEY)
    assert not wells.duplicated([*TREATMENT, PLATE]).any()


def test_every_plate_has_controls_and_every_week_has_all_labels(demo: Screen) -> None:
    assert set(demo.controls[PLATE]) == set(demo.fields[PLATE])
    assert (demo.labelled.groupby(WEEK)[LABEL].nunique() == 4).all()


def test_tables_have_the_official_columns(tmp_path: Path) -> None:
    paint(tmp_path / "painted", SMALL)
    images = pd.read_csv(tmp_path / "painted" / "BBBC021_v1_image.csv")
    assert sorted(images.columns) == sorted(IMAGE_COLUMNS)
    assert list(pd.read_csv(tmp_path / "painted" / "BBBC021_v1_moa.csv").columns) == MOA_COLUMNS


def test_the_columns_held_to_be_official_are(shared: Path) -> None:
    tables = shared / "data" / "bbbc021_csv"
    assert list(pd.read_csv(tables / "BBBC021_v1_image.csv", nrows=0).columns) == IMAGE_COLUMNS
    assert list(pd.read_csv(tables / "BBBC021_v1_moa.csv", nrows=0).columns) == MOA_COLUMNS


def test_images_are_16_bit_triples_of_the_size_asked_for(tmp_path: Path) -> None:
    paint(tmp_path / "painted", SMALL)
    files = sorted((tmp_path / "painted").rglob("*.tif"))
    rows = pd.read_csv(tmp_path / "painted" / "BBBC021_v1_image.csv")
    assert len(files) == 3 * len(rows)
    for file in files:
        with Image.open(file) as image:
            assert (image.mode, image.height, image.width) == ("I;16", SMALL.height, SMALL.width)


def test_the_same_seed_paints_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        paint(tmp_path / name, Painting(**{**vars(SMALL), "seed": seed}))
    assert _contents(tmp_path / "one") == _contents(tmp_path / "again")
    assert not {n for n in _contents(tmp_path / "one") if n.endswith(".tif")} & set(_contents(tmp_path / "other"))


def test_a_well_looks_the_same_whatever_else_is_painted(tmp_path: Path) -> None:
    paint(tmp_path / "fewer", Painting(**{**vars(SMALL), "replicates": 1}))
    paint(tmp_path / "more", SMALL)
    fewer, more = (
        {name: pixels for name, pixels in _contents(tmp_path / root).items() if name.endswith(".tif")}
        for root in ("fewer", "more")
    )
    assert len(fewer) < len(more)
    assert fewer.items() <= more.items()


def test_a_painting_that_is_there_is_left_untouched(tmp_path: Path) -> None:
    root = tmp_path / "painted"
    paint(root, SMALL)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    paint(root, SMALL)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_another_painting_and_other_files_are_refused_and_kept(tmp_path: Path) -> None:
    paint(tmp_path / "painted", SMALL)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    before = _contents(tmp_path)
    with pytest.raises(InputError, match=r"another painting; give another screen\.root"):
        paint(tmp_path / "painted", Painting(**{**vars(SMALL), "seed": 5}))
    with pytest.raises(InputError, match=r"other files; give a screen\.root"):
        paint(tmp_path / "other", SMALL)
    with pytest.raises(InputError, match=r"other files; give a screen\.root"):
        paint(tmp_path / "other" / "notes.txt", SMALL)
    assert _contents(tmp_path) == before


def test_a_painting_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(painted_bbbc021, "_write_tables", full)
    with pytest.raises(OSError, match="no space"):
        paint(tmp_path / "painted", SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(4))
def test_every_mechanism_can_be_painted_at_full_effect(tmp_path: Path, seed: int) -> None:
    # Cells vary: a share that varies above 1 once made light negative, which no camera can count.
    every = {
        "labels": 6,
        "compounds": 3,
        "concentrations": 2,
        "replicates": 1,
        "cells": 12,
        "effect": 1.0,
        "seed": seed,
    }
    paint(tmp_path / "painted", Painting(**{**vars(SMALL), **every}))
    assert bbbc021.open_screen(tmp_path / "painted").labelled[LABEL].nunique() == 6


@pytest.mark.parametrize("change", [{"labels": 1}, {"labels": 7}, {"cells": 0}, {"height": 63}, {"control_wells": 0}])
def test_a_painting_that_makes_no_sense_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        Painting(**change)


def test_more_wells_than_a_plate_has_are_refused_before_painting() -> None:
    assert Painting(labels=4, compounds=3, concentrations=14, control_wells=4)
    with pytest.raises(ValueError, match=r"61 wells on a plate.* 60"):
        Painting(labels=4, compounds=3, concentrations=14, control_wells=5)


# Worth learning from --------------------------------------------------------------------------------------------------


def _texture(field: NDArray[np.float32]) -> NDArray[np.float32]:
    """Spread, and the mean step between pixels some way apart, of each channel: none of it a mean intensity."""
    steps = [np.abs(field[gap:] - field[:-gap]).mean((0, 1)) for gap in (1, 2, 4, 8)]
    return np.concatenate([field.std((0, 1)), *steps])


def _by_controls(demo: Screen, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each field's features relative to the mean and spread of its plate's controls."""
    table = pd.DataFrame(values).assign(plate=demo.fields[PLATE].to_numpy(), control=demo.fields[CONTROL].to_numpy())
    for plate in table["plate"].unique():
        rows = (table["plate"] == plate).to_numpy()
        controls = values[rows & table["control"].to_numpy()]
        values[rows] = (values[rows] - controls.mean(0)) / controls.mean(0)
    return values[demo.fields[LABEL].notna().to_numpy()]


def _right(demo: Screen, values: NDArray[np.float32]) -> int:
    """Treatments that leave-one-compound-out logistic regression gets right."""
    table = demo.labelled.reset_index(drop=True)
    probabilities = np.zeros((len(table), len(demo.labels)))
    for compound in table[COMPOUND].unique():
        held_out = (table[COMPOUND] == compound).to_numpy()
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        model.fit(values[~held_out], table.loc[~held_out, LABEL])
        probabilities[held_out] = model.predict_proba(values[held_out])
    by_treatment = pd.DataFrame(probabilities, columns=demo.labels).groupby([table[c] for c in [*TREATMENT, LABEL]])
    predicted = by_treatment.median().idxmax(axis=1)
    return int((predicted == predicted.index.get_level_values(LABEL)).sum())


def test_texture_tells_mechanisms_of_unseen_compounds_but_not_all_of_them(demo: Screen) -> None:
    rows = demo.fields[demo.path_columns].to_numpy().tolist()
    fields = [anscombe(np.stack(read_field(demo.root, row), axis=-1)) for row in rows]
    texture = _right(demo, _by_controls(demo, np.array([_texture(field) for field in fields])))
    chance = 24 / 4
    assert 2 * chance <= texture < 24
