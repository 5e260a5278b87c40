"""The tile store: a screen's fields as the network sees them, made once, read back memory-mapped.

    FOLDER/<screen>-<fingerprint>/    fingerprint.json   everything that shaped the tiles; written last
                                      tiles.parquet      plate, well, field, tile, row
                                      tiles-<size>.npy   (n, size, size, 3) uint8
                                      features-<digest>.npy, .json   of a frozen backbone, where they were asked for
                                      parts/<plate>/     finished plates of a store that is being made

A store is known by the fingerprint of all that shaped it: when that changes a new store is made beside the old one.
Labels do not shape tiles. Rows carry keys; nothing depends on their order.
"""

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote
from zipfile import BadZipFile, ZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray.images import Curve, Moments, Preparation, field_tiles, resize_area
from moa_ray.recipe import Recipe
from moa_ray.screens import Screen, read_field
from moa_ray.tables import FIELD_KEY, PLATE, TILE_KEY, WEEK, require_unique

_VERSION = 1  # raise it when the same settings give other tiles than before
_SHOWN = 10

_WHOSE = {"week": "their week's", "screen": "the whole screen's"}

_Made = TypeVar("_Made")


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
    workers: int,
    progress: Callable[[int, int], None],
) -> TileStore:
    """The screen's tiles: opened where a whole store is there, else made, going on from the plates that are finished.

    workers : threads; memory stays bounded by the fields that they hold
    progress : called with the fields done and the fields in all, those of finished plates included

    Raises ValueError naming every field that cannot be read.
    """
    sizes = sorted(set(sizes))
    facts = _facts(screen, preparation, sizes)
    mark = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    store = folder / f"{screen.name}-{mark[:12]}"
    whole = store / "fingerprint.json"
    if not whole.exists():
        with _alone(store):
            if not whole.exists():  # another process may have made it meanwhile
                _make(screen, preparation, sizes, store, workers, progress)
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
        "preparation": asdict(preparation),
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


