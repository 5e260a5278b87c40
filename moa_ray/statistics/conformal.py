"""Conformal prediction over treatments and compounds: p-values for each label, and the sets of labels that they leave.

Each compound is calibrated by the out-of-fold scores of the others: the score of a label y is low where the network
finds y likely, and p(y) is the share of scores, this one included, that are at least as high as y's. The set at alpha
holds the labels with p > alpha. `crepes` computes the p-values, unsmoothed: ties count against us, nothing is drawn.

**What is guaranteed, and what is not.** Let S_g be the score of compound g's true label by the network trained without
g, and t a compound held out, scored by the network trained without t.

1. Within the screen: where compounds are exchangeable and training treats them alike, S_1, ..., S_G are exchangeable,
   so a true label gets p <= alpha with a chance of at most alpha. With one score a compound this is arithmetic on
   ranks: without ties exactly floor(alpha G) of G compounds miss their label, however good the network is. The share
   covered is thus no finding; how large the sets are, and what they miss by label, is. Nor could t's set have been made
   without knowing its label: the networks behind the other scores have seen it.
2. A compound of unknown label, scored against each S_g by that same network without g (CV+, leave one group out): its
   set holds the true label with a chance of at least 1 - 2 alpha. Barber, Candès, Ramdas and Tibshirani 2021, theorem
   1; Romano, Sesia and Candès 2020, theorem 2, for labels. It takes that compounds are exchangeable, that training
   treats them alike, that one compound and nothing more is held out at a time, and that no choice saw the scores.
3. A compound of unknown label, scored by one network trained on everything (the jackknife): no guarantee, whatever the
   screen (Barber et al. 2021, section 2). It comes to about 1 - alpha where leaving one compound out hardly changes
   what the network says of another.

Treatments of one compound are not independent, so a compound counts once: one of its treatments, drawn by the seed, is
its score (Dunn, Wasserman and Ramdas 2018, "subsampling once"); the set is then right for any one treatment of a new
compound. Where every treatment counts (`unit: treatment`), n scores pass for n independent ones, and the sets are too
small.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal
from zlib import crc32

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray import metrics
from moa_ray.tables import (
    COMPOUND,
    CONCENTRATION,
    LABEL,
    TREATMENT,
    labels_of,
    probability_column,
    probability_columns,
    require_columns,
    require_unique,
)

with warnings.catch_warnings():  # on import crepes tells Python to print every UserWarning, whoever raises it
    from crepes import ConformalClassifier

Unit = Literal["compound", "treatment"]
Score = Literal["one_minus_p", "aps"]

CREDIBILITY, CONFIDENCE = "credibility", "confidence"
COVERED, SIZE = "covered", "size"


@dataclass(frozen=True)
class Conformal:
    """Which sets are made.

    alphas : each gives a set for every treatment; smaller ones give larger sets
    score : ``one_minus_p``: 1 - the label's probability; ``aps``: the probability of all likelier labels and a part of
        its own, drawn by the seed (Romano et al. 2020), which gives hard treatments larger sets than easy ones
    by_label : a label with enough compounds is calibrated by these alone, so that what holds, holds for the label too
    unit : ``compound``: each counts once; ``treatment``: each counts, as if they were independent, which they are not
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    alphas: tuple[float, ...] = (0.05, 0.1, 0.2)
    score: Score = "one_minus_p"
    by_label: bool = True
    unit: Unit = "compound"

    def __post_init__(self) -> None:
        if not self.alphas or not all(0 < alpha < 1 for alpha in self.alphas):
            raise ValueError(f"alphas are shares between 0 and 1, at least one, but got {list(self.alphas)}")
        object.__setattr__(self, "alphas", tuple(sorted(set(self.alphas))))


