"""What MLflow shows of a sweep, as the driver sees it.

A process of its own keeps the runs (see `moa_ray.tracking.mlflow_runs`), so that a slow or absent server never holds up
training and sending takes no time from the driver. What could not be sent is sent from the ledger at the next start.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moa_ray.common import child_process
from moa_ray.tracking.ledger import Ledger
from moa_ray.tracking.results import Result

LAST = ("finish", "interrupt")  # after one of these no more is asked
WARNING, ANSWER, END = "warning", "answer", "end"  # what the process says


def tracking_uri(out: Path, configured: str | None) -> str:
    """Return MLflow's tracking URI.

    Parameters
    ----------
    out : Path
        OUT, on this machine.
    configured : str or None
        ``tracking.uri`` of the sweep file.

    Returns
    -------
    str
        The configured one, else of an SQLite file in OUT.
    """
    return configured or f"sqlite:///{(out / 'mlflow.db').resolve()}"


@dataclass(frozen=True)
class Setting:
    """Which runs are kept where.

    Attributes
    ----------
    out : Path
        OUT, on this machine.
    uri : str
        MLflow's tracking URI.
    experiment : str
        Name of MLflow's experiment.
    study : str
        Name of the sweep's run.
    """

    out: Path
    uri: str
    experiment: str
    study: str


def ui_command(out: Path, configured: str | None) -> str:
    """Return the command that shows the runs.

    Parameters
    ----------
    out : Path
        OUT, on this machine.
    configured : str or None
        ``tracking.uri`` of the sweep file.

    Returns
    -------
    str
        Of a server, which shows them itself, its address.
    """
    store = tracking_uri(out, configured)
    return store if store.startswith("http") else f"mlflow ui --backend-store-uri {store}"


class Tracker:
    """Passes on what the ledger holds; only `lacking`, `finish` and `interrupt` wait.

    Parameters
    ----------
    ledger : Ledger
        The sweep's ledger.
    experiment : str
        Name of MLflow's experiment.
    configured : str or None
        ``tracking.uri`` of the sweep file.
    study : str
        Name of the sweep's run.
    warn : callable
        Called with a sentence when MLflow cannot be reached, once.
    """

    def __init__(
        self, ledger: Ledger, experiment: str, configured: str | None, study: str, warn: Callable[[str], None]
    ) -> None:
        self._warn = warn
        self._over = self._warned = False
        self._process, self._connection = child_process.begin("moa_ray.tracking.mlflow_runs", {})
        self._send(Setting(ledger.out.resolve(), tracking_uri(ledger.out, configured), experiment, study))

    def begin(self, parameters: Mapping[str, Any]) -> None:
        """Create the store, find the runs that are there, and send what the ledger holds and MLflow lacks.

        Parameters
        ----------
        parameters : mapping of str to Any
            Settings of the sweep, by dotted keys.
        """
        self._ask("begin", dict(parameters))

    def trial(self, result: Result) -> None:
        """Send one trial.

        Parameters
        ----------
        result : Result
            As the ledger has it.
        """
        self._ask("trial", dataclasses.replace(result, predictions=None, samples=None))

    def lacking(self, candidates: Iterable[str]) -> list[str]:
        """Return the candidates of which not all is sent, once all that was asked before is done.

        Parameters
        ----------
        candidates : iterable of str
            Names of candidates, ensembles or members.

        Returns
        -------
        list of str
            Empty where MLflow cannot be reached.
        """
        self._ask("lacking", list(candidates))
        return self._wait(ANSWER) or []

    def candidate(self, candidate: str, metrics: Mapping[str, float], artifacts: Iterable[Path]) -> None:
        """Send what a recipe reached over its folds.

        Parameters
        ----------
        candidate : str
            Name of the candidate.
        metrics : mapping of str to float
            Its scores.
        artifacts : iterable of Path
            Files that belong to it.
        """
        self._ask("summary", (candidate,), dict(metrics), list(artifacts), "FINISHED")

    def finish(self, metrics: Mapping[str, float], artifacts: Iterable[Path], failed: bool = False) -> bool:
        """Send the sweep's own numbers and files, end its run, and wait until all is sent.

        Parameters
        ----------
        metrics : mapping of str to float
            Scores of the best candidate.
        artifacts : iterable of Path
            Files of the report.
        failed : bool
            Whether trials are missing or failed.

        Returns
        -------
        bool
            False if MLflow was not reached.
        """
        self._ask("finish", dict(metrics), list(artifacts), "FAILED" if failed else "FINISHED")
        return self._end()

    def interrupt(self) -> None:
        """End the open runs as killed; the next start takes them up again."""
        self._ask("interrupt")
        self._end()

    def _ask(self, name: str, *arguments: Any) -> None:
        # Before it is sent: what comes after may be the answer, and somebody waits for that.
        while not self._over and self._connection.poll():
            self._hear()
        self._send((name, arguments))

    def _send(self, value: Any) -> None:
        if not self._over:
            try:
                self._connection.send(value)
            except OSError:
                self._lose()

    def _wait(self, wanted: str) -> Any:
        """Receive messages until one is of a kind; None where there will be none."""
        while not self._over:
            kind, value = self._hear()
            if kind == wanted:
                return value
        return None

    def _end(self) -> bool:
        """Wait until all is done, and tell whether all was sent."""
        self._wait(END)
        self._over = True
        self._connection.close()
        self._process.wait()
        return not self._warned

    def _hear(self) -> tuple[str, Any]:
        try:
            kind, value = self._connection.recv()
        except (EOFError, OSError):
            self._lose()
            return WARNING, None
        if kind == WARNING:
            self._warned = True
            self._warn(value)
        return kind, value

    def _lose(self) -> None:
        self._over = self._warned = True
        self._warn(
            f"The process that keeps MLflow's runs ended with status {self._process.wait()}. Training goes on; "
            "the ledger keeps everything, and the next start of the same command sends what is missing"
        )
