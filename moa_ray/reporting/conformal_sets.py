"""Conformal sets of the treatments that a report's headline is about, and what may be said of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from moa_ray.common.schema import TREATMENT
from moa_ray.config.conformal import ConformalSettings
from moa_ray.statistics import aggregation, conformal
from moa_ray.statistics.conformal import COVERED, CREDIBILITY, SIZE, Calibrated
from moa_ray.statistics.units import Unit

RULED_OUT, NO_LABEL, UNDECIDED, SETTLED = "true label ruled out", "no label fits", "undecided", "settled"
FLAGS = (RULED_OUT, NO_LABEL, UNDECIDED, SETTLED)  # worst first
FLAG = "flag"
_PREFERRED_ALPHA = 0.1


def doubts(
    settings: ConformalSettings, held_out: str, is_optimistic: bool, is_external: bool, group: str = "compound"
) -> list[str]:
    """List what CV+ takes for granted and this report cannot.

    Parameters
    ----------
    settings : ConformalSettings
        The unit that counts once matters.
    held_out : str
        The columns held out, as words; empty where that is not known.
    is_optimistic : bool
        Whether a choice saw the treatments.
    is_external : bool
        Whether the predictions were made elsewhere.
    group : str
        What counts once.

    Returns
    -------
    list of str
        A sentence each, without a full stop.
    """
    sentences = []
    if is_external:
        sentences.append(
            "that each treatment was predicted by a network that saw nothing of its compound is not known here"
        )
    elif held_out != group:
        sentences.append(f"{held_out} was held out, not one {group} at a time and nothing more")
    if is_optimistic:
        sentences.append("the candidate was chosen among others by these same treatments, so its scores are too good")
    if settings.unit == "treatment":
        sentences.append("treatments of one compound count as if they were independent (conformal.unit: treatment)")
    return sentences


@dataclass(frozen=True)
class ConformalSets:
    """What conformal prediction says of the treatments that the headline is about.

    Attributes
    ----------
    settings : ConformalSettings
        The score, the unit that counts once, and the alphas.
    levels : mapping of str to Calibrated
        P-values of ``treatment`` and of ``compound``; compounds only where any has one label.
    doubts : sequence of str
        Why CV+ promises nothing here for a compound of unknown label; empty where it does.
    words : mapping of str to str
        What is said for ``treatment``, which is what counts as one, and for ``compound``, which is what is independent.
    """

    settings: ConformalSettings
    levels: Mapping[str, Calibrated]
    doubts: Sequence[str] = ()
    words: Mapping[str, str] = field(default_factory=lambda: {"treatment": "treatment", "compound": "compound"})

    @property
    def treatments(self) -> Calibrated:
        """The level of treatments."""
        return self.levels["treatment"]

    @property
    def shown(self) -> float | None:
        """The alpha whose sets are printed: of those reached the one nearest to 0.1; None where none is."""
        reached = self.reached("treatment")
        return min(reached, key=lambda alpha: abs(alpha - _PREFERRED_ALPHA)) if reached else None

    def reached(self, level: str) -> list[float]:
        """List the alphas that so many compounds can reach.

        Parameters
        ----------
        level : {"treatment", "compound"}
            A key of `levels`.

        Returns
        -------
        list of float
            In the order of the settings.
        """
        return [alpha for alpha in self.settings.alphas if alpha >= self.levels[level].smallest]

    def coverage(self, level: str, alpha: float) -> dict[str, float]:
        """Count the sets that hold the true label.

        Parameters
        ----------
        level : {"treatment", "compound"}
            A key of `levels`.
        alpha : float
            One that is reached.

        Returns
        -------
        dict of str to float
            As `moa_ray.statistics.conformal.coverage` makes it.
        """
        return conformal.coverage(self.levels[level].covered(alpha))

    def promise(self, alpha: float) -> float | None:
        """Give the least chance by which CV+ covers a compound of unknown label.

        Parameters
        ----------
        alpha : float
            Level of the sets.

        Returns
        -------
        float or None
            1 - 2 alpha; None where something that CV+ takes for granted does not hold.
        """
        return None if self.doubts else max(0.0, 1 - 2 * alpha)

    @property
    def together(self) -> list[str]:
        """Return the labels not calibrated by their own compounds alone; empty where all are, or none was to be."""
        if not self.settings.by_label:
            return []
        return [label for part in self.treatments.parts if len(part) > 1 for label in part]

    def worst(self) -> pd.DataFrame:
        """Sort the treatments by how little their set tells.

        Returns
        -------
        DataFrame
            One row a treatment with its p-values, sets and flag at the alpha that is shown. Flags go before set sizes,
            these before credibility. Empty where no alpha is reached.
        """
        if self.shown is None:
            return pd.DataFrame(columns=[*TREATMENT, FLAG])
        table = self.treatments.as_table([self.shown])
        covered = self.treatments.covered(self.shown)
        size = covered[SIZE].to_numpy()
        conditions = [size == 0, ~covered[COVERED].to_numpy(), size > 1]
        table[FLAG] = np.select(conditions, [NO_LABEL, RULED_OUT, UNDECIDED], SETTLED)
        table["_rank"], table["_size"] = table[FLAG].map(FLAGS.index), -size
        order = ["_rank", "_size", CREDIBILITY, *TREATMENT]
        return table.sort_values(order, ignore_index=True).drop(columns=["_rank", "_size"])

    def as_table(self) -> pd.DataFrame:
        """Tabulate all that conformal prediction says.

        Returns
        -------
        DataFrame
            One row a treatment, then one a compound (its concentration is NaN).
        """
        tables = [
            calibrated.as_table(self.reached(level)).assign(level=level) for level, calibrated in self.levels.items()
        ]
        return pd.concat(tables, ignore_index=True)


def make(
    treatments: pd.DataFrame,
    settings: ConformalSettings,
    seed: int,
    aggregate: aggregation.Aggregation,
    doubts: Sequence[str] = (),
    unit: Unit = "treatment",
    group: str = "compound",
) -> ConformalSets:
    """Calibrate one candidate's treatments, and its compounds.

    Parameters
    ----------
    treatments : DataFrame
        Out-of-fold treatments of the candidate, which no choice saw unless `doubts` says so.
    settings : ConformalSettings
        The score, the unit that counts once, and the alphas.
    seed : int
        Draws the treatment that stands for its compound.
    aggregate : {"median", "mean"}
        Aggregates the treatments of a compound.
    doubts : sequence of str
        Why CV+ promises nothing for a compound of unknown label.
    unit : {"treatment", "well", "compound"}
        What counts as one.
    group : str
        What is independent: ``compound``, or ``well``.

    Returns
    -------
    ConformalSets
        Treatments, and compounds where any has one label and they are not the same.
    """
    levels = {"treatment": conformal.calibrate(treatments, settings, seed)}
    compounds = conformal.compounds(treatments, aggregate)
    if len(compounds) and unit != group:
        levels["compound"] = conformal.calibrate(compounds, dataclasses.replace(settings, unit="compound"), seed)
    return ConformalSets(settings, levels, doubts, {"treatment": unit, "compound": group})
