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

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray.common.errors import InputError
from moa_ray.common.random_streams import rng
from moa_ray.common.schema import (
    COMPOUND,
    CONCENTRATION,
    LABEL,
    labels_of,
    probability_column,
    probability_columns,
    require_columns,
    require_unique,
)
from moa_ray.config.conformal import ConformalSettings, Score, Unit
from moa_ray.statistics import aggregation, intervals
from moa_ray.statistics.units import unit_key

with warnings.catch_warnings():  # on import crepes tells Python to print every UserWarning, whoever raises it
    from crepes import ConformalClassifier

CREDIBILITY, CONFIDENCE = "credibility", "confidence"
COVERED, SIZE = "covered", "size"


@dataclass(frozen=True)
class Calibrated:
    """P-values of each label for each row of a table.

    Attributes
    ----------
    table : DataFrame
        What was calibrated: compound, concentration, label, probabilities.
    p : DataFrame, the same rows, one column per label
        P-values, 0 to 1.
    parts : tuple of tuple of str
        The labels that are calibrated together, each label in one part.
    n : int
        The fewest scores that any of the p-values rests on.
    unit : {"compound", "treatment"}
        What these scores are of.
    """

    table: pd.DataFrame
    p: pd.DataFrame
    parts: tuple[tuple[str, ...], ...]
    n: int
    unit: Unit

    @property
    def smallest(self) -> float:
        """Return the smallest alpha whose sets can leave out anything."""
        return smallest(self.n)

    @property
    def true_p(self) -> NDArray[np.float64]:
        """Return the p-value of each row's true label."""
        values: NDArray[np.float64] = _of_label(self.p, self.table[LABEL])
        return values

    def sets(self, alpha: float) -> pd.DataFrame:
        """Return whether each label is in the set of each row.

        Parameters
        ----------
        alpha : float
            Nominal share of sets that miss the true label, 0 to 1.

        Returns
        -------
        DataFrame of bool, one column per label

        Raises
        ------
        InputError
            If there are too few scores to reach alpha.
        """
        if alpha < self.smallest:
            raise InputError(
                f"conformal.alphas: {alpha:g} cannot be reached with {self.n} {self.unit}s to calibrate with; the "
                f"smallest possible is 1 / {self.n + 1} = {self.smallest:.3g}. Take a larger alpha"
            )
        return self.p > alpha

    def covered(self, alpha: float) -> pd.DataFrame:
        """Return each row's label, whether the set holds it, and how many labels the set holds.

        Parameters
        ----------
        alpha : float
            Nominal share of sets that miss the true label, 0 to 1.

        Returns
        -------
        DataFrame, one row per row of the table
            Label, ``covered`` (bool) and ``size`` (int).

        Raises
        ------
        InputError
            As `sets`.
        """
        size = self.sets(alpha).sum(axis=1)
        return pd.DataFrame({LABEL: self.table[LABEL], COVERED: self.true_p > alpha, SIZE: size})

    def as_table(self, alphas: Sequence[float]) -> pd.DataFrame:
        """Return the table without its probabilities, with all that the p-values say.

        Parameters
        ----------
        alphas : sequence of float
            Nominal shares of sets that miss the true label, 0 to 1.

        Returns
        -------
        DataFrame
            ``p_<label>``: the p-values. ``set_<alpha>``, ``size_<alpha>``: the labels that the set holds, likeliest
            first, and how many. ``credibility``: the highest p-value, low where no label fits, as for a mechanism that
            is none of the labels. ``confidence``: 1 - the second highest, high where all labels but one can be ruled
            out.

        Raises
        ------
        InputError
            As `sets`.
        """
        table = self.table.drop(columns=probability_columns(self.table)).join(self.p.add_prefix("p_"))
        order = np.argsort(-self.table[probability_columns(self.table)].to_numpy(), axis=1, kind="stable")
        names = self.p.columns.to_numpy()
        for alpha in alphas:
            inside = self.sets(alpha).to_numpy()
            table[f"set_{alpha:g}"] = [
                [str(names[place]) for place in places if held[place]]
                for places, held in zip(order, inside, strict=True)
            ]
            table[f"size_{alpha:g}"] = inside.sum(axis=1)
        ranked = np.sort(self.p.to_numpy(), axis=1)
        return table.assign(**{CREDIBILITY: ranked[:, -1], CONFIDENCE: 1 - ranked[:, -2]})


