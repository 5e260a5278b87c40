"""Sweep a screen: recipes on folds, searched or all of a grid, recorded, scored and reported.

    python -m moa_ray.sweep SWEEP.yaml [KEY=VALUE ...] [--plan] [--address ADDRESS] [--fresh]

The same command run again does only what is missing.
"""

import argparse
import itertools
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from moa_ray import cluster, command, ledger, metrics, report, screening, spec, tracking, tuning, unknowns
from moa_ray.capacity import Slots, Watch
from moa_ray.ledger import SETTLED, Ledger, Proposal, Result
from moa_ray.mirror import Mirror
from moa_ray.progress import Board, download_progress, features_progress, field_progress
from moa_ray.proposals import Journal, Proposer
from moa_ray.race import Assignment, Grid, Plan, Race, Standing, loss
from moa_ray.recipe import Recipe
from moa_ray.spec import Optuna, Sweep
from moa_ray.study import Study
from moa_ray.tables import CANDIDATE, LABEL
from moa_ray.tiles import Features, TileStore
from moa_ray.tracking import Tracker
from moa_ray.worker import Bench


def main(given: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = command.parser("sweep", "Sweep a screen: every recipe on every fold, recorded, scored and reported.")
    command.add_sweep_file(arguments)
    arguments.add_argument("--plan", action="store_true", help="print what would be done and start nothing")
    arguments.add_argument("--address", help="a Ray cluster to run on, e.g. auto; default: this machine alone")
    arguments.add_argument(
        "--fresh", action="store_true", help="start over in a new folder beside OUT; deletes nothing"
    )
    return command.run(_sweep, arguments, given)


def _sweep(arguments: argparse.Namespace) -> int:
    """Load, open, plan, and run."""
    console = Console(highlight=False, soft_wrap=True)
    sweep = spec.load(arguments.sweep, arguments.overrides)
    if arguments.fresh:
        sweep = sweep.model_copy(update={"out": ledger.fresh(sweep.out)})
    with download_progress(console) as progress:
        study = Study.open(sweep, progress)
    if arguments.plan:
        print(study.describe())
        return command.DONE
    study.require_sound()
    for warning in study.warnings:
        command.warn(console, warning)
    with Mirror(sweep.out, partial(command.warn, console)) as mirror:
        written = _run_study(study, mirror, arguments.address, console)
    console.print(written.headline, markup=False)
    console.print(
        f"report: {sweep.out / 'report.html'}\nruns:   {tracking.ui_command(mirror.folder, sweep.tracking.uri)}",
        markup=False,
    )
    return command.DONE if written.finished and mirror.complete else command.FAILED


def _run_study(study: Study, mirror: Mirror, address: str | None, console: Console) -> report.Written:
    """Prepare, search, report."""
    warn = partial(command.warn, console)
    # A cluster that cannot hold the trials is not asked for hours of tiles first.
    check = partial(cluster.slots, study.sweep.resources, study.sweep.backbones, address)
    with field_progress(console) as progress, cluster.preparers(address, study.screen, warn, check) as crew:
        store = study.prepare(progress, crew)
    book = Ledger(study.sweep.out, mirror.send)
    book.open(study.sweep, study.record(store, _as_typed()))
    mirror.claim()
    tracker = _tracker(book, study.sweep, warn)
    try:
        _search(study, store, book, tracker, address, console)
        written = report.write(study.sweep.out)
        _hand_over(tracker, written)
    except BaseException:
        tracker.interrupt()
        raise
    return written


def _search(
    study: Study, store: TileStore, book: Ledger, tracker: Tracker, address: str | None, console: Console
) -> None:
    """Run the trials that the ledger lacks."""
    jobs = _jobs(study, book, tracker, console)
    first = next(jobs, None)
    if first is None:
        return
    with cluster.connect(address):
        slots = cluster.slots(study.sweep.resources, study.sweep.backbones, address)
        watch = Watch(partial(cluster.capacity, address), partial(console.print, markup=False), slots.patience)
        for job in itertools.chain([first], jobs):
            _run(job, study, store, slots, watch, console)


def _jobs(study: Study, book: Ledger, tracker: Tracker, console: Console) -> Iterator["Job"]:
    """What is left to do, one job after the other: each follows from what those before wrote into the ledger.

    The first look, which may drop backbones, then what the sweep is about, then the other members of a search's winner.
    """
    for stage in (_looks, _job, _members):
        job = stage(study, book, tracker, console)
        if job is not None:
            yield job


@dataclass(frozen=True)
class Job:
    """Trials to run.

    recipes : one for each set of pretrained weights that may be asked for
    frozen : one for each set of frozen features that may be
    done : trials that need not be run
    """

    plan: Plan
    recipes: list[Recipe]
    frozen: list[Recipe]
    recorder: "Recorder"
    done: int
    scheduler: tuning.FoldAsha | None = None


def _looks(study: Study, book: Ledger, tracker: Tracker, console: Console) -> Job | None:
    """The first look at the backbones; None where nothing of it is left."""
    looks, settled = study.sweep.looks, book.settled()
    trials = [(look, fold) for look in looks for fold in study.search_folds]
    todo = [(look, fold) for look, fold in trials if (look.candidate, fold) not in settled]
    if not todo:
        return None
    names = ", ".join(dict.fromkeys(look.backbone for look in looks))
    console.print(f"first look: {names}, frozen, on {len(study.search_folds)} folds", markup=False)
    recorder = Recorder(book, tracker, Leader(study.sweep.aggregate))
    done = len(trials) - len(todo)
    return Job(Grid(todo, study.sweep.resources.retries, done), looks, looks, recorder, done)


def _job(study: Study, book: Ledger, tracker: Tracker, console: Console) -> Job | None:
    """What the sweep is about; None where nothing is left."""
    results = list(book.results())
    look = screening.read(study.sweep, study.search_folds, book, results)
    if look is not None and look.dropped:
        console.print(f"first look: {', '.join(look.dropped)} dropped", markup=False)
        study = replace(study, sweep=study.sweep.without(look.dropped))
    settled = {result.key: result for result in results if result.status in SETTLED}
    mine = [one for one in screening.own(study.sweep, book, results) if one.key in settled]
    # Those of a first look too: a search may propose its recipe, which then has its trials already.
    predictions = book.table("predictions", settled.values())
    leader = Leader(study.sweep.aggregate)
    if len(predictions):
        leader.add(predictions[predictions[CANDIDATE].isin({one.candidate for one in mine})])
    recorder = Recorder(book, tracker, leader)
    plan = _plan(study, book, settled, predictions, recorder)
    if plan is None:
        return None
    scheduler = _scheduler(study, plan, book, settled)
    # Further members of an earlier winner are no trials of the race.
    first = study.sweep.space.seeds[0]
    done = [one for one in mine if isinstance(plan, Grid) or one.recipe.get("seed") == first]
    return Job(plan, study.recipes, study.sweep.frozen, recorder, len(done), scheduler)


def _members(study: Study, book: Ledger, tracker: Tracker, console: Console) -> Job | None:
    """The other members of a search's winner, on all folds; None where nothing of them is left."""
    sweep, others = study.sweep, study.sweep.space.seeds[1:]
    if not isinstance(sweep.search, Optuna) or not others:
        return None
    settled, proposals = book.settled(), book.proposals()
    measure = loss(sweep.search.objective, sweep.aggregate, book.table("predictions", settled.values()))
    folds = study.search_folds, study.confirm_folds
    ranking = Race.replay(sweep.search, *folds, measure, proposals, settled.values()).ranking
    if not ranking:
        return None
    winner = next(proposal.recipe for proposal in proposals if proposal.recipe.candidate == ranking[0])
    trials = [(replace(winner, seed=seed), fold.name) for seed in others for fold in study.trained_folds]
    todo = [(member, fold) for member, fold in trials if (member.candidate, fold) not in settled]
    if not todo:
        return None
    seeds = ", ".join(map(str, others))
    console.print(f"ensemble: {winner.candidate} with seeds {seeds}, on {len(study.trained_folds)} folds", markup=False)
    recorder, done = Recorder(book, tracker, Leader(sweep.aggregate)), len(trials) - len(todo)
    frozen = [winner] if winner.freeze == "all" else []
    return Job(Grid(todo, sweep.resources.retries, done), [winner], frozen, recorder, done)


def _run(job: Job, study: Study, store: TileStore, slots: Slots, watch: Watch, console: Console) -> None:
    features = _take_features(study.features(store.path, job.frozen), store, slots, watch, console)
    material = study.material(store)
    sizes = {recipe.image_size for recipe in job.recipes if recipe.freeze != "all"}  # heads see features alone
    material = replace(material, tiles={size: path for size, path in material.tiles.items() if size in sizes})
    bench = Bench(
        material,
        features,
        tiles_share=study.sweep.resources.tiles_on_device,
        evaluate_every=study.sweep.evaluate_every,
        aggregate=study.sweep.aggregate,
        samples=study.sweep.predict.samples,
    )
    exact = not isinstance(job.plan, Race)
    with Board(console, lambda: job.plan.at_most, job.done, job.recorder.leader.words, exact) as board:
        trainable = tuning.trainable(bench, job.recipes)
        tuning.run(job.plan, trainable, slots, [job.recorder, board], job.scheduler, watch)


def _take_features(
    wanted: Mapping[Recipe, Features], store: TileStore, slots: Slots, watch: Watch, console: Console
) -> dict[tuple[Any, ...], Path]:
    """Take the frozen features that the store lacks; where each set lies."""
    with features_progress(console) as progress:
        for recipe, features in wanted.items():
            if not features.path.exists():
                take = partial(cluster.features, recipe, store.file(int(recipe.image_size)).resolve(), slots, watch)
                features.write(len(store.table), take, partial(progress, f"{recipe.backbone}, {recipe.image_size} px"))
    return {recipe.features_key: features.path.resolve() for recipe, features in wanted.items()}


def _plan(
    study: Study,
    book: Ledger,
    settled: Mapping[tuple[str, str], Result],
    predictions: pd.DataFrame,
    recorder: "Recorder",
) -> Plan | None:
    """What is to be run; None where nothing is left.

    predictions : of the trials that are settled
    """
    settings, retries = study.sweep.search, study.sweep.resources.retries
    if not isinstance(settings, Optuna):
        todo = [(recipe, fold) for recipe, fold in study.trials if (recipe.candidate, fold) not in settled]
        return Grid(todo, retries, done=len(study.trials) - len(todo)) if todo else None
    proposer = Proposer(study.sweep.space, settings, study.sweep.seed)

    def propose(standings: Sequence[Standing]) -> Proposal | None:
        proposal = proposer.propose(standings)
        if proposal is not None:
            book.propose(proposal)
        return proposal

    known, measure = book.proposals(), loss(settings.objective, study.sweep.aggregate, predictions)
    folds = study.search_folds, study.confirm_folds
    if len(known) >= settings.candidates and Race.replay(settings, *folds, measure, known, settled.values()).finished:
        return None
    race = Race(propose, settings, *folds, measure, retries, known, settled.values())
    recorder.follow(race, Journal(book.out, study.sweep.study, proposer))
    return race


def _scheduler(
    study: Study, plan: Plan, book: Ledger, settled: Mapping[tuple[str, str], Result]
) -> tuning.FoldAsha | None:
    """ASHA with what it has seen already."""
    settings = study.sweep.search
    if not isinstance(plan, Race) or not isinstance(settings, Optuna) or settings.asha is None:
        return None
    scheduler = tuning.FoldAsha(settings.asha)
    scheduler.replay(
        (result.candidate, result.fold, history, result.status == "finished")
        for standing in plan.standings
        for fold in plan.stoppable_folds
        if (result := settled.get((standing.proposal.recipe.candidate, fold)))
        and (history := book.history(result)) is not None
    )
    return scheduler


class Leader:
    """Which candidate leads so far: of those with the most treatments predicted, who has the most right."""

    def __init__(self, how: metrics.How) -> None:
        self._how = how
        self._right: dict[str, int] = {}
        self._treatments: dict[str, int] = {}

    def add(self, predictions: pd.DataFrame) -> None:
        """Count finished trials, each by itself."""
        predictions = unknowns.known(predictions)
        if predictions.empty:
            return
        table = metrics.treatments(predictions, self._how, apart=True)
        right = table[metrics.PREDICTED] == table[LABEL]
        for candidate, own in right.groupby(table[CANDIDATE]):
            self._right[candidate] = self._right.get(candidate, 0) + int(own.sum())
            self._treatments[candidate] = self._treatments.get(candidate, 0) + len(own)

    def words(self) -> str:
        """The leading candidate in words."""
        if not self._right:
            return "no result yet"
        best = max(self._right, key=lambda name: (self._treatments[name], self._right[name]))
        return f"leading: {best}, {self._right[best]} of {self._treatments[best]} treatments right"


class Recorder:
    """A listener that writes what has ended for good into the ledger, and passes it on to MLflow."""

    def __init__(self, book: Ledger, tracker: Tracker, leader: Leader) -> None:
        self.leader = leader
        self._book = book
        self._tracker = tracker
        self._race: tuple[Race, Journal] | None = None

    def follow(self, race: Race, journal: Journal) -> None:
        """Keep Optuna's journal of a race, from now on."""
        self._race = race, journal
        journal.update(race.standings)

    def started(self, assignment: Assignment) -> None:
        """Nothing is recorded of a trial that has only begun, but that its candidate is there."""
        self._note()

    def epoch(self, assignment: Assignment, epoch: Mapping[str, Any]) -> None:
        """Nothing: the history comes with the result, whole."""

    def ended(self, result: Result, final: bool) -> None:
        """Record the trial, unless it will be tried again."""
        if final:
            self._book.write(result)
            if result.predictions is not None:
                self.leader.add(result.predictions)
            self._tracker.trial(result)
        self._note()

    def _note(self) -> None:
        if self._race is not None:
            race, journal = self._race
            journal.update(race.standings)


def _tracker(book: Ledger, sweep: Sweep, warn: Callable[[str], None]) -> Tracker:
    tracker = Tracker(book, sweep.tracking.experiment or sweep.study, sweep.tracking.uri, sweep.study, warn)
    tracker.begin(tracking.flat(sweep.model_dump(mode="json")))
    return tracker


def _hand_over(tracker: Tracker, written: report.Written) -> None:
    """Send the numbers and files of the recipes, then of the sweep."""
    with tempfile.TemporaryDirectory(prefix="moa_ray-") as scratch:
        for candidate in tracker.lacking(written.candidates):
            numbers, predictions, files = written.candidates[candidate]()
            table = Path(scratch, candidate, "predictions.parquet")
            table.parent.mkdir()
            predictions.to_parquet(table, index=False)
            tracker.candidate(candidate, numbers, [table, *files])
        best = written.summary["best"] or {}
        tracker.finish({name: best[name] for name in metrics.SCORES if best}, written.files, not written.finished)


def _as_typed() -> str:
    return shlex.join(["python", "-m", "moa_ray.sweep", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
