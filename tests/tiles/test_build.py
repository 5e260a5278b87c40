"""The tile store: what its tiles are, that rows are found by key alone, and that work is neither lost nor repeated."""

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
from numpy.typing import NDArray
from PIL import Image

from moa_ray import tiles
from moa_ray.images import Normalise, Preparation
from moa_ray.screens import Screen, bbbc021, table
from moa_ray.screens.synthetic import Painting, paint
from moa_ray.tables import COMPOUND, CONTROL, FIELD, FIELD_KEY, LABEL, PLATE, TILE_KEY, WEEK, WELL
from moa_ray.tiles import Threads, TileStore, expected_bytes, fingerprint, prepare

PAINTING = Painting(labels=2, compounds=2, concentrations=1, replicates=2, fields=2, height=64, width=80, cells=5)
PLATES = 4  # two weeks of two plates, each with 4 control fields and 4 labelled ones

Tiles = dict[tuple[str, ...], NDArray[np.uint8]]


@pytest.fixture
def screen(tmp_path: Path) -> Screen:
    paint(tmp_path / "painted", PAINTING)
    return bbbc021.open_screen(tmp_path / "painted")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each field was read, by the location of its first channel."""
    counter: Counter[str] = Counter()
    read, lock = tiles.read_field, threading.Lock()

    def counting(root: Path, locations: list[str]) -> list[NDArray[np.uint16]]:
        with lock:
            counter[locations[0]] += 1
        return read(root, locations)

    monkeypatch.setattr(tiles, "read_field", counting)
    return counter


def _quiet(done: int, total: int) -> None:
    pass


def _prepare(screen: Screen, folder: Path, preparation: Preparation | None = None, size: int = 32) -> TileStore:
    return prepare(screen, preparation or Preparation(), [size], folder, Threads(2), _quiet)


def _by_key(store: TileStore, size: int = 32) -> Tiles:
    array = store.array(size)
    return {tuple(key): array[row] for *key, row in store.table[[*TILE_KEY, "row"]].itertuples(index=False)}


def _same(one: Tiles, other: Tiles) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


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
    made = {}
    for r in range(grid[0]):
        for c in range(grid[1]):
            crop = [plane[r * height : (r + 1) * height, c * width : (c + 1) * width] for plane in levels]
            values = np.concatenate([plane.ravel() for plane in crop])
            if (values > 50).sum() / len(values) > 0.002:
                made[f"{r}-{c}"] = np.stack([_slow_resize(plane, size) for plane in crop], axis=-1)
    return made


def _assert_like_the_referee(screen: Screen, store: TileStore, rows: pd.DataFrame, column: str, size: int) -> None:
    by_key = _by_key(store, size)
    grid = (2, 2) if column == PLATE else (1, 1)
    statistics = {value: _control_statistics(screen, column, value) for value in rows[column].unique()}
    for _, row in rows.iterrows():
        slow = _slow_tiles(screen, row, statistics[row[column]], grid, size)
        key = tuple(row[FIELD_KEY])
        assert {name for *field, name in by_key if tuple(field) == key} == set(slow)
        for name, expected in slow.items():
            assert np.abs(by_key[*key, name].astype(float) - expected).max() <= 1


@pytest.mark.parametrize("size", [16, 24, 32])
def test_tiles_are_what_a_slow_loop_makes_of_the_issue(screen: Screen, tmp_path: Path, size: int) -> None:
    store = _prepare(screen, tmp_path / "store", size=size)
    _assert_like_the_referee(screen, store, screen.labelled.iloc[::5], PLATE, size)


def test_real_cells_are_what_a_slow_loop_makes_of_the_issue(shared: Path, tmp_path: Path) -> None:
    screen = bbbc021.open_screen(shared / "data" / "bbbc021_cells")
    preparation = Preparation(normalise=Normalise(by="week"), rows=1, columns=1)
    store = _prepare(screen, tmp_path / "store", preparation, size=64)
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
    resized = _prepare(screen, tmp_path / "one", Preparation(field_size=(32, 40)), size=16)
    assert _same(_by_key(resized, 16), _by_key(_prepare(bbbc021.open_screen(smaller), tmp_path / "two", size=16), 16))


# Keys, channels, sizes ------------------------------------------------------------------------------------------------


def test_shuffled_fields_give_the_same_tiles_by_key(screen: Screen, tmp_path: Path) -> None:
    shuffled = replace(screen, fields=screen.fields.sample(frac=1, random_state=3))
    one, other = _prepare(screen, tmp_path / "one"), _prepare(shuffled, tmp_path / "other")
    assert one.fingerprint == other.fingerprint
    assert _same(_by_key(one), _by_key(other))


def test_the_number_of_workers_does_not_change_a_tile(screen: Screen, tmp_path: Path) -> None:
    one = prepare(screen, Preparation(), [32], tmp_path / "one", Threads(1), _quiet)
    assert _same(_by_key(one), _by_key(prepare(screen, Preparation(), [32], tmp_path / "many", Threads(5), _quiet)))


def test_only_labelled_fields_become_tiles_each_with_a_row_of_its_own(screen: Screen, tmp_path: Path) -> None:
    store = _prepare(screen, tmp_path)
    assert not store.table.duplicated(TILE_KEY).any()
    assert sorted(store.table["row"]) == list(range(len(store.array(32))))
    fields = store.table.merge(screen.fields, on=FIELD_KEY, validate="many_to_one")
    assert len(fields) == len(store.table)
    assert not fields[CONTROL].any()


def test_a_channel_that_is_none_is_a_plane_of_zeros_after_the_8_bit_map(screen: Screen, tmp_path: Path) -> None:
    # Zeros before the map would share in the range of the field and come out grey.
    gap = replace(screen, channels=("Actin", None, "DAPI"))
    last = replace(screen, channels=("Actin", "DAPI", None))
    one, other = _by_key(_prepare(gap, tmp_path)), _by_key(_prepare(last, tmp_path))
    assert one.keys() == other.keys()
    assert all(not tile[..., 1].any() for tile in one.values())
    assert all(np.array_equal(one[key][..., [0, 2, 1]], other[key]) for key in one)


def test_all_sizes_come_of_one_reading_of_each_field(screen: Screen, tmp_path: Path, reads: Counter[str]) -> None:
    both = prepare(screen, Preparation(), [32, 16, 32], tmp_path / "both", Threads(2), _quiet)
    assert both.sizes == (16, 32)
    assert len(reads) == len(screen.fields)
    assert set(reads.values()) == {1}
    for size in both.sizes:
        assert _same(_by_key(both, size), _by_key(_prepare(screen, tmp_path / "alone", size=size), size))


def test_a_control_that_carries_a_label_in_its_table_is_read_once_and_makes_no_tiles(
    screen: Screen, tmp_path: Path, reads: Counter[str]
) -> None:
    rows = screen.fields.assign(**{LABEL: screen.fields[LABEL].fillna("untreated")})
    rows.to_csv(screen.root / "fields.csv", index=False)
    columns = {name: name for name in (PLATE, WELL, FIELD, COMPOUND, LABEL)}
    images = {channel: f"Path_{channel}" for channel in ("Actin", "Tubulin", "DAPI")}
    labelled = table.open_screen(screen.root, "fields.csv", columns, images, "DMSO", None)
    store = _prepare(labelled, tmp_path / "table")
    assert len(reads) == len(screen.fields)
    assert set(reads.values()) == {1}
    assert _same(_by_key(store), _by_key(_prepare(screen, tmp_path / "plain")))


def test_the_arrays_are_mapped_read_only_and_take_what_was_expected(screen: Screen, tmp_path: Path) -> None:
    everything = Preparation(empty_share=0, empty_above=0)
    store = prepare(screen, everything, [16, 32], tmp_path, Threads(2), _quiet)
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
    store = _prepare(zipped, tmp_path / "zipped")
    assert _same(_by_key(store), _by_key(_prepare(screen, tmp_path / "folders")))
    for archive_path in packed.glob("*.zip"):
        os.utime(archive_path, (1, 1))  # the checksums of its members count, not the archive's time
    assert fingerprint(zipped, Preparation(), [32]) == store.fingerprint


# Streaming, interrupted, started again --------------------------------------------------------------------------------


def test_each_thread_holds_one_job_and_few_results_wait_to_be_taken() -> None:
    lock, together = threading.Lock(), threading.Barrier(3)
    held: list[int] = [0]
    drawn: list[int] = []

    def work(job: int) -> int:
        with lock:
            held.append(held[-1] + 1)
        together.wait(timeout=60)  # breaks unless three run at once
        with lock:
            held.append(held[-1] - 1)
        return job

    def jobs() -> Iterator[int]:
        for job in range(30):
            drawn.append(job)
            yield job

    taken = []
    for result in Threads(3).map(work, jobs()):
        assert len(drawn) - len(taken) <= 6
        taken.append(result)
    assert taken == list(range(30))
    assert max(held) == 3


def test_a_value_error_takes_the_place_of_its_result_and_any_other_ends_the_work() -> None:
    def work(job: str) -> str:
        if job == "unreadable":
            raise ValueError(job)
        return job.upper()

    made = list(Threads(2).map(work, ["a", "unreadable", "b"]))
    assert [str(one) for one in made] == ["A", "unreadable", "B"]
    assert isinstance(made[1], ValueError)
    with pytest.raises(ZeroDivisionError):
        list(Threads(2).map(lambda job: 1 // job, [1, 0, 1]))


def test_progress_counts_controls_and_fields_up_to_their_number(screen: Screen, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare(screen, Preparation(), [32], tmp_path, Threads(2), lambda done, total: seen.append((done, total)))
    assert seen == [(done, len(screen.fields)) for done in range(1, len(screen.fields) + 1)]


def test_a_whole_store_is_used_without_reading_a_field(screen: Screen, tmp_path: Path, reads: Counter[str]) -> None:
    first = _prepare(screen, tmp_path)
    reads.clear()
    again = _prepare(screen, tmp_path)
    assert not reads
    assert again.path == first.path
    assert _same(_by_key(again), _by_key(first))


@pytest.mark.parametrize("done", [3, 9, 18, 22, 27, 32])
def test_an_interrupted_store_goes_on_from_its_finished_plates(
    screen: Screen, tmp_path: Path, reads: Counter[str], done: int
) -> None:
    """16 control fields on 4 plates come first, then 16 labelled ones on 4 plates: 4 fields make a finished plate."""
    undisturbed = _by_key(_prepare(screen, tmp_path / "undisturbed"))
    with pytest.raises(KeyboardInterrupt):
        prepare(screen, Preparation(), [32], tmp_path / "store", Threads(2), _stopping_after(done))
    assert not list((tmp_path / "store").rglob("fingerprint.json"))
    reads.clear()
    store = _prepare(screen, tmp_path / "store")
    # The plate in whose last field it stopped had not been written: (done - 1) // 4 plates are.
    assert sum(reads.values()) == len(screen.fields) - 4 * ((done - 1) // 4)
    assert _same(_by_key(store), undisturbed)
    assert sorted(path.name for path in store.path.iterdir() if not path.name.startswith(".")) == [
        "fingerprint.json",
        "tiles-32.npy",
        "tiles.parquet",
    ]


def test_a_store_killed_before_its_last_file_is_assembled_again_without_reading(
    screen: Screen, tmp_path: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = _by_key(_prepare(screen, tmp_path / "undisturbed"))
    with monkeypatch.context() as patch:
        patch.setattr(tiles, "_write_json", _killed_at("fingerprint.json", tiles._write_json))
        with pytest.raises(KeyboardInterrupt):
            _prepare(screen, tmp_path / "store")
    reads.clear()
    assert _same(_by_key(_prepare(screen, tmp_path / "store")), undisturbed)
    assert not reads


def _killed_at(name: str, write: Callable[..., None]) -> Callable[..., None]:
    def killed(path: Path, plain: object) -> None:
        if path.name == name:
            raise KeyboardInterrupt
        write(path, plain)

    return killed


def test_parts_left_by_a_kill_after_the_last_file_are_cleared(screen: Screen, tmp_path: Path) -> None:
    store = _prepare(screen, tmp_path)
    (store.path / "parts" / "Week1_1").mkdir(parents=True)
    _prepare(screen, tmp_path)
    assert not (store.path / "parts").exists()


def test_two_that_prepare_the_same_store_share_the_work(screen: Screen, tmp_path: Path, reads: Counter[str]) -> None:
    together, stores, failures = threading.Barrier(3), [], []

    def work() -> None:
        together.wait()
        try:
            stores.append(_prepare(screen, tmp_path / "store"))
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
    assert _same(_by_key(stores[0]), _by_key(_prepare(screen, tmp_path / "alone")))


# Fingerprint ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "preparation",
    [
        Preparation(anscombe=False),
        Preparation(normalise=Normalise(by="week")),
        Preparation(normalise=Normalise(min_control_fields=5)),
        Preparation(range_over="tile"),
        Preparation(rows=1),
        Preparation(columns=1),
        Preparation(empty_above=51),
        Preparation(empty_share=0.003),
        Preparation(empty_share=None),
        Preparation(field_size=64),
    ],
    ids=str,
)
def test_every_setting_changes_the_fingerprint(screen: Screen, preparation: Preparation) -> None:
    assert fingerprint(screen, preparation, [32]) != fingerprint(screen, Preparation(), [32])


def test_store_of_a_field_that_is_not_resized_is_known_as_before_there_was_such_a_setting(
    screen: Screen, tmp_path: Path
) -> None:
    known = json.loads((_prepare(screen, tmp_path).path / "fingerprint.json").read_text())
    assert known["preparation"].keys() == {
        *("anscombe", "normalise", "range_over", "rows", "columns", "empty_above", "empty_share")
    }


def _first(screen: Screen, column: str, value: str) -> Screen:
    fields = screen.fields.copy()
    fields.loc[screen.labelled.index[0], column] = value
    return replace(screen, fields=fields)


def test_keys_sizes_channels_and_weeks_change_the_fingerprint(screen: Screen) -> None:
    other = str(screen.labelled["Path_DAPI"].iloc[1])
    changed = [
        *(_first(screen, column, "other") for column in (*FIELD_KEY, WEEK)),
        _first(screen, "Path_DAPI", other),
        replace(screen, channels=("DAPI", "Tubulin", "Actin")),
        replace(screen, channels=("Actin", "Tubulin", None)),
        replace(screen, fields=screen.fields.drop(screen.controls.index[0])),
        replace(screen, fields=screen.fields.drop(screen.labelled.index[0])),
    ]
    marks = [fingerprint(one, Preparation(), [32]) for one in (screen, *changed)]
    marks += [fingerprint(screen, Preparation(), sizes) for sizes in ([16], [16, 32])]
    assert len(set(marks)) == len(marks)


def test_labels_and_order_leave_the_fingerprint_unchanged(screen: Screen) -> None:
    mark = fingerprint(screen, Preparation(), [16, 32])
    renamed = _first(screen, LABEL, "another")
    shuffled = replace(screen, fields=screen.fields.sample(frac=1, random_state=1))
    assert fingerprint(renamed, Preparation(), [32, 16]) == mark
    assert fingerprint(shuffled, Preparation(), [32, 16, 32]) == mark


@pytest.mark.parametrize("role", ["labelled", "controls"])
def test_a_file_that_changes_makes_a_new_store_beside_the_old_one(screen: Screen, tmp_path: Path, role: str) -> None:
    store = _prepare(screen, tmp_path)
    file = screen.root / getattr(screen, role)["Path_Actin"].iloc[0]
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    touched = _prepare(screen, tmp_path)
    status = file.stat()
    file.write_bytes(file.read_bytes() + b"\0")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    longer = _prepare(screen, tmp_path)
    assert len({store.path, touched.path, longer.path}) == 3
    assert all(made.file(32).exists() for made in (store, touched, longer))


# Controls -------------------------------------------------------------------------------------------------------------


def _without_controls(screen: Screen, drop: pd.Series) -> Screen:
    return replace(screen, fields=screen.fields[~(screen.fields[CONTROL] & drop)])


def _rows_of(store: TileStore, plate: str) -> Tiles:
    return {key: tile for key, tile in _by_key(store).items() if key[0] == plate}


def test_a_plate_with_few_controls_takes_its_week_and_says_so_once(screen: Screen, tmp_path: Path) -> None:
    poor = sorted(screen.fields[PLATE].unique())[0]
    # All controls of the plate but those of one well: 2 of 4 fields.
    well = screen.controls.loc[screen.controls[PLATE] == poor, WELL].iloc[0]
    fewer = _without_controls(screen, (screen.fields[PLATE] == poor) & (screen.fields[WELL] == well))
    store = _prepare(fewer, tmp_path / "plate")
    by_week = _prepare(fewer, tmp_path / "week", Preparation(normalise=Normalise(by="week")))
    assert len(store.warnings) == 1
    assert poor in store.warnings[0]
    assert "week" in store.warnings[0]
    assert _same(_rows_of(store, poor), _rows_of(by_week, poor))
    assert _prepare(fewer, tmp_path / "plate").warnings == store.warnings  # also when opened from disk


def test_a_week_without_controls_takes_the_screen(screen: Screen, tmp_path: Path) -> None:
    bare = _without_controls(screen, screen.fields[WEEK] == "Week1")
    store = _prepare(bare, tmp_path / "plate")
    by_screen = _prepare(bare, tmp_path / "screen", Preparation(normalise=Normalise(by="screen")))
    plates = sorted(bare.labelled.loc[bare.labelled[WEEK] == "Week1", PLATE].unique())
    assert len(store.warnings) == 1
    assert "the whole screen" in store.warnings[0]
    assert all(_same(_rows_of(store, plate), _rows_of(by_screen, plate)) for plate in plates)


def test_no_controls_anywhere_is_one_message_and_none_needs_none(screen: Screen, tmp_path: Path) -> None:
    bare = _without_controls(screen, screen.fields[CONTROL])
    with pytest.raises(ValueError, match=r"no control fields to normalise by.*set it to none"):
        _prepare(bare, tmp_path)
    none = Preparation(normalise=Normalise(by="none"))
    assert _same(_by_key(_prepare(bare, tmp_path, none)), _by_key(_prepare(screen, tmp_path, none)))


def test_controls_of_one_single_value_are_refused_by_name(screen: Screen, tmp_path: Path) -> None:
    plate = sorted(screen.fields[PLATE].unique())[1]
    for location in screen.controls.loc[screen.controls[PLATE] == plate, "Path_Tubulin"]:
        Image.fromarray(np.full((64, 80), 7, dtype=np.uint16)).save(screen.root / location)
    with pytest.raises(ValueError, match=f"plate {plate}: .*one single value in Path_Tubulin"):
        _prepare(screen, tmp_path)


@pytest.mark.parametrize("role", ["labelled", "controls"])
def test_all_fields_that_cannot_be_read_are_named_together(screen: Screen, tmp_path: Path, role: str) -> None:
    rows = getattr(screen, role).drop_duplicates(PLATE)
    missing, *broken = (screen.root / location for location in rows["Path_Actin"])
    missing.unlink()
    for file in broken:
        file.write_bytes(b"no image")
    assert len(rows) == PLATES
    with pytest.raises(ValueError, match=f"{PLATES} fields cannot be prepared") as caught:
        _prepare(screen, tmp_path)
    assert all(location in str(caught.value) for location in rows["Path_Actin"])


def test_a_screen_mended_after_an_error_is_prepared_without_reading_other_plates_again(
    screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plates around an unreadable field are kept, as long as no file of the screen changes."""
    broken = screen.labelled["Path_Actin"].iloc[0]
    read = tiles.read_field
    seen: list[str] = []

    def failing(root: Path, locations: list[str]) -> NDArray[np.uint16]:
        seen.append(locations[0])
        if locations[0] == broken and len(seen) <= len(screen.fields):
            raise ValueError(f"{broken}: a disk that hiccups")
        return read(root, locations)

    monkeypatch.setattr(tiles, "read_field", failing)
    with pytest.raises(ValueError, match="hiccups"):
        _prepare(screen, tmp_path)
    assert len(seen) == len(screen.fields)
    mended = _prepare(screen, tmp_path)
    assert len(seen) == len(screen.fields) + 4
    # What was made last is not at the end: the store is the one that an undisturbed run makes.
    undisturbed = _prepare(screen, tmp_path / "undisturbed")
    pd.testing.assert_frame_equal(mended.table, undisturbed.table)
    assert mended.file(32).read_bytes() == undisturbed.file(32).read_bytes()
