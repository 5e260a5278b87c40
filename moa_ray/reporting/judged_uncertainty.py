"""How uncertain the headline's candidate is of the treatments that it is judged by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray.common.schema import CANDIDATE, COMPOUND, FOLD, METHOD
from moa_ray.statistics import uncertainty
from moa_ray.statistics.uncertainty import MEASURES, RIGHT, SINGLE, UNKNOWN, Rejection, Separation
from moa_ray.statistics.units import unit_key

METHODS: Mapping[str, str] = {
    SINGLE: "as predicted",
    "mc_dropout": "Monte Carlo dropout",
    "laplace": "last-layer Laplace",
    "ensemble": "deep ensemble",
}


@dataclass(frozen=True)
class JudgedUncertainty:
    """Measures of uncertainty of one candidate, with what follows from them.

    Attributes
    ----------
    measured : DataFrame
        As `moa_ray.statistics.uncertainty.measures` makes it, of this candidate alone, on the folds that judge it.
    seed : int
        Of the bootstrap.
    """

    measured: pd.DataFrame
    seed: int

    @classmethod
    def of(cls, measures: pd.DataFrame, candidate: str, folds: Sequence[str], seed: int) -> "JudgedUncertainty":
        """Select the rows that judge one candidate.

        Parameters
        ----------
        measures : DataFrame
            As `moa_ray.statistics.uncertainty.measures` makes it, of all candidates.
        candidate : str
            The headline's candidate.
        folds : sequence of str
            The folds that judge it; empty where all do.
        seed : int
            Of the bootstrap.

        Returns
        -------
        JudgedUncertainty
            Of these rows.
        """
        rows = measures[measures[CANDIDATE] == candidate]
        return cls(rows[rows[FOLD].isin(folds)] if len(folds) else rows, seed)

    @cached_property
    def known(self) -> pd.DataFrame:
        """The rows that can be right."""
        return self.measured[~self.measured[UNKNOWN].to_numpy(dtype=bool)]

    @cached_property
    def unknown(self) -> pd.DataFrame:
        """The rows whose label no network had learnt."""
        return self.measured[self.measured[UNKNOWN].to_numpy(dtype=bool)]

    @cached_property
    def rejections(self) -> list[Rejection]:
        """A curve for each method and measure; none without known treatments."""
        return uncertainty.rejections(self.measured) if len(self.known) else []

    @cached_property
    def separations(self) -> list[Separation]:
        """Known against unknown, by each method and measure; none where no label was held out."""
        return uncertainty.separations(self.measured, self.seed)

    @property
    def is_sampled(self) -> bool:
        """Whether any method has several samples of each treatment."""
        return bool((self.measured[METHOD] != SINGLE).any())

    @cached_property
    def best_possible(self) -> NDArray[np.float64]:
        """The curve of an uncertainty that knows what is wrong, for the predictions as they are."""
        rows = self.known[self.known[METHOD] == SINGLE]
        return uncertainty.best_possible(rows[RIGHT].to_numpy(dtype=bool))

    @cached_property
    def counts(self) -> dict[str, int]:
        """Return the numbers of treatments and compounds, known and unknown."""
        sides = {"known": self.known, "unknown": self.unknown}
        treatments = {
            f"{name}_treatments": len(table[unit_key(table)].drop_duplicates()) for name, table in sides.items()
        }
        return treatments | {f"{name}_compounds": table[COMPOUND].nunique() for name, table in sides.items()}


def names(result: Rejection | Separation) -> tuple[str, str]:
    """Name the method and the measure of a curve or a separation.

    Parameters
    ----------
    result : Rejection or Separation
        Of any method and measure.

    Returns
    -------
    tuple of str, str
        Both as the page writes them.
    """
    return METHODS.get(result.method, result.method), MEASURES[result.measure]
