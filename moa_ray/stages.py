"""Plan the stages of a sweep: linear probes, candidates, the other members of a winning ensemble.

Each stage is a plan of trials that follows from what the stages before wrote into the ledger, so a sweep that was
killed plans the same stages again, without what is done.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from rich.console import Console

from moa_ray.common.schema import CANDIDATE
from moa_ray.config.recipe import Recipe
from moa_ray.config.search import OptunaSettings
from moa_ray.execution.callbacks import LedgerCallback, RunningBest
from moa_ray.execution.fold_asha import FoldAsha
from moa_ray.search import linear_probe
from moa_ray.search.grid import Grid
from moa_ray.search.objective import loss
from moa_ray.search.plan import Plan
from moa_ray.search.proposer import Journal, Proposer
from moa_ray.search.race import Race
from moa_ray.search.standing import Standing
from moa_ray.statistics.unpredicted import scored_of
from moa_ray.study import Study
from moa_ray.tracking.ledger import Ledger
from moa_ray.tracking.results import SETTLED, Proposal, Result, TrialKind
from moa_ray.tracking.tracker import Tracker

Settled = Mapping[tuple[str, str], Result]  # by candidate and fold


@dataclass(frozen=True)
class Job:
    """Trials to run.

    Attributes
    ----------
    plan : Plan
        Which trial runs next.
    recipes : list of Recipe
        One for each set of pretrained weights that may be asked for.
    frozen : list of Recipe
        One for each set of frozen features that may be.
    ledger_callback : LedgerCallback
        Writes what ends into the ledger.
    done : int
        Trials that need not be run.
    scheduler : FoldAsha, optional
        Stops trials early.
    """

    plan: Plan
    recipes: list[Recipe]
    frozen: list[Recipe]
    ledger_callback: LedgerCallback
    done: int
    scheduler: FoldAsha | None = None


def jobs(study: Study, ledger: Ledger, tracker: Tracker, console: Console) -> Iterator[Job]:
    """Yield what is left to do, one job after the other.

    Linear probes, which may drop backbones, then the candidates, then the other members of a search's winner. A job is
    planned when the one before has ended.

    Parameters
    ----------
    study : Study
        The study.
    ledger : Ledger
        Its ledger.
    tracker : Tracker
        Passes on to MLflow what ends.
    console : Console
        Where stages are announced.

    Yields
    ------
    Job
    """
    for stage in (_linear_probes, _candidates, _members):
        job = stage(study, ledger, tracker, console)
        if job is not None:
            yield job


def _linear_probes(study: Study, ledger: Ledger, tracker: Tracker, console: Console) -> Job | None:
    """Plan the linear probes; None where nothing of them is left."""
    probes, settled = study.sweep.linear_probes, ledger.settled()
    trials = [(probe, fold) for probe in probes for fold in study.search_folds]
    todo = _missing(trials, settled)
    if not todo:
        return None
    names = ", ".join(dict.fromkeys(probe.backbone for probe in probes))
    console.print(f"linear probe: {names}, frozen, on {len(study.search_folds)} folds", markup=False)
    done = len(trials) - len(todo)
    plan = Grid(todo, study.sweep.resources.retries, done, TrialKind.LINEAR_PROBE)
    return Job(plan, probes, probes, _ledger_callback(study, ledger, tracker), done)


def _candidates(study: Study, ledger: Ledger, tracker: Tracker, console: Console) -> Job | None:
    """Plan what the sweep is about; None where nothing is left."""
    results = list(ledger.results())
    probe_results = linear_probe.read(study.sweep, study.search_folds, ledger, results)
    if probe_results is not None and probe_results.dropped:
        console.print(f"linear probe: {', '.join(probe_results.dropped)} dropped", markup=False)
        study = replace(study, sweep=study.sweep.without(probe_results.dropped))
    settled = {result.key: result for result in results if result.status in SETTLED}
    candidates = linear_probe.candidate_results(study.sweep, ledger, results)
    candidates = [result for result in candidates if result.key in settled]
    # Those of linear probes too: a search may propose the recipe of one, which then has its trials already.
    predictions = ledger.table("predictions", settled.values())
    ledger_callback = _ledger_callback(study, ledger, tracker)
    if len(predictions):
        names = {result.candidate for result in candidates}
        ledger_callback.leader.add(predictions[predictions[CANDIDATE].isin(names)])
    plan = _plan(study, ledger, settled, predictions, ledger_callback)
    if plan is None:
        return None
    # Further members of an earlier winner are no trials of the race.
    first = study.sweep.space.seeds[0]
    done = [result for result in candidates if isinstance(plan, Grid) or result.recipe.get("seed") == first]
    scheduler = _scheduler(study, plan, ledger, settled)
    return Job(plan, study.sweep.resource_profiles, study.sweep.frozen, ledger_callback, len(done), scheduler)


def _members(study: Study, ledger: Ledger, tracker: Tracker, console: Console) -> Job | None:
    """Plan the other members of a search's winner, on all folds; None where nothing of them is left."""
    sweep, other_seeds = study.sweep, study.sweep.space.seeds[1:]
    if not isinstance(sweep.search, OptunaSettings) or not other_seeds:
        return None
    settled, proposals = ledger.settled(), ledger.proposals()
    done = ledger.table("predictions", settled.values())
    objective = loss(sweep.search.objective, sweep.aggregate, done, scored_of(ledger.study()), sweep.score.unit)
    folds = study.search_folds, study.confirm_folds
    ranking = Race.replay(sweep.search, *folds, objective, proposals, settled.values()).ranking
    if not ranking:
        return None
    winner = next(proposal.recipe for proposal in proposals if proposal.recipe.candidate == ranking[0])
    trials = [(replace(winner, seed=seed), fold.name) for seed in other_seeds for fold in study.trained_folds]
    todo = _missing(trials, settled)
    if not todo:
        return None
    seeds = ", ".join(map(str, other_seeds))
    console.print(f"ensemble: {winner.candidate} with seeds {seeds}, on {len(study.trained_folds)} folds", markup=False)
    done = len(trials) - len(todo)
    frozen = [winner] if winner.is_linear_probe else []
    plan = Grid(todo, sweep.resources.retries, done)
    return Job(plan, [winner], frozen, _ledger_callback(study, ledger, tracker), done)


