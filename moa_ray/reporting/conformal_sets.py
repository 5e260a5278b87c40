"""How sure: what the report's section says about each prediction of the headline's candidate, a block a method."""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from moa_ray import conformal, figures_conformal, metrics
from moa_ray.conformal import CONFIDENCE, COVERED, CREDIBILITY, SIZE, Calibrated, Conformal
from moa_ray.sheet import Sheet, percent
from moa_ray.tables import COMPOUND, CONCENTRATION, LABEL, TREATMENT

ANOTHER, NONE, SEVERAL, ONE = "true label ruled out", "no label fits", "undecided", "settled"
FLAGS = (ANOTHER, NONE, SEVERAL, ONE)  # worst first
FLAG = "flag"
MOST_TILES = 20
MOST_LINES = 50  # all are in conformal.parquet
_NAMED = 4  # labels of a set that are written out
_PREFERRED = 0.1


@dataclass(frozen=True)
class Sets:
    """What conformal prediction says of the treatments that the headline is about.

    levels : of ``treatment`` and ``compound`` the p-values; compounds only where any has one label
    doubts : why CV+ promises nothing here for a compound of unknown label; empty where it does
    tiles : one of each of the worst treatments
    """

    settings: Conformal
    levels: Mapping[str, Calibrated]
    doubts: Sequence[str] = ()
    tiles: Mapping[tuple[str, float], NDArray[np.uint8]] = field(default_factory=dict)

    @property
    def treatments(self) -> Calibrated:
        """The level that the section is about."""
        return self.levels["treatment"]

    @property
    def shown(self) -> float | None:
        """The alpha whose sets are printed: the one nearest to 0.1 that is reached, if any is."""
        reached = self.reached("treatment")
        return min(reached, key=lambda alpha: abs(alpha - _PREFERRED)) if reached else None

    def reached(self, level: str) -> list[float]:
        """The alphas that so many compounds can reach."""
        return [alpha for alpha in self.settings.alphas if alpha >= self.levels[level].smallest]


@dataclass(frozen=True)
class Sure:
    """The blocks of the section; None where there is nothing to say."""

    conformal: Sets | None = None


@dataclass(frozen=True)
class Line:
    """A treatment as the page shows it: its tile as a data URI where there is one, then text."""

    tile: str
    cells: list[str]
    flag: str
    is_clear: bool


# Making ---------------------------------------------------------------------------------------------------------------


def sets(
    treatments: pd.DataFrame, settings: Conformal, seed: int, how: metrics.How, doubts: Sequence[str] = ()
) -> Sets:
    """The conformal block of one candidate's out-of-fold treatments, which no choice saw unless `doubts` says so.

    how : aggregates the treatments of a compound
    """
    levels = {"treatment": conformal.calibrate(treatments, settings, seed)}
    compounds = conformal.compounds(treatments, how)
    if len(compounds):
        levels["compound"] = conformal.calibrate(compounds, dataclasses.replace(settings, unit="compound"), seed)
    return Sets(settings, levels, doubts)


def doubts(settings: Conformal, held_out: str, is_optimistic: bool, is_given: bool) -> list[str]:
    """What CV+ takes for granted and this report cannot, a sentence each.

    held_out : the columns held out, as words; empty where that is not known
    """
    found = []
    if is_given:
        found.append(
            "that each treatment was predicted by a network that saw nothing of its compound is not known here"
        )
    elif held_out != "compound":
        found.append(f"{held_out} was held out, not one compound at a time and nothing more")
    if is_optimistic:
        found.append("the candidate was chosen among others by these same treatments, so its scores are too good")
    if settings.unit == "treatment":
        found.append("treatments of one compound count as if they were independent (conformal.unit: treatment)")
    return found


def worst(made: Sets) -> pd.DataFrame:
    """One row a treatment with its p-values, sets and flag at the alpha that is shown, worst first.

    Flags go before set sizes, these before credibility. Empty where no alpha is reached.
    """
    if made.shown is None:
        return pd.DataFrame(columns=[*TREATMENT, FLAG])
    table = made.treatments.as_table([made.shown])
    covered = made.treatments.covered(made.shown)
    size = covered[SIZE].to_numpy()
    conditions = [size == 0, ~covered[COVERED].to_numpy(), size > 1]
    table[FLAG] = np.select(conditions, [NONE, ANOTHER, SEVERAL], ONE)
    table["_rank"], table["_size"] = table[FLAG].map(FLAGS.index), -size
    order = ["_rank", "_size", CREDIBILITY, *TREATMENT]
    return table.sort_values(order, ignore_index=True).drop(columns=["_rank", "_size"])


# What is written ------------------------------------------------------------------------------------------------------


def as_table(made: Sets) -> pd.DataFrame:
    """All that conformal prediction says, one row a treatment, then one a compound (its concentration is NaN)."""
    tables = [one.as_table(made.reached(level)).assign(level=level) for level, one in made.levels.items()]
    return pd.concat(tables, ignore_index=True)


def plain(section: Sure) -> dict[str, Any]:
    """The section's numbers, for scripts."""
    return {"conformal": None if section.conformal is None else _plain_sets(section.conformal)}


