"""Sweep a screen: recipes on folds, searched or all of a grid, recorded, scored and reported.

    python -m moa_ray.sweep SWEEP.yaml [KEY=VALUE ...] [--plan] [--address ADDRESS] [--fresh]

The same command run again does only what is missing.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from moa_ray import cluster, command, ledger, metrics, report, spec, tracking, tuning
from moa_ray.ledger import Ledger, Proposal, Result
from moa_ray.progress import Board, field_progress
from moa_ray.proposals import Journal, Proposer
from moa_ray.race import Assignment, Grid, Plan, Race, Standing, loss
from moa_ray.spec import Optuna, Sweep
from moa_ray.study import Material, Study
from moa_ray.tables import LABEL
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
    """Load, open, plan, prepare, search, report."""
    console = Console(highlight=False, soft_wrap=True)
    sweep = spec.load(arguments.sweep, arguments.overrides)
    if arguments.fresh:
        sweep = sweep.model_copy(update={"out": ledger.fresh(sweep.out)})
    study = Study.open(sweep)
    if arguments.plan:
        print(study.describe())
        return command.DONE
    study.require_sound()

    def warn(sentence: str) -> None:
        console.print(f"warning: {sentence}", markup=False)

    for warning in study.warnings:
        warn(warning)
    with field_progress(console) as progress, cluster.preparers(arguments.address, study.screen, warn) as crew:
        store = study.prepare(progress, crew)
    book = Ledger(sweep.out)
    book.open(sweep, study.record(store, _as_typed()))
    tracker = _tracker(book, sweep, console)
    try:
        _search(study, study.material(store), book, tracker, arguments.address, console)
        written = report.write(sweep.out)
        _hand_over(tracker, written)
    except BaseException:
        tracker.interrupt()
        raise
    console.print(written.headline, markup=False)
    console.print(
        f"report: {sweep.out / 'report.html'}\nruns:   {tracking.ui_command(sweep.out, sweep.tracking.uri)}",
        markup=False,
    )
    return command.DONE if written.finished else command.FAILED


def _search(
    study: Study, material: Material, book: Ledger, tracker: Tracker, address: str | None, console: Console
) -> None:
    """Run the trials that the ledger lacks."""
    settled = {key: book.load(result) for key, result in book.settled().items()}
    leader = Leader(study.sweep.aggregate)
    for result in settled.values():
        leader.add(result)
    recorder = Recorder(book, tracker, leader)
    plan = _plan(study, book, settled, recorder)
    if plan is None:
        return
    resources = study.sweep.resources
    board = Board(console, lambda: plan.at_most, done=len(settled), best=leader.words, exact=not isinstance(plan, Race))
    with cluster.connect(address), board:
        slots = cluster.slots(resources.cpus, resources.gpus, resources.concurrent, open_cluster=address is not None)
        trainable = tuning.trainable(Bench(material, tiles_share=resources.tiles_on_device), study.recipes, slots)
        tuning.run(plan, trainable, slots, [recorder, board], _scheduler(study, plan, settled))


def _plan(study: Study, book: Ledger, settled: Mapping[tuple[str, str], Result], recorder: "Recorder") -> Plan | None:
    """What is to be run; None where nothing is left."""
    settings, retries = study.sweep.search, study.sweep.resources.retries
    if not isinstance(settings, Optuna):
        todo = [(recipe, fold) for recipe, fold in study.trials if (recipe.candidate, fold) not in settled]
        return Grid(todo, retries, done=len(settled)) if todo else None
    proposer = Proposer(study.sweep.space, settings, study.sweep.seed)

    def propose(standings: Sequence[Standing]) -> Proposal | None:
        proposal = proposer.propose(standings)
        if proposal is not None:
            book.propose(proposal)
        return proposal

    known, measure = book.proposals(), loss(settings.objective, study.sweep.aggregate)
    folds = study.search_folds, study.confirm_folds
    if len(known) >= settings.candidates and Race.replay(settings, *folds, measure, known, settled.values()).finished:
        return None
    race = Race(propose, settings, *folds, measure, retries, known, settled.values())
    recorder.follow(race, Journal(book.out, study.sweep.study, proposer))
    return race


def _scheduler(study: Study, plan: Plan, settled: Mapping[tuple[str, str], Result]) -> tuning.FoldAsha | None:
    """ASHA with what it has seen already."""
    settings = study.sweep.search
    if not isinstance(plan, Race) or not isinstance(settings, Optuna) or settings.asha is None:
        return None
    scheduler = tuning.FoldAsha(settings.asha)
    scheduler.replay(
        (result.candidate, result.fold, result.history, result.status == "finished")
        for standing in plan.standings
        for fold in plan.stoppable_folds
        if (result := settled.get((standing.proposal.recipe.candidate, fold))) and result.history is not None
    )
    return scheduler


class Leader:
    """Which candidate leads so far: of those with the most treatments predicted, who has the most right."""

    def __init__(self, how: metrics.How) -> None:
        self._how = how
        self._right: dict[str, int] = {}
        self._treatments: dict[str, int] = {}

    def add(self, result: Result) -> None:
        """Count one finished trial."""
        if result.predictions is None:
            return
        table = metrics.treatments(result.predictions, self._how)
        right = int((table["predicted"] == table[LABEL]).sum())
        self._right[result.candidate] = self._right.get(result.candidate, 0) + right
        self._treatments[result.candidate] = self._treatments.get(result.candidate, 0) + len(table)

    def words(self) -> str:
        """The leading candidate in words."""
        if not self._right:
            return "no result yet"
        best = max(self._right, key=lambda name: (self._treatments[name], self._right[name]))
        return f"leading: {best}, {self._right[best]} of {self._treatments[best]} treatments right"


class Recorder:
    """A listener that writes what has ended for good into the ledger, and passes it on to MLflow."""

    def __init__(self, book: Ledger, tracker: Tracker, leader: Leader) -> None:
        self._book = book
        self._tracker = tracker
        self._leader = leader
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
            self._leader.add(result)
            self._tracker.trial(result)
        self._note()

    def _note(self) -> None:
        if self._race is not None:
            race, journal = self._race
            journal.update(race.standings)


def _tracker(book: Ledger, sweep: Sweep, console: Console) -> Tracker:
    def warn(sentence: str) -> None:
        console.print(f"warning: {sentence}", markup=False)

    tracker = Tracker(book, sweep.tracking.experiment or sweep.study, sweep.tracking.uri, sweep.study, warn)
    tracker.begin(tracking.flat(sweep.model_dump(mode="json")))
    return tracker


def _hand_over(tracker: Tracker, written: report.Written) -> None:
    """Send the numbers and files of the recipes, then of the sweep."""
    with tempfile.TemporaryDirectory(prefix="moa_ray-") as scratch:
        for candidate, (numbers, predictions, files) in written.candidates.items():
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
