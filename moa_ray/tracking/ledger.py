"""The ledger: one folder a trial, each written whole or not at all, by the driver alone.

    OUT/sweep.yaml                 the sweep as it was run
    OUT/ledger/study.json                 what all trials share: the tiles' fingerprint, the labels, the folds
    OUT/ledger/CANDIDATE/candidate.json   its recipe, where a search proposed it
    OUT/ledger/CANDIDATE/FOLD/            result.json, history.parquet, and where the trial finished predictions.parquet
                                          and, where samples were wanted, samples.parquet

Everything else in OUT can be thrown away and made again from here. Starting again means reading the ledger and doing
what is missing; there is no second way to resume.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from moa_ray import stores
from moa_ray.recipe import Recipe, is_first_look
from moa_ray.spec import Grid, Sweep
from moa_ray.stores import Place
from moa_ray.tables import CANDIDATE, FOLD

Status = Literal["finished", "stopped", "diverged", "out_of_memory", "crashed"]
# A crash may come from the machine; a divergence is the recipe's own and would come again.
SETTLED: frozenset[Status] = frozenset({"finished", "stopped", "diverged"})
Table = Literal["history", "predictions", "samples"]  # what a trial leaves beside its result
_TABLES: tuple[Table, ...] = ("history", "predictions", "samples")
_LONGEST = 200  # characters of a name; file systems allow 255 bytes

# Keys of the sweep file that say where, how fast, how long and beside what, not what: they may change between starts.
_CHANGEABLE = ("out", "tiles", "resources", "tracking", "evaluate_every", "reference", "conformal")
_EXTENSIBLE = ("search.candidates", "search.confirm")
_FIRST_LOOK = "search.screen_with_frozen"
_KEEP = f"{_FIRST_LOOK}.keep"


@dataclass(frozen=True)
class Proposal:
    """A candidate as the search came to it.

    number : its place among the candidates, from 0 on
    values : what the search chose for the hyperparameters that it searches
    """

    number: int
    recipe: Recipe
    values: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """How one trial ended.

    seconds : wall time of the training and prediction
    error : one line for people; the traceback stands below it
    epochs : epochs trained to their end
    samples : predictions drawn several times: as `predictions`, with ``method`` and ``sample``
    """

    candidate: str
    fold: str
    status: Status
    recipe: dict[str, Any]
    attempts: int = 1
    epochs: int = 0
    seconds: float = 0.0
    setup_seconds: float = 0.0
    error: str | None = None
    history: pd.DataFrame | None = dataclasses.field(default=None, compare=False, repr=False)
    predictions: pd.DataFrame | None = dataclasses.field(default=None, compare=False, repr=False)
    samples: pd.DataFrame | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def key(self) -> tuple[str, str]:
        """(candidate, fold)"""
        return self.candidate, self.fold


class Ledger:
    """The trials of one OUT; where that is a URI, in this machine's copy of it.

    written : called with each file or folder that belongs to a candidate or a trial, once it is whole
    """

    def __init__(self, out: Place, written: Callable[[Path], object] = lambda path: None) -> None:
        self.out = stores.folder(out)
        self.root = self.out / "ledger"
        self._name, self._written = out, written

    # What all trials share ------------------------------------------------------------------------------------------

    def open(self, sweep: Sweep, study: Mapping[str, Any]) -> None:
        """Begin a ledger, or go on with one of the same sweep.

        Raises ValueError naming what differs where trials of two different sweeps would be mixed.
        """
        if self.exists():
            differing = self._differences(sweep, study)
            if differing:
                raise ValueError(
                    f"{self._name}: holds trials of a different sweep; these differ: {', '.join(differing)}. "
                    "Give another out, or --fresh to start over beside it (nothing is deleted)"
                )
        self.root.mkdir(parents=True, exist_ok=True)
        for leftover in self.root.glob(".writing-*"):
            shutil.rmtree(leftover)
        known = self.study() if (self.root / "study.json").exists() else {"id": uuid.uuid4().hex}
        write_text(self.out / "sweep.yaml", sweep.as_yaml())
        write_text(self.root / "study.json", json.dumps({**study, "id": known["id"]}, indent=1))

    def exists(self) -> bool:
        """Whether a sweep was begun here."""
        return (self.out / "sweep.yaml").exists() and self.root.is_dir()

    def study(self) -> dict[str, Any]:
        """What all trials share."""
        try:
            study: dict[str, Any] = json.loads((self.root / "study.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{self._name}: no sweep was run here: ledger/study.json is missing") from None
        return study

    def _differences(self, sweep: Sweep, study: Mapping[str, Any]) -> list[str]:
        """The dotted keys by which an earlier sweep differs in a way that would mix results.

        A grid may grow, since its candidates are known by their digests; what was run must still be asked for. The
        ensemble of a search may grow, whose candidates are trained with the first seed.
        """
        before = _flat(yaml.safe_load((self.out / "sweep.yaml").read_text(encoding="utf-8")))
        now = _flat(yaml.safe_load(sweep.as_yaml()))
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        keys = [key for key in keys if key.split(".")[0] not in _CHANGEABLE and not key.startswith(_FIRST_LOOK)]
        if not isinstance(sweep.search, Grid) and _is_longer(now.get("seeds"), before.get("seeds")):
            keys.remove("seeds")
        shaping = ("recipe", "search", "seeds")
        recipe_keys = [key for key in keys if key.startswith(shaping) and key not in _EXTENSIBLE]
        differing = [key for key in keys if key not in recipe_keys and key not in _EXTENSIBLE]
        run = {result.candidate for result in self.results() if not is_first_look(result.recipe)}
        if not isinstance(sweep.search, Grid) or not run <= {recipe.candidate for recipe in sweep.recipes}:
            differing += recipe_keys
        # A first look adds trials and changes none; how many backbones it keeps is settled with the first other trial.
        if before.get(_KEEP) != now.get(_KEEP) and (run or self.proposals()):
            differing.append(_KEEP)
        if not (self.root / "study.json").exists():
            return differing
        shared, known = self.study(), json.loads(json.dumps(study))
        differing += [key for key in ("tiles", "labels") if shared[key] != known[key]]
        # A candidate may bring its own weights; a file that was used must be the same still.
        files = shared["weights"].keys() & known["weights"].keys()
        return differing + [f"weights {name}" for name in files if shared["weights"][name] != known["weights"][name]]

    # The candidates -------------------------------------------------------------------------------------------------

    def propose(self, proposal: Proposal) -> None:
        """Record a candidate before any of its trials, whole or not at all."""
        folder = self.root / proposal.recipe.candidate
        folder.mkdir(exist_ok=True)
        plain = {"number": proposal.number, "recipe": proposal.recipe.as_dict(), "values": proposal.values}
        write_text(folder / "candidate.json", json.dumps(plain, indent=1))
        self._written(folder / "candidate.json")

    def proposals(self) -> list[Proposal]:
        """The candidates of a search, in the order in which it came to them."""
        read = [json.loads(path.read_text(encoding="utf-8")) for path in self.root.glob("*/candidate.json")]
        found = [Proposal(plain["number"], Recipe.from_dict(plain["recipe"]), plain["values"]) for plain in read]
        return sorted(found, key=lambda proposal: proposal.number)

    # The trials -----------------------------------------------------------------------------------------------------

    def write(self, result: Result) -> None:
        """Record one trial, whole or not at all; an earlier unsettled result of the same trial is replaced."""
        folder = self.folder(result.candidate, result.fold)
        writing = self.root / f".writing-{uuid.uuid4().hex}"
        writing.mkdir(parents=True)
        for name in _TABLES:
            table = getattr(result, name)
            if table is not None:
                table.to_parquet(writing / f"{name}.parquet", index=False)
        plain = {
            field.name: getattr(result, field.name) for field in dataclasses.fields(result) if field.name not in _TABLES
        }
        write_text(writing / "result.json", json.dumps(plain, indent=1))
        for path in writing.iterdir():
            _sync(path)
        folder.parent.mkdir(exist_ok=True)
        if folder.exists():
            aside = self.root / f".writing-{uuid.uuid4().hex}"
            folder.rename(aside)
            writing.rename(folder)
            shutil.rmtree(aside)
        else:
            writing.rename(folder)
        _sync(folder.parent)
        self._written(folder)

    def folder(self, candidate: str, fold: str) -> Path:
        """Where one trial is kept."""
        return self.root / candidate / file_name(fold)

    def results(self) -> Iterator[Result]:
        """Every trial recorded, without its tables."""
        # Not within what is being written: it may be gone before it is looked into.
        for path in sorted(self.root.glob("[!.]*/*/result.json")):
            yield Result(**json.loads(path.read_text(encoding="utf-8")))

    def settled(self) -> dict[tuple[str, str], Result]:
        """The trials that need no further attempt, by (candidate, fold)."""
        return {result.key: result for result in self.results() if result.status in SETTLED}

    def load(self, result: Result) -> Result:
        """The same result with its tables."""
        predictions, samples = self._read("predictions", result), self._read("samples", result)
        return dataclasses.replace(result, history=self.history(result), predictions=predictions, samples=samples)

    def history(self, result: Result) -> pd.DataFrame | None:
        """The history of a trial, where it left one."""
        return result.history if result.history is not None else self._read("history", result)

    def _read(self, name: Table, result: Result) -> pd.DataFrame | None:
        part = self._part(name, result)
        return None if part is None else part.to_pandas()

    def table(self, name: Table, results: Iterable[Result]) -> pd.DataFrame:
        """One table of all given trials, rows under each other; each row names its candidate and its fold.

        Thousands of small files are read by several threads and made into one before pandas sees them. A column that is
        empty in one takes the type that it has in another.
        """
        given = list(results)
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            parts = list(pool.map(partial(self._part, name), given))
        if all(part is None for part in parts):
            return pd.DataFrame()
        joined = pa.concat_tables(
            [part for part in parts if part is not None], promote_options="permissive"
        ).to_pandas()
        rows = [0 if part is None else part.num_rows for part in parts]
        for column in (CANDIDATE, FOLD):
            if column not in joined:
                joined[column] = pd.Series(np.repeat([getattr(result, column) for result in given], rows), dtype=str)
        return joined

    def _part(self, name: Table, result: Result) -> Any:
        """One trial's table as pyarrow has it, or None where it left none."""
        try:
            with pq.ParquetFile(self.folder(result.candidate, result.fold) / f"{name}.parquet") as file:
                return file.read(use_threads=False)
        except FileNotFoundError:
            return None


def _is_longer(seeds: list[int] | None, before: list[int] | None) -> bool:
    """Whether seeds go on where those before ended."""
    return seeds is not None and before is not None and seeds[: len(before)] == before


def fresh(out: Place) -> Place:
    """The first unused place beside OUT: OUT-2, OUT-3, ..."""
    number = 2
    while (beside := out.with_name(f"{out.name}-{number}")).exists():
        number += 1
    return beside


def file_name(name: str) -> str:
    """A name percent-encoded, so that any compound or candidate names a file or folder and none leads out of one."""
    encoded = quote(name, safe="=, +()")
    if len(encoded) > _LONGEST:
        return f"{encoded[: _LONGEST - 65]}-{hashlib.sha256(name.encode()).hexdigest()}"
    return encoded


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    writing = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    writing.write_text(text, encoding="utf-8")
    writing.replace(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
