"""The tile store: a screen's fields as the network sees them, made once, read back memory-mapped.

    FOLDER/<screen>-<fingerprint>/    fingerprint.json      everything that shaped the tiles; written last
                                      tiles.parquet         plate, well, field, tile, row
                                      tiles-<size>.npy      (n, size, size, 3) uint8; grows plate by plate
                                      features-<digest>.npy, .json   of a frozen backbone, where they were asked for
                                      parts/<plate>.parquet the rows of a finished plate while the store is being made

A store is known by the fingerprint of all that shaped it: when that changes a new store is made beside the old one.
Labels do not shape tiles. Rows carry keys; nothing depends on their order.

Each field is read once: for the moments of its plate where it is a control, for tiles where it has a label. No field is
both: a control carries no label (`Screen.fields`).
"""

import hashlib
import io
import json
import os
import shutil
import uuid
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, unquote
from zipfile import BadZipFile, ZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray import process
from moa_ray.images import Curve, Moments, Preparation, field_tiles, settle_process, sized
from moa_ray.recipe import Recipe
from moa_ray.screens import Screen, read_field
from moa_ray.stores import Place
from moa_ray.tables import CONTROL, FIELD_KEY, LABEL, PLATE, TILE_KEY, WEEK, require_unique

_VERSION = 2  # raise it when the same settings give other tiles than before
_SHOWN = 10

_WHOSE = {"week": "their week's", "screen": "the whole screen's"}

_Job = TypeVar("_Job")
_Made = TypeVar("_Made")


class Crew(Protocol):
    """Workers that the fields of a screen are spread over."""

    def root(self, screen: Screen) -> Place:
        """Where the workers read the screen's files."""

    def map(self, work: Callable[[_Job], _Made], jobs: Iterable[_Job]) -> Generator[_Made | ValueError, None, None]:
        """What becomes of each job, in the order of the jobs, never more in flight than keeps the workers busy.

        A ValueError that the work raises comes in the place of what it would have made. Work and jobs can be pickled.
        """


class Threads:
    """A crew of threads of this process; each holds one field at a time."""

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def root(self, screen: Screen) -> Place:
        """See `Crew`."""
        return screen.root.resolve()

    def map(self, work: Callable[[_Job], _Made], jobs: Iterable[_Job]) -> Generator[_Made | ValueError, None, None]:
        """See `Crew`."""
        pool = ThreadPoolExecutor(self._workers)
        try:
            yield from in_order((pool.submit(work, job) for job in jobs), _outcome, 2 * self._workers)
        finally:
            pool.shutdown(cancel_futures=True)


_Begun = TypeVar("_Begun")


def in_order(begun: Iterable[_Begun], outcome: Callable[[_Begun], _Made], at_most: int) -> Iterator[_Made]:
    """The outcome of each thing that is begun, the first one first, with only so many begun and not yet waited for."""
    waiting: deque[_Begun] = deque()
    for one in begun:
        waiting.append(one)
        if len(waiting) == at_most:
            yield outcome(waiting.popleft())
    while waiting:
        yield outcome(waiting.popleft())


def _outcome(future: Future[_Made]) -> _Made | ValueError:
    try:
        return future.result()
    except ValueError as error:
        return error


@dataclass(frozen=True)
class TileStore:
    """A whole store.

    table : TILE_KEY and ``row``, the tile's place in the arrays
    warnings : what happened while the tiles were made that people should know
    """

    path: Path
    fingerprint: str
    sizes: tuple[int, ...]
    table: pd.DataFrame
    warnings: tuple[str, ...]

    def file(self, size: int) -> Path:
        """The file that holds the tiles of one image size."""
        return self.path / f"tiles-{size}.npy"

    def array(self, size: int) -> NDArray[np.uint8]:
        """The tiles of one image size, (n, size, size, 3) uint8, mapped into memory read-only."""
        array: NDArray[np.uint8] = np.load(self.file(size), mmap_mode="r", allow_pickle=False)
        return array


