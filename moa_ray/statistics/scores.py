"""Metrics: tile predictions to wells to treatments, and how right they are. Pure functions over prediction tables.

A prediction table has one row a held-out tile: its ``Metadata_*`` columns, ``fold``, ``candidate``, ``backbone``, and
one ``prob_<label>`` a class. The unit that counts is the treatment.
Source: Kensert et al. 2019, "median over fields, then replicates".
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import xlogy
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, f1_score

from moa_ray import intervals
from moa_ray.tables import (
    BACKBONE,
    CANDIDATE,
    COMPOUND,
    FOLD,
    LABEL,
    METHOD,
    SAMPLE,
    TILE_KEY,
    TREATMENT,
    WELL_KEY,
    labels_of,
    probability_column,
    probability_columns,
    require_columns,
    require_unique,
)

How = Literal["median", "mean"]

PREDICTED = "predicted"
REPLICATES = "replicates"  # wells with at least one tile
TILES = "tiles"

SCORES = (
    *("k", "n", "treatment_accuracy", "wilson_low", "wilson_high", "compounds", "compound_low", "compound_high"),
    *("well_accuracy", "tile_accuracy", "macro_f1", "log_loss", "calibration_error"),
)


# From tiles to treatments ---------------------------------------------------------------------------------------------


def wells(predictions: pd.DataFrame, how: How = "median", apart: bool = False) -> pd.DataFrame:
    """One row a candidate and well (a replicate): its label, the predicted one, the probabilities, how many tiles.

    apart : whether what several folds predicted stays apart, a row for each
    Raises ValueError if a tile is predicted twice by one candidate, if a well's treatment carries two labels, or if a
    true label has no probability.
    """
    key = [CANDIDATE, *TILE_KEY]
    require_columns(predictions, [*key, *TREATMENT, LABEL, FOLD, BACKBONE], "predictions")
    require_unique(predictions, key, "predictions")
    return _collapse(predictions.assign(**{TILES: 1}), [*_whose(apart), *WELL_KEY, *TREATMENT], how, [TILES])


def treatments(predictions: pd.DataFrame, how: How = "median", apart: bool = False) -> pd.DataFrame:
    """One row a candidate and treatment: its label, the predicted one, the probabilities, how many wells and tiles.

    Probabilities are aggregated over the tiles of each well, then over the wells that are there; a replicate without
    tiles is left out. They are not renormalised. A treatment that several folds predicted names them all.

    apart : whether what several folds predicted stays apart, as if each fold were aggregated by itself
    Raises ValueError as `wells` does.
    """
    return _over_wells(wells(predictions, how, apart), how, apart)


def sampled(samples: pd.DataFrame, how: How = "median") -> pd.DataFrame:
    """One row a candidate, method, sample and treatment: each sample by itself, as `treatments` makes one of all tiles.

    samples : as predictions, with ``method`` and ``sample``
    """
    require_columns(samples, [METHOD, SAMPLE], "samples")
    tables = []
    for (method, sample), mine in samples.groupby([METHOD, SAMPLE]):
        table = treatments(mine.drop(columns=[METHOD, SAMPLE]), how)
        table.insert(1, METHOD, method)
        table.insert(2, SAMPLE, sample)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _over_wells(by_well: pd.DataFrame, how: How, apart: bool = False) -> pd.DataFrame:
    return _collapse(by_well.assign(**{REPLICATES: 1}), [*_whose(apart), *TREATMENT], how, [REPLICATES, TILES])


def _whose(apart: bool) -> list[str]:
    return [CANDIDATE, FOLD] if apart else [CANDIDATE]


def predicted(table: pd.DataFrame) -> pd.Series:
    """The label with the highest probability, row by row; of equal ones the first in the table's order."""
    names = np.array(labels_of(table), dtype=object)
    return pd.Series(names[_matrix(table).argmax(axis=1)], index=table.index, name=PREDICTED, dtype=str)


def renormalise(table: pd.DataFrame) -> pd.DataFrame:
    """The same table with probabilities that sum to 1; a row of zeros knows nothing and becomes even."""
    columns = probability_columns(table)
    values = _matrix(table)
    total = values.sum(axis=1, keepdims=True)
    even = np.full_like(values, 1 / len(columns))
    return table.assign(**dict(zip(columns, np.divide(values, total, out=even, where=total > 0).T, strict=True)))


