"""The tile store: what its tiles are, that rows are found by key alone, that work is neither lost nor repeated."""

import json
import os
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from tile_stores import by_key, prepared, quiet, same

from moa_ray.common import files
from moa_ray.common.schema import COMPOUND, CONTROL, FIELD, FIELD_KEY, LABEL, PLATE, TILE_KEY, WEEK, WELL
from moa_ray.config.planes import Plane
from moa_ray.config.preparation import Normalise, Preparation
from moa_ray.config.screens import TableSettings
from moa_ray.screens import bbbc021, example_fields, table
from moa_ray.screens.screen import Screen
from moa_ray.tiles.build import prepare
from moa_ray.tiles.fingerprint import fingerprint
from moa_ray.tiles.store import TileStore, expected_bytes
from moa_ray.tiles.workers import ThreadExecutor


def _stopping_after(count: int) -> Callable[[int, int], None]:
    """A progress callback that is interrupted when so many fields are done."""

    def progress(done: int, total: int) -> None:
        if done == count:
            raise KeyboardInterrupt

    return progress


# The referee ----------------------------------------------------------------------------------------------------------


def _planes(screen: Screen, row: pd.Series) -> list[NDArray[np.float64]]:
    """The field's planes in the network's order, after the Anscombe transform, in double precision."""
    return [
        2 * np.sqrt(np.asarray(Image.open(screen.root / row[column])).astype(np.float64) + 3 / 8)
        for column in screen.path_columns
    ]


def _control_statistics(screen: Screen, column: str, value: str) -> list[tuple[float, float]]:
    """Mean and standard deviation of each channel over all pixels of the controls of a plate or week, held at once."""
    controls = [_planes(screen, row) for _, row in screen.controls.iterrows() if row[column] == value]
    pixels = [np.concatenate([planes[c].ravel() for planes in controls]) for c in range(len(screen.path_columns))]
    return [(float(values.mean()), float(values.std())) for values in pixels]


def _overlaps(length: int, size: int) -> Iterator[list[tuple[int, float]]]:
    """For each output pixel the input pixels under it and how much of each lies under it."""
    step = length / size
    for i in range(size):
        low, high = i * step, (i + 1) * step
        yield [
            (p, min(p + 1, high) - max(p, low))
            for p in range(int(low), min(length, int(np.ceil(high))))
            if min(p + 1, high) > max(p, low)
        ]


