"""What was published for BBBC021's 103 treatments, and a candidate laid beside it treatment by treatment.

The numbers stand in ``data/``: the treatments (compound, concentration in µmol/L, mechanism), the networks of Kensert
et al. with the treatments that each got wrong, and the accuracies of other work in percent.

References
----------
Ljosa et al. 2013, the annotation of BBBC021v1: the treatments.
Kensert, Harrison and Spjuth 2019: the networks; the probabilities published with their code give their mistakes.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import NamedTuple

import numpy as np
import pandas as pd

from moa_ray.common.schema import COMPOUND, CONCENTRATION, LABEL, TREATMENT, require_columns, require_unique
from moa_ray.statistics.aggregation import PREDICTED
from moa_ray.statistics.intervals import mcnemar

OUTCOME, PUBLISHED = "outcome", "published"
BOTH, ONLY_HERE, ONLY_PUBLISHED, NEITHER = "both right", "only here right", "only published right", "both wrong"
OUTCOMES = (BOTH, ONLY_HERE, ONLY_PUBLISHED, NEITHER)


@dataclass(frozen=True)
class Network:
    """One of the paper's networks.

    Attributes
    ----------
    backbone : str
        Its name in Keras.
    accuracy : int
        As the paper prints it, percent.
    wrong : mapping of tuple of str and float to str
        What it said of each treatment that it got wrong, by compound and concentration (µmol/L).
    """

    backbone: str
    accuracy: int
    wrong: Mapping[tuple[str, float], str]

    @property
    def n(self) -> int:
        """All treatments."""
        return len(paper_treatments())

    @property
    def k(self) -> int:
        """Return the number of treatments right."""
        return self.n - len(self.wrong)


class PublishedAccuracy(NamedTuple):
    """An accuracy over BBBC021's treatments that others published, percent.

    Attributes
    ----------
    work : str
        Authors, year and method.
    nsc : float
        Treatments matched to the nearest one of another compound.
    nscb : float or None
        And of another week besides; None where it is not given.
    protocol, source : str
        What was matched, and where it was published.
    """

    work: str
    nsc: float
    nscb: float | None
    protocol: str
    source: str


def _rows(name: str) -> list[dict[str, str]]:
    text = resources.files("moa_ray.reporting").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@cache
def networks() -> dict[str, Network]:
    """Read the networks of Kensert et al. 2019.

    Returns
    -------
    dict of str to Network
        By backbone.
    """
    wrong: dict[str, dict[tuple[str, float], str]] = {}
    for row in _rows("kensert2019_mistakes.csv"):
        wrong.setdefault(row["backbone"], {})[row["compound"], float(row["concentration"])] = row["predicted"]
    return {
        row["backbone"]: Network(row["backbone"], int(row["accuracy_percent"]), wrong[row["backbone"]])
        for row in _rows("kensert2019_networks.csv")
    }


def paper_treatments() -> pd.DataFrame:
    """Tabulate the 103 treatments that every network of the paper was judged on.

    Returns
    -------
    DataFrame
        Compound, concentration (µmol/L) and label.
    """
    rows = _rows("bbbc021_treatments.csv")
    values = [(row["compound"], float(row["concentration"]), row["label"]) for row in rows]
    return pd.DataFrame(values, columns=[*TREATMENT, LABEL])


@cache
def other_accuracies() -> tuple[PublishedAccuracy, ...]:
    """Read what others published for the same treatments.

    Returns
    -------
    tuple of PublishedAccuracy
        By year.
    """
    return tuple(
        PublishedAccuracy(
            row["work"],
            float(row["nsc"]),
            float(row["nscb"]) if row["nscb"] else None,
            row["protocol"],
            row["source"],
        )
        for row in _rows("bbbc021_accuracies.csv")
    )


@dataclass(frozen=True)
class Beside:
    """A candidate's treatments laid beside a published network's.

    Attributes
    ----------
    candidate, backbone : str
        Names of the candidate and its backbone.
    network : Network or None
        None where nothing was published for the backbone.
    table : DataFrame
        One row a treatment that both have, with one label: compound, concentration, label, predicted (here), published
        (what the network said), outcome.
    only_here, only_published : int
        Treatments that the other one lacks.
    relabelled : int
        Treatments that both have under different labels, and that are not compared.
    """

    candidate: str
    backbone: str
    network: Network | None
    table: pd.DataFrame
    only_here: int = 0
    only_published: int = 0
    relabelled: int = 0

    @property
    def n(self) -> int:
        """Return the number of treatments compared."""
        return len(self.table)

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many treatments had each outcome."""
        return {outcome: int((self.table[OUTCOME] == outcome).sum()) for outcome in OUTCOMES}

    @property
    def p_value(self) -> float:
        """P-value of the exact McNemar test, two-sided: 1 where no treatment tells the two apart."""
        return mcnemar(self.counts[ONLY_HERE], self.counts[ONLY_PUBLISHED])


def beside(treatments: pd.DataFrame, candidate: str, backbone: str) -> Beside:
    """Lay one candidate's treatments beside the paper's network of the same backbone.

    Parameters
    ----------
    treatments : DataFrame
        Of this candidate alone: compound, concentration, label, predicted.
    candidate, backbone : str
        Names of the candidate and its backbone.

    Returns
    -------
    Beside
        With an empty table where nothing was published for the backbone.
    """
    require_columns(treatments, [*TREATMENT, LABEL, PREDICTED], "treatments")
    require_unique(treatments, TREATMENT, "treatments")
    network = networks().get(backbone)
    paper = paper_treatments().rename(columns={LABEL: "_label"})
    if network is None:
        paper = paper.iloc[:0]
    joined = treatments[[*TREATMENT, LABEL, PREDICTED]].merge(paper, on=TREATMENT, how="outer", indicator=True)
    both = joined[joined["_merge"] == "both"]
    same = both[both[LABEL] == both["_label"]]
    wrong = network.wrong if network else {}
    keys = zip(same[COMPOUND], same[CONCENTRATION], same[LABEL], strict=True)
    theirs = [wrong.get((compound, dose), label) for compound, dose, label in keys]
    table = same[[*TREATMENT, LABEL, PREDICTED]].assign(**{PUBLISHED: pd.Series(theirs, index=same.index, dtype=str)})
    right, their_right = (table[name] == table[LABEL] for name in (PREDICTED, PUBLISHED))
    outcome = np.select([right & their_right, right, their_right], [BOTH, ONLY_HERE, ONLY_PUBLISHED], NEITHER)
    return Beside(
        candidate,
        backbone,
        network,
        table.assign(**{OUTCOME: pd.Series(outcome, index=table.index, dtype=str)}).reset_index(drop=True),
        only_here=int((joined["_merge"] == "left_only").sum()),
        only_published=int((joined["_merge"] == "right_only").sum()),
        relabelled=len(both) - len(same),
    )
