"""Write the arrays of a tile store, a plate after the other; a plate is there whole or not at all.

An array file grows with each plate; until the end its header says that it holds no row. A plate is finished once its
tiles, and after them the table of its rows (parts/<plate>.parquet), are on the disk. A run that goes on after an
interruption cuts the arrays behind the last finished plate.
"""

import io
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import TracebackType
from urllib.parse import quote, unquote

import numpy as np
import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.common.files import replacing, write_bytes
from moa_ray.common.schema import FIELD_KEY, TILE_KEY
from moa_ray.tiles.cropping import FieldTiles
from moa_ray.tiles.dropped import NO_CELLS, REASON
from moa_ray.tiles.quality import quality_table

NO_ROW = -1  # the row of a tile that is dropped


class StoreWriter:
    """The arrays of a store that is being made; a context manager.

    Parameters
    ----------
    store : Path
        The folder of the store, with a folder ``parts`` in it.
    sizes : list of int
        Edge lengths of the tiles in pixels.
    channels : list of str
        The channels whose quality is measured.
    """

    def __init__(self, store: Path, sizes: list[int], channels: list[str]) -> None:
        self._store, self._parts, self._sizes, self._channels = store, store / "parts", sizes, channels
        self._tables = {unquote(path.stem): pd.read_parquet(path) for path in self._parts.glob("*.parquet")}
        files = {plate: self._quality_file(plate) for plate in self._tables}
        self._quality = {plate: pd.read_parquet(path) for plate, path in files.items() if path.exists()}
        self._rows = sum(int((table["row"] != NO_ROW).sum()) for table in self._tables.values())
        self._sealed: Future[None] | None = None

    def __enter__(self) -> "StoreWriter":
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
        """The plates that are finished."""
        return list(self._tables)

    def add_plate(
        self, plate: str, fields: pd.DataFrame, results: Iterator[FieldTiles | InputError]
    ) -> list[InputError]:
        """Write the tiles of a plate.

        Parameters
        ----------
        plate : str
            Its name.
        fields : DataFrame, one row per field
            With the columns of `FIELD_KEY`.
        results : iterator of FieldTiles or InputError
            The tiles of these fields, in their order, or why a field has none; no more are taken.

        Returns
        -------
        list of InputError
            Why the plate cannot be finished, one a field; empty where it is finished.
        """
        keys: list[tuple[str, ...]] = []
        dropped: list[tuple[str, ...]] = []
        measured: list[FieldTiles] = []
        wrong: list[InputError] = []
        names = fields[FIELD_KEY].itertuples(index=False, name=None)
        for key, made in zip(names, islice(results, len(fields)), strict=True):
            if isinstance(made, InputError):
                wrong.append(made)
                continue
            measured.append(made)
            dropped += [(*key, name, made.reason or NO_CELLS) for name in made.empty]
            for name, by_size in made.tiles:
                keys.append((*key, name))
                for size, tile in by_size.items():
                    self._files[size].write(tile.data)
        if wrong:
            for size, file in self._files.items():
                self._cut(file, size)
            return wrong
        for file in self._files.values():
            file.flush()
        rows = [*range(self._rows, self._rows + len(keys)), *[NO_ROW] * len(dropped)]
        table = pd.DataFrame([(*key, None) for key in keys] + dropped, columns=[*TILE_KEY, REASON], dtype="str")
        self._tables[plate] = table.assign(row=np.array(rows, dtype=np.int64))
        self._quality[plate] = self._measured(fields, measured)
        self._rows += len(keys)
        self._sealed = self._sealer.submit(self._seal, plate, self._sealed)
        return []

    def _measured(self, fields: pd.DataFrame, measured: list[FieldTiles]) -> pd.DataFrame:
        """Return what was measured of the images of a plate."""
        keys = list(fields[FIELD_KEY].itertuples(index=False, name=None))
        values = np.array([made.quality for made in measured], dtype=np.float64)
        empty = [len(made.empty) / (len(made.empty) + len(made.tiles)) for made in measured]
        return quality_table(keys, self._channels, values, empty)

    def _quality_file(self, plate: str) -> Path:
        return self._parts / f"{quote(plate, safe=' ')}.quality"

    def _seal(self, plate: str, before: Future[None] | None) -> None:
        """Write the rows of a plate once its tiles are on the disk and the plate before it is sealed."""
        if before is not None:
            before.result()
        for file in self._files.values():
            os.fsync(file.fileno())
        write_bytes(self._quality_file(plate), self._quality[plate].to_parquet(index=False))
        write_bytes(self._parts / f"{quote(plate, safe=' ')}.parquet", self._tables[plate].to_parquet(index=False))

    def end(self, plates: Iterable[str]) -> None:
        """Write what makes the arrays readable, and the table of all rows, after the last plate and outside `with`.

        Parameters
        ----------
        plates : iterable of str
            All plates; each is finished.

        Raises
        ------
        InputError
            If there is no tile.
        """
        plates = sorted(plates)  # also where one was unreadable the first time and came last
        everything = [self._tables[plate] for plate in plates]
        tables = [rows[rows["row"] != NO_ROW] for rows in everything]
        table = pd.concat(tables, ignore_index=True)[[*TILE_KEY, "row"]]
        if table.empty:
            reasons = sorted({reason for rows in everything if REASON in rows for reason in rows[REASON]} - {NO_CELLS})
            if reasons:
                raise InputError(f"no tile is left ({'; '.join(reasons)}): look at images.quality and the empty tiles")
            raise InputError("every tile is nearly empty: look at images.empty_above and images.empty_share")
        for size in self._sizes:
            path = self._store / f"tiles-{size}.npy"
            with path.open("r+b") as file:
                file.write(_header(size, len(table)))
                os.fsync(file.fileno())
            if not table["row"].is_monotonic_increasing:
                _put_in_order(path, tables)
        if all(REASON in rows for rows in everything):  # not in a plate that was made before dropped tiles were noted
            dropped = pd.concat([rows[rows["row"] == NO_ROW] for rows in everything])[[*TILE_KEY, REASON]]
            write_bytes(self._store / "dropped.parquet", dropped.to_parquet(index=False))
        if self._quality.keys() >= self._tables.keys():  # a plate may have been made before images were measured
            measured = pd.concat([self._quality[plate] for plate in plates], ignore_index=True)
            write_bytes(self._store / "quality.parquet", measured.to_parquet(index=False))
        write_bytes(self._store / "tiles.parquet", table.assign(row=np.arange(len(table))).to_parquet(index=False))


def _header(size: int, rows: int) -> bytes:
    """Return the header of an array file; NumPy leaves room in it, so that its length is the same for any rows."""
    header = io.BytesIO()
    plain = {"descr": "|u1", "fortran_order": False, "shape": (rows, size, size, 3)}
    np.lib.format.write_array_header_1_0(header, plain)
    return header.getvalue()


def _put_in_order(path: Path, tables: list[pd.DataFrame]) -> None:
    """Write an array file anew with its rows in the order of tables."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    with replacing(path, path.with_name(f".{path.name}")) as file:
        file.write(_header(array.shape[1], len(array)))
        for rows in (table["row"] for table in tables if len(table)):
            file.write(array[rows.iloc[0] : rows.iloc[-1] + 1].data)