def _slow_resize(tile: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    out = np.zeros((size, size))
    area = (tile.shape[0] / size) * (tile.shape[1] / size)
    for i, rows in enumerate(_overlaps(tile.shape[0], size)):
        for j, columns in enumerate(_overlaps(tile.shape[1], size)):
            out[i, j] = sum(tile[y, x] * h * w for y, h in rows for x, w in columns) / area
    return out


def _slow_tiles(
    screen: Screen, row: pd.Series, statistics: list[tuple[float, float]], grid: tuple[int, int], size: int
) -> dict[str, NDArray[np.float64]]:
    """The tiles of one field from the words of the issue: normalise, 8 bit over the whole field, crop, drop, resize."""
    planes = [(plane - mean) / std for plane, (mean, std) in zip(_planes(screen, row), statistics, strict=True)]
    low, high = min(plane.min() for plane in planes), max(plane.max() for plane in planes)
    levels = [np.floor((plane - low) / (high - low) * 255) for plane in planes]
    height, width = levels[0].shape[0] // grid[0], levels[0].shape[1] // grid[1]
    tiles = {}
    for r in range(grid[0]):
        for c in range(grid[1]):
            crop = [plane[r * height : (r + 1) * height, c * width : (c + 1) * width] for plane in levels]
            values = np.concatenate([plane.ravel() for plane in crop])
            if (values > 50).sum() / len(values) > 0.002:
                tiles[f"{r}-{c}"] = np.stack([_slow_resize(plane, size) for plane in crop], axis=-1)
    return tiles


def _assert_like_the_referee(screen: Screen, store: TileStore, rows: pd.DataFrame, column: str, size: int) -> None:
    tiles = by_key(store, size)
    grid = (2, 2) if column == PLATE else (1, 1)
    statistics = {value: _control_statistics(screen, column, value) for value in rows[column].unique()}
    for _, row in rows.iterrows():
        slow = _slow_tiles(screen, row, statistics[row[column]], grid, size)
        key = tuple(row[FIELD_KEY])
        assert {name for *field, name in tiles if tuple(field) == key} == set(slow)
        for name, expected in slow.items():
            assert np.abs(tiles[*key, name].astype(float) - expected).max() <= 1


@pytest.mark.parametrize("size", [16, 24, 32])
def test_tiles_are_what_a_slow_loop_makes_of_the_issue(screen: Screen, tmp_path: Path, size: int) -> None:
    store = prepared(screen, tmp_path / "store", size=size)
    _assert_like_the_referee(screen, store, screen.labelled.iloc[::5], PLATE, size)


def _kill(screen: Screen, rows: pd.DataFrame) -> None:
    """Leave background and two hot pixels in the first quarter of some fields."""
    for location in rows[screen.path_columns].to_numpy().ravel():
        dead = np.random.default_rng(len(location)).poisson(200, (64, 80)).astype(np.uint16)
        dead[5, 5:7] = 60_000
        Image.fromarray(dead).save(screen.root / location)


def test_empty_tiles_are_those_that_a_slow_loop_drops_and_are_kept_by_name(screen: Screen, tmp_path: Path) -> None:
    rows = screen.labelled.sort_values(FIELD_KEY)
    dead, quarter = rows.iloc[[0, 1]], rows.iloc[4]
    _kill(screen, dead)
    for location in quarter[screen.path_columns]:
        pixels = np.array(Image.open(screen.root / location))
        pixels[32:, 40:] = pixels.min()
        Image.fromarray(pixels).save(screen.root / location)
    for store in (prepared(screen, tmp_path / "store"), prepared(screen, tmp_path / "store")):  # made, and opened
        _assert_like_the_referee(screen, store, rows.iloc[:6], PLATE, 32)
        slow = {(*key, name) for key in dead[FIELD_KEY].to_numpy().tolist() for name in ("0-0", "0-1", "1-0", "1-1")}
        assert {tuple(key) for key in store.dropped[TILE_KEY].to_numpy()} == slow | {(*quarter[FIELD_KEY], "1-1")}
        assert set(store.dropped["reason"]) == {"no cells"}
        assert len(store.dropped) + len(store.table) == 4 * len(rows)
        assert store.warnings[0].startswith(f"2 of {len(rows)} fields have no tile (no cells)")
        lost = store.lost(screen.labelled, FIELD_KEY)
        assert {tuple(key) for key in lost[FIELD_KEY].to_numpy()} == {tuple(key) for key in dead[FIELD_KEY].to_numpy()}
        counts = store.counts(screen.labelled)
        assert counts[["tiles", "dropped_tiles", "dropped_fields"]].sum().tolist() == [4 * len(rows), 9, 2]


def test_dropped_tiles_of_a_store_that_did_not_note_them_follow_from_its_grid(screen: Screen, tmp_path: Path) -> None:
    _kill(screen, screen.labelled.iloc[:3])
    store = prepared(screen, tmp_path)
    (store.path / "dropped.parquet").unlink()
    pd.testing.assert_frame_equal(prepared(screen, tmp_path).dropped, store.dropped)


def test_a_control_that_is_a_class_too_is_measured_and_made_into_the_tiles_of_any_field(
    screen: Screen, tmp_path: Path, reads: Counter[str]
) -> None:
    both = replace(screen, fields=screen.fields.assign(**{LABEL: screen.fields[LABEL].fillna("untreated")}))
    store = prepared(both, tmp_path / "both")
    assert {location: count for location, count in reads.items() if count != 1} == dict.fromkeys(
        screen.controls[screen.path_columns[0]], 2
    )
    _assert_like_the_referee(both, store, both.controls.iloc[::5], PLATE, 32)
    plain = by_key(prepared(screen, tmp_path / "plain"))
    assert same({key: tile for key, tile in by_key(store).items() if key in plain}, plain)


@pytest.mark.slow
def test_real_cells_are_what_a_slow_loop_makes_of_the_issue(shared: Path, tmp_path: Path) -> None:
    screen = bbbc021.open_screen(shared / "data" / "bbbc021_cells")
    preparation = Preparation(normalise=Normalise(by="week"), rows=1, columns=1)
    store = prepared(screen, tmp_path / "store", preparation, size=64)
    assert len(store.table) == len(screen.labelled)  # a cell fills its tile: none is nearly empty
    assert store.table.merge(screen.labelled, on=FIELD_KEY, validate="many_to_one")[LABEL].nunique() == 12
    counts = screen.controls.groupby(WEEK).size()
    enough = screen.labelled[screen.labelled[WEEK].map(counts).fillna(0) >= preparation.normalise.min_control_fields]
    assert len(enough)
    _assert_like_the_referee(screen, store, enough.iloc[::40], WEEK, 64)


def test_controls_are_measured_on_fields_of_the_size_that_they_are_prepared_at(screen: Screen, tmp_path: Path) -> None:
    smaller = tmp_path / "smaller"
    for path in screen.root.rglob("*.*"):
        copy = smaller / path.relative_to(screen.root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".tif":
            pixels = np.asarray(Image.open(path)).astype(np.float64)
            halved = np.rint(pixels.reshape(32, 2, 40, 2).mean(axis=(1, 3))).astype(np.uint16)
            Image.fromarray(halved).save(copy)
        else:
            copy.write_bytes(path.read_bytes())
    resized = prepared(screen, tmp_path / "one", Preparation(field_size=(32, 40)), size=16)
    assert same(by_key(resized, 16), by_key(prepared(bbbc021.open_screen(smaller), tmp_path / "two", size=16), 16))


# Keys, channels, sizes ------------------------------------------------------------------------------------------------


def test_shuffled_fields_give_the_same_tiles_by_key(screen: Screen, tmp_path: Path) -> None:
    shuffled = replace(screen, fields=screen.fields.sample(frac=1, random_state=3))
    one, other = prepared(screen, tmp_path / "one"), prepared(shuffled, tmp_path / "other")
    assert one.fingerprint == other.fingerprint
    assert same(by_key(one), by_key(other))


def test_the_number_of_workers_does_not_change_a_tile(screen: Screen, tmp_path: Path) -> None:
    one = prepare(screen, Preparation(), [32], tmp_path / "one", ThreadExecutor(1), quiet)
    assert same(by_key(one), by_key(prepare(screen, Preparation(), [32], tmp_path / "many", ThreadExecutor(5), quiet)))


def test_only_labelled_fields_become_tiles_each_with_a_row_of_its_own(screen: Screen, tmp_path: Path) -> None:
    store = prepared(screen, tmp_path)
    assert not store.table.duplicated(TILE_KEY).any()
    assert sorted(store.table["row"]) == list(range(len(store.array(32))))
    fields = store.table.merge(screen.fields, on=FIELD_KEY, validate="many_to_one")
    assert len(fields) == len(store.table)
    assert not fields[CONTROL].any()


def test_a_channel_that_is_none_is_a_plane_of_zeros_after_the_8_bit_map(screen: Screen, tmp_path: Path) -> None:
    # Zeros before the map would share in the range of the field and come out grey.
    gap = replace(screen, channels=("Actin", None, "DAPI"))
    last = replace(screen, channels=("Actin", "DAPI", None))
    one, other = by_key(prepared(gap, tmp_path)), by_key(prepared(last, tmp_path))
    assert one.keys() == other.keys()
    assert all(not tile[..., 1].any() for tile in one.values())
    assert all(np.array_equal(one[key][..., [0, 2, 1]], other[key]) for key in one)


def test_all_sizes_come_of_one_reading_of_each_field(screen: Screen, tmp_path: Path, reads: Counter[str]) -> None:
    both = prepare(screen, Preparation(), [32, 16, 32], tmp_path / "both", ThreadExecutor(2), quiet)
    assert both.sizes == (16, 32)
    assert len(reads) == len(screen.fields)
    assert set(reads.values()) == {1}
    for size in both.sizes:
        assert same(by_key(both, size), by_key(prepared(screen, tmp_path / "alone", size=size), size))


def test_a_control_that_carries_a_label_in_its_table_is_read_once_and_makes_no_tiles(
    screen: Screen, tmp_path: Path, reads: Counter[str]
) -> None:
    rows = screen.fields.assign(**{LABEL: screen.fields[LABEL].fillna("untreated")})
    rows.to_csv(screen.root / "fields.csv", index=False)
    columns = {name: name for name in (PLATE, WELL, FIELD, COMPOUND, LABEL)}
    images = {channel: f"Path_{channel}" for channel in ("Actin", "Tubulin", "DAPI")}
    settings = TableSettings(
        name="table", root=screen.root, fields="fields.csv", columns=columns, images=images, control="DMSO"
    )
    labelled = table.open_screen(screen.root, settings)
    store = prepared(labelled, tmp_path / "table")
    assert len(reads) == len(screen.fields)
    assert set(reads.values()) == {1}
    assert same(by_key(store), by_key(prepared(screen, tmp_path / "plain")))


def test_the_arrays_are_mapped_read_only_and_take_what_was_expected(screen: Screen, tmp_path: Path) -> None:
    everything = Preparation(empty_share=0, empty_above=0)
    store = prepare(screen, everything, [16, 32], tmp_path, ThreadExecutor(2), quiet)
    arrays = [store.array(size) for size in store.sizes]
    assert all(isinstance(array, np.memmap) and not array.flags.writeable for array in arrays)
    assert [array.shape[1:] for array in arrays] == [(16, 16, 3), (32, 32, 3)]
    assert sum(array.nbytes for array in arrays) == expected_bytes(len(screen.labelled), everything, [16, 32])


def test_a_zip_archive_gives_the_tiles_of_its_folders(screen: Screen, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    for tables in screen.root.glob("*.csv"):
        (packed / tables.name).write_bytes(tables.read_bytes())
    for plate in screen.root.glob("Week*/*"):
        with zipfile.ZipFile(packed / f"{plate.name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in plate.iterdir():
                archive.write(file, f"{plate.name}/{file.name}")
    zipped = bbbc021.open_screen(packed)
    assert not zipped.problems
    store = prepared(zipped, tmp_path / "zipped")
    assert same(by_key(store), by_key(prepared(screen, tmp_path / "folders")))
    for archive_path in packed.glob("*.zip"):
        os.utime(archive_path, (1, 1))  # the checksums of its members count, not the archive's time
    assert fingerprint(zipped, Preparation(), [32]) == store.fingerprint


# Streaming, interrupted, started again --------------------------------------------------------------------------------


def test_progress_counts_controls_and_fields_up_to_their_number(screen: Screen, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare(screen, Preparation(), [32], tmp_path, ThreadExecutor(2), lambda done, total: seen.append((done, total)))
    assert seen == [(done, len(screen.fields)) for done in range(1, len(screen.fields) + 1)]


def test_a_whole_store_is_used_without_reading_a_field(screen: Screen, tmp_path: Path, reads: Counter[str]) -> None:
    first = prepared(screen, tmp_path)
    reads.clear()
    again = prepared(screen, tmp_path)
    assert not reads
    assert again.path == first.path
    assert same(by_key(again), by_key(first))


@pytest.mark.parametrize("done", [3, 9, 18, 22, 27, 32])
def test_an_interrupted_store_goes_on_from_its_finished_plates(
    screen: Screen, tmp_path: Path, reads: Counter[str], done: int
) -> None:
    """16 control fields on 4 plates come first, then 16 labelled ones on 4 plates: 4 fields make a finished plate."""
    undisturbed = by_key(prepared(screen, tmp_path / "undisturbed"))
    with pytest.raises(KeyboardInterrupt):
        prepare(screen, Preparation(), [32], tmp_path / "store", ThreadExecutor(2), _stopping_after(done))
    assert not list((tmp_path / "store").rglob("fingerprint.json"))
    reads.clear()
    store = prepared(screen, tmp_path / "store")
    # The plate in whose last field it stopped had not been written: (done - 1) // 4 plates are.
    assert sum(reads.values()) == len(screen.fields) - 4 * ((done - 1) // 4)
    assert same(by_key(store), undisturbed)
    assert sorted(path.name for path in store.path.iterdir() if not path.name.startswith(".")) == [
        "dropped.parquet",
        "fingerprint.json",
        "quality.parquet",
        "tiles-32.npy",
        "tiles.parquet",
    ]


def test_a_store_killed_before_its_last_file_is_assembled_again_without_reading(
    screen: Screen, tmp_path: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = by_key(prepared(screen, tmp_path / "undisturbed"))
    with monkeypatch.context() as patch:
        patch.setattr("moa_ray.tiles.build.write_json", _killed_at("fingerprint.json", files.write_json))
        with pytest.raises(KeyboardInterrupt):
            prepared(screen, tmp_path / "store")
    reads.clear()
    assert same(by_key(prepared(screen, tmp_path / "store")), undisturbed)
    assert not reads


def _killed_at(name: str, write: Callable[..., None]) -> Callable[..., None]:
    def killed(path: Path, plain: object) -> None:
        if path.name == name:
            raise KeyboardInterrupt
        write(path, plain)

    return killed


def test_parts_left_by_a_kill_after_the_last_file_are_cleared(screen: Screen, tmp_path: Path) -> None:
    store = prepared(screen, tmp_path)
    (store.path / "parts" / "Week1_1").mkdir(parents=True)
    prepared(screen, tmp_path)
    assert not (store.path / "parts").exists()


def test_two_that_prepare_the_same_store_share_the_work(screen: Screen, tmp_path: Path, reads: Counter[str]) -> None:
    together, stores, failures = threading.Barrier(3), [], []

    def work() -> None:
        together.wait()
        try:
            stores.append(prepared(screen, tmp_path / "store"))
        except Exception as error:  # a thread's error would otherwise be lost
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(stores) == 3
    assert set(reads.values()) == {1}
    assert same(by_key(stores[0]), by_key(prepared(screen, tmp_path / "alone")))


def test_planes_of_stacks_make_the_tiles_of_single_files(screen: Screen, tmp_path: Path) -> None:
    """Also as example fields of a ledger."""
    channels = [channel for channel in screen.channels if channel is not None]
    stacked = screen.fields.copy()
    for number, (_, row) in enumerate(screen.fields.iterrows()):
        planes = np.stack([np.asarray(Image.open(screen.root / row[column])) for column in screen.path_columns])
        tifffile.imwrite(screen.root / f"{number}.ome.tif", planes, ome=True, metadata={"axes": "CYX"})
        stacked.loc[row.name, screen.path_columns] = f"{number}.ome.tif"
    planes = {channel: Plane(number) for number, channel in enumerate(channels)}
    of_stacks = replace(screen, fields=stacked, planes=planes)
    assert same(by_key(prepared(of_stacks, tmp_path)), by_key(prepared(screen, tmp_path)))
    swapped = replace(of_stacks, planes=planes | {channels[0]: Plane(1)})
    assert len({fingerprint(each, Preparation(), [32]) for each in (screen, of_stacks, swapped)}) == 3
    treated, _ = example_fields.read(json.loads(json.dumps(example_fields.choose(of_stacks))))
    expected, _ = example_fields.read(example_fields.choose(screen))
    for pair, other in zip(treated, expected, strict=True):
        np.testing.assert_array_equal(pair.treated.planes, other.treated.planes)


def test_plates_of_other_sizes_and_depths_become_the_same_tiles_where_they_are_made_comparable(
    screen: Screen, tmp_path: Path
) -> None:
    """Half of the grey levels in 8 bits, and each pixel as four, are the same picture."""
    files = sorted({path for column in screen.path_columns for path in screen.fields[column]})
    levels = {path: np.asarray(Image.open(screen.root / path)) // 64 * 2 for path in files}
    for path in files:
        tifffile.imwrite(screen.root / path, np.minimum(levels[path], 510).astype(np.uint16))
    preparation = Preparation(field_size=(64, 80), anscombe=False)
    plain = by_key(prepared(screen, tmp_path / "plain", preparation))
    first = screen.fields[PLATE].iloc[0]
    of_first = screen.fields.loc[screen.fields[PLATE] == first, screen.path_columns].to_numpy().ravel()
    for path in of_first:
        pixels = np.minimum(levels[path], 510) // 2
        tifffile.imwrite(screen.root / path, np.kron(pixels, np.ones((2, 2))).astype(np.uint8))
    mixed = by_key(prepared(screen, tmp_path / "mixed", preparation))
    assert plain.keys() == mixed.keys()
    for key, tile in plain.items():
        np.testing.assert_allclose(mixed[key], tile, atol=1)  # rounding of the map to 8 bits
