"""Normalising by controls: whose they are, and what is said where there are too few or none."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from tile_stores import PLATES, Tiles, by_key, prepared, same

from moa_ray.common.errors import InputError
from moa_ray.common.schema import CONTROL, PLATE, WEEK, WELL
from moa_ray.config.preparation import Normalise, Preparation
from moa_ray.screens import reading
from moa_ray.screens.screen import Screen
from moa_ray.tiles.build import prepare
from moa_ray.tiles.controls import curves, measure
from moa_ray.tiles.groups import check_normalise, units
from moa_ray.tiles.store import TileStore
from moa_ray.tiles.workers import FieldCounter, ThreadExecutor


def _without_controls(screen: Screen, drop: pd.Series) -> Screen:
    return replace(screen, fields=screen.fields[~(screen.fields[CONTROL] & drop)])


def _rows_of(store: TileStore, plate: str) -> Tiles:
    return {key: tile for key, tile in by_key(store).items() if key[0] == plate}


def test_a_plate_with_few_controls_takes_its_week_and_says_so_once(screen: Screen, tmp_path: Path) -> None:
    poor = sorted(screen.fields[PLATE].unique())[0]
    # All controls of the plate but those of one well: 2 of 4 fields.
    well = screen.controls.loc[screen.controls[PLATE] == poor, WELL].iloc[0]
    fewer = _without_controls(screen, (screen.fields[PLATE] == poor) & (screen.fields[WELL] == well))
    store = prepared(fewer, tmp_path / "plate")
    by_week = prepared(fewer, tmp_path / "week", Preparation(normalise=Normalise(by="week")))
    assert len(store.warnings) == 1
    assert poor in store.warnings[0]
    assert "week" in store.warnings[0]
    assert same(_rows_of(store, poor), _rows_of(by_week, poor))
    assert prepared(fewer, tmp_path / "plate").warnings == store.warnings  # also when opened from disk


def test_a_week_without_controls_takes_the_screen(screen: Screen, tmp_path: Path) -> None:
    bare = _without_controls(screen, screen.fields[WEEK] == "Week1")
    store = prepared(bare, tmp_path / "plate")
    by_screen = prepared(bare, tmp_path / "screen", Preparation(normalise=Normalise(by="screen")))
    plates = sorted(bare.labelled.loc[bare.labelled[WEEK] == "Week1", PLATE].unique())
    assert len(store.warnings) == 1
    assert "the whole screen" in store.warnings[0]
    assert all(same(_rows_of(store, plate), _rows_of(by_screen, plate)) for plate in plates)


def test_no_controls_anywhere_is_one_message_and_none_needs_none(screen: Screen, tmp_path: Path) -> None:
    bare = _without_controls(screen, screen.fields[CONTROL])
    with pytest.raises(InputError, match=r"no control fields to normalise by.*set it to none"):
        prepared(bare, tmp_path)
    none = Preparation(normalise=Normalise(by="none"))
    assert same(by_key(prepared(bare, tmp_path, none)), by_key(prepared(screen, tmp_path, none)))


def test_controls_of_one_single_value_are_refused_by_name(screen: Screen, tmp_path: Path) -> None:
    plate = sorted(screen.fields[PLATE].unique())[1]
    for location in screen.controls.loc[screen.controls[PLATE] == plate, "Path_Tubulin"]:
        Image.fromarray(np.full((64, 80), 7, dtype=np.uint16)).save(screen.root / location)
    with pytest.raises(InputError, match=f"plate {plate}: .*one single value in Path_Tubulin"):
        prepared(screen, tmp_path)


@pytest.mark.parametrize("role", ["labelled", "controls"])
def test_all_fields_that_cannot_be_read_are_named_together(screen: Screen, tmp_path: Path, role: str) -> None:
    rows = getattr(screen, role).drop_duplicates(PLATE)
    missing, *broken = (screen.root / location for location in rows["Path_Actin"])
    missing.unlink()
    for file in broken:
        file.write_bytes(b"no image")
    assert len(rows) == PLATES
    with pytest.raises(InputError, match=f"{PLATES} fields cannot be prepared") as caught:
        prepared(screen, tmp_path)
    assert all(location in str(caught.value) for location in rows["Path_Actin"])


def test_a_screen_mended_after_an_error_is_prepared_without_reading_other_plates_again(
    screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plates around an unreadable field are kept, as long as no file of the screen changes."""
    broken = screen.labelled["Path_Actin"].iloc[0]
    read = reading.read_field
    seen: list[str] = []

    def failing(root: Path, locations: list[str], planes: Any) -> NDArray[np.uint16]:
        seen.append(locations[0])
        if locations[0] == broken and len(seen) <= len(screen.fields):
            raise InputError(f"{broken}: a disk that hiccups")
        return read(root, locations, planes)

    for module in ("build", "controls"):
        monkeypatch.setattr(f"moa_ray.tiles.{module}.read_field", failing)
    with pytest.raises(InputError, match="hiccups"):
        prepared(screen, tmp_path)
    assert len(seen) == len(screen.fields)
    mended = prepared(screen, tmp_path)
    assert len(seen) == len(screen.fields) + 4
    # What was made last is not at the end: the store is the one that an undisturbed run makes.
    undisturbed = prepared(screen, tmp_path / "undisturbed")
    pd.testing.assert_frame_equal(mended.table, undisturbed.table)
    assert mended.file(32).read_bytes() == undisturbed.file(32).read_bytes()


