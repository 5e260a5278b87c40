"""Published results: candidates laid beside the networks of Kensert et al. 2019, and what others reached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from moa_ray.common.schema import BACKBONE, CANDIDATE, COMPOUND, CONCENTRATION, LABEL
from moa_ray.reporting import published_results
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.figures import GREEN, INK, ORANGE, plain_text, room
from moa_ray.reporting.html_table import HtmlTable, p_value, percent
from moa_ray.reporting.published_results import Beside
from moa_ray.reporting.references import REFERENCES
from moa_ray.reporting.section import Section
from moa_ray.statistics import aggregation, scores
from moa_ray.statistics.unpredicted import of_no_tile, with_unpredicted

_OUTCOME_COLOURS = {
    published_results.BOTH: "#C6DDEE",
    published_results.ONLY_HERE: GREEN,
    published_results.ONLY_PUBLISHED: ORANGE,
    published_results.NEITHER: INK,
}


@dataclass(frozen=True)
class Published(Section):
    """The best candidate of each backbone beside the published network of the same backbone.

    Attributes
    ----------
    reference : str
        Name of the published results.
    compared : sequence of Beside
        The candidates; none where nothing was predicted.
    """

    template: ClassVar[str] = "sections/published.html"
    absent: ClassVar[Mapping[str, Any]] = {"reference": None, "beside_reference": []}

    reference: str
    compared: Sequence[Beside]

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        if evidence.unit != "treatment":  # the published ones are treatments
            return None
        return None if evidence.reference is None else cls(evidence.reference, _laid_beside(evidence))

    def figures(self) -> dict[str, Figure]:
        shown = [beside for beside in self.compared if beside.n]
        return {"side_by_side": side_by_side(shown)} if shown else {}

    def tables(self) -> dict[str, pd.DataFrame]:
        if not self.compared:
            return {}
        names = [CANDIDATE, BACKBONE]
        tables = [
            beside.table.assign(**{CANDIDATE: beside.candidate, BACKBONE: beside.backbone}) for beside in self.compared
        ]
        table = pd.concat(tables, ignore_index=True)
        return {"reference.csv": table[[*names, *(name for name in table if name not in names)]]}

    def summary(self) -> dict[str, Any]:
        return {"reference": self.reference, "beside_reference": [_plain(beside) for beside in self.compared]}

    @property
    def name(self) -> str:
        """The published results as people call them."""
        return REFERENCES[self.reference]

    @property
    def table(self) -> HtmlTable:
        """Each candidate beside the published network of its backbone, in numbers of treatments."""
        headings = ["candidate", "published", "compared", "right here", "right published", *published_results.OUTCOMES]
        headings += ["exact McNemar p", "treatments only here", "treatments only published", "labelled otherwise"]
        rows = [_cells(beside) for beside in self.compared]
        return HtmlTable(headings, rows, [False, *[True] * (len(headings) - 1)])

    @property
    def differing(self) -> HtmlTable:
        """Every treatment that a candidate or the published network got wrong."""
        headings = ["backbone", "compound", "µmol/L", "true label", "here", "published", "outcome"]
        rows = [
            [
                *(beside.backbone, row[COMPOUND], f"{row[CONCENTRATION]:g}", row[LABEL]),
                *(row[aggregation.PREDICTED], row[published_results.PUBLISHED], row[published_results.OUTCOME]),
            ]
            for beside in self.compared
            for row in beside.table[beside.table[published_results.OUTCOME] != published_results.BOTH].to_dict(
                "records"
            )
        ]
        return HtmlTable(headings, rows, [False, False, True, False, False, False, False])

    @property
    def others(self) -> HtmlTable:
        """Return what others published for the same treatments."""
        rows = [
            [
                *(other.work, f"{other.nsc:g} %", "–" if other.nscb is None else f"{other.nscb:.1f} %"),
                *(other.protocol, other.source),
            ]
            for other in published_results.other_accuracies()
        ]
        return HtmlTable(["work", "NSC", "NSCB", "protocol", "source"], rows, [False, True, True, False, False])


def _laid_beside(evidence: Evidence) -> list[Beside]:
    """The best candidate of each backbone beside the published results.

    Of a search the headline's candidate alone, on the treatments that the headline is about: what the others did was
    looked at to choose among them.
    """
    best = evidence.best
    if best is None:
        return []
    if evidence.is_confirmed:
        judged = _with_no_tile(evidence.judged, evidence.judged_unpredicted)
        return [published_results.beside(judged, best[CANDIDATE], best[BACKBONE])]
    scored = evidence.leaderboard[evidence.leaderboard["n"] > 0].drop_duplicates(BACKBONE)
    return [
        published_results.beside(
            _with_no_tile(evidence.treatments_of(candidate), evidence.unpredicted_of(candidate)), candidate, backbone
        )
        for candidate, backbone in zip(scored[CANDIDATE], scored[BACKBONE], strict=True)
    ]


def _with_no_tile(treatments: pd.DataFrame, missing: pd.DataFrame) -> pd.DataFrame:
    """Add the treatments of which no tile is left, which are not right; those of failed folds are not compared."""
    table = with_unpredicted(treatments, of_no_tile(missing))
    return table.assign(**{aggregation.PREDICTED: table[aggregation.PREDICTED].fillna(scores.NOT_PREDICTED)})


def _cells(beside: Beside) -> list[str]:
    if beside.network is None:
        return [beside.candidate, "none", *["–"] * 8, str(beside.only_here), "–", "–"]
    counts, network = beside.counts, beside.network
    here, there = (
        counts[published_results.BOTH] + counts[only]
        for only in (published_results.ONLY_HERE, published_results.ONLY_PUBLISHED)
    )
    return [
        *(beside.candidate, f"{network.k} of {network.n}, {network.accuracy} %", str(beside.n)),
        *(f"{k}, {percent(k / beside.n)}" if beside.n else "–" for k in (here, there)),
        *(str(counts[outcome]) for outcome in published_results.OUTCOMES),
        p_value(beside.p_value) if beside.n else "–",
        *(str(beside.only_here), str(beside.only_published), str(beside.relabelled)),
    ]


def _plain(beside: Beside) -> dict[str, Any]:
    network = beside.network and {
        "k": beside.network.k,
        "n": beside.network.n,
        "accuracy_percent": beside.network.accuracy,
    }
    return {
        **{CANDIDATE: beside.candidate, BACKBONE: beside.backbone, "published": network, "compared": beside.n},
        **beside.counts,
        "mcnemar_p": beside.p_value if beside.n else None,
        "only_here": beside.only_here,
        "only_published": beside.only_published,
        "other_label": beside.relabelled,
    }


def side_by_side(compared: Sequence[Beside]) -> Figure:
    """Draw which treatments a candidate and a published network of its backbone got right.

    Parameters
    ----------
    compared : sequence of Beside
        Those with a published network.

    Returns
    -------
    Figure
        One panel a candidate, one row a label, one square a treatment, by compound and concentration.
    """
    labels = sorted({str(label) for beside in compared for label in beside.table[LABEL]})
    most = max(int(beside.table[LABEL].value_counts().max()) for beside in compared)
    # The names stand beside the first panel alone.
    figure = Figure(
        figsize=(room(labels) + (0.24 * most + 0.5) * len(compared), 0.26 * len(labels) + 1.3), layout="constrained"
    )
    panels = figure.subplots(1, len(compared), squeeze=False, sharey=True)[0]
    for axes, beside in zip(panels, compared, strict=True):
        table = beside.table.sort_values([LABEL, COMPOUND, CONCENTRATION])
        place = table.groupby(LABEL).cumcount()
        colours = [_OUTCOME_COLOURS[outcome] for outcome in table[published_results.OUTCOME]]
        for column, label, colour in zip(place, table[LABEL], colours, strict=True):
            axes.add_patch(Rectangle((column - 0.42, labels.index(label) - 0.42), 0.84, 0.84, color=colour))
        axes.set(xlim=(-0.6, most - 0.4), ylim=(len(labels) - 0.5, -0.5), aspect="equal")
        axes.set_title(f"{plain_text(beside.backbone)}, {beside.n} treatments", fontsize=10, loc="left")
        axes.set_xticks([])
        axes.set_yticks(range(len(labels)), [plain_text(label) for label in labels], fontsize=9)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    patches = [Patch(facecolor=colour, label=outcome) for outcome, colour in _OUTCOME_COLOURS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure
