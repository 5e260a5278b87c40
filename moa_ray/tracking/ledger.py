"""The ledger: one folder a trial, each written whole or not at all, by the driver alone.

    OUT/sweep.yaml                        the sweep as it was run
    OUT/ledger/study.json                 what all trials share: the tiles' fingerprint, the labels, the folds
    OUT/ledger/CANDIDATE/candidate.json   its recipe, where a search proposed it
    OUT/ledger/CANDIDATE/FOLD/            result.json, history.parquet, and where the trial finished predictions.parquet
                                          and, where samples were wanted, samples.parquet

Everything else in OUT can be thrown away and made again from here. Starting again means reading the ledger and doing
what is missing; there is no second way to resume.
"""

import dataclasses
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from moa_ray.common import object_store, open_set, uri
from moa_ray.common.errors import InputError
from moa_ray.common.files import file_name, sync, write_json, write_text
from moa_ray.common.schema import CANDIDATE, FOLD
from moa_ray.common.uri import Place
from moa_ray.config.recipe import Recipe, is_standard_probe
from moa_ray.config.sweep_file import Sweep
from moa_ray.tracking import same_sweep
from moa_ray.tracking.results import SETTLED, Proposal, Result, TrialKind

TrialTable = Literal["history", "predictions", "samples"]  # what a trial leaves beside its result
_PARQUET = b"PAR1"  # the first and the last bytes of a whole parquet file
_TABLES: tuple[TrialTable, ...] = ("history", "predictions", "samples")


