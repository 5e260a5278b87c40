"""What a report stands on: the tables alone, whether they come from a ledger or were made elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from moa_ray.common import open_set
from moa_ray.common.schema import CANDIDATE, COMPOUND, FOLD
from moa_ray.config.conformal import ConformalSettings
from moa_ray.reporting import conformal_sets
from moa_ray.reporting.conformal_sets import ConformalSets
from moa_ray.reporting.example_tiles import ExampleTiles
from moa_ray.reporting.judged_uncertainty import JudgedUncertainty
from moa_ray.reporting.records import Failure, ProbeRecord, SearchRecord
from moa_ray.screens.example_fields import Pair
from moa_ray.statistics import aggregation, bbc_cv, comparison
from moa_ray.statistics import uncertainty as statistics_uncertainty
from moa_ray.statistics.conformal import CREDIBILITY, credibility
from moa_ray.statistics.units import Unit, unit_key
from moa_ray.statistics.unpredicted import no_unpredicted


@dataclass(frozen=True)
class Evidence:
    """What a report stands on.

    Attributes
    ----------
    study, command : str
        Name of the study, and the command that made it.
    seed : int
        The sweep's seed, of every random draw in the report.
    leaderboard, treatments : DataFrame
        As the statistics make them, of all candidates; only treatments that can be right. `treatments` may be empty.
    history : DataFrame
        One row an epoch, as `sections.epochs.accuracy_over_epochs` takes it; may be empty.
    labels : sequence of str
        The labels of the screen.
    channels : sequence of str or None
        The screen's channels shown red, green and blue.
    aggregate : {"median", "mean"}
        How tiles were aggregated to treatments.
    held_out_labels : DataFrame
        Treatments of a label that their fold held out whole, as `aggregation.treatments` makes them; may be empty.
    samples : DataFrame
        As `aggregation.sampled` makes them: what each sample of a method (``mc_dropout``, ``laplace``, or ``ensemble``,
        whose samples are numbered by seed) said of each treatment, not renormalised; may be empty.
    conformal : ConformalSettings or None
        Settings of conformal prediction; None where it is not wanted.
    tiles : ExampleTiles or None
        The tiles as the networks see them; None where they are not at hand.
    excluded : mapping of str to str
        Folds that were not trained, with the reason.
    failures : sequence of Failure
        Trials that did not finish.
    trials : mapping of str to int
        How many trials ended with each status.
    warnings : sequence of str
        What is odd about the data, a sentence each.
    is_painted : bool
        Whether the images are painted, not photographed.
    versions : mapping of str to str
        Versions of the software.
    recipes : mapping of str to mapping
        All hyperparameters of each candidate.
    search : SearchRecord or None
        Where a search proposed the candidates.
    linear_probe : ProbeRecord or None
        Where the backbones were probed before.
    corrected : Corrected or None
        Accuracy without the luck of the best of several candidates, where all of them finished all folds.
    fields : sequence of Pair
        Example fields of each label.
    no_fields : str
        A sentence on the fields that are not shown; empty where all are.
    n_treatments : int or None
        All treatments of the screen, those that cannot be scored included; None where the number is not known.
    unscored : DataFrame
        Treatments that no fold that can be trained holds out: compound, concentration, label, fold, reason.
    reference : str or None
        Name of the published results that were asked for.
    external : str or None
        The file of predictions made elsewhere; None where the report is of a ledger.
    unpredicted : DataFrame
        Treatments that candidates were to predict and did not, as `moa_ray.statistics.unpredicted` lists them: they
        count as not right, and are not in `treatments`.
    unit : {"treatment", "well", "compound"}
        What counts as one: what the rows of `treatments` are.
    dropped : DataFrame
        What is there and what was dropped, by plate and compound, as `moa_ray.tiles.dropped.counts` counts it; empty
        where that is not known.
    left_out : DataFrame
        Rows of the screen's table that are in none of its fields, as `moa_ray.screens.left_out` counts them.
    """

    study: str
    seed: int
    command: str
    leaderboard: pd.DataFrame
    treatments: pd.DataFrame
    history: pd.DataFrame
    labels: Sequence[str]
    channels: Sequence[str | None]
    aggregate: aggregation.Aggregation = "median"
    held_out_labels: pd.DataFrame = field(default_factory=pd.DataFrame)
    samples: pd.DataFrame = field(default_factory=pd.DataFrame)
    conformal: ConformalSettings | None = None
    tiles: ExampleTiles | None = None
    excluded: Mapping[str, str] = field(default_factory=dict)
    failures: Sequence[Failure] = ()
    trials: Mapping[str, int] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    is_painted: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    search: SearchRecord | None = None
    linear_probe: ProbeRecord | None = None
    corrected: bbc_cv.Corrected | None = None
    fields: Sequence[Pair] = ()
    no_fields: str = ""
    n_treatments: int | None = None
    unscored: pd.DataFrame = field(default_factory=pd.DataFrame)
    reference: str | None = None
    external: str | None = None
    unpredicted: pd.DataFrame = field(default_factory=no_unpredicted)
    unit: Unit = "treatment"
    dropped: pd.DataFrame = field(default_factory=pd.DataFrame)
    left_out: pd.DataFrame = field(default_factory=pd.DataFrame)

    @cached_property
    def best(self) -> dict[str, Any] | None:
        """The leaderboard's first row that has predictions, scored as the headline is; None where all trials failed."""
        scored = self.leaderboard[self.leaderboard["n"] > 0]
        if scored.empty:
            return None
        return dict(scored.iloc[0]) | dict(self.search.scores if self.search else {})

    @property
    def is_confirmed(self) -> bool:
        """Whether the headline is judged on folds that no choice saw."""
        return self.search is not None and bool(self.search.scores)

    @property
    def confirm_folds(self) -> Sequence[str]:
        """The folds that the headline is judged on alone; empty where it is judged on all."""
        return self.search.confirm_folds if self.search is not None and self.is_confirmed else ()

    @property
    def is_external(self) -> bool:
        """Whether the predictions were made elsewhere."""
        return self.external is not None

    @property
    def is_optimistic(self) -> bool:
        """Whether a choice among candidates or backbones saw the treatments that the headline is about."""
        if self.is_confirmed:
            return False
        return len(self.leaderboard) > 1 or (self.linear_probe is not None and bool(self.linear_probe.dropped))

    @property
    def holds_out_labels(self) -> bool:
        """Whether the folds held out labels whole."""
        return open_set.holds_out_labels(self.treatments)

    @property
    def held_out(self) -> str:
        """The columns that the folds held out, as their names begin; empty where that is not known."""
        if FOLD not in self.treatments or self.treatments.empty:
            return ""
        return str(self.treatments[FOLD].iloc[0]).partition("=")[0].replace(",", ", ")

    @property
    def group(self) -> str:
        """What bootstrap, permutation and conformal sets take as one: a compound; a well where each is called alike."""
        wells = self.judged if self.unit == "well" else self.judged.iloc[:0]
        return "well" if len(wells) and wells[COMPOUND].is_unique else "compound"

    @property
    def judged_unpredicted(self) -> pd.DataFrame:
        """The treatments without a prediction that the headline counts as not right."""
        rows = self.unpredicted_of(self.best[CANDIDATE]) if self.best else self.unpredicted
        return rows[rows[FOLD].isin(self.confirm_folds)] if self.is_confirmed else rows

    def unpredicted_of(self, candidate: str) -> pd.DataFrame:
        """Select the treatments that one candidate was to predict and did not.

        Parameters
        ----------
        candidate : str
            The candidate's name.

        Returns
        -------
        DataFrame
            Rows of `unpredicted`.
        """
        return self.unpredicted[self.unpredicted[CANDIDATE] == candidate]

    @property
    def judged(self) -> pd.DataFrame:
        """The treatments that the headline is about and that were predicted."""
        rows = self.treatments_of(self.best[CANDIDATE]) if self.best else self.treatments
        return rows[rows[FOLD].isin(self.confirm_folds)] if self.is_confirmed else rows

    def treatments_of(self, candidate: str) -> pd.DataFrame:
        """Select the treatments that one candidate predicted.

        Parameters
        ----------
        candidate : str
            The candidate's name.

        Returns
        -------
        DataFrame
            Rows of `treatments`.
        """
        return self.treatments[self.treatments[CANDIDATE] == candidate]

    @cached_property
    def sets(self) -> ConformalSets | None:
        """Return sets of labels for the treatments that the headline is about; None where none are wanted.

        Of a search these are of the folds that no choice saw: the candidate was chosen for low losses on the search
        folds, so its scores there are too good to calibrate with.
        """
        if self.best is None or self.conformal is None:
            return None
        doubts = conformal_sets.doubts(self.conformal, self.held_out, self.is_optimistic, self.is_external, self.group)
        return conformal_sets.make(
            self.judged, self.conformal, self.seed, self.aggregate, doubts, self.unit, self.group
        )

    @cached_property
    def treatments_with_sets(self) -> pd.DataFrame:
        """The treatments with their p-values and sets; empty for candidates that are not the headline's."""
        if self.sets is None or self.best is None:
            return self.treatments
        level = self.sets.treatments
        table = level.as_table(self.sets.reached("treatment")).assign(**{CANDIDATE: self.best[CANDIDATE]})
        key = [CANDIDATE, *unit_key(self.treatments)]
        added = [name for name in table if name not in self.treatments]
        return self.treatments.merge(table[[*key, *added]], on=key, how="left", validate="one_to_one")

    @cached_property
    def measures(self) -> pd.DataFrame:
        """How uncertain each candidate and method is of each treatment, those of labels held out whole included."""
        rows = self.treatments_with_sets
        believed = rows[[name for name in rows if name in self.treatments or name == CREDIBILITY]]
        tables = [table for table in (believed, self._believed_unknown()) if len(table)]
        both = pd.concat(tables, ignore_index=True) if tables else self.treatments
        return statistics_uncertainty.measures(both, self.samples)

    def _believed_unknown(self) -> pd.DataFrame:
        """Treatments of labels held out whole with their credibility, calibrated by the others."""
        if self.held_out_labels.empty or self.sets is None or self.best is None:
            return self.held_out_labels
        rows = self.held_out_labels[self.held_out_labels[CANDIDATE] == self.best[CANDIDATE]]
        calibrating = self.sets.treatments.table
        return self.held_out_labels.join(credibility(rows, calibrating, self.sets.settings, self.seed))

    @cached_property
    def uncertainty(self) -> JudgedUncertainty | None:
        """How uncertain the headline's candidate is, of what the headline is judged by; None without predictions."""
        if self.best is None:
            return None
        return JudgedUncertainty.of(self.measures, self.best[CANDIDATE], self.confirm_folds, self.seed)


def corrected(
    leaderboard: pd.DataFrame, treatments: pd.DataFrame, confirm_folds: Sequence[str], seed: int
) -> bbc_cv.Corrected | None:
    """Take the luck of the best candidate out of its accuracy.

    Parameters
    ----------
    leaderboard, treatments : DataFrame
        As the statistics make them, of all candidates.
    confirm_folds : sequence of str
        The folds that no choice sees; where there are any, they correct better.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Corrected or None
        None where not every candidate finished every fold, there are fewer than two candidates or compounds, or
        something else confirms the winner.
    """
    if confirm_folds or len(leaderboard) < 2 or not leaderboard["complete"].all():
        return None
    if "seeds" in leaderboard and leaderboard["seeds"].nunique() > 1:
        return None  # the winner alone is an ensemble: not alike, nor compared so
    table = comparison.right(treatments)
    compounds = list(table.index.get_level_values(COMPOUND))
    if len(set(compounds)) < 2:
        return None
    return bbc_cv.bbc_cv(table[list(leaderboard[CANDIDATE])], compounds, seed)