def calibrate(table: pd.DataFrame, settings: ConformalSettings | None = None, seed: int = 0) -> Calibrated:
    """Return the p-values of one candidate's out-of-fold predictions, each compound calibrated by the others.

    Parameters
    ----------
    table : DataFrame, one row per treatment or compound
        As `aggregation.treatments` or `compounds` makes it; probabilities are renormalised here.
    settings : ConformalSettings, optional
        Score, alphas, and what calibrates together.
    seed : int
        Draws the treatment that represents a compound, and the part of its own probability that APS counts; the same
        whatever the order of rows.

    Returns
    -------
    Calibrated

    Raises
    ------
    InputError
        If a treatment has two rows, or its label no probability.
    """
    settings = settings or ConformalSettings()
    require_columns(table, [COMPOUND, CONCENTRATION, *map(probability_column, table[LABEL].unique())], "treatments")
    require_unique(table, unit_key(table), "treatments")
    table = table.reset_index(drop=True)
    parts = _parts(table, settings)
    p = _p_values(table, table, parts, settings, seed)
    n = min(_calibrators(table[table[LABEL].isin(part)], settings.unit) for part in parts)
    return Calibrated(table, p, parts, n, settings.unit)


def conformal_sets(table: pd.DataFrame, settings: ConformalSettings | None = None, seed: int = 0) -> pd.DataFrame:
    """Return the set of labels of each treatment at each alpha, each compound calibrated by the others.

    Parameters
    ----------
    table : DataFrame, one row per treatment or compound
        Of one candidate, as `calibrate` takes it.
    settings : Conformal, optional
        Score, alphas, and what calibrates together.
    seed : int
        As `calibrate` takes it.

    Returns
    -------
    DataFrame
        As `Calibrated.as_table` makes it.

    Raises
    ------
    InputError
        As `calibrate`, and if there are too few compounds to reach an alpha.

    Notes
    -----
    What the sets guarantee, and what they do not, stands at the head of this module.
    """
    settings = settings or ConformalSettings()
    return calibrate(table, settings, seed).as_table(settings.alphas)


def credibility(new: pd.DataFrame, table: pd.DataFrame, settings: ConformalSettings, seed: int = 0) -> pd.Series:
    """Return the highest p-value of each row of another table, such as treatments whose label no network has learnt.

    Parameters
    ----------
    new : DataFrame
        Columns as in ``table``; calibrated by the compounds of ``table`` except its own.
    table : DataFrame
        As `calibrate` takes it.
    settings : ConformalSettings
        As `calibrate` takes it.
    seed : int
        As `calibrate` takes it.

    Returns
    -------
    Series of float
        On the index of ``new``.
    """
    table = table.reset_index(drop=True)
    rows = new.reset_index(drop=True)
    highest = _p_values(rows, table, _parts(table, settings), settings, seed).max(axis=1)
    return highest.set_axis(new.index).rename(CREDIBILITY)


def _p_values(
    rows: pd.DataFrame, table: pd.DataFrame, parts: Sequence[Sequence[str]], settings: ConformalSettings, seed: int
) -> pd.DataFrame:
    """Return p-values of each label for each row, calibrated by the other compounds of a table."""
    turn, part_of_own = _drawn(table, seed).T
    true = _of_label(nonconformity(table, settings.score, part_of_own), table[LABEL])
    scores = nonconformity(rows, settings.score, _drawn(rows, seed)[:, 1])
    compound = table[COMPOUND].to_numpy()
    p = pd.DataFrame(np.nan, index=rows.index, columns=scores.columns)
    for part in map(list, parts):
        calibrating = _calibrating_rows(table, turn, part, settings.unit)
        for name, rows_of_compound in rows.groupby(COMPOUND).indices.items():
            others = calibrating[compound[calibrating] != name]
            p.loc[rows_of_compound, part] = against(true[others], scores.loc[rows_of_compound, part].to_numpy())
    return p


