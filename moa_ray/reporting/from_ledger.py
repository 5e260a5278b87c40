"""Evidence out of a ledger: leaderboard, treatments, histories, samples, tiles and fields to show."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from moa_ray.common import open_set
from moa_ray.common.schema import CANDIDATE, FOLD, METHOD, SAMPLE, SEED
from moa_ray.common.uri import Place
from moa_ray.config import sweep_file
from moa_ray.config.search import GridSettings
from moa_ray.config.sweep_file import Sweep
from moa_ray.reporting import ensembles, example_tiles, from_search
from moa_ray.reporting.ensembles import Folded
from moa_ray.reporting.evidence import Evidence, corrected
from moa_ray.reporting.records import Failure, ProbeRecord, of_folds, trial_table
from moa_ray.screens import example_fields
from moa_ray.search import linear_probe
from moa_ray.search.linear_probe import ProbeResults
from moa_ray.search.race import Race
from moa_ray.statistics import aggregation, comparison, unpredicted
from moa_ray.statistics import leaderboard as statistics_leaderboard
from moa_ray.statistics.units import with_unit
from moa_ray.tracking.ledger import Ledger
from moa_ray.tracking.results import Result


@dataclass(frozen=True)
class Contents:
    """A ledger as a report reads it.

    Attributes
    ----------
    ledger : Ledger
        The ledger itself.
    study : mapping of str to Any
        What all trials share.
    sweep : Sweep
        The sweep as it was run, without the backbones that a linear probe dropped.
    probe : ProbeResults or None
        What the linear probe came to, where there was one.
    results : list of Result
        Results of the sweep's own candidates, without their tables.
    predictions : DataFrame
        One row a tile that a trial predicted, ensembles by their members; may be empty.
    """

    ledger: Ledger
    study: Mapping[str, Any]
    sweep: Sweep
    probe: ProbeResults | None
    results: list[Result]
    predictions: pd.DataFrame

    @classmethod
    def read(cls, place: Place) -> "Contents":
        """Read a ledger.

        Parameters
        ----------
        place : Path or Uri
            OUT.

        Returns
        -------
        Contents
            All but the tables that only a part of the report needs.

        Raises
        ------
        InputError
            If no sweep was run there.
        """
        ledger = Ledger(place)
        study = ledger.study()
        sweep = sweep_file.load(ledger.out / "sweep.yaml")
        results = list(ledger.results())
        probe = linear_probe.read(sweep, study["search_folds"], ledger, results)
        sweep = sweep if probe is None else sweep.without(probe.dropped)
        results = linear_probe.candidate_results(sweep, ledger, results)
        predictions = with_unit(ledger.table("predictions", results), sweep.score.unit)
        return cls(ledger, study, sweep, probe, results, predictions)

    @cached_property
    def folded(self) -> Folded:
        """The trials with an ensemble in place of its members."""
        return ensembles.fold(self.sweep, self.results, self.predictions)

    @cached_property
    def unpredicted(self) -> pd.DataFrame:
        """The treatments that candidates were to predict and did not, of the search folds and of the confirm folds."""
        trials = trial_table(self.folded.results)
        parts = [self._unpredicted(trials, self.study[name]) for name in ("search_folds", "confirm_folds")]
        return pd.concat(parts, ignore_index=True)

    def _unpredicted(self, trials: pd.DataFrame, folds: Sequence[str]) -> pd.DataFrame:
        begun = {name: set(rows[FOLD]) for name, rows in of_folds(trials, folds).groupby(CANDIDATE)}
        if self.race is None:
            wanted = {recipe.ensemble.candidate: set(folds) for recipe in self.sweep.grid_recipes}
        elif folds == self.study["confirm_folds"]:
            wanted = {name: set(folds) for name in begun}
        else:  # a race lets most candidates do some of the folds alone
            stopped = set(map(tuple, trials.loc[trials["status"] == "stopped", [CANDIDATE, FOLD]].to_numpy()))
            wanted = {name: {fold for fold in own if (name, fold) not in stopped} for name, own in begun.items()}
        predictions = of_folds(self.folded.predictions, folds)
        return unpredicted.unpredicted(predictions, unpredicted.scored_of(self.study), wanted, trials)

    @property
    def unsettled(self) -> dict[str, int]:
        """How many trials of ranked candidates did not settle, by status; of a grid those not run are among them."""
        counts = Counter(str(result.status) for result in self.results if not result.is_settled)
        if isinstance(self.sweep.search, GridSettings):
            wanted = {
                (recipe.candidate, fold) for recipe in self.sweep.grid_recipes for fold in self.study["search_folds"]
            }
            counts["not run"] = len(wanted - {result.key for result in self.results})
        return dict(+counts)

    @cached_property
    def race(self) -> Race | None:
        """The race as far as the ledger tells, where the sweep is a search."""
        return from_search.race(self.sweep, self.study, self.ledger, self.folded, self.predictions)


def evidence(contents: Contents, reference: str | None = None) -> Evidence:
    """Gather what a sweep's report stands on.

    Parameters
    ----------
    contents : Contents
        The ledger.
    reference : str or None
        Published results to lay it beside; by default those that the sweep file asks for.

    Returns
    -------
    Evidence
        Of the sweep's own candidates.
    """
    study, sweep, folded, race = contents.study, contents.sweep, contents.folded, contents.race
    how, predictions = sweep.aggregate, folded.predictions
    recipes = _recipes(contents)
    missing = contents.unpredicted
    no_tile = unpredicted.of_no_tile(missing)
    leaderboard = _leaderboard(contents, recipes)
    treatments = aggregation.treatments(predictions, how) if len(predictions) else pd.DataFrame(columns=[CANDIDATE])
    # The leaderboard is of the search folds, and so are its comparisons.
    searched = of_folds(predictions, study["search_folds"])
    compared = aggregation.treatments(searched, how) if study["confirm_folds"] and len(searched) else treatments
    searched_alone = of_folds(no_tile, study["search_folds"]) if study["confirm_folds"] else no_tile
    leaderboard = comparison.against_best(leaderboard, unpredicted.with_unpredicted(compared, searched_alone))
    counted = unpredicted.with_unpredicted(treatments, no_tile)
    held_out = open_set.open_set(predictions)
    fields, no_fields = example_fields.read(study.get("examples"))
    return Evidence(
        study=study["study"],
        seed=study["seed"],
        command=study["command"],
        leaderboard=leaderboard,
        treatments=treatments,
        history=_history(contents),
        labels=study["labels"],
        channels=study["channels"],
        aggregate=how,
        held_out_labels=aggregation.treatments(held_out, how, held_out=True) if len(held_out) else held_out,
        samples=samples(contents),
        conformal=sweep.conformal,
        tiles=example_tiles.read(study, recipes, open_set.closed_set(predictions)),
        excluded={fold: excluded for fold, excluded in study["folds"].items() if excluded is not None},
        failures=_failures(contents),
        trials=_by_status(contents.results),
        warnings=study["warnings"],
        is_painted=sweep.is_painted,
        versions=study["versions"],
        recipes=recipes,
        search=None if race is None else from_search.record(sweep, study, race, folded, missing),
        linear_probe=_probe(contents),
        corrected=corrected(leaderboard, counted, study["confirm_folds"] if race else (), study["seed"]),
        fields=fields,
        no_fields=no_fields,
        n_treatments=study.get("treatments"),
        unscored=pd.DataFrame(study.get("unscored", [])),
        reference=reference or sweep.reference,
        unpredicted=missing,
        unit=sweep.score.unit,
        dropped=pd.DataFrame(study.get("dropped", [])),
        left_out=pd.DataFrame(study.get("left_out", [])),
    )


def _recipes(contents: Contents) -> dict[str, dict[str, Any]]:
    """The hyperparameters of each candidate."""
    proposed = [proposal.recipe for proposal in contents.ledger.proposals()]
    recipes = [recipe.ensemble for recipe in (proposed if contents.race else contents.sweep.grid_recipes)]
    return {recipe.candidate: recipe.as_dict() for recipe in recipes}


def _leaderboard(contents: Contents, recipes: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The leaderboard over the search folds, in a search with what the race says of each candidate."""
    study, sweep, folded = contents.study, contents.sweep, contents.folded
    folds, trials = study["search_folds"], trial_table(folded.results)
    missing = of_folds(contents.unpredicted, folds) if study["confirm_folds"] else contents.unpredicted
    leaderboard = statistics_leaderboard.leaderboard(
        of_folds(folded.predictions, folds), of_folds(trials, folds), recipes, len(folds), sweep.aggregate, missing
    )
    if sweep.seeds is not None:
        spread = ensembles.spread(of_folds(folded.members, folds), sweep.aggregate, missing)
        leaderboard = leaderboard.merge(spread, on=CANDIDATE, how="left", validate="one_to_one")
    if contents.race is None:
        return leaderboard
    leaderboard = from_search.raced(leaderboard, contents.race, trials)
    confirmed = of_folds(contents.unpredicted, study["confirm_folds"])
    return from_search.confirmed(leaderboard, study["confirm_folds"], folded.predictions, sweep.aggregate, confirmed)


