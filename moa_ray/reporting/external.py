"""Evidence out of predictions made elsewhere: a table that is read and checked at the door.

    compound, concentration (µmol/L), moa (or label), backbone and/or candidate, and prob_<label> for each label

One row a candidate and treatment. The names of our own tables (``Metadata_Compound``, ...) do as well.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.common.schema import (
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
from moa_ray.common.versions import versions
from moa_ray.config.conformal import ConformalSettings
from moa_ray.reporting.evidence import Evidence, corrected
from moa_ray.screens.screen import numbers
from moa_ray.statistics import aggregation, comparison
from moa_ray.statistics.leaderboard import treatments_board

_NAMES = {
    COMPOUND: (COMPOUND, "compound"),
    CONCENTRATION: (CONCENTRATION, "concentration"),
    LABEL: (LABEL, "moa", "label"),
}
_SLACK = 1e-6  # by which a stored probability may miss 0 or 1
_SUM_SLACK = 1e-3  # by which a row's sum may miss 1 before we say so


def evidence(path: Path, reference: str | None, command: str) -> Evidence:
    """Gather what the report of a table stands on.

    Parameters
    ----------
    path : Path
        The table.
    reference : str or None
        Published results to lay it beside.
    command : str
        What made the report.

    Returns
    -------
    Evidence
        Without folds, wells and histories.

    Raises
    ------
    InputError
        If the table is wrong.
    """
    treatments, remarks = read(path)
    leaderboard = treatments_board(treatments)
    return Evidence(
        study=path.name,
        seed=0,
        command=command,
        leaderboard=comparison.against_best(leaderboard, treatments),
        treatments=treatments,
        history=pd.DataFrame(),
        labels=sorted(labels_of(treatments)),
        channels=(None, None, None),
        conformal=ConformalSettings(),
        warnings=remarks,
        versions=versions(),
        corrected=corrected(leaderboard, treatments, (), 0),
        reference=reference,
        external=str(path),
    )


def read(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read and check a table of predictions.

    Parameters
    ----------
    path : Path
        A CSV or parquet file.

    Returns
    -------
    tuple of DataFrame, list of str
        Treatments as `aggregation.treatments` makes them, without wells and tiles, and what a reader has to know, a
        sentence each.

    Raises
    ------
    InputError
        If the table is wrong; names the file, and the row where one is wrong (the header is row 1).
    """
    raw = _table(path)
    chosen = {column: _one_of(raw, names, path) for column, names in _NAMES.items()}
    named = [column for column in (CANDIDATE, BACKBONE) if column in raw]
    if not named:
        raise InputError(f"{path}: column {BACKBONE} or {CANDIDATE} is missing; {_has(raw)}")
    table = pd.DataFrame({CANDIDATE: raw[named[0]], BACKBONE: raw[named[-1]]})
    table = table.assign(**{column: raw[source] for column, source in chosen.items() if column != CONCENTRATION})
    for column in table:
        _require_filled(table[column], {**chosen, CANDIDATE: named[0], BACKBONE: named[-1]}[column], path)
    table = table.astype(str)
    table.insert(3, CONCENTRATION, numbers(raw[chosen[CONCENTRATION]], str(path)))
    probabilities = _probabilities(raw, path)
    table = table.join(probabilities)
    _require_consistent(table, path)
    table.insert(5, aggregation.PREDICTED, aggregation.predicted(table))
    return table, _remarks(probabilities)


def _table(path: Path) -> pd.DataFrame:
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(f"{path}: a table ends in .csv or .parquet, but got {path.suffix or 'no ending'}")
    try:
        # As text: a compound may be called NA. Only an empty cell is missing.
        table = (
            pd.read_parquet(path)
            if path.suffix == ".parquet"
            else pd.read_csv(path, encoding="utf-8-sig", dtype=str, keep_default_na=False, na_values=[""])
        )
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; --predictions takes a CSV or parquet table") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: no table of predictions: {error}") from None
    if table.empty:
        raise InputError(f"{path}: the table has no rows")
    return table.reset_index(drop=True).rename(columns=str)


def _one_of(raw: pd.DataFrame, names: Collection[str], path: Path) -> str:
    """The column that goes by one of some names."""
    matching = [name for name in names if name in raw]
    if not matching:
        raise InputError(f"{path}: column {' or '.join(names)} is missing; {_has(raw)}")
    if len(matching) > 1:
        raise InputError(f"{path}: columns {' and '.join(matching)} say the same; leave out all but one")
    return matching[0]


def _has(raw: pd.DataFrame) -> str:
    return f"it has {', '.join(raw.columns)}"


def _require_filled(column: pd.Series, name: str, path: Path) -> None:
    empty = np.flatnonzero(column.isna())
    if len(empty):
        raise InputError(f"{path}: row {empty[0] + 2}: {name} is empty; fill it in, or leave the row out")


def _probabilities(raw: pd.DataFrame, path: Path) -> pd.DataFrame:
    columns = probability_columns(raw)
    if len(columns) < 2:
        raise InputError(
            f"{path}: a column prob_<label> is needed for each of at least 2 labels, but it has {len(columns)}: "
            f"{', '.join(raw.columns)}"
        )
    values = raw[columns].apply(pd.to_numeric, errors="coerce").astype(np.float64)
    wrong = np.argwhere(~((values >= -_SLACK) & (values <= 1 + _SLACK)).to_numpy())
    if len(wrong):
        row, column = wrong[0]
        value = raw[columns].iat[row, column]
        raise InputError(
            f"{path}: row {row + 2}: {columns[column]} must be a probability from 0 to 1, but "
            f"{'is empty' if pd.isna(value) else f'got {value!r}'} ({len({row for row, _ in wrong})} rows are wrong)"
        )
    return values


def _require_consistent(table: pd.DataFrame, path: Path) -> None:
    """One row a candidate and treatment, one label a treatment, one backbone a candidate, a probability a label."""
    repeated = np.flatnonzero(table.duplicated([CANDIDATE, *TREATMENT]))
    if len(repeated):
        raise InputError(
            f"{path}: row {repeated[0] + 2}: {_treatment(table, repeated[0])} of {table[CANDIDATE].iat[repeated[0]]} "
            f"stands in the table before ({len(repeated)} rows repeat one); give one row a candidate and treatment"
        )
    unknown = np.flatnonzero(~table[LABEL].isin(labels_of(table)))
    if len(unknown):
        label = table[LABEL].iat[unknown[0]]
        raise InputError(
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
            raise InputError(f"{path}: {who} {rule}: {', '.join(sorted(set(same)))}; keep one")


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
