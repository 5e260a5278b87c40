"""A table of predictions made elsewhere: read and checked at the door, and the folder that its report may go to.

    compound, concentration (µmol/L), moa (or label), backbone and/or candidate, and prob_<label> for each label

One row a candidate and treatment. The names of our own tables (``Metadata_Compound``, ...) do as well.
"""

import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from moa_ray import metrics
from moa_ray.screens import numbers
from moa_ray.tables import (
    BACKBONE,
    CANDIDATE,
    COMPOUND,
    CONCENTRATION,
    LABEL,
    TREATMENT,
    labels_of,
    probability_column,
    probability_columns,
)

_NAMES = {
    COMPOUND: (COMPOUND, "compound"),
    CONCENTRATION: (CONCENTRATION, "concentration"),
    LABEL: (LABEL, "moa", "label"),
}
_SLACK = 1e-6  # by which a stored probability may miss 0 or 1
_SUM_SLACK = 1e-3  # by which a row's sum may miss 1 before we say so
_SHOWN = 3

FILES = (
    *("summary.json", "report.html", "treatments.parquet", "leaderboard.csv", "reference.csv"),
    *("conformal.parquet", "uncertainty.parquet"),
)


def read(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Treatments as `metrics.treatments` makes them, without wells and tiles, and what a reader has to know of them.

    Raises ValueError naming the file, and the row where one is wrong (the header is row 1).
    """
    given = _table(path)
    chosen = {column: _one_of(given, names, path) for column, names in _NAMES.items()}
    named = [column for column in (CANDIDATE, BACKBONE) if column in given]
    if not named:
        raise ValueError(f"{path}: column {BACKBONE} or {CANDIDATE} is missing; {_has(given)}")
    table = pd.DataFrame({CANDIDATE: given[named[0]], BACKBONE: given[named[-1]]})
    table = table.assign(**{column: given[source] for column, source in chosen.items() if column != CONCENTRATION})
    for column in table:
        _require_filled(table[column], {**chosen, CANDIDATE: named[0], BACKBONE: named[-1]}[column], path)
    table = table.astype(str)
    table.insert(3, CONCENTRATION, numbers(given[chosen[CONCENTRATION]], str(path)))
    probabilities = _probabilities(given, path)
    table = table.join(probabilities)
    _require_consistent(table, path)
    table.insert(5, metrics.PREDICTED, metrics.predicted(table))
    return table, _remarks(probabilities)


def _table(path: Path) -> pd.DataFrame:
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"{path}: a table ends in .csv or .parquet, but got {path.suffix or 'no ending'}")
    try:
        # As text: a compound may be called NA. Only an empty cell is missing.
        table = (
            pd.read_parquet(path)
            if path.suffix == ".parquet"
            else pd.read_csv(path, encoding="utf-8-sig", dtype=str, keep_default_na=False, na_values=[""])
        )
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; --predictions takes a CSV or parquet table") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: no table of predictions: {error}") from None
    if table.empty:
        raise ValueError(f"{path}: the table has no rows")
    return table.reset_index(drop=True).rename(columns=str)


def _one_of(given: pd.DataFrame, names: Collection[str], path: Path) -> str:
    """The column that goes by one of some names."""
    found = [name for name in names if name in given]
    if not found:
        raise ValueError(f"{path}: column {' or '.join(names)} is missing; {_has(given)}")
    if len(found) > 1:
        raise ValueError(f"{path}: columns {' and '.join(found)} say the same; leave out all but one")
    return found[0]


def _has(given: pd.DataFrame) -> str:
    return f"it has {', '.join(given.columns)}"


def _require_filled(column: "pd.Series[str]", name: str, path: Path) -> None:
    empty = np.flatnonzero(column.isna())
    if len(empty):
        raise ValueError(f"{path}: row {empty[0] + 2}: {name} is empty; fill it in, or leave the row out")


def _probabilities(given: pd.DataFrame, path: Path) -> pd.DataFrame:
    columns = probability_columns(given)
    if len(columns) < 2:
        raise ValueError(
            f"{path}: a column prob_<label> is needed for each of at least 2 labels, but it has {len(columns)}: "
            f"{', '.join(given.columns)}"
        )
    values = given[columns].apply(pd.to_numeric, errors="coerce").astype(np.float64)
    wrong = np.argwhere(~((values >= -_SLACK) & (values <= 1 + _SLACK)).to_numpy())
    if len(wrong):
        row, column = wrong[0]
        found = given[columns].iat[row, column]
        raise ValueError(
            f"{path}: row {row + 2}: {columns[column]} must be a probability from 0 to 1, but "
            f"{'is empty' if pd.isna(found) else f'got {found!r}'} ({len({row for row, _ in wrong})} rows are wrong)"
        )
    return values


def _require_consistent(table: pd.DataFrame, path: Path) -> None:
    """One row a candidate and treatment, one label a treatment, one backbone a candidate, a probability a label."""
    repeated = np.flatnonzero(table.duplicated([CANDIDATE, *TREATMENT]))
    if len(repeated):
        raise ValueError(
            f"{path}: row {repeated[0] + 2}: {_treatment(table, repeated[0])} of {table[CANDIDATE].iat[repeated[0]]} "
            f"stands in the table before ({len(repeated)} rows repeat one); give one row a candidate and treatment"
        )
    unknown = np.flatnonzero(~table[LABEL].isin(labels_of(table)))
    if len(unknown):
        label = table[LABEL].iat[unknown[0]]
        raise ValueError(
            f"{path}: row {unknown[0] + 2}: no column {probability_column(label)} for the true label {label!r}; "
            f"there are probabilities for {', '.join(labels_of(table))}"
        )
    for key, column, rule in (
        (TREATMENT, LABEL, "carries two labels"),
        ([CANDIDATE], BACKBONE, "has two backbones"),
    ):
        torn = table.groupby(key)[column].transform("nunique").to_numpy() > 1
        if torn.any():
            row = int(np.flatnonzero(torn)[0])
            who = _treatment(table, row) if column == LABEL else table[CANDIDATE].iat[row]
            same = table.loc[(table[key] == table[key].iloc[row]).all(axis=1), column]
            raise ValueError(f"{path}: {who} {rule}: {', '.join(sorted(set(same)))}; keep one")


def _treatment(table: pd.DataFrame, row: int) -> str:
    return f"{table[COMPOUND].iat[row]} at {table[CONCENTRATION].iat[row]:g} µmol/L"


def _remarks(probabilities: pd.DataFrame) -> list[str]:
    sums = probabilities.sum(axis=1)
    off = int((abs(sums - 1) > _SUM_SLACK).sum())
    if not off:
        return []
    return [
        f"{off} of {len(sums)} rows are not renormalised: their probabilities sum to {sums.min():.3f} to "
        f"{sums.max():.3f}, not to 1, as medians do. The predicted label is the most probable one as given; log-loss "
        "and calibration error renormalise"
    ]


# The folder -----------------------------------------------------------------------------------------------------------


def earlier_files(out: Path, predictions: Path) -> set[str]:
    """The files of an earlier report of this kind in a folder, relative to it; none where it is new or empty.

    Raises ValueError where the folder holds anything else, or the table itself: nothing of it would be overwritten.
    """
    if not out.exists() and not out.is_symlink():
        return set()
    if not out.is_dir():
        raise ValueError(f"{out}: is no folder; give a folder that is empty or does not exist yet")
    if (out / "ledger").exists() or (out / "sweep.yaml").exists():
        raise ValueError(
            f"{out}: holds a sweep; its report comes from its ledger. Give --predictions a folder of its own"
        )
    if predictions.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"{predictions}: lies in {out}, where the report would overwrite it; give another folder")
    own, found, foreign = _listed(out), set(), []
    for name, is_file in _walk(out):
        if is_file and name in own:
            found.add(name)
        elif is_file or name != "figures":
            foreign.append(name)
        if len(foreign) == _SHOWN:
            break
    if foreign:
        raise ValueError(
            f"{out}: holds files that are of no earlier report of predictions: {', '.join(foreign)}; nothing was "
            "written. Give a folder that is empty or does not exist yet"
        )
    return found


def _listed(out: Path) -> set[str]:
    """What an earlier report says that it wrote."""
    try:
        plain = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        return {name for name in map(str, plain["files"]) if _is_ours(name)} if plain["predictions"] else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()  # no report of predictions, so all that is there is someone's


def _is_ours(name: str) -> bool:
    """Whether a report of this kind may write a file of this name."""
    path = PurePosixPath(name)
    return name in FILES or (path.parent == PurePosixPath("figures") and path.suffix in (".svg", ".png"))


def _walk(out: Path) -> Iterator[tuple[str, bool]]:
    """Everything below a folder, relative to it, and whether it is a plain file; links are not followed."""
    for folder, below, names in os.walk(out):
        for name in sorted([*below, *names]):
            path = Path(folder, name)
            relative = path.relative_to(out).as_posix()
            if path.is_symlink():
                yield f"{relative} (a link)", True
            else:
                yield relative, path.is_file()