def _missing(trials: list[tuple[Recipe, str]], settled: Settled) -> list[tuple[Recipe, str]]:
    return [(recipe, fold) for recipe, fold in trials if (recipe.candidate, fold) not in settled]


def _ledger_callback(study: Study, ledger: Ledger, tracker: Tracker) -> LedgerCallback:
    return LedgerCallback(ledger, tracker, RunningBest(study.sweep.aggregate))


def _plan(
    study: Study, ledger: Ledger, settled: Settled, predictions: pd.DataFrame, ledger_callback: LedgerCallback
) -> Plan | None:
    """Plan a grid or a search; None where nothing of it is left.

    predictions : of the trials that are settled
    """
    settings, retries = study.sweep.search, study.sweep.resources.retries
    if not isinstance(settings, OptunaSettings):
        todo = _missing(study.trials, settled)
        return Grid(todo, retries, done=len(study.trials) - len(todo)) if todo else None
    proposer = Proposer(study.sweep.space, settings, study.sweep.seed)

    def propose(standings: Sequence[Standing]) -> Proposal | None:
        proposal = proposer.propose(standings)
        if proposal is not None:
            ledger.propose(proposal)
        return proposal

    scored, sweep = scored_of(ledger.study()), study.sweep
    proposals, objective = (
        ledger.proposals(),
        loss(settings.objective, sweep.aggregate, predictions, scored, sweep.score.unit),
    )
    folds, results = (study.search_folds, study.confirm_folds), settled.values()
    if len(proposals) >= settings.candidates and Race.replay(settings, *folds, objective, proposals, results).finished:
        return None
    race = Race(propose, settings, *folds, objective, retries, proposals, results)
    ledger_callback.follow(race, Journal(ledger.out, study.sweep.study, proposer))
    return race


def _scheduler(study: Study, plan: Plan, ledger: Ledger, settled: Settled) -> FoldAsha | None:
    """Make the ASHA of a race, with what it has seen already; None where the sweep stops nothing early."""
    settings = study.sweep.search
    if not isinstance(plan, Race) or not isinstance(settings, OptunaSettings) or settings.asha is None:
        return None
    scheduler = FoldAsha(settings.asha)
    scheduler.replay(
        (result.candidate, result.fold, history, result.status == "finished")
        for standing in plan.standings
        for fold in plan.stoppable_folds
        if (result := settled.get((standing.proposal.recipe.candidate, fold)))
        and (history := ledger.history(result)) is not None
    )
    return scheduler
