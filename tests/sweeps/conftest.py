"""What the tests of whole sweeps share: the sweeps of a file run in this process, on one Ray, and draw no figures.

That saves each sweep the imports, a start of Ray and most of its report. What only a process of its own shows (exit
status, signals, kills, the drawn report) is tested by the command line, see `tests/commands.py`.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from commands import draw_nothing


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """Connect this process to a Ray that all sweeps of the file run on."""
    from moa_ray.execution import cluster

    with cluster.connect(None):
        yield


@pytest.fixture(scope="module", autouse=True)
def undrawn_sweeps() -> Iterator[None]:
    """Make the figures of the sweeps of this process, but don't render them."""
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        yield


class NoTracker:
    """A tracker that keeps no runs, and so needs no process."""

    def __init__(self, *settings: Any) -> None:
        pass

    def begin(self, *parameters: Any) -> None:
        """As where MLflow's runs are kept."""

    trial = candidate = finish = interrupt = begin

    def lacking(self, candidates: Iterable[str]) -> list[str]:
        """No candidate lacks its run."""
        return []


@pytest.fixture(scope="module")
def quick_trials() -> Iterator[None]:
    """Train a softmax regression in place of each network, in milliseconds; see `tests/quick.py`."""
    with quickly():
        yield


@pytest.fixture
def quick_trials_here() -> Iterator[None]:
    """The same for one test."""
    with quickly():
        yield


@contextmanager
def quickly() -> Iterator[None]:
    """Put such trials in the place of the networks'."""
    import quick
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(quick)  # Ray's workers need not find the module
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moa_ray.execution.tune.FoldTrainable", quick.QuickTrainable)
        yield


@pytest.fixture(scope="module")
def untracked() -> Iterator[None]:
    """Keep no MLflow runs of the sweeps of this process; what they hold, others test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moa_ray.orchestration.Tracker", NoTracker)
        yield
