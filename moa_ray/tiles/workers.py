"""Spread the fields of a screen over workers, and count the fields that are done.

The executor of this machine is here; that of a cluster is `moa_ray.execution.preparers.ClusterExecutor`.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

from moa_ray.common.errors import InputError
from moa_ray.common.uri import Place
from moa_ray.screens.screen import Screen
from moa_ray.tiles.pixels import advice

_SHOWN_REASONS = 10

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")
_Begun = TypeVar("_Begun")


class FieldExecutor(Protocol):
    """Workers that the fields of a screen are spread over."""

    def root(self, screen: Screen) -> Place:
        """Return where the workers read the screen's files.

        Parameters
        ----------
        screen : Screen
            The screen.

        Returns
        -------
        Path or Uri
            The folder that the locations of its fields are relative to.
        """

    def map(self, work: Callable[[_Job], _Result], jobs: Iterable[_Job]) -> Generator[_Result | InputError, None, None]:
        """Do the work of every job.

        Parameters
        ----------
        work : callable
            Makes a result of a job; it and the jobs can be pickled.
        jobs : iterable
            Drawn one by one, never more than keeps the workers busy.

        Yields
        ------
        result or InputError
            In the order of the jobs. An InputError that the work raises comes in place of its result; any other
            exception ends the iteration.
        """


class ThreadExecutor:
    """Threads of this process, each of which holds one field at a time.

    Parameters
    ----------
    workers : int
        How many.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def root(self, screen: Screen) -> Place:
        """Return where the threads read the screen's files.

        Parameters
        ----------
        screen : Screen
            The screen.

        Returns
        -------
        Path
            Its root on this machine, absolute.
        """
        return screen.root.resolve()

    def map(self, work: Callable[[_Job], _Result], jobs: Iterable[_Job]) -> Generator[_Result | InputError, None, None]:
        """Do the work of every job, as `FieldExecutor.map` says.

        Parameters
        ----------
        work : callable
            Makes a result of a job.
        jobs : iterable
            Drawn one by one; at most two a thread are begun and not taken yet.

        Yields
        ------
        result or InputError
            In the order of the jobs.
        """
        pool = ThreadPoolExecutor(self._workers)
        try:
            yield from in_order((pool.submit(work, job) for job in jobs), _result, 2 * self._workers)
        finally:
            pool.shutdown(cancel_futures=True)


def in_order(begun: Iterable[_Begun], result: Callable[[_Begun], _Result], at_most: int) -> Iterator[_Result]:
    """Wait for what is begun, the first one first, with a bounded number in flight.

    Parameters
    ----------
    begun : iterable
        Each element is begun by being drawn.
    result : callable
        Waits for the result of such an element.
    at_most : int
        Elements that are begun and not waited for yet.

    Yields
    ------
    result
        In the order of the elements.
    """
    waiting: deque[_Begun] = deque()
    for element in begun:
        waiting.append(element)
        if len(waiting) == at_most:
            yield result(waiting.popleft())
    while waiting:
        yield result(waiting.popleft())


def _result(future: Future[_Result]) -> _Result | InputError:
    try:
        return future.result()
    except InputError as error:
        return error


def unreadable(errors: Sequence[InputError]) -> InputError:
    """Return one error for all fields that cannot be prepared.

    Parameters
    ----------
    errors : sequence of InputError
        What is wrong with each of them; the message has the first ten, and what to do about unfit pixels.

    Returns
    -------
    InputError
        To be raised.
    """
    left_out = len(errors) - _SHOWN_REASONS
    more = [f"... and {left_out} more"] if left_out > 0 else []
    lines = [*(str(error) for error in errors[:_SHOWN_REASONS]), *more, *advice(errors)]
    return InputError("\n  ".join([f"{len(errors)} field{'s' * (len(errors) != 1)} cannot be prepared:", *lines]))


class FieldCounter:
    """Reports how many fields are done, of how many.

    Parameters
    ----------
    total : int
        Fields in all.
    progress : callable
        Called with the fields done and the total.
    """

    def __init__(self, total: int, progress: Callable[[int, int], None]) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, fields: int = 1) -> None:
        """Report fields as done.

        Parameters
        ----------
        fields : int
            How many; nothing is reported for 0.
        """
        self._done += fields
        if fields:
            self._progress(self._done, self._total)

    def counted(self, results: Iterator[_Result]) -> Iterator[_Result]:
        """Report each result as a field that is done.

        Parameters
        ----------
        results : iterator
            One result a field.

        Yields
        ------
        result
            The same results.
        """
        for result in results:
            self.add()
            yield result