def _collapse(table: pd.DataFrame, over: list[str], how: How, counts: list[str]) -> pd.DataFrame:
    """Aggregate the probabilities over groups; labels are carried along, counts are added up."""
    _require_labels(table)
    number = table.groupby(over, dropna=False).ngroup().to_numpy()
    rows = np.unique(number, return_index=True)[1]  # the first of each group
    _require_one_label(table, over, number, rows)
    middle = _middle(table, number, how)
    carried = table.iloc[rows][[*over, BACKBONE, LABEL]].reset_index(drop=True)
    own = {name: np.bincount(number, weights=table[name]).astype(np.int64) for name in counts}
    carried = carried.assign(**{FOLD: _joined(table[FOLD], number, rows), PREDICTED: predicted(middle), **own})
    names = list(dict.fromkeys([*over, BACKBONE, FOLD, LABEL, PREDICTED, *counts]))
    return pd.concat([carried[names], middle], axis=1)


def _middle(table: pd.DataFrame, number: NDArray[np.int64], how: How) -> pd.DataFrame:
    """The median or mean of every probability, one row a group.

    Each probability is taken by itself: the rows of medians need not sum to 1.
    """
    if how not in ("median", "mean"):
        raise ValueError(f"aggregate: 'median' or 'mean', but got {how!r}")
    values = _matrix(table)
    missing = int(np.isnan(values).any(axis=1).sum())
    if missing:
        raise ValueError(f"predictions: {missing} of {len(table)} rows lack a probability")
    middle = pd.DataFrame(values).groupby(number).agg(how)
    return pd.DataFrame(middle.to_numpy(), columns=probability_columns(table))


def _joined(folds: pd.Series, number: NDArray[np.int64], rows: NDArray[np.int64]) -> list[str]:
    """The folds of each group, one as it is, several in one text."""
    names = folds.to_numpy(dtype=object)
    joined = names[rows]
    for group in np.unique(number[names != joined[number]]):
        joined[group] = "; ".join(sorted(set(names[number == group])))
    return list(joined)


def _require_one_label(
    table: pd.DataFrame, over: list[str], number: NDArray[np.int64], rows: NDArray[np.int64]
) -> None:
    labels = table[LABEL].to_numpy(dtype=object)
    torn = np.unique(number[labels != labels[rows][number]])
    if len(torn):
        first = table.iloc[rows[torn[0]]][over].to_dict()
        found = ", ".join(sorted(set(labels[number == torn[0]])))
        raise ValueError(f"predictions: {len(torn)} groups carry two labels, the first is {first}: {found}")


def _require_labels(table: pd.DataFrame) -> None:
    missing = int(table[LABEL].isna().sum())
    if missing:
        raise ValueError(
            f"predictions: {LABEL} is missing in {missing} of {len(table)} rows; predict labelled wells only"
        )
    unknown = sorted(set(table[LABEL]) - set(labels_of(table)))
    if unknown:
        raise ValueError(
            f"predictions: no column {probability_column(unknown[0])} for the true label {unknown[0]!r}; "
            f"there are probabilities for {', '.join(labels_of(table)) or 'no label'}"
        )


def _matrix(table: pd.DataFrame) -> np.ndarray:
    values: np.ndarray = table[probability_columns(table)].to_numpy(dtype=np.float64)
    return values


# How right they are ---------------------------------------------------------------------------------------------------


def accuracy(table: pd.DataFrame) -> float:
    """Share of rows whose most probable label is the true one."""
    return float((predicted(table) == table[LABEL]).mean())


def macro_f1(table: pd.DataFrame) -> float:
    """Mean of the labels' F1 scores, over the labels that occur as true or predicted ones."""
    return float(f1_score(table[LABEL], predicted(table), average="macro", zero_division=0))


def losses(table: pd.DataFrame) -> NDArray[np.float64]:
    """Negative log of the renormalised probability of each row's true label, in nats; finite, as scikit-learn's is."""
    number = pd.Index(labels_of(table)).get_indexer(table[LABEL])
    true = _matrix(renormalise(table))[np.arange(len(table)), number]
    eps = np.finfo(np.float64).eps
    found: NDArray[np.float64] = -xlogy(1.0, np.clip(true, eps, 1 - eps))
    return found