def _history(contents: Contents) -> pd.DataFrame:
    """The histories of finished trials under each other, with what they belong to; members by their ensemble's name."""
    finished = [result for result in contents.results if result.status == "finished"]
    history = contents.ledger.table("history", finished)
    for name in ("backbone", "weights") if len(history) else ():
        history[name] = history[CANDIDATE].map({result.candidate: result.recipe[name] for result in finished})
    if contents.folded.names and len(history):
        names = {name: member.ensemble for name, member in contents.folded.names.items()}
        history[CANDIDATE] = history[CANDIDATE].map(names)
    return history


def _failures(contents: Contents) -> list[Failure]:
    trials = [
        dataclasses.replace(result, candidate=contents.folded.shown(result.candidate))
        for result in contents.results
        if result.status not in ("finished", "stopped")
    ]
    return [
        Failure(result.candidate, result.fold, result.status, result.attempts, result.error or "")
        for result in [*trials, *(contents.probe.failures if contents.probe else ())]
    ]


def _by_status(results: Sequence[Result]) -> dict[str, int]:
    counts = pd.Series([result.status for result in results], dtype=object).value_counts()
    return {str(status): int(count) for status, count in counts.items()}


def _probe(contents: Contents) -> ProbeRecord | None:
    probe = contents.probe
    if probe is None:
        return None
    return ProbeRecord(
        probe.leaderboard, probe.dropped, probe.unseen, contents.sweep.keep, probe.majority, probe.predictions
    )


