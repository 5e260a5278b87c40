"""What evidence holds of single trials, of a search and of linear probes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from moa_ray.common.schema import CANDIDATE, FOLD
from moa_ray.config.search import OptunaSettings
from moa_ray.config.search_space import Space
from moa_ray.search.standing import Standing
from moa_ray.tracking.results import Result


@dataclass(frozen=True)
class Failure:
    """A trial that did not finish.

    Attributes
    ----------
    candidate, fold : str
        Names of the trial's candidate and fold.
    status : str
        How it ended.
    attempts : int
        How often it was tried.
    error : str
        One line for people, and the traceback below it; may be empty.
    """

    candidate: str
    fold: str
    status: str
    attempts: int
    error: str


@dataclass(frozen=True)
class SearchRecord:
    """How a search's candidates came to be and were judged.

    Attributes
    ----------
    settings : OptunaSettings
        The search as the sweep file describes it.
    states : DataFrame
        One row a candidate in the order of their proposal, one column a search fold in the race's order, then one a
        confirm fold: the status of the trial, or missing.
    confirm_folds : sequence of str
        Names of the folds that the choice did not see.
    scores : mapping of str to Any
        Scores of the winner on the confirm folds alone; empty where there are none or no candidate won.
    over_all : mapping of str to Any
        Scores of the winner on all folds, those used for choosing among them.
    saved : float
        Share of the epochs of all candidates on all search folds that was not trained.
    space : Space or None
        The hyperparameters searched, for Optuna's figures; None where these are not wanted.
    seed : int
        The sweep's seed.
    standings : sequence of Standing
        Where each candidate stands in the race.
    """

    settings: OptunaSettings
    states: pd.DataFrame
    confirm_folds: Sequence[str]
    scores: Mapping[str, Any]
    over_all: Mapping[str, Any]
    saved: float
    space: Space | None = None
    seed: int = 0
    standings: Sequence[Standing] = ()


@dataclass(frozen=True)
class ProbeRecord:
    """What linear probes showed of the backbones before any was fine-tuned.

    Attributes
    ----------
    leaderboard : DataFrame
        One row a probe, best first, as `moa_ray.statistics.leaderboard` makes it, with image_size; may be empty.
    dropped : sequence of str
        Backbones that were not fine-tuned.
    unseen : sequence of str
        Backbones that were not probed.
    keep : int or None
        How many backbones were to go on; None where the probe drops none.
    majority : float or None
        Share of the treatments that have the most frequent label; None where nothing was predicted.
    predictions : DataFrame
        One row a held-out tile of any probe.
    """

    leaderboard: pd.DataFrame
    dropped: Sequence[str]
    unseen: Sequence[str]
    keep: int | None
    majority: float | None
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)


def trial_table(results: Sequence[Result]) -> pd.DataFrame:
    """Tabulate trials.

    Parameters
    ----------
    results : sequence of Result
        One for each trial.

    Returns
    -------
    DataFrame
        One row a trial, as `moa_ray.statistics.leaderboard` takes it: candidate, fold, status, epochs, seconds.
    """
    columns = [CANDIDATE, FOLD, "status", "epochs", "seconds"]
    return pd.DataFrame([[getattr(result, name) for name in columns] for result in results], columns=columns)


def of_folds(table: pd.DataFrame, folds: Sequence[str]) -> pd.DataFrame:
    """Select the rows of some folds.

    Parameters
    ----------
    table : DataFrame
        With the column ``fold``, or empty.
    folds : sequence of str
        Names of folds.

    Returns
    -------
    DataFrame
        Rows of the table.
    """
    return table[table[FOLD].isin(folds)] if len(table) else table