def prepare(
    screen: Screen,
    preparation: Preparation,
    sizes: Collection[int],
    folder: Path,
    crew: Crew,
    progress: Callable[[int, int], None],
) -> TileStore:
    """The screen's tiles: opened where a whole store is there, else made, going on from the plates that are finished.

    crew : who reads the fields; memory stays bounded by the one field that each worker holds, and the tiles in flight
    progress : called with the fields done and the fields in all, those of finished plates included

    Raises ValueError naming every field that cannot be read.
    """
    sizes = sorted(set(sizes))
    facts = _facts(screen, preparation, sizes)
    mark = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    store = folder / f"{screen.name}-{mark[:12]}"
    whole = store / "fingerprint.json"
    if not whole.exists():
        store.mkdir(parents=True, exist_ok=True)
        with process.alone(store / ".lock"):
            if not whole.exists():  # another process may have made it meanwhile
                _make(screen, preparation, sizes, store, crew, progress)
                warnings = _fallbacks(screen, preparation)[1]
                _write_json(whole, {"fingerprint": mark, "warnings": warnings, **facts})
    shutil.rmtree(store / "parts", ignore_errors=True)  # also those of a process killed before it came to this
    known = json.loads(whole.read_text(encoding="utf-8"))
    table = pd.read_parquet(store / "tiles.parquet")
    return TileStore(store, mark, tuple(sizes), table, tuple(known["warnings"]))


def fingerprint(screen: Screen, preparation: Preparation, sizes: Collection[int]) -> str:
    """A digest of what shapes the tiles: settings, keys, and each file's name, size and time (or checksum)."""
    return hashlib.sha256(json.dumps(_facts(screen, preparation, sizes), sort_keys=True).encode()).hexdigest()


def expected_bytes(fields: int, preparation: Preparation, sizes: Collection[int]) -> int:
    """What the store takes on disk if no tile is dropped."""
    return fields * preparation.rows * preparation.columns * sum(3 * size * size for size in sizes)


# What shapes the tiles ------------------------------------------------------------------------------------------------


def _facts(screen: Screen, preparation: Preparation, sizes: Collection[int]) -> dict[str, Any]:
    columns = [*FIELD_KEY, *([WEEK] if WEEK in screen.fields else []), *screen.path_columns]
    rows = pd.concat(
        [screen.labelled.assign(role="labelled"), _used_controls(screen, preparation).assign(role="control")]
    )
    digest = hashlib.sha256()
    for row in sorted(rows[["role", *columns]].astype(str).itertuples(index=False, name=None)):
        digest.update("\0".join(row).encode() + b"\n")
    for line in _file_marks(screen.root, sorted(set(rows[screen.path_columns].to_numpy().ravel()))):
        digest.update(line.encode() + b"\n")
    return {
        "version": _VERSION,
        # What is null is left out: stores made before there was such a setting stay known.
        "preparation": {name: value for name, value in asdict(preparation).items() if value is not None},
        "sizes": sorted(set(sizes)),
        "channels": list(screen.channels),
        "files": digest.hexdigest(),
    }


def _file_marks(root: Path, locations: Iterable[str]) -> Iterator[str]:
    """A line a file that changes when its content does, without reading it: size and time, in archives the checksum.

    A file that is not there is marked as missing: whoever reads it names it together with all others.
    """
    archives: dict[str, dict[str, tuple[int, int]]] = {}
    for location in locations:
        name, _, member = location.partition("!")
        if not member:
            try:
                status = (root / name).stat()
                yield f"{location} {status.st_size} {status.st_mtime_ns}"
            except FileNotFoundError:
                yield f"{location} missing"
            continue
        if name not in archives:
            archives[name] = {}
            with suppress(FileNotFoundError, BadZipFile), ZipFile(root / name) as archive:
                archives[name] = {info.filename: (info.file_size, info.CRC) for info in archive.infolist()}
        yield f"{location} {archives[name].get(member, 'missing')}"


# Making a store -------------------------------------------------------------------------------------------------------


def _make(
    screen: Screen,
    preparation: Preparation,
    sizes: list[int],
    store: Path,
    crew: Crew,
    progress: Callable[[int, int], None],
) -> None:
    require_unique(screen.fields, FIELD_KEY, "field table")
    assert not (screen.fields[CONTROL] & screen.fields[LABEL].notna()).any(), "a control with a label is read twice"
    parts = store / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    count = _Count(len(_used_controls(screen, preparation)) + len(screen.labelled), progress)
    curves = _curves(screen, preparation, _control_moments(screen, preparation, parts, crew, count))
    recipe = _Recipe(crew.root(screen), screen.channels, preparation, sizes)
    unreadable: list[str] = []
    with _Growing(store, sizes) as growing:
        finished = screen.labelled[PLATE].isin(growing.plates)
        count.add(int(finished.sum()))
        fields = screen.labelled[~finished].sort_values(FIELD_KEY)
        places = zip(fields[PLATE], fields[screen.path_columns].to_numpy().tolist(), strict=True)
        with closing(crew.map(recipe, ((paths, curves[plate]) for plate, paths in places))) as results:
            for plate, of_plate in fields.groupby(PLATE):
                unreadable += growing.add_plate(str(plate), of_plate, count.counted(results))
    if unreadable:
        raise _UnreadableError(unreadable)
    growing.end(screen.labelled[PLATE].unique())