def samples(contents: Contents) -> pd.DataFrame:
    """Tabulate what each sample of the sweep's candidates said of each treatment.

    Parameters
    ----------
    contents : Contents
        The ledger.

    Returns
    -------
    DataFrame
        As `aggregation.sampled` makes it; empty where none was drawn. Of an ensemble the samples are its first
        member's, which tell what one network knows, and the members themselves.
    """
    sweep, folded = contents.sweep, contents.folded
    first = {name for name, member in folded.names.items() if member.seed == sweep.space.seeds[0]}
    finished = {result.key for result in folded.results if result.status == "finished"}
    drawn: dict[str, list[Result]] = {}
    for result in contents.results if sweep.predict.samples else ():
        member = folded.names.get(result.candidate)
        name = result.candidate if member is None else member.ensemble
        if (name, result.fold) in finished and (member is None or result.candidate in first):
            drawn.setdefault(name, []).append(result)
    # A candidate at a time: a hundred samples of all tiles of all candidates would be gigabytes.
    tables = [
        aggregation.sampled(with_unit(rows, sweep.score.unit).assign(**{CANDIDATE: name}), sweep.aggregate)
        for name, trials in drawn.items()
        if len(rows := contents.ledger.table("samples", trials))
    ]
    if len(folded.members):
        members = folded.members.rename(columns={SEED: SAMPLE}).assign(**{METHOD: "ensemble"})
        tables.append(aggregation.sampled(members, sweep.aggregate))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
