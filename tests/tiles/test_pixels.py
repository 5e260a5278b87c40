"""Pixels that are no grey level are refused, file by file, and signed ones are shifted."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from tile_stores import by_key, prepared, same

from moa_ray.common.errors import InputError
from moa_ray.common.schema import PLATE
from moa_ray.config.preparation import Normalise, Preparation
from moa_ray.screens.screen import Screen
from moa_ray.tiles.pixels import UnfitPixelsError, advice, fit_pixels
from moa_ray.tiles.workers import unreadable

RAW = Preparation(anscombe=False)


def _plane(*pixels: float, kind: str = "float32") -> np.ndarray:
    return np.array([[*pixels, 7, 9]], dtype=kind)


def test_negative_nan_and_infinite_pixels_are_counted_by_file_and_the_field_is_refused() -> None:
    planes = [_plane(-3, -60.5, 4), _plane(1, 2, 3), _plane(np.nan, np.inf, -np.inf)]
    with pytest.raises(UnfitPixelsError) as caught:
        fit_pixels(planes, ["a.tif", "b.tif", "c.tif"], Preparation())
    assert str(caught.value) == ("a.tif: 2 negative (lowest -60.5) of 5 pixels; c.tif: 1 NaN, 2 infinite of 5 pixels")
    assert (caught.value.lowest, caught.value.is_finite) == (-60.5, False)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_refused_without_anscombe_too(bad: float) -> None:
    with pytest.raises(UnfitPixelsError, match=r"a.tif: 1 (NaN|infinite) of 5 pixels$"):
        fit_pixels([_plane(bad, -1, 2)], ["a.tif"], RAW)
    with pytest.raises(UnfitPixelsError, match=r"a.tif: 4 (NaN|infinite) of 4 pixels$"):
        fit_pixels([np.full((2, 2), bad, np.float32)], ["a.tif"], Preparation())


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_what_is_not_negative_is_left_as_it_is(kind: str) -> None:
    plane = _plane(0, 3, 4, kind=kind)
    assert fit_pixels([plane], ["a.tif"], Preparation())[0] is plane


def test_negative_pixels_are_grey_levels_where_nothing_takes_a_root_of_them() -> None:
    planes = [_plane(-3, 1, 2), _plane(-3, 1, 2, kind="int32")]
    assert all(fit is plane for fit, plane in zip(fit_pixels(planes, ["a", "b"], RAW), planes, strict=True))


@pytest.mark.parametrize(
    ("kind", "offset", "result"),
    [
        ("int16", 32768, "uint16"),
        ("int32", 32768, "uint16"),
        ("uint16", -5, "int32"),
        ("uint16", 40_000, "int32"),
        ("int16", 0.5, "float32"),
        ("float32", 32768, "float32"),
    ],
)
def test_offset_is_added_without_wrapping_around(kind: str, offset: float, result: str) -> None:
    low, high = (0, 65_535) if kind.startswith("u") else (-32_768, 32_767)
    plane = np.array([[low, 1, high]], dtype=kind)
    (fit,) = fit_pixels([plane], ["a.tif"], Preparation(anscombe=False, offset=offset))
    assert fit.dtype == result
    assert fit.tolist() == [[value + offset for value in plane[0].tolist()]]


def test_an_offset_that_is_too_small_says_how_low_the_file_goes() -> None:
    with pytest.raises(UnfitPixelsError, match=r"1 negative after images.offset 10 \(lowest -60\)") as caught:
        fit_pixels([_plane(-60, -10, 0)], ["a.tif"], Preparation(offset=10))
    assert "images.offset: 60," in advice([caught.value])[0]


def test_what_to_do_is_said_once_for_all_fields_and_survives_the_way_from_a_worker() -> None:
    errors = [
        UnfitPixelsError("a", lowest=-3.5),
        UnfitPixelsError("b", lowest=-9),
        UnfitPixelsError("c", is_finite=False),
    ]
    text = str(unreadable([*pickle.loads(pickle.dumps(errors)), InputError("d: missing")]))
    assert text.splitlines()[:5] == ["4 fields cannot be prepared:", "  a", "  b", "  c", "  d: missing"]
    assert ["offset: 9," in line for line in text.splitlines()[5:]] == [True, False]
    assert "NaN" in text.splitlines()[6]
    assert advice([InputError("d: missing")]) == []


def _as(screen: Screen, rows: pd.DataFrame, change: object, kind: str) -> list[str]:
    """Write the images of some rows anew in another dtype, changed; return their locations."""
    locations = rows[screen.path_columns].to_numpy().ravel().tolist()
    for location in locations:
        pixels = tifffile.imread(screen.root / location)
        tifffile.imwrite(screen.root / location, change(pixels.astype(np.float64)).astype(kind))  # type: ignore[operator]
    return locations


def test_one_nan_in_one_control_and_one_negative_pixel_elsewhere_are_named_together(
    screen: Screen, tmp_path: Path
) -> None:
    _as(screen, screen.fields, lambda pixels: pixels, "float32")
    control, labelled = screen.controls["Path_DAPI"].iloc[1], screen.labelled["Path_Actin"].iloc[2]
    for location, value in ((control, np.nan), (labelled, -3)):
        pixels = tifffile.imread(screen.root / location)
        pixels[1, 2] = value
        tifffile.imwrite(screen.root / location, pixels)
    with pytest.raises(InputError) as caught:
        prepared(screen, tmp_path)
    assert str(caught.value).splitlines()[:3] == [
        "2 fields cannot be prepared:",
        f"  {control}: 1 NaN of 5120 pixels",
        f"  {labelled}: 1 negative (lowest -3) of 5120 pixels",
    ]
    none = Preparation(anscombe=False, normalise=Normalise(by="none"))
    assert len(prepared(screen, tmp_path, none).table)  # where it is measured by no one, a control's NaN is no matter


@pytest.mark.parametrize("kind", ["int16", "int32", "float32"])
def test_signed_images_with_their_offset_give_the_tiles_of_the_unsigned_ones(
    screen: Screen, tmp_path: Path, kind: str
) -> None:
    plate = screen.fields[screen.fields[PLATE] == screen.fields[PLATE].iloc[0]]
    plain = by_key(prepared(screen, tmp_path))
    _as(screen, plate, lambda pixels: pixels - 32_768, kind)
    with pytest.raises(InputError, match=r"images\.offset: 32768, which"):
        prepared(screen, tmp_path)
    unsigned = screen.fields.drop(plate.index)
    _as(screen, unsigned, lambda pixels: pixels - 32_768, kind)
    assert same(by_key(prepared(screen, tmp_path, Preparation(offset=32_768))), plain)
