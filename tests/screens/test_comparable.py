"""Images of other sizes and depths: an error within a plate, and between plates what the preparation takes out."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from screen_files import sound_fields, tiff

from moa_ray.common.schema import PLATE, WELL
from moa_ray.config.preparation import Normalise, Preparation
from moa_ray.screens.checks import check_images

PLATES = ("p1", "p2", "p3")
LIKE_MOST, SMALLER, BYTES = np.zeros((6, 8), np.uint16), np.zeros((3, 4), np.uint16), np.zeros((6, 8), np.uint8)
BY_SCREEN = Normalise(by="screen")


def noise(seed: int, like: Any) -> Any:
    """No image is a copy of another one."""
    return np.random.default_rng(seed).integers(0, 250, like.shape).astype(like.dtype)


def screen(root: Path, of_third: Any, controls: int = 4) -> pd.DataFrame:
    """Three plates of two treated and some control fields each, the third's images given."""
    controls_of = [sound_fields().iloc[[4]].assign(**{WELL: f"H{number + 1:02}"}) for number in range(controls)]
    of_plate = pd.concat([sound_fields().iloc[[0, 2]], *controls_of])
    fields = pd.concat([of_plate.assign(**{PLATE: plate}) for plate in PLATES], ignore_index=True)
    fields["Path_G"] = [f"{plate}/{well}.tif" for plate, well in fields[[PLATE, WELL]].to_numpy()]
    for number, path in enumerate(fields["Path_G"]):
        tiff(root / path, noise(number, of_third if path.startswith("p3") else LIKE_MOST))
    return fields


SMALLER, BYTES = np.zeros((3, 4), np.uint16), np.zeros((6, 8), np.uint8)
BY_SCREEN = Normalise(by="screen")


OF_SHAPE = "6 image files have another shape than most ((6, 8)); where plates differ, set images.field_size: p3/"
OF_DTYPE = "another dtype than most (uint16); where plates differ, set images.normalise.by: plate"
TOO_FEW = "where plates differ, give each at least images.normalise.min_control_fields (5) control fields"


@pytest.mark.parametrize(
    ("of_third", "preparation", "message"),
    [
        (SMALLER, Preparation(field_size=(6, 8)), None),
        (SMALLER, Preparation(), OF_SHAPE),
        (SMALLER, None, OF_SHAPE),
        (BYTES, Preparation(), None),
        (BYTES, Preparation(normalise=BY_SCREEN), OF_DTYPE),
        (BYTES, Preparation(normalise=Normalise(min_control_fields=5)), TOO_FEW),
        (BYTES, Preparation(normalise=Normalise(min_control_fields=5, of="all")), None),
        (BYTES, Preparation(normalise=Normalise(by="Metadata_Plate")), None),
        (BYTES, None, OF_DTYPE),
    ],
)
def test_plates_differ_where_the_preparation_makes_them_comparable(
    tmp_path: Path, of_third: Any, preparation: Preparation | None, message: str | None
) -> None:
    problems = check_images(screen(tmp_path, of_third), tmp_path, ["Path_G"], {}, preparation)
    if message is None:
        assert problems == []
    else:
        (problem,) = problems
        assert message in problem.message


@pytest.mark.parametrize("pixels", [SMALLER, BYTES])
def test_image_unlike_the_others_of_its_plate_is_an_error_whatever_the_preparation(tmp_path: Path, pixels: Any) -> None:
    fields = screen(tmp_path, LIKE_MOST)
    odd = fields["Path_G"].iloc[7]
    tiff(tmp_path / odd, noise(99, pixels))
    (problem,) = check_images(fields, tmp_path, ["Path_G"], {}, Preparation(field_size=6))
    noun = "shape" if pixels is SMALLER else "dtype"
    assert problem.message.startswith(f"1 image files have another {noun} than most of their plate: {odd} ")
