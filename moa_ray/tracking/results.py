"""Results of trials and proposals of a search: what plans, reports and the ledger exchange, without file access."""

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import pandas as pd

from moa_ray.config.recipe import Recipe

# "lost": it finished, and its predictions are gone or cannot be read any more.
Status = Literal["finished", "stopped", "diverged", "out_of_memory", "crashed", "lost"]
# A crash may come from the machine; a divergence is the recipe's own and would come again.
SETTLED: frozenset[Status] = frozenset({"finished", "stopped", "diverged"})


class TrialKind(StrEnum):
    """What a trial was run for.

    Notes
    -----
    A trial may serve two purposes: a grid may hold, and a search may propose, the very recipe of a linear probe. Its
    trials are of the kind that they were first run as, and count for both; see `moa_ray.search.linear_probe`.
    """

    CANDIDATE = "candidate"
    """A recipe of the grid or the search."""
    LINEAR_PROBE = "linear_probe"
    """A head on frozen features, trained before anything is fine-tuned; ranked nowhere."""
    ENSEMBLE_MEMBER = "ensemble_member"
    """One seed of an ensemble; the ensemble is the candidate."""

    @classmethod
    def of(cls, recipe: Recipe) -> "TrialKind":
        """Return the kind of a trial of the grid or the search.

        Parameters
        ----------
        recipe : Recipe
            The trial's recipe.

        Returns
        -------
        TrialKind
            `ENSEMBLE_MEMBER` where the recipe has a seed of its own, else `CANDIDATE`.
        """
        return cls.CANDIDATE if recipe.seed is None else cls.ENSEMBLE_MEMBER


@dataclass(frozen=True)
class Proposal:
    """A candidate as the search came to it.

    Attributes
    ----------
    number : int
        Its place among the candidates, from 0 on.
    recipe : Recipe
        All its hyperparameters.
    values : dict of str to Any
        What the search chose for the hyperparameters that it searches.
    """

    number: int
    recipe: Recipe
    values: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """How one trial ended.

    Attributes
    ----------
    candidate : str
        Name of the candidate.
    fold : str
        Name of the fold.
    status : {"finished", "stopped", "diverged", "out_of_memory", "crashed", "lost"}
        ``stopped`` is by ASHA, at an epoch; ``lost`` is one that finished and whose predictions are gone.
    recipe : dict of str to Any
        The hyperparameters, as `Recipe.as_dict` gives them.
    kind : TrialKind
        What the trial was run for.
    attempts : int
        Number of the attempt that this was, from 1 on.
    epochs : int
        Epochs trained to their end.
    seconds : float
        Wall time of the training and prediction.
    setup_seconds : float
        Part of it before the first epoch: the model is built, weights and data are put into place.
    error : str or None
        One line for people; the traceback stands below it.
    recurs : bool
        Whether the same error would come again on any machine, since it is of the data.
    history : DataFrame, one row per epoch, or None
        Losses, accuracies, learning rate, seconds.
    predictions : DataFrame, one row per held-out tile, or None
        Metadata, ``fold``, ``candidate``, ``backbone``, ``open_set`` and ``prob_<label>``.
    samples : DataFrame or None
        Predictions drawn several times: as `predictions`, with ``method`` and ``sample``.
    """

    candidate: str
    fold: str
    status: Status
    recipe: dict[str, Any]
    kind: TrialKind = TrialKind.CANDIDATE
    attempts: int = 1
    epochs: int = 0
    seconds: float = 0.0
    setup_seconds: float = 0.0
    error: str | None = None
    recurs: bool = False
    history: pd.DataFrame | None = dataclasses.field(default=None, compare=False, repr=False)
    predictions: pd.DataFrame | None = dataclasses.field(default=None, compare=False, repr=False)
    samples: pd.DataFrame | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def is_settled(self) -> bool:
        """Whether the trial needs no further attempt."""
        return self.status in SETTLED

    @property
    def key(self) -> tuple[str, str]:
        """Candidate and fold, the key of the trial."""
        return self.candidate, self.fold
