"""Run a study: prepare its tiles, run the trials that its ledger lacks, report.

The driver owns all state. What is left to do follows from the ledger (`moa_ray.stages`), so a study that was killed
goes on where it was.
"""

import itertools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from moa_ray import cli, stages
from moa_ray.common import text
from moa_ray.config.recipe import Recipe
from moa_ray.config.sweep_file import Sweep
from moa_ray.execution import cluster, frozen_features, preparers, tune
from moa_ray.execution.callbacks import ProgressCallback
from moa_ray.execution.capacity import Slots
from moa_ray.execution.trial_data import WorkerSettings
from moa_ray.execution.watch import Watch
from moa_ray.progress import features_progress, field_progress
from moa_ray.reporting import write
from moa_ray.search.race import Race
from moa_ray.statistics import scores
from moa_ray.study import Study
from moa_ray.tiles.features import FrozenFeatures
from moa_ray.tiles.store import TileStore
from moa_ray.tracking.bucket_sync import BucketSync
from moa_ray.tracking.ledger import Ledger
from moa_ray.tracking.tracker import Tracker


def run(study: Study, bucket_sync: BucketSync, address: str | None, console: Console, command: str) -> write.Written:
    """Prepare the tiles, run the trials that the ledger lacks, and write the report.

    Parameters
    ----------
    study : Study
        A study without errors.
    bucket_sync : BucketSync
        OUT as this machine works on it.
    address : str, optional
        A Ray cluster; by default this machine alone.
    console : Console
        Where progress and warnings are shown.
    command : str
        What started the sweep, for the report.

    Returns
    -------
    Written

    Raises
    ------
    InputError
        If OUT holds another sweep, or no node can ever run a trial.
    StuckError
        If the cluster cannot go on.
    """
    warn = partial(cli.warn, console)
    # A cluster that cannot hold the trials is not asked for hours of tiles first.
    check = partial(cluster.slots, study.sweep.resources, study.sweep.backbones, address)
    with field_progress(console) as progress, preparers.field_executor(address, study.screen, warn, check) as executor:
        store = study.prepare(progress, executor)
    ledger = Ledger(study.sweep.out, bucket_sync.send)
    ledger.open(study.sweep, study.record(store, command))
    bucket_sync.claim()
    tracker = _tracker(ledger, study.sweep, warn)
    try:
        _run_stages(study, store, ledger, tracker, address, console)
        written = write.write(study.sweep.out)
        _hand_over(tracker, written)
    except BaseException:
        tracker.interrupt()
        raise
    return written


def _run_stages(
    study: Study, store: TileStore, ledger: Ledger, tracker: Tracker, address: str | None, console: Console
) -> None:
    """Run the trials that the ledger lacks; start no Ray where there is none."""
    jobs = stages.jobs(study, ledger, tracker, console)
    first = next(jobs, None)
    if first is None:
        return
    with cluster.connect(address):
        slots = cluster.slots(study.sweep.resources, study.sweep.backbones, address)
        watch = Watch(partial(cluster.capacity, address), partial(console.print, markup=False), slots.patience)
        for job in itertools.chain([first], jobs):
            _run_job(job, study, store, slots, watch, console)


def _run_job(job: stages.Job, study: Study, store: TileStore, slots: Slots, watch: Watch, console: Console) -> None:
    features = _take_features(study.frozen_features(store.path, job.frozen), store, slots, watch, console)
    trial_data = study.trial_data(store)
    sizes = {recipe.image_size for recipe in job.recipes if not recipe.is_linear_probe}  # heads see features alone
    trial_data = replace(trial_data, tiles={size: path for size, path in trial_data.tiles.items() if size in sizes})
    settings = WorkerSettings(
        trial_data,
        features,
        tiles_share=study.sweep.resources.tiles_on_device,
        evaluate_every=study.sweep.evaluate_every,
        aggregate=study.sweep.aggregate,
        samples=study.sweep.predict.samples,
    )
    exact = not isinstance(job.plan, Race)
    with ProgressCallback(
        console, lambda: job.plan.at_most, job.done, job.ledger_callback.leader.words, exact
    ) as progress:
        trainable = tune.trainable(settings, job.recipes)
        tune.run(job.plan, trainable, slots, [job.ledger_callback, progress], job.scheduler, watch)


def _take_features(
    wanted: Mapping[Recipe, FrozenFeatures], store: TileStore, slots: Slots, watch: Watch, console: Console
) -> dict[tuple[Any, ...], Path]:
    """Take the frozen features that the store lacks, and return where each set lies."""
    with features_progress(console) as progress:
        for recipe, features in wanted.items():
            if not features.path.exists():
                take = partial(
                    frozen_features.extract, recipe, store.file(int(recipe.image_size)).resolve(), slots, watch
                )
                features.write(len(store.table), take, partial(progress, f"{recipe.backbone}, {recipe.image_size} px"))
    return {recipe.features_key: features.path.resolve() for recipe, features in wanted.items()}


def _tracker(ledger: Ledger, sweep: Sweep, warn: Callable[[str], None]) -> Tracker:
    tracker = Tracker(ledger, sweep.tracking.experiment or sweep.study, sweep.tracking.uri, sweep.study, warn)
    tracker.begin(text.flat(sweep.model_dump(mode="json")))
    return tracker


def _hand_over(tracker: Tracker, written: write.Written) -> None:
    """Send the numbers and files of the candidates, then of the sweep."""
    with tempfile.TemporaryDirectory(prefix="moa_ray-") as scratch:
        for candidate in tracker.lacking(written.candidates):
            numbers, predictions, files = written.candidates[candidate]()
            table = Path(scratch, candidate, "predictions.parquet")
            table.parent.mkdir()
            predictions.to_parquet(table, index=False)
            tracker.candidate(candidate, numbers, [table, *files])
        best = written.summary["best"] or {}
        tracker.finish({name: best[name] for name in scores.SCORES if best}, written.files, not written.finished)
