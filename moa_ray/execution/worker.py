"""Run the training process of one slot, and end it when another model must be compiled.

TensorFlow never gives back what it traced: measured with Keras 3.15 on TensorFlow, a network compiled in place of
another leaves about 200 MB behind, whatever is cleared and collected. A process that ends gives all of it back, on a
GPU too, and when the system kills it for want of memory, its worker is still there to report that as the outcome.
"""

import os
import signal
import tempfile
from typing import Any

from moa_ray.common import child_process
from moa_ray.config.recipe import Recipe
from moa_ray.execution.out_of_memory import tells_of_memory
from moa_ray.execution.trial_data import OUTCOME, PRETRAINED, Pretrained, Request, WorkerSettings
from moa_ray.tracking.results import Status

_LAST_WORDS = 2000  # bytes of stderr that are read when a process has ended


class Worker:
    """A training process, as the one who sends it trials sees it.

    Parameters
    ----------
    settings : WorkerSettings
        What the process works with.
    pretrained : callable
        Takes a backbone, its weights and an image size in pixels, and returns the arrays of the backbone's weights.
    """

    def __init__(self, settings: WorkerSettings, pretrained: Pretrained) -> None:
        self._settings, self._pretrained = settings, pretrained
        self._signature: tuple[Any, ...] | None = None
        self._start_process()

    def start(self, recipe: Recipe, fold: str, whole: bool = False) -> None:
        """Take the next trial; a process that has compiled another model is replaced by a new one.

        Parameters
        ----------
        recipe : Recipe
            The hyperparameters.
        fold : str
            Name of the fold.
        whole : bool
            Whether a step trains all epochs.
        """
        if self._signature not in (None, recipe.signature):
            self.close()
            self._start_process()
        self._signature = recipe.signature
        self._request: Request | None = (recipe, fold, whole)

    def step(self) -> dict[str, Any]:
        """Train one epoch, or all of them; after the last one the held-out tiles are predicted.

        Returns
        -------
        dict of str to Any
            Under `EPOCH` the figures of the epoch, and under `OUTCOME`, once the trial has ended, its status,
            predictions and history. An error in training, and a process that is lost, are outcomes too.
        """
        try:
            self._connection.send(self._request)
            self._request = None
            while True:
                kind, content = self._connection.recv()
                if kind != PRETRAINED:
                    break
                self._connection.send(self._pretrained(*content))
            result: dict[str, Any] = content
        except (EOFError, OSError):
            result = {OUTCOME: _lost(self._process.wait(), self._last_words())}
        if result.get(OUTCOME, {}).get("status") in ("crashed", "out_of_memory"):
            # A process in which something failed is not trusted with the next trial.
            self.close()
            self._start_process()
        return result

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._stderr.close()

    def _start_process(self) -> None:
        self._signature = None
        threads = str(self._settings.cpus)
        environment = {
            "OMP_NUM_THREADS": threads,
            "TF_NUM_INTRAOP_THREADS": threads,
            "TF_NUM_INTEROP_THREADS": "1",
        }
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - it is open as long as the process lives
        self._process, self._connection = child_process.begin(
            "moa_ray.execution.session", environment, stderr=self._stderr
        )
        self._connection.send(self._settings)

    def _last_words(self) -> str:
        """Return the end of what the process wrote on stderr, where C++ says why it aborts."""
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - _LAST_WORDS))
        return self._stderr.read().decode(errors="replace").strip()


def _lost(status: int, last_words: str = "") -> dict[str, Any]:
    """Return the outcome of a trial whose process has ended, with what it wrote on stderr."""
    if status == -signal.SIGKILL:
        text = (
            "the training process was killed, as the system does where memory runs out; give a trial fewer neighbours"
        )
        return {"status": "out_of_memory", "error": f"{text} (resources.concurrent) or a smaller batch_size"}
    kind: Status = "out_of_memory" if tells_of_memory(last_words) else "crashed"
    return {"status": kind, "error": f"the training process ended with status {status}\n{last_words}".strip()}
