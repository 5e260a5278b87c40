"""Normalising by controls: whose they are, and what is said where there are too few or none."""

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
from moa_ray.tiles.store import TileStore


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