@dataclass(frozen=True)
class Calibrated:
    """P-values of each label for each row of a table.

    table : what was calibrated: compound, concentration, label, probabilities
    p : the same rows, one column a label
    parts : the labels that are calibrated together, each label in one part
    n : the fewest scores that any of the p-values stands on
    unit : what these scores are of
    """

    table: pd.DataFrame
    p: pd.DataFrame
    parts: tuple[tuple[str, ...], ...]
    n: int
    unit: Unit

    @property
    def smallest(self) -> float:
        """The smallest alpha whose sets can leave out anything."""
        return smallest(self.n)

    @property
    def true_p(self) -> NDArray[np.float64]:
        """The p-value of each row's true label."""
        found: NDArray[np.float64] = _of_label(self.p, self.table[LABEL])
        return found

    def sets(self, alpha: float) -> pd.DataFrame:
        """Whether each label is in the set of each row, one column a label.

        Raises ValueError where so few scores cannot reach alpha.
        """
        if alpha < self.smallest:
            raise ValueError(
                f"conformal.alphas: {alpha:g} cannot be reached with {self.n} {self.unit}s to calibrate with; the "
                f"smallest possible is 1 / {self.n + 1} = {self.smallest:.3g}. Take a larger alpha"
            )
        return self.p > alpha

    def covered(self, alpha: float) -> pd.DataFrame:
        """Of each row its label, whether the set holds it, and how many labels the set holds; raises as `sets`."""
        size = self.sets(alpha).sum(axis=1)
        return pd.DataFrame({LABEL: self.table[LABEL], COVERED: self.true_p > alpha, SIZE: size})

    def as_table(self, alphas: Sequence[float]) -> pd.DataFrame:
        """The table without its probabilities, with all that the p-values say.

        p_<label> : the p-values
        set_<alpha>, size_<alpha> : the labels that the set holds, likeliest first, and how many
        credibility : the highest p-value: low where no label fits, as a mechanism that is none of the labels would be
        confidence : 1 - the second highest: high where all labels but one can be ruled out
        Raises ValueError as `sets`.
        """
        made = self.table.drop(columns=probability_columns(self.table)).join(self.p.add_prefix("p_"))
        order = np.argsort(-self.table[probability_columns(self.table)].to_numpy(), axis=1, kind="stable")
        names = self.p.columns.to_numpy()
        for alpha in alphas:
            inside = self.sets(alpha).to_numpy()
            made[f"set_{alpha:g}"] = [
                [str(names[place]) for place in places if held[place]]
                for places, held in zip(order, inside, strict=True)
            ]
            made[f"size_{alpha:g}"] = inside.sum(axis=1)
        ranked = np.sort(self.p.to_numpy(), axis=1)
        return made.assign(**{CREDIBILITY: ranked[:, -1], CONFIDENCE: 1 - ranked[:, -2]})


# Calibrating ----------------------------------------------------------------------------------------------------------


def calibrate(table: pd.DataFrame, settings: Conformal | None = None, seed: int = 0) -> Calibrated:
    """The p-values of one candidate's out-of-fold predictions, each compound calibrated by the others.

    table : one row a treatment, as `metrics.treatments` makes it, or a compound, as `compounds` does; probabilities are
        renormalised
    seed : draws the treatment that stands for a compound, and what of its own probability APS counts; the same
        whatever the order of rows
    Raises ValueError if a treatment has two rows, or its label no probability.
    """
    settings = settings or Conformal()
    require_columns(table, [COMPOUND, CONCENTRATION, *map(probability_column, table[LABEL].unique())], "treatments")
    require_unique(table, TREATMENT, "treatments")
    table = table.reset_index(drop=True)
    parts = _parts(table, settings)
    p = _p_values(table, table, parts, settings, seed)
    n = min(_calibrators(table[table[LABEL].isin(part)], settings.unit) for part in parts)
    return Calibrated(table, p, parts, n, settings.unit)


def credibility(new: pd.DataFrame, table: pd.DataFrame, settings: Conformal, seed: int = 0) -> "pd.Series[float]":
    """The highest p-value of each row of another table, such as of treatments whose label no network had learnt.

    new : as `table` is, and with its index; calibrated by the compounds of `table`, but for its own
    table, settings, seed : as `calibrate` takes them
    """
    table = table.reset_index(drop=True)
    rows = new.reset_index(drop=True)
    highest = _p_values(rows, table, _parts(table, settings), settings, seed).max(axis=1)
    return highest.set_axis(new.index).rename(CREDIBILITY)


def _p_values(
    rows: pd.DataFrame, table: pd.DataFrame, parts: Sequence[Sequence[str]], settings: Conformal, seed: int
) -> pd.DataFrame:
    """P-values of each label for each row, one column a label, calibrated by the other compounds of a table."""
    turn, part_of_own = _drawn(table, seed).T
    true = _of_label(nonconformity(table, settings.score, part_of_own), table[LABEL])
    scores = nonconformity(rows, settings.score, _drawn(rows, seed)[:, 1])
    compound = table[COMPOUND].to_numpy()
    p = pd.DataFrame(np.nan, index=rows.index, columns=scores.columns)
    for part in map(list, parts):
        standing = _standing(table, turn, part, settings.unit)
        for name, mine in rows.groupby(COMPOUND).indices.items():
            others = standing[compound[standing] != name]
            p.loc[mine, part] = against(true[others], scores.loc[mine, part].to_numpy())
    return p


