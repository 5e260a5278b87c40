"""How sure: the labels that conformal prediction cannot rule out, treatment by treatment, and what is guaranteed."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from moa_ray.common.schema import COMPOUND, CONCENTRATION, LABEL, TREATMENT
from moa_ray.reporting.conformal_figures import conformal_coverage, conformal_set_size, thumbnails
from moa_ray.reporting.conformal_sets import FLAG, FLAGS, SETTLED, ConformalSets
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.html_table import HtmlTable, percent
from moa_ray.reporting.section import Section
from moa_ray.statistics import conformal
from moa_ray.statistics.conformal import CONFIDENCE, CREDIBILITY
from moa_ray.statistics.units import unit_name

MOST_TILES = 20
MOST_LINES = 50  # all are in conformal.parquet
_NAMED = 4  # labels of a set that are written out


class Line(NamedTuple):
    """A treatment as the page shows it.

    Attributes
    ----------
    tile : str
        A data URI; empty where there is no tile.
    cells : list of str
        Compound, concentration, label, set, credibility and confidence.
    flag : str
        What the set says.
    is_clear : bool
        Whether one label is left, the true one.
    """

    tile: str
    cells: list[str]
    flag: str
    is_clear: bool


class Limit(NamedTuple):
    """An alpha that so few compounds cannot reach.

    Attributes
    ----------
    alpha : float
        The alpha asked for.
    levels : list of str
        ``treatments``, ``compounds``, or both.
    n : int
        How many units calibrate.
    unit : str
        What counts once.
    smallest : float
        The smallest alpha possible.
    """

    alpha: float
    levels: list[str]
    n: int
    unit: str
    smallest: float


@dataclass(frozen=True)
class Conformal(Section):
    """Conformal sets of the treatments that the headline is about.

    Attributes
    ----------
    sets : ConformalSets
        The sets.
    tiles : mapping of tuple of str and float to ndarray
        One tile of each of the worst treatments; empty where they are not at hand.
    """

    template: ClassVar[str] = "sections/conformal.html"
    absent: ClassVar[Mapping[str, Any]] = {"sure": {"conformal": None}}

    sets: ConformalSets
    tiles: Mapping[tuple[str, float], NDArray[np.uint8]] = field(default_factory=dict)

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        if evidence.sets is None:
            return None
        # A treatment's tile need not be of the well that is named.
        if evidence.tiles is None or (evidence.unit == "well" and evidence.group != "well"):
            return cls(evidence.sets)
        worst = evidence.sets.worst()[TREATMENT].head(MOST_TILES).itertuples(index=False, name=None)
        return cls(evidence.sets, evidence.tiles.of_treatments(worst))

    def figures(self) -> dict[str, Figure]:
        if self.sets.shown is None:
            return {}
        alphas, words = self.sets.reached("treatment"), self.sets.words
        levels = {words[level]: calibrated for level, calibrated in self.sets.levels.items()}
        return {
            "conformal_coverage": conformal_coverage(levels, alphas, words["compound"]),
            "conformal_set_size": conformal_set_size(levels, alphas),
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        return {"conformal.parquet": self.sets.as_table()}

    def summary(self) -> dict[str, Any]:
        sets, settings = self.sets, self.sets.settings
        reached = [(level, alpha) for level in sets.levels for alpha in sets.reached(level)]
        numbers = {
            **{"score": settings.score, "unit": settings.unit, "by_label": settings.by_label},
            "coverage": [
                {"level": level, "alpha": alpha, **sets.coverage(level, alpha), "guarantee": _guarantee(sets, alpha)}
                for level, alpha in reached
            ],
            "by_label": [
                {"level": level, "alpha": alpha, "label": label, **conformal.coverage(rows)}
                for level, alpha in reached
                for label, rows in sets.levels[level].covered(alpha).groupby(LABEL)
            ],
            "unreached": [
                {"level": level, "alpha": alpha, "calibrating": calibrated.n, "smallest_alpha": calibrated.smallest}
                for level, calibrated in sets.levels.items()
                for alpha in settings.alphas
                if alpha < calibrated.smallest
            ],
            "calibrated_together": {
                level: [list(part) for part in calibrated.parts] for level, calibrated in sets.levels.items()
            },
            "doubts": list(sets.doubts),
        }
        return {"sure": {"conformal": numbers}}

    @cached_property
    def lines(self) -> list[Line]:
        """The worst treatments as the page shows them."""
        sets = self.sets
        tiles = dict(zip(self.tiles, thumbnails(list(self.tiles.values())), strict=True))
        shown = []
        for row in sets.worst().head(MOST_LINES).to_dict("records"):
            png = tiles.get((row[COMPOUND], row[CONCENTRATION]))
            cells = [unit_name(row), f"{row[CONCENTRATION]:g}", row[LABEL]]
            cells += [_in_words(row[f"set_{sets.shown:g}"], len(sets.treatments.p.columns))]
            cells += [f"{row[name]:.2f}" for name in (CREDIBILITY, CONFIDENCE)]
            uri = "" if png is None else "data:image/png;base64," + base64.b64encode(png).decode()
            shown.append(Line(uri, cells, row[FLAG], row[FLAG] == SETTLED))
        return shown

    @property
    def counts(self) -> dict[str, int]:
        """Return how many treatments have each flag, the worst flag first."""
        counts = self.sets.worst()[FLAG].value_counts()
        return {flag: int(counts[flag]) for flag in FLAGS if flag in counts}

    @property
    def table(self) -> HtmlTable:
        """What each alpha gives, with what is promised."""
        sets = self.sets
        headings = ["of", "alpha", "hold the true label", "share", "95 % interval", "here, by ranks"]
        group = sets.words["compound"]
        headings += [f"new {group}, CV+", f"new {group}, one network", "mean set size", "one label", "no label"]
        rows = []
        for level in sets.levels:
            for alpha in sets.reached(level):
                coverage, promise = sets.coverage(level, alpha), sets.promise(alpha)
                share = percent(coverage["k"] / coverage["n"])
                rows.append(
                    [
                        *(f"{sets.words[level]}s", f"{alpha:g}", f"{coverage['k']} of {coverage['n']}", share),
                        f"{percent(coverage['low'])} to {percent(coverage['high'])}",
                        f"about {percent(1 - alpha)}" if sets.levels[level].unit == "compound" else "nothing",
                        "nothing" if promise is None else f"at least {percent(promise)}",
                        *("nothing", f"{coverage['mean_size']:.2f}"),
                        *(percent(coverage["singletons"]), percent(coverage["empty"])),
                    ]
                )
        return HtmlTable(headings, rows, [False, *[True] * (len(headings) - 1)])

    @property
    def unreached(self) -> list[Limit]:
        """The alphas that so few compounds cannot reach; levels of which the same is true stand together."""
        levels: dict[tuple[float, int, str], list[str]] = {}
        for level, calibrated in self.sets.levels.items():
            for alpha in self.sets.settings.alphas:
                if alpha < calibrated.smallest:
                    words = self.sets.words
                    counted = (alpha, calibrated.n, words[calibrated.unit])
                    levels.setdefault(counted, []).append(f"{words[level]}s")
        return [Limit(alpha, names, n, unit, conformal.smallest(n)) for (alpha, n, unit), names in levels.items()]


def _guarantee(sets: ConformalSets, alpha: float) -> dict[str, float | None]:
    """What holds for a compound of unknown label: by all networks, each against its own score, and by a single one."""
    return {"cv_plus": sets.promise(alpha), "single_network": None}


def _in_words(labels: Sequence[str], n_labels: int) -> str:
    if len(labels) == n_labels:
        return f"any of the {n_labels} labels"
    if len(labels) > _NAMED:
        return f"{', '.join(labels[:_NAMED])} and {len(labels) - _NAMED} more"
    return ", ".join(labels) or "none"