class Ledger:
    """The trials of one OUT.

    Parameters
    ----------
    out : Path or Uri
        OUT; of a URI this machine's copy is read and written.
    written : callable
        Called with each file or folder that belongs to a candidate or a trial, once it is whole.
    """

    def __init__(self, out: Place, written: Callable[[Path], object] = lambda path: None) -> None:
        self.out = uri.folder(out)
        self.root = self.out / "ledger"
        self._name, self._written = out, written

    # What all trials share ------------------------------------------------------------------------------------------

    def open(self, sweep: Sweep, study: Mapping[str, Any]) -> None:
        """Begin a ledger, or go on with one of the same sweep.

        Parameters
        ----------
        sweep : Sweep
            The sweep that is to be run.
        study : mapping of str to Any
            What all its trials share, fit for JSON: ``tiles``, ``labels``, ``weights``, ...

        Raises
        ------
        InputError
            Where trials of two different sweeps would be mixed; names what differs.
        """
        if refusal := self.refusal(sweep, study):
            raise InputError(refusal)
        self.root.mkdir(parents=True, exist_ok=True)
        for leftover in self.root.glob(".writing-*"):
            shutil.rmtree(leftover)
        identity = self.study()["id"] if (self.root / "study.json").exists() else uuid.uuid4().hex
        write_text(self.out / "sweep.yaml", sweep.as_yaml())
        write_json(self.root / "study.json", {**study, "id": identity})

    def refusal(self, sweep: Sweep, study: Mapping[str, Any] | None) -> str:
        """Say why a sweep may not go on here.

        Parameters
        ----------
        sweep : Sweep
            The sweep that is to be run.
        study : mapping of str to Any or None
            What all its trials share, as far as `open` compares it; None compares the settings alone.

        Returns
        -------
        str
            A sentence that names what differs; empty where the sweep may begin or go on.

        Raises
        ------
        InputError
            If what is here cannot be read.
        """
        differing = self._differences(sweep, study) if self.exists() else []
        if not differing:
            return ""
        return (
            f"{self._name}: holds trials of a different sweep; these differ: {', '.join(differing)}. "
            "Give another out, or --fresh to start over beside it (nothing is deleted)"
        )

    def exists(self) -> bool:
        """Tell whether a sweep was begun here.

        Returns
        -------
        bool
        """
        return (self.out / "sweep.yaml").exists() and self.root.is_dir()

    def study(self) -> dict[str, Any]:
        """Read what all trials share.

        Returns
        -------
        dict
            The content of ledger/study.json.

        Raises
        ------
        InputError
            If no sweep was run here.
        """
        try:
            study: dict[str, Any] = json.loads((self.root / "study.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{self._name}: no sweep was run here: ledger/study.json is missing") from None
        return study

    def _differences(self, sweep: Sweep, study: Mapping[str, Any] | None) -> list[str]:
        """What differs from the sweep that began the ledger in a way that would mix results."""
        run = {result.candidate for result in self.results() if result.kind is not TrialKind.LINEAR_PROBE}
        before = (self.out / "sweep.yaml").read_text(encoding="utf-8")
        settings = same_sweep.differing_settings(before, sweep, run, bool(self.proposals()))
        if study is None or not (self.root / "study.json").exists():
            return settings
        return settings + same_sweep.differing_data(self.study(), study)

    # The candidates -------------------------------------------------------------------------------------------------

    def propose(self, proposal: Proposal) -> None:
        """Record a candidate before any of its trials, whole or not at all.

        Parameters
        ----------
        proposal : Proposal
            As the search came to it.
        """
        folder = self.root / proposal.recipe.candidate
        folder.mkdir(exist_ok=True)
        plain = {"number": proposal.number, "recipe": proposal.recipe.as_dict(), "values": proposal.values}
        write_json(folder / "candidate.json", plain)
        self._written(folder / "candidate.json")

    def proposals(self) -> list[Proposal]:
        """Read the candidates of a search.

        Returns
        -------
        list of Proposal
            In the order in which the search came to them; empty for a grid.
        """
        read = [json.loads(path.read_text(encoding="utf-8")) for path in self.root.glob("*/candidate.json")]
        proposals = [Proposal(plain["number"], Recipe.from_dict(plain["recipe"]), plain["values"]) for plain in read]
        return sorted(proposals, key=lambda proposal: proposal.number)

    # The trials -----------------------------------------------------------------------------------------------------

    def write(self, result: Result) -> None:
        """Record one trial, whole or not at all; an earlier unsettled result of the same trial is replaced.

        Parameters
        ----------
        result : Result
            With the tables that it has.
        """
        folder = self.folder(result.candidate, result.fold)
        writing = self.root / f".writing-{uuid.uuid4().hex}"
        writing.mkdir(parents=True)
        for name in _TABLES:
            table = getattr(result, name)
            if table is not None:
                table.to_parquet(writing / f"{name}.parquet", index=False)
        names = [field.name for field in dataclasses.fields(result) if field.name not in _TABLES]
        write_json(writing / "result.json", {name: getattr(result, name) for name in names})
        for path in writing.iterdir():
            sync(path)
        folder.parent.mkdir(exist_ok=True)
        if folder.exists():
            aside = self.root / f".writing-{uuid.uuid4().hex}"
            folder.rename(aside)
            writing.rename(folder)
            shutil.rmtree(aside)
        else:
            writing.rename(folder)
        sync(folder.parent)
        self._written(folder)

    def folder(self, candidate: str, fold: str) -> Path:
        """Return where one trial is kept.

        Parameters
        ----------
        candidate : str
            Name of the candidate.
        fold : str
            Name of the fold.

        Returns
        -------
        Path
            The folder; it need not be there.
        """
        return self.root / candidate / file_name(fold)

    def results(self) -> Iterator[Result]:
        """Read every trial recorded, without its tables.

        Yields
        ------
        Result
            In the order of the folders' names. One that finished and whose predictions are gone or not whole any more
            is ``lost``: it counts nowhere, and the next start runs it again.
        """
        # Not within what is being written: it may be gone before it is looked into.
        for path in sorted(self.root.glob("[!.]*/*/result.json")):
            result = _result(json.loads(path.read_text(encoding="utf-8")))
            predictions = path.with_name("predictions.parquet")
            if result.status == "finished" and (fault := _fault(predictions)):
                error = (
                    f"{predictions.relative_to(self.out)} {fault}; the next start of the sweep runs this trial again"
                )
                result = dataclasses.replace(result, status="lost", error=error)
            yield result

    def settled(self) -> dict[tuple[str, str], Result]:
        """Read the trials that need no further attempt.

        Returns
        -------
        dict of (str, str) to Result
            By candidate and fold, without their tables.
        """
        return {result.key: result for result in self.results() if result.status in SETTLED}

    def load(self, result: Result) -> Result:
        """Read the tables of a trial.

        Parameters
        ----------
        result : Result
            Of this ledger.

        Returns
        -------
        Result
            The same with its tables.
        """
        predictions, samples = self._read("predictions", result), self._read("samples", result)
        return dataclasses.replace(result, history=self.history(result), predictions=predictions, samples=samples)

    def history(self, result: Result) -> pd.DataFrame | None:
        """Read the history of a trial.

        Parameters
        ----------
        result : Result
            Of this ledger.

        Returns
        -------
        DataFrame, one row per epoch, or None
            None where the trial left none.
        """
        return result.history if result.history is not None else self._read("history", result)

    def _read(self, name: TrialTable, result: Result) -> pd.DataFrame | None:
        part = self._part(name, result)
        return None if part is None else _with_marks(name, part.to_pandas())

    def table(self, name: TrialTable, results: Iterable[Result]) -> pd.DataFrame:
        """Read one table of many trials, their rows under each other.

        Parameters
        ----------
        name : {"history", "predictions", "samples"}
            Which table.
        results : iterable of Result
            Trials of this ledger.

        Returns
        -------
        DataFrame
            Each row names its candidate and its fold. Empty, without columns, where no trial left such a table.

        Notes
        -----
        Thousands of small files are read by several threads and made into one table before pandas sees them. A column
        that is empty in one takes the type that it has in another.
        """
        trials = list(results)
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            parts = list(pool.map(partial(self._part, name), trials))
        tables = [part for part in parts if part is not None]
        if not tables:
            return pd.DataFrame()
        joined = pa.concat_tables(tables, promote_options="permissive").to_pandas()
        rows = [0 if part is None else part.num_rows for part in parts]
        for column in (CANDIDATE, FOLD):
            if column not in joined:
                joined[column] = pd.Series(np.repeat([getattr(trial, column) for trial in trials], rows), dtype=str)
        return _with_marks(name, joined)

    def _part(self, name: TrialTable, result: Result) -> Any:
        """One trial's table as pyarrow has it, or None where it left none, or lost its predictions."""
        path = self.folder(result.candidate, result.fold) / f"{name}.parquet"
        if result.status == "lost" and name != "history":
            return None
        try:
            with pq.ParquetFile(path) as file:
                return file.read(use_threads=False)
        except FileNotFoundError:
            return None
        except (pa.ArrowInvalid, OSError) as error:
            advice = "delete the folder that it lies in, and the next start of the sweep runs this trial again"
            raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())}; {advice}") from None