def log_loss(table: pd.DataFrame) -> float:
    """Mean of the rows' losses."""
    return float(losses(table).mean())


def calibration_error(table: pd.DataFrame, bins: int = 10) -> float:
    """Expected calibration error: |accuracy - confidence| over bins of equal width, weighted by their rows.

    Source: Naeini et al. 2015; Guo et al. 2017.
    """
    return float(np.abs(calibration_gaps(table, bins).sum(axis=0)).sum() / len(table))


def calibration_gaps(table: pd.DataFrame, bins: int = 10) -> NDArray[np.float64]:
    """What each row adds to the gap of its bin of confidence: 1 or 0 for right or wrong, less its confidence.

    Returns an array of shape (n_rows, bins), zero outside the row's own bin.
    """
    confidence, right = confidences(table)
    gaps = np.zeros((len(table), bins))
    gaps[np.arange(len(table)), confidence_bin(confidence, bins)] = right - confidence
    return gaps


def confidences(table: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The highest renormalised probability of each row, and whether that label is the true one."""
    return _matrix(renormalise(table)).max(axis=1), (predicted(table) == table[LABEL]).to_numpy(dtype=bool)


def confidence_bin(confidence: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Which of some bins of equal width from 0 to 1 each confidence lies in; 1 lies in the last one."""
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def confusion(table: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """How many rows of each true label (rows) were taken for each label (columns)."""
    counts = confusion_matrix(table[LABEL], predicted(table), labels=list(labels))
    return pd.DataFrame(
        counts, index=pd.Index(labels, name=LABEL, dtype=str), columns=pd.Index(labels, name=PREDICTED, dtype=str)
    )


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share k of n; (0, 1) where n is 0."""
    if n == 0:
        return 0.0, 1.0
    interval = binomtest(int(k), int(n)).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)


def majority(table: pd.DataFrame) -> tuple[str, int, int]:
    """The most frequent true label, its rows k, and all rows n: what one gets right without looking."""
    counts = table[LABEL].value_counts()
    label = min(counts.index[counts == counts.max()])
    return str(label), int(counts[label]), len(table)


def scores(predictions: pd.DataFrame, how: How = "median") -> dict[str, float]:
    """The scores of one candidate's tile predictions.

    k, n : treatments right, and all
    treatment_accuracy, wilson_low, wilson_high : k of n and its 95 % interval
    compounds, compound_low, compound_high : how many there are, and the 95 % interval of a bootstrap that draws them
    well_accuracy, tile_accuracy : the same share over wells and over tiles
    macro_f1, log_loss, calibration_error : over treatments
    Raises ValueError if there is not exactly one candidate, and as `wells` does.
    """
    require_columns(predictions, [CANDIDATE], "predictions")
    if predictions[CANDIDATE].nunique() != 1:
        raise ValueError(f"scores: predictions of one candidate, but got {predictions[CANDIDATE].nunique()}")
    by_well = wells(predictions, how)
    table = _over_wells(by_well, how)
    found = {**treatment_scores(table), "well_accuracy": accuracy(by_well), "tile_accuracy": accuracy(predictions)}
    return {name: found[name] for name in SCORES}


def treatment_scores(table: pd.DataFrame) -> dict[str, float]:
    """Those of `scores` that are over treatments.

    table : of one candidate, as `treatments` makes it
    """
    right = (table[PREDICTED] == table[LABEL]).to_numpy(dtype=bool)
    k, n = int(right.sum()), len(table)
    low, high = wilson(k, n)
    compound_low, compound_high = intervals.accuracy_interval(right, table[COMPOUND])
    return {
        **{"k": k, "n": n, "treatment_accuracy": k / n, "wilson_low": low, "wilson_high": high},
        **{"compounds": table[COMPOUND].nunique(), "compound_low": compound_low, "compound_high": compound_high},
        **{"macro_f1": macro_f1(table), "log_loss": log_loss(table), "calibration_error": calibration_error(table)},
    }


# Candidates beside each other -----------------------------------------------------------------------------------------


def leaderboard(
    predictions: pd.DataFrame,
    trials: pd.DataFrame,
    recipes: Mapping[str, Mapping[str, Any]],
    n_folds: int,
    how: How = "median",
) -> pd.DataFrame:
    """One row a candidate, best first.

    A candidate that lacks a fold ranks below every complete one whatever it scores: its treatments are others. Complete
    ones are ordered by treatment accuracy, then log-loss; the others by the folds that they finished first.

    predictions : of all candidates; may be empty
    trials : one row a trial: candidate, fold, status, epochs, seconds
    recipes : the hyperparameters of every candidate; those that differ get a column each, nested ones dotted
    n_folds : folds that a candidate has to finish
    Raises ValueError if a prediction or trial belongs to no recipe.
    """
    require_columns(trials, [CANDIDATE, FOLD, "status", "epochs", "seconds"], "trials")
    require_unique(trials, [CANDIDATE, FOLD], "trials")
    found = set(trials[CANDIDATE]) | (set(predictions[CANDIDATE]) if len(predictions) else set())
    if not found <= set(recipes):
        raise ValueError(f"leaderboard: candidates without a recipe: {', '.join(sorted(found - set(recipes)))}")
    by_candidate = [dict(iter(table.groupby(CANDIDATE))) if len(table) else {} for table in (predictions, trials)]
    rows = []
    for candidate in recipes:
        tiles, own = (tables.get(candidate, trials.iloc[:0]) for tables in by_candidate)
        rows.append(_standing(candidate, tiles, own, n_folds, how))
    table = _hyperparameters(recipes).merge(pd.DataFrame(rows), on=CANDIDATE, validate="one_to_one")
    table["_unfinished"] = (n_folds - table["folds_finished"]).clip(lower=0)
    order = ["_unfinished", "treatment_accuracy", "log_loss", CANDIDATE]
    table = table.sort_values(order, ascending=[True, False, True, True], ignore_index=True)
    return table.drop(columns="_unfinished")


def treatments_board(table: pd.DataFrame) -> pd.DataFrame:
    """A leaderboard of candidates of which nothing is known but their treatments; see `leaderboard`.

    A candidate is complete that has all treatments that any of them has; the others rank below.

    table : of all candidates: candidate, backbone, treatment, label, predicted, probabilities
    """
    wanted = table.groupby(TREATMENT).ngroups
    rows = [
        {
            **{CANDIDATE: candidate, BACKBONE: mine[BACKBONE].iloc[0], "weights": "unknown"},
            **{"complete": len(mine) == wanted, "n_treatments": wanted},
            **treatment_scores(mine),
        }
        for candidate, mine in table.groupby(CANDIDATE, sort=False)
    ]
    order = ["complete", "treatment_accuracy", "log_loss", CANDIDATE]
    return pd.DataFrame(rows).sort_values(order, ascending=[False, False, True, True], ignore_index=True)


def hyperparameters(board: pd.DataFrame) -> list[str]:
    """The columns of a leaderboard that hold the hyperparameters by which its candidates differ."""
    columns = list(board.columns)
    return columns[columns.index("weights") + 1 : columns.index("complete")]


def _standing(
    candidate: str, predictions: pd.DataFrame, trials: pd.DataFrame, n_folds: int, how: How
) -> dict[str, Any]:
    """What one candidate has done and how it scored, by its own predictions and trials."""
    finished, stopped = (int((trials["status"] == status).sum()) for status in ("finished", "stopped"))
    standing = {
        CANDIDATE: candidate,
        "complete": finished >= n_folds,
        "folds_finished": finished,
        "folds_stopped": stopped,
        "folds_failed": len(trials) - finished - stopped,
        "n_folds": n_folds,
        "epochs_trained": int(trials["epochs"].sum()),
    }
    unknown = {**dict.fromkeys(SCORES, float("nan")), "k": 0, "n": 0, "compounds": 0}
    scored = scores(predictions, how) if len(predictions) else unknown
    return {**standing, **scored, "seconds": float(trials["seconds"].sum())}


def _hyperparameters(recipes: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Candidate, backbone, weights, and the hyperparameters by which the candidates differ."""
    flat = pd.json_normalize([dict(recipe) for recipe in recipes.values()])
    shown = flat.map(lambda value: ", ".join(map(str, value)) if isinstance(value, list | tuple) else value)
    differing = [name for name in shown.columns if len({repr(value) for value in shown[name]}) > 1]
    names = list(dict.fromkeys([BACKBONE, "weights", *differing]))
    require_columns(shown, names, "recipes")
    return shown[names].assign(**{CANDIDATE: list(recipes)})[[CANDIDATE, *names]]