def _plain_sets(made: Sets) -> dict[str, Any]:
    settings = made.settings
    found = [(level, alpha) for level in made.levels for alpha in made.reached(level)]
    return {
        **{"score": settings.score, "unit": settings.unit, "by_label": settings.by_label},
        "coverage": [
            {"level": level, "alpha": alpha, **_worth(made, level, alpha), "guarantee": _guarantee(made, alpha)}
            for level, alpha in found
        ],
        "by_label": [
            {"level": level, "alpha": alpha, "label": label, **conformal.coverage(mine)}
            for level, alpha in found
            for label, mine in made.levels[level].covered(alpha).groupby(LABEL)
        ],
        "unreached": [
            {"level": level, "alpha": alpha, "calibrating": one.n, "smallest_alpha": one.smallest}
            for level, one in made.levels.items()
            for alpha in settings.alphas
            if alpha < one.smallest
        ],
        "calibrated_together": {level: [list(part) for part in one.parts] for level, one in made.levels.items()},
        "doubts": list(made.doubts),
    }


def _worth(made: Sets, level: str, alpha: float) -> dict[str, float]:
    return conformal.coverage(made.levels[level].covered(alpha))


def _guarantee(made: Sets, alpha: float) -> dict[str, float | None]:
    """What holds for a compound of unknown label: by all networks, each against its own score, and by a single one."""
    return {"cv_plus": None if made.doubts else max(0.0, 1 - 2 * alpha), "single_network": None}


# What is shown --------------------------------------------------------------------------------------------------------


def draw(section: Sure) -> dict[str, Figure]:
    """Every figure of the section by its file name."""
    made = section.conformal
    if made is None or made.shown is None:
        return {}
    alphas = made.reached("treatment")
    return {
        "conformal_coverage": figures_conformal.conformal_coverage(made.levels, alphas),
        "conformal_set_size": figures_conformal.conformal_set_size(made.levels, alphas),
    }


def lines(made: Sets) -> list[Line]:
    """The worst treatments as the page shows them."""
    tiles = dict(zip(made.tiles, figures_conformal.thumbnails(list(made.tiles.values())), strict=True))
    shown = []
    for row in worst(made).head(MOST_LINES).to_dict("records"):
        png = tiles.get((row[COMPOUND], row[CONCENTRATION]))
        cells = [row[COMPOUND], f"{row[CONCENTRATION]:g}", row[LABEL]]
        cells += [_set_words(row[f"set_{made.shown:g}"], len(made.treatments.p.columns))]
        cells += [f"{row[name]:.2f}" for name in (CREDIBILITY, CONFIDENCE)]
        uri = "" if png is None else "data:image/png;base64," + base64.b64encode(png).decode()
        shown.append(Line(uri, cells, row[FLAG], row[FLAG] == ONE))
    return shown


def _set_words(labels: Sequence[str], known: int) -> str:
    if len(labels) == known:
        return f"any of the {known} labels"
    if len(labels) > _NAMED:
        return f"{', '.join(labels[:_NAMED])} and {len(labels) - _NAMED} more"
    return ", ".join(labels) or "none"


def counted(made: Sets) -> str:
    """How many treatments have each flag, in words."""
    counts = worst(made)[FLAG].value_counts()
    return ", ".join(f"{flag}: {counts[flag]}" for flag in FLAGS if flag in counts)


def coverage_sheet(made: Sets) -> Sheet:
    """What each alpha gives, with what is promised."""
    headings = ["of", "alpha", "hold the true label", "share", "95 % interval", "here, by ranks", "new compound, CV+"]
    headings += ["new compound, one network", "mean set size", "one label", "no label"]
    rows = []
    for level in made.levels:
        for alpha in made.reached(level):
            worth, promised = _worth(made, level, alpha), _guarantee(made, alpha)["cv_plus"]
            rows.append(
                [
                    *(f"{level}s", f"{alpha:g}", f"{worth['k']} of {worth['n']}", percent(worth["k"] / worth["n"])),
                    f"{percent(worth['low'])} to {percent(worth['high'])}",
                    f"about {percent(1 - alpha)}" if made.levels[level].unit == "compound" else "nothing",
                    "nothing" if promised is None else f"at least {percent(promised)}",
                    *("nothing", f"{worth['mean_size']:.2f}", percent(worth["singletons"]), percent(worth["empty"])),
                ]
            )
    return Sheet(headings, rows, [False, *[True] * (len(headings) - 1)])


def unreached(made: Sets) -> list[str]:
    """A sentence for each alpha that so few compounds cannot reach."""
    whose: dict[tuple[float, int, str], list[str]] = {}
    for level, one in made.levels.items():
        for alpha in made.settings.alphas:
            if alpha < one.smallest:
                whose.setdefault((alpha, one.n, one.unit), []).append(f"{level}s")
    return [
        f"No set at alpha = {alpha:g} for {' and '.join(names)}: {n} {unit}s are there to calibrate with, so the "
        f"smallest alpha possible is 1 / {n + 1} = {conformal.smallest(n):.3g}."
        for (alpha, n, unit), names in whose.items()
    ]


def together(made: Sets) -> list[str]:
    """The labels that are not calibrated by their own compounds alone; empty where all are, or none was to be."""
    if not made.settings.by_label:
        return []
    return [label for part in made.treatments.parts if len(part) > 1 for label in part]