@contextmanager
def _alone(store: Path) -> Iterator[None]:
    """Wait until no other process or thread makes this store; the lock of a killed process is let go by the system."""
    store.mkdir(parents=True, exist_ok=True)
    with (store / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(
    screen: Screen,
    preparation: Preparation,
    sizes: list[int],
    store: Path,
    workers: int,
    progress: Callable[[int, int], None],
) -> None:
    require_unique(screen.fields, FIELD_KEY, "field table")
    parts = store / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    total = len(_used_controls(screen, preparation)) + len(screen.labelled)
    with _Crew(workers, total, progress) as crew:
        controls = _control_moments(screen, preparation, parts, crew)
        curves = _curves(screen, preparation, controls)
        unreadable: list[str] = []
        for plate, fields in screen.labelled.groupby(PLATE):
            part = parts / quote(str(plate), safe=" ")
            if part.exists():
                crew.count(len(fields))
                continue
            recipe = _Recipe(screen, preparation, sizes, curves[str(plate)])
            try:
                _make_plate(recipe, fields, part, crew)
            except _UnreadableError as error:
                unreadable += error.reasons
        if unreadable:
            raise _UnreadableError(unreadable)
    _assemble(parts, [quote(str(plate), safe=" ") for plate in sorted(screen.labelled[PLATE].unique())], sizes, store)


class _UnreadableError(ValueError):
    """Fields that cannot be prepared, all in one message."""

    def __init__(self, reasons: list[str]) -> None:
        shown = reasons[:_SHOWN] + ([f"... and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else [])
        super().__init__("\n  ".join([f"{len(reasons)} fields cannot be prepared:", *shown]))
        self.reasons = reasons


class _Crew:
    """Threads that work through fields, and the count of those done."""

    def __init__(self, workers: int, total: int, progress: Callable[[int, int], None]) -> None:
        self._workers, self._done, self._total, self._progress = workers, 0, total, progress
        self._pool = ThreadPoolExecutor(workers)

    def count(self, fields: int = 1) -> None:
        """Report fields as done."""
        self._done += fields
        self._progress(self._done, self._total)

    def map(self, work: Callable[[list[str]], _Made], rows: Iterable[list[str]]) -> Iterator[_Made | None]:
        """Results in the order of the rows, never more in flight than keeps the threads busy.

        A row that cannot be read yields None; all of them are raised as one error after the last.
        """
        waiting: deque[Future[_Made]] = deque()
        wrong: list[str] = []

        def first() -> _Made | None:
            made = waiting.popleft()
            self.count()
            try:
                return made.result()
            except ValueError as error:
                wrong.append(str(error))
                return None

        for row in rows:
            waiting.append(self._pool.submit(work, row))
            if len(waiting) > self._workers:
                yield first()
        while waiting:
            yield first()
        if wrong:
            raise _UnreadableError(wrong)

    def __enter__(self) -> "_Crew":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Recipe:
    """How the fields of one plate become tiles."""

    screen: Screen
    preparation: Preparation
    sizes: list[int]
    curves: list[Curve]

    def __call__(self, locations: list[str]) -> list[tuple[str, dict[int, NDArray[np.uint8]]]]:
        planes = read_field(self.screen.root, locations)
        return [
            (name, {size: self._network_input(tile, size) for size in self.sizes})
            for name, tile in field_tiles(planes, self.preparation, self.curves)
        ]

    def _network_input(self, tile: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        """The tile resized, its channels at their places among the network's three, zeros elsewhere."""
        resized = resize_area(tile, size)
        used = [index for index, channel in enumerate(self.screen.channels) if channel is not None]
        if used == [0, 1, 2]:
            return resized
        whole = np.zeros((size, size, 3), dtype=np.uint8)
        whole[..., used] = resized
        return whole


def _make_plate(recipe: _Recipe, fields: pd.DataFrame, part: Path, crew: _Crew) -> None:
    """The tiles of one plate, whole or not at all."""
    writing = part.with_name(f".writing-{uuid.uuid4().hex}")
    writing.mkdir()
    keys: list[tuple[str, ...]] = []
    fields = fields.sort_values(FIELD_KEY)
    try:
        with ExitStack() as files:
            raw = {size: files.enter_context((writing / f"{size}.raw").open("wb")) for size in recipe.sizes}
            results = crew.map(recipe, fields[recipe.screen.path_columns].to_numpy().tolist())
            for key, tiles in zip(fields[FIELD_KEY].itertuples(index=False, name=None), results, strict=True):
                for name, by_size in tiles or ():
                    keys.append((*key, name))
                    for size, tile in by_size.items():
                        raw[size].write(tile.data)
            for file in raw.values():
                file.flush()
                os.fsync(file.fileno())
        pd.DataFrame(keys, columns=TILE_KEY, dtype="str").to_parquet(writing / "keys.parquet", index=False)
        writing.rename(part)
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def _assemble(parts: Path, plates: list[str], sizes: list[int], store: Path) -> None:
    """Put the plates under each other, a stretch at a time."""
    keys = pd.concat([pd.read_parquet(parts / plate / "keys.parquet") for plate in plates], ignore_index=True)
    if keys.empty:
        raise ValueError("every tile is nearly empty: look at images.empty_above and images.empty_share")
    for size in sizes:
        writing = store / f".tiles-{size}.npy"
        with writing.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(keys), size, size, 3)}
            np.lib.format.write_array_header_1_0(file, header)
            for plate in plates:
                with (parts / plate / f"{size}.raw").open("rb") as part:
                    shutil.copyfileobj(part, file, length=1 << 22)
        writing.replace(store / f"tiles-{size}.npy")
    keys.assign(row=np.arange(len(keys))).to_parquet(store / "tiles.parquet", index=False)


# Controls -------------------------------------------------------------------------------------------------------------


def _used_controls(screen: Screen, preparation: Preparation) -> pd.DataFrame:
    return screen.controls if preparation.normalise.by != "none" else screen.controls.iloc[:0]


def _control_moments(screen: Screen, preparation: Preparation, parts: Path, crew: _Crew) -> dict[str, Moments]:
    """Moments of each plate's control fields, in one streaming pass; finished plates are read back."""

    def work(locations: list[str]) -> Moments:
        return Moments.of(read_field(screen.root, locations), Curve(preparation.anscombe))

    moments: dict[str, Moments] = {}
    unreadable: list[str] = []
    for plate, fields in _used_controls(screen, preparation).groupby(PLATE):
        part = parts / f"{quote(str(plate), safe=' ')}.controls.json"
        if part.exists():
            plain = json.loads(part.read_text(encoding="utf-8"))
            crew.count(len(fields))
        else:
            total = Moments.zero(len(screen.path_columns))
            # In the order of the keys, so that rounding does not depend on the order of the table.
            rows = fields.sort_values(FIELD_KEY)[screen.path_columns].to_numpy().tolist()
            try:
                for one in crew.map(work, rows):
                    total += one or Moments.zero(len(screen.path_columns))
            except _UnreadableError as error:
                unreadable += error.reasons
                continue
            plain = {"count": total.count, "mean": total.mean.tolist(), "m2": total.m2.tolist()}
            _write_json(part, plain)
        moments[str(plate)] = Moments(plain["count"], np.array(plain["mean"]), np.array(plain["m2"]))
    if unreadable:
        raise _UnreadableError(unreadable)
    return moments


def _fallbacks(screen: Screen, preparation: Preparation) -> tuple[dict[str, list[str]], list[str]]:
    """For each plate the plates whose controls it is normalised by, and one sentence for each way of falling back."""
    settings = preparation.normalise
    plates = screen.fields[[PLATE, *([WEEK] if WEEK in screen.fields else [])]].drop_duplicates(PLATE).set_index(PLATE)
    counts = screen.controls.groupby(PLATE).size()
    weeks = plates.get(WEEK)
    sources: dict[str, list[str]] = {}
    fell: dict[str, list[str]] = {"week": [], "screen": []}
    for plate in plates.index:
        week = [] if weeks is None else list(plates.index[weeks == weeks[plate]])
        steps = {"plate": [plate], "week": week, "screen": list(plates.index)}
        if settings.by == "none":
            continue
        allowed = list(steps)[list(steps).index(settings.by) :]
        enough = [s for s in allowed if counts.reindex(steps[s]).fillna(0).sum() >= settings.min_control_fields]
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
    writing = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    writing.write_text(json.dumps(plain, indent=1), encoding="utf-8")
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
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
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
