"""The process that keeps MLflow's runs: the only module that imports MLflow.

MLflow's runs are a view of the ledger. Each run is tagged with the study's id, its candidate and its fold, so that a
restart finds the runs that are there and makes none twice. A run's end is sent last, so that one that was not
sent whole is completed at the next start.
"""

import gc
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from moa_ray.common import child_process
from moa_ray.common.text import flat
from moa_ray.config.recipe import Recipe
from moa_ray.tracking.ledger import Ledger
from moa_ray.tracking.results import Result, TrialKind
from moa_ray.tracking.tracker import ANSWER, END, LAST, WARNING, Setting

# MLflow reads these when it is imported and when it sends. Two quick tries, then training goes on without it.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a run, where there is a server

# Tags by which a restart knows its runs.
_STUDY, _CANDIDATE, _FOLD = "moa_ray.study", "moa_ray.candidate", "moa_ray.fold"
_PARENT = "mlflow.parentRunId"

_Key = tuple[str, ...]  # () the sweep, (candidate,), (candidate, fold)
_Point = tuple[str, float, int]  # a metric's name, its value, the step


def main() -> None:
    """Serve requests from the driver, in their order, until the last one is done or the connection closes."""
    # A job that is stopped is sent it in all its processes. It is the driver's to act on: that has runs to end yet.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection = child_process.connection_to_parent()
    if connection is None:
        return
    # Ten thousand runs that were found are a million objects: looking for garbage among them takes half the time.
    gc.set_threshold(100_000, 20, 100)
    # What comes is taken at once and waits here, so that the driver never does.
    sender = ThreadPoolExecutor(max_workers=1)
    try:
        runs = Runs(connection.recv(), lambda sentence: connection.send((WARNING, sentence)))
        name = ""
        while name not in LAST:
            name, arguments = connection.recv()
            answer = sender.submit(runs.do, name, *arguments)
            if name == "lacking":
                connection.send((ANSWER, answer.result()))
        sender.shutdown(wait=True)
        connection.send((END, None))
    except (EOFError, OSError):  # the driver has given up
        sender.shutdown(cancel_futures=True)


@dataclass
class _Sent:
    """What MLflow holds of a run."""

    run_id: str
    status: str
    parameters: frozenset[str]


