"""The loss that a search minimises: of one trial, over the treatments of its fold."""

import math
from collections.abc import Callable, Mapping

import pandas as pd

from moa_ray.common.schema import CANDIDATE, FOLD, LABEL
from moa_ray.statistics import aggregation, scores
from moa_ray.statistics.units import Unit, with_unit
from moa_ray.tracking.results import Result

Loss = Callable[[Result], float]


def loss(
    objective: str,
    how: aggregation.Aggregation,
    done: pd.DataFrame | None = None,
    scored: pd.DataFrame | None = None,
    unit: Unit = "treatment",
) -> Loss:
    """Make the function that measures a finished trial by the objective; lower is better.

    Parameters
    ----------
    objective : {"treatment_log_loss", "treatment_accuracy"}
        What is minimised: the mean log-loss over treatments, in nats, or 1 minus the accuracy by treatment.
    how : {"median", "mean"}
        Reduction over tiles, then over wells.
    done : DataFrame, one row per tile, or None
        Predictions of trials that are measured here, together: thousands in seconds.
    scored : DataFrame, one row per fold and treatment, or None
        What each fold is to score. A treatment without a prediction is not right; a log-loss is over those predicted,
        and that of a fold where none is left to predict is that of guessing, the same for every candidate.
    unit : {"treatment", "well", "compound"}
        What counts as one.

    Returns
    -------
    callable
        Takes a finished result, with its predictions where `done` holds none of it, and returns its loss.
    """
    wanted: dict[str, int] = {}
    guess = 1.0
    if scored is not None and len(scored):
        wanted = scored.groupby(FOLD).size().to_dict()
        guess = guess if objective == "treatment_accuracy" else math.log(scored[LABEL].nunique())
    measured = {} if done is None else _losses(objective, how, with_unit(done, unit), wanted)

    def loss_of(result: Result) -> float:
        if result.key in measured:
            return measured[result.key]
        if result.predictions is None:
            assert wanted, f"{result.key} finished without predictions"
            return guess
        return _losses(objective, how, with_unit(result.predictions, unit), wanted).get(result.key, guess)

    return loss_of


def _losses(
    objective: str, how: aggregation.Aggregation, predictions: pd.DataFrame, wanted: Mapping[str, int]
) -> dict[tuple[str, str], float]:
    """Each trial's loss by its key, exactly as if it were measured alone."""
    if predictions.empty:
        return {}
    table = aggregation.treatments(predictions, how, apart=True)
    trials = table.groupby([CANDIDATE, FOLD]).indices
    if objective == "treatment_accuracy":
        right = (table[aggregation.PREDICTED] == table[LABEL]).to_numpy()
        return {
            key: 1 - float(right[rows].sum()) / max(wanted.get(key[1], 0), len(rows)) for key, rows in trials.items()
        }
    losses = scores.losses(table)
    return {key: float(losses[rows].mean()) for key, rows in trials.items()}