class _UnreadableError(ValueError):
    """Fields that cannot be prepared, all in one message."""

    def __init__(self, reasons: list[str]) -> None:
        shown = reasons[:_SHOWN] + ([f"... and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else [])
        super().__init__("\n  ".join([f"{len(reasons)} fields cannot be prepared:", *shown]))


class _Count:
    """Reports how many fields are done, of how many."""

    def __init__(self, total: int, progress: Callable[[int, int], None]) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, fields: int = 1) -> None:
        """Report fields as done."""
        self._done += fields
        if fields:
            self._progress(self._done, self._total)

    def counted(self, results: Iterator[_Made]) -> Iterator[_Made]:
        """The same results, each reported as a field that is done."""
        for result in results:
            self.add()
            yield result


_Tiles = list[tuple[str, dict[int, NDArray[np.uint8]]]]


@dataclass(frozen=True)
class _Recipe:
    """How a field becomes tiles, by name and image size."""

    root: Place
    channels: tuple[str | None, ...]
    preparation: Preparation
    sizes: list[int]

    def __call__(self, job: tuple[list[str], list[Curve]]) -> _Tiles:
        locations, curves = job
        settle_process()
        planes = read_field(self.root, locations)
        return [
            (name, {size: self._network_input(tile) for size, tile in by_size.items()})
            for name, by_size in field_tiles(planes, self.preparation, curves, self.sizes)
        ]

    def _network_input(self, tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The tile with its channels at their places among the network's three, zeros elsewhere."""
        used = [index for index, channel in enumerate(self.channels) if channel is not None]
        if used == [0, 1, 2]:
            return tile
        whole = np.zeros((*tile.shape[:2], 3), dtype=np.uint8)
        whole[..., used] = tile
        return whole


class _Growing:
    """The arrays of a store that is being made, a plate after the other; a plate is there whole or not at all."""

    def __init__(self, store: Path, sizes: list[int]) -> None:
        self._store, self._parts, self._sizes = store, store / "parts", sizes
        self._tables = {unquote(path.stem): pd.read_parquet(path) for path in self._parts.glob("*.parquet")}
        self._rows = sum(map(len, self._tables.values()))
        self._sealed: Future[None] | None = None

    def __enter__(self) -> "_Growing":
        with ExitStack() as opened:
            # A thread of its own waits for the disk, while the next plate is being made.
            self._sealer = opened.enter_context(ThreadPoolExecutor(1))
            self._files = {size: opened.enter_context(self._open(size)) for size in self._sizes}
            self._opened = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._sealer.shutdown()
        self._opened.close()
        if kind is None and self._sealed is not None:
            self._sealed.result()

    def _open(self, size: int) -> io.BufferedRandom:
        path = self._store / f"tiles-{size}.npy"
        path.touch()
        file = path.open("r+b")
        file.write(_header(size, 0))
        self._cut(file, size)
        return file

    def _cut(self, file: io.BufferedRandom, size: int) -> None:
        """Let a file end with the plates that are finished."""
        file.truncate(file.seek(len(_header(size, 0)) + self._rows * 3 * size * size))

    @property
    def plates(self) -> list[str]:
        """Those that are finished."""
        return list(self._tables)

    def add_plate(self, plate: str, fields: pd.DataFrame, results: Iterator[_Tiles | ValueError]) -> list[str]:
        """Write the tiles of a plate's fields; the reasons why it cannot be finished, if any."""
        keys: list[tuple[str, ...]] = []
        wrong: list[str] = []
        names = fields[FIELD_KEY].itertuples(index=False, name=None)
        for key, made in zip(names, islice(results, len(fields)), strict=True):
            if isinstance(made, ValueError):
                wrong.append(str(made))
                continue
            for name, by_size in made:
                keys.append((*key, name))
                for size, tile in by_size.items():
                    self._files[size].write(tile.data)
        if wrong:
            for size, file in self._files.items():
                self._cut(file, size)
            return wrong
        for file in self._files.values():
            file.flush()
        table = pd.DataFrame(keys, columns=TILE_KEY, dtype="str")
        self._tables[plate] = table.assign(row=np.arange(self._rows, self._rows + len(keys)))
        self._rows += len(keys)
        self._sealed = self._sealer.submit(self._seal, plate, self._sealed)
        return []

    def _seal(self, plate: str, before: Future[None] | None) -> None:
        """What is known of a plate is written once its tiles are on the disk, and the plate before it is sealed."""
        if before is not None:
            before.result()
        for file in self._files.values():
            os.fsync(file.fileno())
        _write_whole(self._parts / f"{quote(plate, safe=' ')}.parquet", self._tables[plate].to_parquet(index=False))

    def end(self, plates: Iterable[str]) -> None:
        """Write what makes the arrays readable, and the table of all rows."""
        # In the order of the plates, also where one was unreadable the first time and came last.
        tables = [self._tables[plate] for plate in sorted(plates)]
        table = pd.concat(tables, ignore_index=True)
        if table.empty:
            raise ValueError("every tile is nearly empty: look at images.empty_above and images.empty_share")
        for size in self._sizes:
            path = self._store / f"tiles-{size}.npy"
            with path.open("r+b") as file:
                file.write(_header(size, len(table)))
                os.fsync(file.fileno())
            if not table["row"].is_monotonic_increasing:
                _put_in_order(path, tables)
        _write_whole(self._store / "tiles.parquet", table.assign(row=np.arange(len(table))).to_parquet(index=False))


def _header(size: int, rows: int) -> bytes:
    """Of an array file; NumPy leaves room in it, so that it has the same length for any number of rows."""
    header = io.BytesIO()
    plain = {"descr": "|u1", "fortran_order": False, "shape": (rows, size, size, 3)}
    np.lib.format.write_array_header_1_0(header, plain)
    return header.getvalue()


def _put_in_order(path: Path, tables: list[pd.DataFrame]) -> None:
    """Write an array file anew with its rows in the order of tables."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    writing = path.with_name(f".{path.name}")
    with writing.open("wb") as file:
        file.write(_header(array.shape[1], len(array)))
        for rows in (table["row"] for table in tables if len(table)):
            file.write(array[rows.iloc[0] : rows.iloc[-1] + 1].data)
        file.flush()
        os.fsync(file.fileno())
    writing.replace(path)


# Controls -------------------------------------------------------------------------------------------------------------


def _used_controls(screen: Screen, preparation: Preparation) -> pd.DataFrame:
    return screen.controls if preparation.normalise.by != "none" else screen.controls.iloc[:0]


@dataclass(frozen=True)
class _Measure:
    """How a control field becomes moments."""

    root: Place
    preparation: Preparation

    def __call__(self, locations: list[str]) -> Moments:
        settle_process()
        planes = sized(read_field(self.root, locations), self.preparation)
        return Moments.of(planes, Curve(self.preparation.anscombe))


def _control_moments(
    screen: Screen, preparation: Preparation, parts: Path, crew: Crew, count: _Count
) -> dict[str, Moments]:
    """Moments of each plate's control fields, in one streaming pass; finished plates are read back."""
    controls = _used_controls(screen, preparation)
    files = {str(plate): parts / f"{quote(str(plate), safe=' ')}.controls.json" for plate in controls[PLATE].unique()}
    known = {plate: json.loads(path.read_text(encoding="utf-8")) for plate, path in files.items() if path.exists()}
    finished = controls[PLATE].isin(list(known))
    count.add(int(finished.sum()))
    # In the order of the keys, so that rounding does not depend on the order of the table.
    fields = controls[~finished].sort_values(FIELD_KEY)
    work = _Measure(crew.root(screen), preparation)
    unreadable: list[str] = []
    with closing(crew.map(work, fields[screen.path_columns].to_numpy().tolist())) as results:
        for plate, of_plate in fields.groupby(PLATE):
            total, wrong = Moments.zero(len(screen.path_columns)), []
            for one in count.counted(islice(results, len(of_plate))):
                if isinstance(one, ValueError):
                    wrong.append(str(one))
                else:
                    total += one
            unreadable += wrong
            if not wrong:
                known[plate] = {"count": total.count, "mean": total.mean.tolist(), "m2": total.m2.tolist()}
                _write_json(files[plate], known[plate])
    if unreadable:
        raise _UnreadableError(unreadable)
    return {
        plate: Moments(plain["count"], np.array(plain["mean"]), np.array(plain["m2"])) for plate, plain in known.items()
    }


def _fallbacks(screen: Screen, preparation: Preparation) -> tuple[dict[str, list[str]], list[str]]:
    """For each plate the plates whose controls it is normalised by, and one sentence for each way of falling back."""
    settings = preparation.normalise
    first = screen.fields.drop_duplicates(PLATE)
    plates = first[PLATE].tolist()
    week_of = dict(zip(plates, first[WEEK], strict=True)) if WEEK in first else {}
    counts = Counter(screen.controls[PLATE])
    sources: dict[str, list[str]] = {}
    fell: dict[str, list[str]] = {"week": [], "screen": []}
    for plate in plates:
        week = [other for other in plates if week_of and week_of[other] == week_of[plate]]
        steps = {"plate": [plate], "week": week, "screen": plates}
        if settings.by == "none":
            continue
        allowed = list(steps)[list(steps).index(settings.by) :]
        enough = [s for s in allowed if sum(counts[one] for one in steps[s]) >= settings.min_control_fields]
        step = enough[0] if enough else "screen"
        sources[plate] = steps[step]
        if step != settings.by:
            fell[step].append(plate)
    sentences = [
        f"{len(names)} plates have fewer than {settings.min_control_fields} control fields "
        f"{'of their own' if settings.by == 'plate' else 'in their week'} and are normalised by {_WHOSE[step]}: "
        f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for step, names in fell.items()
        if names
    ]
    return sources, sentences


def _curves(screen: Screen, preparation: Preparation, moments: Mapping[str, Moments]) -> dict[str, list[Curve]]:
    """For each plate the curves of its channels, by mean and standard deviation of its controls."""
    plain = [Curve(preparation.anscombe)] * len(screen.path_columns)
    if preparation.normalise.by == "none":
        return dict.fromkeys(screen.fields[PLATE].unique(), plain)
    curves: dict[str, list[Curve]] = {}
    for plate, sources in _fallbacks(screen, preparation)[0].items():
        total = Moments.zero(len(screen.path_columns))
        for source in sources:
            total += moments.get(source, Moments.zero(len(screen.path_columns)))
        if not total.count:
            raise ValueError(
                "images.normalise.by: the screen has no control fields to normalise by; name the control, or set it to "
                "none"
            )
        if (total.std == 0).any():
            flat = [name for name, std in zip(screen.path_columns, total.std, strict=True) if std == 0]
            raise ValueError(
                f"plate {plate}: its controls have one single value in {', '.join(flat)}; look at the images"
            )
        curves[plate] = [
            replace(curve, mean=float(mean), std=float(std))
            for curve, mean, std in zip(plain, total.mean, total.std, strict=True)
        ]
    return curves


def _write_json(path: Path, plain: Mapping[str, Any]) -> None:
    _write_whole(path, json.dumps(plain, indent=1).encode())


def _write_whole(path: Path, content: bytes) -> None:
    writing = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with writing.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    writing.replace(path)


# Features of frozen backbones -----------------------------------------------------------------------------------------

_FEATURES_VERSION = 1  # raise it when the same settings give other features than before
_FEATURES_KEY = ("backbone", "weights", "image_size", "input_scaling", "precision", "orientations")


@dataclass(frozen=True)
class Features:
    """A set of features of a store's tiles: what a frozen backbone makes of each, in each orientation.

    path : (orientations, n, channels) float32; where it is there it is whole
    facts : all that the features depend on besides the tiles
    """

    path: Path
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, store: Path, recipe: Recipe, weights: str) -> "Features":
        """The set that a recipe trains on, whether it is there or not.

        store : the folder of the tile store
        weights : what tells the content of the weights, so that a file that changed is not taken for the one before
        """
        named = dict(zip(_FEATURES_KEY, recipe.features_key, strict=True))
        facts = {"version": _FEATURES_VERSION, **named, "weights": weights}
        mark = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return cls(store / f"features-{mark[:16]}.npy", facts)

    def write(
        self,
        tiles: int,
        take: Callable[[], Iterable[tuple[int, NDArray[np.float32]]]],
        progress: Callable[[int, int], None],
    ) -> None:
        """Write the set whole or not at all, and a small file beside it that says what it holds.

        tiles : in the store
        take : yields stretches in any order: the first row and (orientations, rows, channels); it is not asked where
            another process wrote the set meanwhile
        progress : called with the tiles done and the tiles in all
        """
        with process.alone(self.path.with_suffix(".lock")):
            if self.path.exists():
                return
            writing, shape = self.path.with_name(f".{self.path.name}"), (0, tiles, 0)
            with writing.open("wb") as file:
                left = tiles
                progress(0, tiles)
                for first, stretch in take():
                    if left == tiles:
                        shape = (len(stretch), tiles, stretch.shape[-1])
                        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                        np.lib.format.write_array_header_1_0(file, header)
                        begin = file.tell()
                    for orientation, rows in enumerate(np.ascontiguousarray(stretch, dtype="<f4")):
                        file.seek(begin + 4 * shape[2] * (orientation * tiles + first))
                        file.write(rows.data)
                    left -= stretch.shape[1]
                    progress(tiles - left, tiles)
                assert left == 0, f"{left} of {tiles} tiles without features"
                file.flush()
                os.fsync(file.fileno())
            _write_json(self.path.with_suffix(".json"), {**self.facts, "shape": shape})
            writing.replace(self.path)
