"""The paper's recipe: the values of its sweep file against loops written from the paper's text."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from moa_ray.config import sweep_file
from moa_ray.config.painting import Painting
from moa_ray.config.recipe import Augmentation, Recipe
from moa_ray.screens.folds import unscored
from moa_ray.screens.painted_bbbc021 import paint
from moa_ray.study import Study

SIDE = 40  # a tile of 64 x 80 pixels shrinks by 1.6 and by 2


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few cells, so that some tiles are empty; two plates with two fields of each of two control wells."""
    folder = tmp_path_factory.mktemp("painted") / "screen"
    painting = Painting(labels=2, compounds=2, concentrations=1, replicates=1, height=128, width=160, cells=3)
    paint(folder, painting)
    return folder


@pytest.mark.slow
def test_tiles_are_the_papers_to_one_grey_level(repo: Path, root: Path, tmp_path: Path) -> None:
    changes = [f"screen.root={root}", f"tiles={tmp_path / 'tiles'}", f"recipe.image_size={SIDE}"]
    study = Study.open(sweep_file.load(repo / "sweeps/kensert2019_bbbc021.yaml", [*changes, f"out={tmp_path / 'out'}"]))
    store = study.prepare(lambda done, total: None)
    rows = {
        (row["Metadata_Plate"], row["Metadata_Well"], row["Metadata_Field"], row["Metadata_Tile"]): row["row"]
        for row in store.table.to_dict("records")
    }
    expected = dict(slow_tiles(root))
    assert rows.keys() == expected.keys()
    assert 0 < len(rows) < 4 * len(study.screen.labelled)  # some tiles are empty
    array = store.array(SIDE)
    for key, tile in expected.items():
        assert np.abs(array[rows[key]].astype(int) - tile).max() <= 1


def slow_tiles(root: Path) -> Iterator[tuple[tuple[str, ...], NDArray[Any]]]:
    """Key and network input of every tile that is kept, a value at a time."""
    images = pd.read_csv(root / "BBBC021_v1_image.csv")
    fields = {}
    for row in images.to_dict("records"):
        planes = [
            np.asarray(Image.open(root / row[f"Image_PathName_{channel}"] / row[f"Image_FileName_{channel}"]))
            for channel in ("Actin", "Tubulin", "DAPI")
        ]
        site = row["Image_FileName_DAPI"].split("_s")[1].split("_")[0]
        key = row["Image_Metadata_Plate_DAPI"], row["Image_Metadata_Well_DAPI"], site
        fields[key] = (
            row["Image_Metadata_Compound"],
            [[[2 * math.sqrt(v + 3 / 8) for v in line] for line in plane.tolist()] for plane in planes],
        )
    for (plate, well, site), (compound, field) in fields.items():
        if compound == "DMSO":
            continue
        controls = [other for (p, _, _), (name, other) in fields.items() if p == plate and name == "DMSO"]
        stack = []
        for channel in range(3):
            values = [v for control in controls for line in control[channel] for v in line]
            mean = sum(values) / len(values)
            deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
            stack.append([[(v - mean) / deviation for v in line] for line in field[channel]])
        low = min(v for plane in stack for line in plane for v in line)
        high = max(v for plane in stack for line in plane for v in line)
        grey = [[[int((v - low) / (high - low) * 255) for v in line] for line in plane] for plane in stack]
        for tile_row in range(2):
            for tile_column in range(2):
                tile = [
                    [
                        line[tile_column * 80 : tile_column * 80 + 80]
                        for line in plane[tile_row * 64 : tile_row * 64 + 64]
                    ]
                    for plane in grey
                ]
                bright = sum(v > 50 for plane in tile for line in plane for v in line)
                if bright / (3 * 64 * 80) <= 0.002:
                    continue
                # The networks saw DAPI, Tubulin, Actin.
                small = [slow_area(plane) for plane in reversed(tile)]
                yield (plate, well, site, f"{tile_row}-{tile_column}"), np.moveaxis(np.array(small), 0, -1)


def slow_area(plane: list[list[int]]) -> list[list[float]]:
    """Each output pixel is the mean of the area that it covers."""
    height, width = len(plane), len(plane[0])
    small = []
    for row in range(SIDE):
        line = []
        for column in range(SIDE):
            top, bottom = row * height / SIDE, (row + 1) * height / SIDE
            left, right = column * width / SIDE, (column + 1) * width / SIDE
            total = 0.0
            for y in range(int(top), math.ceil(bottom)):
                for x in range(int(left), math.ceil(right)):
                    total += (min(bottom, y + 1) - max(top, y)) * (min(right, x + 1) - max(left, x)) * plane[y][x]
            line.append(total / ((bottom - top) * (right - left)))
        small.append(line)
    return small


def test_the_training_is_the_papers(repo: Path) -> None:
    sweep = sweep_file.load(repo / "sweeps/kensert2019_bbbc021.yaml")
    expected = {
        Recipe(
            backbone=backbone,
            weights="imagenet",
            image_size=size,
            input_scaling="none",
            epochs=10,
            batch_size=8,
            optimizer="sgd",
            momentum=0.9,
            learning_rate=1e-4,
            schedule="constant",
            class_weights="balanced",
            precision="float32",
            augment=Augmentation(True, (1.0, 1.0, 0.75, 1.25), 0.5, 0.5, 50.0),
        )
        for backbone, size in (("ResNet50", 224), ("InceptionV3", 299), ("InceptionResNetV2", 299))
    }
    assert set(sweep.grid_recipes) == expected
    assert (sweep.validation, sweep.aggregate, sweep.folds.hold_out) == (None, "median", "compound")
    assert sweep.screen.channels == ("DAPI", "Tubulin", "Actin")


@pytest.mark.parametrize(
    ("hold_out", "folds", "excluded", "scored"), [("compound", 38, 0, 103), ("[compound, week]", 33, 5, 92)]
)
def test_the_sweep_on_the_official_tables(
    hold_out: str, folds: int, excluded: int, scored: int, repo: Path, shared: Path
) -> None:
    changes = [f"screen.root={shared / 'data/bbbc021_csv'}", f"folds.hold_out={hold_out}"]
    study = Study.open(sweep_file.load(repo / "sweeps/kensert2019_bbbc021.yaml", changes))
    assert (len(study.trained_folds), len(study.folds) - len(study.trained_folds)) == (folds, excluded)
    assert len(study.trials) == 3 * folds
    assert 103 - len(unscored(study.screen.labelled, study.folds)) == scored