def fresh(out: Place) -> Place:
    """Return the first unused place beside OUT: OUT-2, OUT-3, ...

    Parameters
    ----------
    out : Path or Uri
        OUT.

    Returns
    -------
    Path or Uri
    """
    number = 2
    while object_store.exists(beside := out.with_name(f"{out.name}-{number}")):
        number += 1
    return beside


def _fault(table: Path) -> str:
    """Say what is wrong with a parquet file by its size and its two ends, which is quick; empty where nothing is."""
    try:
        with table.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < len(_PARQUET) * 2:
                return f"holds {size} bytes"
            file.seek(0)
            begin = file.read(len(_PARQUET))
            file.seek(-len(_PARQUET), os.SEEK_END)
            return "" if begin == file.read() == _PARQUET else "is cut short or damaged"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _result(plain: Mapping[str, Any]) -> Result:
    """Make a result of what result.json holds; one from before kinds were written has its kind by its recipe."""
    kind = TrialKind(plain["kind"]) if "kind" in plain else _kind(plain["recipe"])
    return Result(**{**plain, "kind": kind})


def _kind(recipe: Mapping[str, Any]) -> TrialKind:
    if recipe.get("seed") is not None:
        return TrialKind.ENSEMBLE_MEMBER
    return TrialKind.LINEAR_PROBE if is_standard_probe(recipe) else TrialKind.CANDIDATE


def _with_marks(name: TrialTable, table: pd.DataFrame) -> pd.DataFrame:
    """A table with the column that says which rows are of the open set; trials from before there was it lack it."""
    return table if name == "history" else open_set.with_marks(table)