class Runs:
    """The runs of one sweep: a parent for the sweep, a child a recipe, a grandchild a fold.

    Of an ensemble each member has a run with its folds, and the ensemble one beside them without.

    Parameters
    ----------
    setting : Setting
        Which runs are kept where.
    warn : callable
        Called once with a sentence when MLflow cannot be reached.
    """

    def __init__(self, setting: Setting, warn: Callable[[str], None]) -> None:
        self._setting = setting
        self._ledger = Ledger(setting.out)
        self._warn = warn
        self._down = False
        self._runs: dict[_Key, _Sent] = {}
        self._names: dict[frozenset[str], frozenset[str]] = {}

    def do(self, name: str, *arguments: Any) -> Any:
        """Call a method by its name; once MLflow was not reached nothing is tried any more.

        Parameters
        ----------
        name : str
            Name of a method of this class.
        *arguments : Any
            Its arguments.

        Returns
        -------
        Any
            What it returns; None where MLflow is not reached.
        """
        if self._down:
            return None
        try:
            return getattr(self, name)(*arguments)
        except Exception as error:  # MLflow, its store and its HTTP client each raise their own
            self._down = True
            first_line = str(error).strip().partition("\n")[0][:200]
            reason = f"{type(error).__name__}: {first_line}"
            self._warn(
                f"MLflow at {self._setting.uri} cannot be reached ({reason}). Training goes on; the "
                "ledger keeps everything, and the next start of the same command sends what is missing"
            )
            return None

    def begin(self, parameters: Mapping[str, Any]) -> None:
        """Create the store, find the runs that are there, and send what the ledger holds and MLflow lacks.

        Parameters
        ----------
        parameters : mapping of str to Any
            Settings of the sweep, by dotted keys.
        """
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        uri, experiment = self._setting.uri, self._setting.experiment
        # A server has a place for artifacts; a bare database would put them into whatever folder we are in.
        bare = uri.startswith("sqlite:")
        artifacts = (self._setting.out / "mlartifacts").resolve().as_uri() if bare else None
        self._client = MlflowClient(tracking_uri=uri)
        mlflow.set_tracking_uri(uri)  # where artifacts go is looked up globally
        existing = self._client.get_experiment_by_name(experiment)
        self._experiment_id = (
            existing.experiment_id if existing else self._client.create_experiment(experiment, artifacts)
        )
        self._study_id = self._ledger.study()["id"]
        self._find_runs()
        self._open((), self._setting.study, parameters)
        for result in self._ledger.results():
            self.trial(result)

    def trial(self, result: Result) -> None:
        """Send one trial.

        Parameters
        ----------
        result : Result
            As the ledger has it.
        """
        # A run that ended as the ledger says it did was sent whole: its end is sent last.
        status = "FINISHED" if result.status in ("finished", "stopped") else "FAILED"
        if result.key in self._runs and self._runs[result.key].status == status:
            return
        recipe = flat(result.recipe)
        name = result.candidate
        if result.kind is TrialKind.LINEAR_PROBE:
            name = f"linear probe: {result.candidate}"
        if result.kind is TrialKind.ENSEMBLE_MEMBER:
            name = self._open_ensemble(Recipe.from_dict(result.recipe))
        self._open((result.candidate,), name, recipe)
        tags = {"moa_ray.status": result.status, **({"moa_ray.error": result.error[:5000]} if result.error else {})}
        totals = [("total_seconds", result.seconds, 0), ("epochs_trained", float(result.epochs), 0)]
        points = [*_epoch_metrics(self._ledger.history(result)), *totals]
        self._open(result.key, result.fold, {"fold": result.fold, **recipe}, tags, points)
        self._end(result.key, status)

    def _open_ensemble(self, member: Recipe) -> str:
        """Open the run of a member's ensemble, for the report's numbers; return the name of the member's own run."""
        ensemble = member.ensemble
        key = (ensemble.candidate,)
        if key not in self._runs or self._runs[key].status != "RUNNING":
            self._open(key, ensemble.candidate, flat(ensemble.as_dict()))
        return f"{ensemble.candidate}, seed {member.seed}"

    def lacking(self, candidates: list[str]) -> list[str]:
        """Return the candidates whose runs have not ended.

        Parameters
        ----------
        candidates : list of str
            Names of candidates, ensembles or members.

        Returns
        -------
        list of str
            Those that have a run that is not finished.
        """
        return [name for name in candidates if (name,) in self._runs and self._runs[(name,)].status != "FINISHED"]

    def summary(self, key: _Key, metrics: Mapping[str, float], artifacts: list[Path], status: str) -> None:
        """Send what a recipe reached over its folds, or the sweep's own numbers and files, and end the run.

        Parameters
        ----------
        key : tuple of str
            ``(candidate,)``, or ``()`` for the sweep.
        metrics : mapping of str to float
            Scores; what is not finite is left out.
        artifacts : list of Path
            Files to send.
        status : {"FINISHED", "FAILED"}
            How the run ends.
        """
        if key not in self._runs or self._runs[key].status == status:
            return
        run_id = self._runs[key].run_id
        self._client.log_batch(run_id, metrics=_metrics((name, value, 0) for name, value in metrics.items()))
        for path in artifacts:
            self._client.log_artifact(run_id, str(path))
        self._end(key, status)

    def finish(self, metrics: Mapping[str, float], artifacts: list[Path], status: str) -> None:
        """Send the sweep's own numbers and files and end its run, as the last thing that is asked.

        Parameters
        ----------
        metrics : mapping of str to float
            Scores of the best candidate.
        artifacts : list of Path
            Files of the report.
        status : {"FINISHED", "FAILED"}
            How the run ends.
        """
        self.summary((), metrics, artifacts, status)

    def interrupt(self) -> None:
        """End the open runs as killed; the next start takes them up again."""
        for key, sent in self._runs.items():
            if sent.status == "RUNNING":
                self._end(key, "KILLED")

    def _find_runs(self) -> None:
        token = None
        while True:
            of_study = f"tags.`{_STUDY}` = '{self._study_id}'"
            page = self._client.search_runs([self._experiment_id], of_study, max_results=1000, page_token=token)
            for run in page:
                key = tuple(run.data.tags[tag] for tag in (_CANDIDATE, _FOLD) if tag in run.data.tags)
                self._runs[key] = _Sent(run.info.run_id, run.info.status, self._shared(frozenset(run.data.params)))
            token = page.token
            if not token:
                return

    def _open(
        self,
        key: _Key,
        name: str,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        points: Iterable[_Point] = (),
    ) -> None:
        """Begin the run of a key where there is none, take it up again where it had ended, and send what it lacks.

        As few calls as there can be: each is a transaction.
        """
        tags = dict(tags or {})
        sent = self._runs.get(key)
        if sent is None:
            tags |= {_STUDY: self._study_id, **dict(zip((_CANDIDATE, _FOLD), key, strict=False))}
            if key:
                tags[_PARENT] = self._runs[key[:-1]].run_id
            run = self._client.create_run(self._experiment_id, run_name=name, tags=tags)
            sent = self._runs[key] = _Sent(run.info.run_id, "RUNNING", frozenset())
            tags = {}
        elif sent.status != "RUNNING":
            self._client.update_run(sent.run_id, status="RUNNING")
            sent.status = "RUNNING"
        new = {name: str(value)[:6000] for name, value in parameters.items() if name not in sent.parameters}
        self._client.log_batch(
            sent.run_id,
            params=[Param(name, value) for name, value in new.items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
            metrics=_metrics(points),
        )
        sent.parameters = self._shared(sent.parameters.union(new))

    def _shared(self, names: frozenset[str]) -> frozenset[str]:
        """The same names, kept once for all runs that have them."""
        return self._names.setdefault(names, names)

    def _end(self, key: _Key, status: str) -> None:
        self._client.set_terminated(self._runs[key].run_id, status=status)
        self._runs[key].status = status


def _metrics(points: Iterable[_Point]) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(name, value, now, step) for name, value, step in points if math.isfinite(value)]


def _epoch_metrics(history: pd.DataFrame | None) -> list[_Point]:
    if history is None:
        return []
    epochs = history.astype(float).to_dict("records")
    return [(str(name), row[name], int(row["epoch"])) for row in epochs for name in row if name != "epoch"]


if __name__ == "__main__":
    main()