# Other groups, all fields, robust -------------------------------------------------------------------------------------

BATCH = "Metadata_Batch"


def _batches(screen: Screen) -> Screen:
    """Return the screen with a batch for each field, which leaves plates and weeks alone."""
    return replace(screen, fields=screen.fields.assign(**{BATCH: np.where(screen.fields[WELL] < "D", "b 1", "b/2")}))


def _pixels(screen: Screen, rows: pd.DataFrame) -> list[NDArray[np.float64]]:
    """All pixels of some fields, channel by channel, stabilised."""
    return [
        np.concatenate([2 * np.sqrt(np.array(Image.open(screen.root / path), float).ravel() + 3 / 8) for path in paths])
        for paths in (rows[column] for column in screen.path_columns)
    ]


@pytest.mark.parametrize(
    ("by", "of", "statistic"),
    [
        *(("plate", "all", "mean_std"), ("plate", "controls", "median_mad"), ("week", "all", "median_mad")),
        *(("screen", "controls", "median_mad"), (BATCH, "controls", "mean_std"), (BATCH, "all", "median_mad")),
    ],
)
def test_every_field_is_normalised_by_what_a_slow_loop_makes_of_its_group(
    screen: Screen, tmp_path: Path, by: str, of: str, statistic: str
) -> None:
    batched = _batches(screen)
    settings = Normalise(by=by, min_control_fields=1, of=of, statistic=statistic)  # type: ignore[arg-type]
    preparation = Preparation(normalise=settings)
    counter = FieldCounter(len(batched.fields), lambda done, total: None)
    files, errors = measure(batched, preparation, tmp_path, ThreadExecutor(2), counter)
    assert not errors
    of_unit = curves(batched, preparation, files)
    column = {"plate": PLATE, "week": WEEK}.get(by, by)
    rows_of_units = dict(zip(units(batched.fields, settings), batched.fields.to_dict("records"), strict=True))
    assert of_unit.keys() == rows_of_units.keys()
    for unit, row in rows_of_units.items():
        group = batched.fields if by == "screen" else batched.fields[batched.fields[column] == row[column]]
        rows = group if of == "all" else group[group[CONTROL]]
        for curve, pixels in zip(of_unit[unit], _pixels(batched, rows), strict=True):
            median = np.median(pixels)
            slow = {
                "mean_std": (pixels.mean(), pixels.std()),
                "median_mad": (median, 1.4826022185056018 * np.median(np.abs(pixels - median))),
            }
            assert (curve.mean, curve.std) == pytest.approx(slow[statistic], rel=1e-5)


def test_a_batch_without_controls_takes_the_screen_and_says_so(screen: Screen, tmp_path: Path) -> None:
    fields = screen.fields
    values = np.where(fields[CONTROL], "b1", np.where(fields[PLATE] == fields[PLATE].iloc[0], None, "b2"))
    batched = replace(screen, fields=fields.assign(**{BATCH: values}))
    store = prepared(batched, tmp_path, Preparation(normalise=Normalise(by=BATCH)))
    assert store.warnings == (
        f"2 values of {BATCH} have fewer than 4 control fields and are normalised by the whole screen's: (none), b2",
    )
    assert same(by_key(store), by_key(prepared(screen, tmp_path, Preparation(normalise=Normalise(by="screen")))))


def test_a_column_that_is_not_there_is_a_problem_with_the_one_that_was_meant(screen: Screen, tmp_path: Path) -> None:
    settings = Normalise(by="Metadata_Batsch")
    [problem] = check_normalise(_batches(screen), settings)
    assert problem.severity == "error"
    assert problem.message == (
        "images.normalise.by: the screen has no column 'Metadata_Batsch'; did you mean 'Metadata_Batch'?"
    )
    with pytest.raises(InputError, match="no column 'Metadata_Batsch'"):
        prepared(_batches(screen), tmp_path, Preparation(normalise=settings))
    assert check_normalise(_batches(screen), Normalise(by=BATCH)) == []


def test_a_deviation_of_0_is_an_error_that_says_why(screen: Screen, tmp_path: Path) -> None:
    for location in screen.controls["Path_Tubulin"]:
        pixels = np.array(Image.open(screen.root / location))
        pixels[:40] = 7
        Image.fromarray(pixels).save(screen.root / location)
    robust = Preparation(normalise=Normalise(statistic="median_mad"))
    with pytest.raises(InputError, match=r"at least half .* in Path_Tubulin, .*statistic: mean_std"):
        prepared(screen, tmp_path, robust)
    assert len(prepared(screen, tmp_path).table)


def test_robust_measures_are_kept_by_plate_as_soon_as_they_are_known(
    screen: Screen, tmp_path: Path, reads: Counter[str]
) -> None:
    robust = Preparation(normalise=Normalise(by=BATCH, of="all", statistic="median_mad"))
    batched = _batches(screen)
    undisturbed = by_key(prepared(batched, tmp_path / "undisturbed", robust))
    fields = len(batched.fields)

    def progress(done: int, total: int) -> None:
        assert total == fields + len(batched.labelled)
        if done == fields:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(batched, robust, [32], tmp_path / "store", ThreadExecutor(2), progress)
    reads.clear()
    assert same(by_key(prepared(batched, tmp_path / "store", robust)), undisturbed)
    last_unit = max(units(batched.fields, robust.normalise))
    assert sum(reads.values()) == units(batched.fields, robust.normalise).count(last_unit) + len(batched.labelled)
