"""What MLflow shows of a sweep, as the driver sees it.

A process of its own keeps the runs (see `moa_ray.runs`), so that a slow or absent server never holds up training and
sending takes no time from the driver. What could not be sent is sent from the ledger at the next start.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moa_ray import process
from moa_ray.ledger import Ledger, Result

LAST = ("finish", "interrupt")  # after one of these no more is asked
WARNING, ANSWER, END = "warning", "answer", "end"  # what the process says


@dataclass(frozen=True)
class Setting:
    """Which runs are kept where.

    study : the name of the sweep's run
    """

    out: Path
    uri: str
    experiment: str
    study: str


def uri(out: Path, configured: str | None) -> str:
    """The tracking URI: the configured one, else SQLite in OUT."""
    return configured or f"sqlite:///{(out / 'mlflow.db').resolve()}"


def ui_command(out: Path, configured: str | None) -> str:
    """The command that shows the runs; of a server, which shows them itself, its address."""
    store = uri(out, configured)
    return store if store.startswith("http") else f"mlflow ui --backend-store-uri {store}"


class Tracker:
    """Passes on what the ledger holds; only `lacking`, `finish` and `interrupt` wait.

    warn : called with a sentence when MLflow cannot be reached, once
    """

    def __init__(
        self, ledger: Ledger, experiment: str, configured: str | None, study: str, warn: Callable[[str], None]
    ) -> None:
        self._warn = warn
        self._over = self._warned = False
        self._process, self._connection = process.begin("moa_ray.runs", {})
        self._send(Setting(ledger.out.resolve(), uri(ledger.out, configured), experiment, study))

    def begin(self, parameters: Mapping[str, Any]) -> None:
        """Create the store, find the runs that are there, and send what the ledger holds and MLflow lacks."""
        self._ask("begin", dict(parameters))

    def trial(self, result: Result) -> None:
        """Send one trial."""
        self._ask("trial", dataclasses.replace(result, predictions=None, samples=None))

    def lacking(self, candidates: Iterable[str]) -> list[str]:
        """The candidates of which not all is sent, once all that was asked before is done; none without MLflow."""
        self._ask("lacking", list(candidates))
        return self._wait(ANSWER) or []

    def candidate(self, candidate: str, metrics: Mapping[str, float], artifacts: Iterable[Path]) -> None:
        """Send what a recipe reached over its folds."""
        self._ask("summary", (candidate,), dict(metrics), list(artifacts), "FINISHED")

    def finish(self, metrics: Mapping[str, float], artifacts: Iterable[Path], failed: bool = False) -> bool:
        """Send the sweep's own numbers and files, end its run, and wait until all is sent; False if MLflow was down."""
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
        """Hear what is said until it is of a kind; None where there will be none."""
        while not self._over:
            kind, value = self._hear()
            if kind == wanted:
                return value
        return None

    def _end(self) -> bool:
        """Wait until all is done; whether all was sent."""
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


def flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted names."""
    values: dict[str, Any] = {}
    for key, value in plain.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return values
