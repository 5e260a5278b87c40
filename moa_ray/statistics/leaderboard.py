"""Rank candidates: one row per candidate, best first."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from moa_ray.common.schema import BACKBONE, CANDIDATE, FOLD, TREATMENT, require_columns, require_unique
from moa_ray.statistics.aggregation import Aggregation
from moa_ray.statistics.scores import NOTHING_SCORED, scores, treatment_scores
from moa_ray.statistics.unpredicted import no_unpredicted


def leaderboard(
    predictions: pd.DataFrame,
    trials: pd.DataFrame,
    recipes: Mapping[str, Mapping[str, Any]],
    n_folds: int,
    how: Aggregation = "median",
    missing: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Make the leaderboard: one row per candidate, best first.

    Rows of the open set are not scored. A candidate that lacks a fold ranks below every complete one whatever it
    scores, since its treatments are others. Complete ones are ordered by treatment accuracy, then log loss; the others
    first by the folds that they finished.

    Parameters
    ----------
    predictions : DataFrame, one row per tile
        Of all candidates; may be empty.
    trials : DataFrame, one row per trial
        Columns ``candidate``, ``fold``, ``status``, ``epochs``, ``seconds``.
    recipes : mapping of str to mapping
        The hyperparameters of every candidate. Those that differ get a column each, nested ones dotted.
    n_folds : int
        Folds that a candidate has to finish.
    how : {"median", "mean"}
        Reduction over tiles, then over wells.
    missing : DataFrame, one row per candidate and treatment, optional
        Treatments that candidates were to predict and did not, as `moa_ray.statistics.unpredicted` lists them. They
        count as not right.

    Returns
    -------
    DataFrame, one row per candidate
        Candidate, hyperparameters, how many folds finished, stopped and failed, `scores.SCORES`, ``seconds``.

    Raises
    ------
    ValueError
        If a prediction or trial belongs to no recipe.
    """
    require_columns(trials, [CANDIDATE, FOLD, "status", "epochs", "seconds"], "trials")
    require_unique(trials, [CANDIDATE, FOLD], "trials")
    candidates = set(trials[CANDIDATE]) | (set(predictions[CANDIDATE]) if len(predictions) else set())
    if not candidates <= set(recipes):
        raise ValueError(f"leaderboard: candidates without a recipe: {', '.join(sorted(candidates - set(recipes)))}")
    absent = no_unpredicted() if missing is None else missing
    by_candidate = [
        dict(iter(table.groupby(CANDIDATE))) if len(table) else {} for table in (predictions, trials, absent)
    ]
    rows = []
    for candidate in recipes:
        tiles, own_trials, own_absent = (
            tables.get(candidate, empty.iloc[:0])
            for tables, empty in zip(by_candidate, (trials, trials, absent), strict=True)
        )
        rows.append(_standing(candidate, tiles, own_trials, own_absent, n_folds, how))
    table = _hyperparameters(recipes).merge(pd.DataFrame(rows), on=CANDIDATE, validate="one_to_one")
    table["_unfinished"] = (n_folds - table["folds_finished"]).clip(lower=0)
    order = ["_unfinished", "treatment_accuracy", "log_loss", CANDIDATE]
    table = table.sort_values(order, ascending=[True, False, True, True], ignore_index=True)
    return table.drop(columns="_unfinished")


def treatments_board(table: pd.DataFrame) -> pd.DataFrame:
    """Make a leaderboard of candidates of which nothing is known but their treatments; see `leaderboard`.

    A candidate is complete where it has all treatments that any of them has; the others rank below.

    Parameters
    ----------
    table : DataFrame, one row per candidate and treatment
        Candidate, backbone, treatment, label, ``predicted``, probabilities.

    Returns
    -------
    DataFrame, one row per candidate, best first
    """
    wanted = table.groupby(TREATMENT).ngroups
    standings = [
        {
            **{CANDIDATE: candidate, BACKBONE: rows[BACKBONE].iloc[0], "weights": "unknown"},
            **{"complete": len(rows) == wanted, "n_treatments": wanted},
            **treatment_scores(rows),
        }
        for candidate, rows in table.groupby(CANDIDATE, sort=False)
    ]
    order = ["complete", "treatment_accuracy", "log_loss", CANDIDATE]
    return pd.DataFrame(standings).sort_values(order, ascending=[False, False, True, True], ignore_index=True)


def hyperparameters(board: pd.DataFrame) -> list[str]:
    """Return the columns of a leaderboard that hold the hyperparameters by which its candidates differ.

    Parameters
    ----------
    board : DataFrame
        As `leaderboard` or `treatments_board` makes it.

    Returns
    -------
    list of str
    """
    columns = list(board.columns)
    return columns[columns.index("weights") + 1 : columns.index("complete")]


def _standing(
    candidate: str,
    predictions: pd.DataFrame,
    trials: pd.DataFrame,
    missing: pd.DataFrame,
    n_folds: int,
    how: Aggregation,
) -> dict[str, Any]:
    """Return what one candidate has done and how it scored, from its own predictions and trials."""
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
    scored = scores(predictions, how, missing) if len(predictions) else NOTHING_SCORED
    return {**standing, **scored, "seconds": float(trials["seconds"].sum())}


def _hyperparameters(recipes: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return candidate, backbone, weights, and the hyperparameters by which the candidates differ."""
    flat = pd.json_normalize([dict(recipe) for recipe in recipes.values()])
    shown = flat.map(lambda value: ", ".join(map(str, value)) if isinstance(value, list | tuple) else value)
    differing = [name for name in shown.columns if len({repr(value) for value in shown[name]}) > 1]
    names = list(dict.fromkeys([BACKBONE, "weights", *differing]))
    require_columns(shown, names, "recipes")
    return shown[names].assign(**{CANDIDATE: list(recipes)})[[CANDIDATE, *names]]