def against(calibrating: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the p-values of scores: the share of calibrating scores, and the score itself, that are at least as high.

    Parameters
    ----------
    calibrating : ndarray of float64, shape (n,)
        Scores of true labels.
    scores : ndarray of float64, shape (m,) or (m, n_labels)
        Scores to be ranked among them.

    Returns
    -------
    ndarray of float64, the shape of scores
        1 / (n + 1) to 1.
    """
    p: NDArray[np.float64] = ConformalClassifier().fit(calibrating).predict_p(scores, smoothing=False)
    return p


def smallest(n: int) -> float:
    """Return the smallest alpha that n calibrating scores can reach: no p-value is below 1 / (n + 1).

    Parameters
    ----------
    n : int
        Calibrating scores.

    Returns
    -------
    float
    """
    return 1 / (n + 1)


def nonconformity(table: pd.DataFrame, score: Score, part_of_own: NDArray[np.float64]) -> pd.DataFrame:
    """Score each label for each row: the higher, the worse the label fits.

    Parameters
    ----------
    table : DataFrame
        With one ``prob_<label>`` per class.
    score : {"one_minus_p", "aps"}
        The nonconformity score.
    part_of_own : ndarray of float64, shape (n_rows,)
        0 to 1: the part of a label's own probability that APS counts.

    Returns
    -------
    DataFrame of float, one column per label

    References
    ----------
    Vovk, Gammerman and Shafer 2005 for 1 - p; Romano, Sesia and Candès 2020, equation 8, for APS.
    """
    p = aggregation.renormalise(table)[probability_columns(table)].to_numpy(dtype=np.float64)
    if score == "one_minus_p":
        values = 1 - p
    else:
        likelier = p[:, None, :] > p[:, :, None]
        values = (likelier * p[:, None, :]).sum(axis=2) + part_of_own[:, None] * p
    return pd.DataFrame(values, index=table.index, columns=labels_of(table))


def compounds(treatments: pd.DataFrame, how: aggregation.Aggregation = "median") -> pd.DataFrame:
    """Aggregate treatments to compounds: the median or mean of their renormalised probabilities.

    A compound whose treatments carry different labels has none of its own and is left out.

    Parameters
    ----------
    treatments : DataFrame, one row per treatment
        Compound, label, probabilities.
    how : {"median", "mean"}
        Reduction over treatments.

    Returns
    -------
    DataFrame, one row per compound
        The concentration is NaN.
    """
    one_label = treatments.groupby(COMPOUND)[LABEL].transform("nunique") == 1
    grouped = aggregation.renormalise(treatments[one_label]).groupby([COMPOUND, LABEL], as_index=False)
    by_compound = grouped[probability_columns(treatments)].agg(how)
    by_compound.insert(1, CONCENTRATION, np.nan)
    return by_compound


def _of_label(values: pd.DataFrame, labels: pd.Series) -> NDArray[np.float64]:
    """Return each row's value in the column of its label."""
    picked: NDArray[np.float64] = values.to_numpy()[np.arange(len(values)), values.columns.get_indexer(labels)]
    return picked


def _drawn(table: pd.DataFrame, seed: int) -> NDArray[np.float64]:
    """Draw two numbers per row that depend on its treatment alone: its turn to represent its compound, and APS's."""
    keys = [
        "\n".join([str(compound), repr(float(dose)), *map(str, place)])
        for compound, dose, *place in table[unit_key(table)].itertuples(index=False)
    ]
    drawn = [rng(seed, key).random(2) for key in keys]
    return np.array(drawn).reshape(-1, 2)


def _calibrating_rows(
    table: pd.DataFrame, turn: NDArray[np.float64], part: Sequence[str], unit: Unit
) -> NDArray[np.int64]:
    """Return the rows of some labels that calibrate: all of them, or one per compound."""
    rows: NDArray[np.int64] = np.flatnonzero(table[LABEL].isin(part))
    if unit == "treatment":
        return rows
    first = rows[np.argsort(turn[rows], kind="stable")]
    of_compound: NDArray[np.int64] = first[~table[COMPOUND].iloc[first].duplicated().to_numpy()]
    return of_compound


def coverage(covered: pd.DataFrame) -> dict[str, float]:
    """Return how often sets hold the true label, and how large they are.

    Parameters
    ----------
    covered : DataFrame
        As `Calibrated.covered` makes it, of at least one row.

    Returns
    -------
    dict of float
        ``k``, ``n``, ``low``, ``high``: sets that hold it, all, and Wilson's 95 % interval, which takes rows as
        independent. ``mean_size``, ``singletons``, ``empty``: labels in a set, share of sets of one label, and of none.
    """
    k, n = int(covered[COVERED].sum()), len(covered)
    low, high = intervals.wilson(k, n)
    sizes = covered[SIZE]
    return {
        **{"k": k, "n": n, "low": low, "high": high, "mean_size": float(sizes.mean())},
        **{"singletons": float((sizes == 1).mean()), "empty": float((sizes == 0).mean())},
    }


def _parts(table: pd.DataFrame, settings: ConformalSettings) -> tuple[tuple[str, ...], ...]:
    """Return the labels that are calibrated together.

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
    """Return how many scores are left for the compound that takes the most of them away."""
    rows = table[COMPOUND].value_counts()
    if rows.empty:
        return 0
    return len(rows) - 1 if unit == "compound" else int(rows.sum() - rows.max())
