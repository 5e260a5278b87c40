"""Image quality: against slow loops, told of by plate, and limits that leave fields out."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from tile_stores import by_key, prepared, same

from moa_ray.common.errors import InputError
from moa_ray.common.schema import FIELD_KEY, PLATE
from moa_ray.config.preparation import Normalise, Preparation
from moa_ray.config.quality import MEASURES, ChannelQuality, Limits
from moa_ray.screens.screen import Screen
from moa_ray.tiles.quality import (
    CHANNEL,
    COLUMNS,
    EMPTY,
    check_limits,
    measure_quality,
    outliers,
    quality_table,
    warnings,
)

FOCUS = MEASURES.index("focus")


def _slow(plane: NDArray[np.float64], rows: list[int]) -> list[float]:
    """Focus, saturated share, background and intensity of some rows, pixel by pixel."""
    height, width = plane.shape
    laplacian = [
        plane[y - 1, x] + plane[y + 1, x] + plane[y, x - 1] + plane[y, x + 1] - 4 * plane[y, x]
        for y in rows
        if 0 < y < height - 1
        for x in range(1, width - 1)
    ]
    pixels = sorted(value for y in rows for value in plane[y])
    at_top = sum(value == pixels[-1] for value in pixels) / len(pixels)
    return [float(np.var(laplacian)), at_top, pixels[int(0.05 * (len(pixels) - 1))], sum(pixels) / len(pixels)]


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int32", "float32"])
def test_a_small_image_is_measured_whole_as_a_slow_loop_does(kind: str) -> None:
    plane = np.minimum(np.random.default_rng(1).poisson(200, (30, 40)), 220).astype(kind)
    np.testing.assert_allclose(measure_quality([plane])[0], _slow(plane.astype(float), list(range(30))), rtol=1e-5)


def test_of_a_large_image_some_rows_are_looked_at() -> None:
    plane = np.random.default_rng(2).poisson(200, (300, 400)).astype("uint16")
    np.testing.assert_allclose(
        measure_quality([plane])[0], _slow(plane.astype(float), list(range(1, 300, 6))), rtol=1e-5
    )


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (5, 2)])
def test_an_image_too_small_for_a_laplacian_has_no_focus(shape: tuple[int, int]) -> None:
    focus, saturated, background, intensity = measure_quality([np.full(shape, 7, np.uint8)])[0]
    assert np.isnan(focus)
    assert (saturated, background, intensity) == (1, 7, 7)


def _table(fields: int = 12) -> pd.DataFrame:
    """Return a plate of fields of two channels that differ by a few per cent."""
    rng = np.random.default_rng(3)
    values = np.array([100, 1e-4, 50, 200]) * rng.normal(1, 0.05, (fields, 2, 4))
    return quality_table([("p", f"A{n:02}", "1") for n in range(fields)], ["DNA", "ER"], values, [0.0] * fields)


@pytest.mark.parametrize(
    ("measure", "value"), [("focus", 5), ("saturated", 0.1), ("background", 150), ("intensity", 40)]
)
def test_a_field_that_differs_from_its_plate_is_named(measure: str, value: float) -> None:
    table = _table()
    assert outliers(table).empty
    assert warnings(table) == []
    table.loc[7, measure] = value  # the fourth field's ER
    [row] = outliers(table).to_dict("records")
    assert (row["measure"], row[CHANNEL], row["value"]) == (measure, "ER", value)
    values = table.loc[table[CHANNEL] == "ER", measure].to_numpy(dtype=float)
    values = values if measure == "saturated" else np.log(values)
    off = np.abs(values - np.median(values))
    slow = off[3] / max(1.4826 * np.median(off), 0.001 if measure == "saturated" else 0.05)
    assert abs(row["z"]) == pytest.approx(slow, rel=1e-3)
    assert abs(row["z"]) > 5
    [sentence] = warnings(table)
    assert sentence.startswith("1 of 12 fields differ in image quality from the others of their plate")
    assert f"{measure} of 1 (p A03 1 ER {value:g})" in sentence


def test_a_field_that_is_sharper_than_the_others_is_no_outlier() -> None:
    table = _table()
    table.loc[7, "focus"] = 2000
    assert outliers(table).empty


def test_few_fields_and_fields_that_are_all_alike_are_no_outliers() -> None:
    few = _table(7)
    few.loc[0, "focus"] = 1
    alike = quality_table([("p", f"A{n}", "1") for n in range(9)], ["DNA"], np.zeros((9, 1, 4)), [0.0] * 9)
    assert outliers(few).empty
    assert outliers(alike).empty


# In the store ---------------------------------------------------------------------------------------------------------


def _change(screen: Screen, locations: list[str], change: Callable[[Image.Image], Image.Image]) -> None:
    for location in locations:
        with Image.open(screen.root / location) as image:
            changed = change(image)
        changed.save(screen.root / location)


def _blurred(image: Image.Image) -> Image.Image:
    pixels = np.array(image).astype(np.float32)
    means = sum(np.roll(pixels, (dy, dx), (0, 1)) for dy in range(-2, 3) for dx in range(-2, 3)) / 25
    return Image.fromarray(means.astype(np.uint16))


def test_the_store_has_the_quality_of_every_labelled_field_by_channel(screen: Screen, tmp_path: Path) -> None:
    blank = screen.labelled.sort_values(FIELD_KEY).iloc[3]
    _change(screen, blank[screen.path_columns].tolist(), lambda image: Image.fromarray(_with_hot_pixel(image)))
    made, opened = prepared(screen, tmp_path), prepared(screen, tmp_path)
    pd.testing.assert_frame_equal(made.quality, opened.quality)
    assert list(made.quality.columns) == COLUMNS
    assert len(made.quality) == 3 * len(screen.labelled)
    rows = made.quality.set_index([*FIELD_KEY, CHANNEL])
    for _, field in screen.labelled.iterrows():
        for channel in ("Actin", "Tubulin", "DAPI"):
            row = rows.loc[(*field[FIELD_KEY], channel)]
            pixels = np.array(Image.open(screen.root / field[f"Path_{channel}"])).astype(float)
            np.testing.assert_allclose(row[list(MEASURES)].astype(float), _slow(pixels, list(range(64))), rtol=1e-5)
            dropped = (made.dropped[FIELD_KEY] == field[FIELD_KEY].to_numpy()).all(axis=1).sum()
            assert row[EMPTY] == dropped / 4
    assert rows.loc[tuple(blank[FIELD_KEY])][EMPTY].tolist() == [1, 1, 1]


def _with_hot_pixel(image: Image.Image) -> NDArray[np.uint16]:
    pixels = np.full((image.height, image.width), 200, np.uint16)
    pixels[3, 4] = 60_000
    return pixels


def test_a_store_that_was_made_before_has_no_quality_and_still_opens(screen: Screen, tmp_path: Path) -> None:
    store = prepared(screen, tmp_path)
    (store.path / "quality.parquet").unlink()
    again = prepared(screen, tmp_path)
    assert again.quality.empty
    assert list(again.quality.columns) == COLUMNS
    assert again.warnings == store.warnings
    pd.testing.assert_frame_equal(again.table, store.table)


def test_fields_beyond_a_limit_are_dropped_with_the_reason_and_normalise_nothing(
    screen: Screen, tmp_path: Path, reads: Counter[str]
) -> None:
    plain = prepared(screen, tmp_path)
    sharp = plain.quality.loc[plain.quality[CHANNEL] == "DAPI", "focus"]
    treated = screen.labelled.sort_values(FIELD_KEY).iloc[5]
    control = screen.controls.iloc[0]
    _change(screen, [treated["Path_DAPI"], control["Path_DAPI"]], _blurred)
    limits = {"DAPI": ChannelQuality(focus=Limits(min=0.5 * sharp.min()), intensity=Limits(max=1e9))}
    preparation = Preparation(normalise=Normalise(min_control_fields=1), quality=limits)
    store = prepared(screen, tmp_path, preparation)
    reason = f"quality: DAPI focus below {0.5 * sharp.min():g}"
    by_quality = store.dropped[store.dropped["reason"] != "no cells"]
    assert {tuple(key) for key in by_quality[FIELD_KEY].to_numpy()} == {tuple(treated[FIELD_KEY])}
    assert by_quality["reason"].tolist() == [reason] * 4
    assert store.lost(screen.labelled, FIELD_KEY)["reason"].tolist() == [reason]
    assert len(store.quality) == 3 * len(screen.labelled)
    # The control counts for nothing: as if it were not there.
    without = Screen(**{**vars(screen), "fields": screen.fields.drop([control.name, treated.name])})
    bare = prepared(without, tmp_path, Preparation(normalise=Normalise(min_control_fields=1)))
    assert same(by_key(store), by_key(bare))
    assert control[PLATE] in set(store.table[PLATE])


def test_limits_that_nothing_is_within_are_an_error_that_names_them(screen: Screen, tmp_path: Path) -> None:
    none = {"Actin": ChannelQuality(saturated=Limits(max=-1))}
    with pytest.raises(InputError, match=r"none of its controls is within images\.quality"):
        prepared(screen, tmp_path, Preparation(quality=none))
    by_none = Preparation(normalise=Normalise(by="none"), quality=none)
    with pytest.raises(InputError, match=r"no tile is left \(quality: Actin saturated above -1\)"):
        prepared(screen, tmp_path, by_none)


def test_limits_of_a_channel_that_is_not_in_use_are_a_problem(screen: Screen) -> None:
    limits = {"DAPY": ChannelQuality(focus=Limits(min=1)), "Actin": ChannelQuality()}
    [problem] = check_limits(screen, limits)
    assert problem.message == "images.quality: no channel 'DAPY' is in use; did you mean 'DAPI'?"
    assert check_limits(screen, None) == []


@pytest.mark.parametrize("limits", [{}, {"min": 3.0, "max": 2.0}])
def test_limits_check_themselves(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="min"):
        Limits(**limits)