def against(calibrating: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values of scores: the share of calibrating scores, and the score itself, that are at least as high.

    calibrating : of shape (n,), what true labels got
    scores : of any shape of one or two axes
    """
    p: NDArray[np.float64] = ConformalClassifier().fit(calibrating).predict_p(scores, smoothing=False)
    return p


def smallest(n: int) -> float:
    """The smallest alpha that n calibrating scores can reach: no p-value is below 1 / (n + 1)."""
    return 1 / (n + 1)


def nonconformity(table: pd.DataFrame, score: Score, part_of_own: NDArray[np.float64]) -> pd.DataFrame:
    """The score of each label for each row, one column a label: the higher, the worse it fits.

    part_of_own : of each row, 0..1: what of a label's own probability APS counts
    Source: Vovk, Gammerman and Shafer 2005 for 1 - p; Romano, Sesia and Candès 2020, eq. 8, for APS.
    """
    p = metrics.renormalise(table)[probability_columns(table)].to_numpy(dtype=np.float64)
    if score == "one_minus_p":
        values = 1 - p
    else:
        likelier = p[:, None, :] > p[:, :, None]
        values = (likelier * p[:, None, :]).sum(axis=2) + part_of_own[:, None] * p
    return pd.DataFrame(values, index=table.index, columns=labels_of(table))


def compounds(treatments: pd.DataFrame, how: metrics.How = "median") -> pd.DataFrame:
    """One row a compound: the median or mean of its treatments' renormalised probabilities; its concentration is NaN.

    A compound whose treatments carry different labels has none of its own and is left out.
    """
    one_label = treatments.groupby(COMPOUND)[LABEL].transform("nunique") == 1
    grouped = metrics.renormalise(treatments[one_label]).groupby([COMPOUND, LABEL], as_index=False)
    made = grouped[probability_columns(treatments)].agg(how)
    made.insert(1, CONCENTRATION, np.nan)
    return made


def _of_label(values: pd.DataFrame, labels: "pd.Series[str]") -> NDArray[np.float64]:
    """Of each row the value in its label's column."""
    found: NDArray[np.float64] = values.to_numpy()[np.arange(len(values)), values.columns.get_indexer(labels)]
    return found


def _drawn(table: pd.DataFrame, seed: int) -> NDArray[np.float64]:
    """Two numbers of each row that are its own in any order of rows: its turn to stand for its compound, and APS's."""
    keys = [f"{compound}\n{float(dose)!r}" for compound, dose in table[TREATMENT].itertuples(index=False)]
    drawn = [np.random.default_rng([seed, crc32(key.encode())]).random(2) for key in keys]
    return np.array(drawn).reshape(-1, 2)


def _standing(table: pd.DataFrame, turn: NDArray[np.float64], part: Sequence[str], unit: Unit) -> NDArray[np.int64]:
    """The rows of some labels that calibrate: all of them, or one of each compound."""
    rows: NDArray[np.int64] = np.flatnonzero(table[LABEL].isin(part))
    if unit == "treatment":
        return rows
    first = rows[np.argsort(turn[rows], kind="stable")]
    of_compound: NDArray[np.int64] = first[~table[COMPOUND].iloc[first].duplicated().to_numpy()]
    return of_compound


# What the sets are worth ----------------------------------------------------------------------------------------------


def coverage(covered: pd.DataFrame) -> dict[str, float]:
    """How often sets hold the true label, and how large they are.

    covered : as `Calibrated.covered` makes it, of at least one row
    k, n, low, high : sets that hold it, and all; Wilson's 95 % interval, which takes rows as independent
    mean_size, singletons, empty : labels in a set, share of sets of one label, and of none
    """
    k, n = int(covered[COVERED].sum()), len(covered)
    low, high = metrics.wilson(k, n)
    sizes = covered[SIZE]
    return {
        **{"k": k, "n": n, "low": low, "high": high, "mean_size": float(sizes.mean())},
        **{"singletons": float((sizes == 1).mean()), "empty": float((sizes == 0).mean())},
    }


# Labels apart ---------------------------------------------------------------------------------------------------------


def _parts(table: pd.DataFrame, settings: Conformal) -> tuple[tuple[str, ...], ...]:
    """The labels that are calibrated together.

    A label stands alone where its own compounds reach the smallest alpha that all of them together reach. The others
    are calibrated by each other and not by all: so each true label lies in one part (Mondrian), and what holds in every
    part holds over all. Where the others are too few, the label with the fewest compounds joins them.
    """
    labels = labels_of(table)
    reached = smallest(_calibrators(table, settings.unit))
    wanted = next((alpha for alpha in settings.alphas if alpha >= reached), None)
    if not settings.by_label or wanted is None:
        return (tuple(labels),)
    count = {label: _calibrators(table[table[LABEL] == label], settings.unit) for label in labels}
    alone = sorted((label for label in labels if smallest(count[label]) <= wanted), key=lambda label: count[label])
    rest = [label for label in labels if label not in alone]
    while rest and alone and smallest(_calibrators(table[table[LABEL].isin(rest)], settings.unit)) > wanted:
        rest.append(alone.pop(0))
    together = [tuple(label for label in labels if label in rest)] if rest else []
    return (*((label,) for label in labels if label in alone), *together)


def _calibrators(table: pd.DataFrame, unit: Unit) -> int:
    """How many scores of a table are left for the compound that takes the most of them away."""
    rows = table[COMPOUND].value_counts()
    if rows.empty:
        return 0
    return len(rows) - 1 if unit == "compound" else int(rows.sum() - rows.max())
