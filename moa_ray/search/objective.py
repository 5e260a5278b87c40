"""The loss that a search minimises: of one trial, over the treatments of its fold."""

from collections.abc import Callable

import pandas as pd

from moa_ray.common.schema import CANDIDATE, FOLD, LABEL
from moa_ray.statistics import aggregation, scores
from moa_ray.tracking.results import Result

Loss = Callable[[Result], float]


def loss(objective: str, how: aggregation.Aggregation, done: pd.DataFrame | None = None) -> Loss:
    """Make the function that measures a finished trial by the objective; lower is better.

    Parameters
    ----------
    objective : {"treatment_log_loss", "treatment_accuracy"}
        What is minimised: the mean log-loss over treatments, in nats, or 1 minus the accuracy by treatment.
    how : {"median", "mean"}
        Reduction over tiles, then over wells.
    done : DataFrame, one row per tile, or None
        Predictions of trials that are measured here, together: thousands in seconds.

    Returns
    -------
    callable
        Takes a finished result, with its predictions where `done` holds none of it, and returns its loss.
    """
    measured = {} if done is None else _losses(objective, how, done)

    def loss_of(result: Result) -> float:
        if result.key in measured:
            return measured[result.key]
        assert result.predictions is not None, f"{result.key} finished without predictions"
        return _losses(objective, how, result.predictions)[result.key]

    return loss_of


def _losses(objective: str, how: aggregation.Aggregation, predictions: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Each trial's loss by its key, exactly as if it were measured alone."""
    if predictions.empty:
        return {}
    table = aggregation.treatments(predictions, how, apart=True)
    trials = table.groupby([CANDIDATE, FOLD]).indices
    if objective == "treatment_accuracy":
        right = (table[aggregation.PREDICTED] == table[LABEL]).to_numpy()
        return {key: 1 - float(right[rows].mean()) for key, rows in trials.items()}
    losses = scores.losses(table)
    return {key: float(losses[rows].mean()) for key, rows in trials.items()}
