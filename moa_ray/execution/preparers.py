"""Prepare tiles on the nodes of a cluster."""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from moa_ray.common import object_store
from moa_ray.common.errors import InputError, StuckError
from moa_ray.common.uri import Place
from moa_ray.execution.cluster import connect, resolve_address
from moa_ray.screens.screen import Screen
from moa_ray.screens.zarr_images import is_zarr, metadata_file
from moa_ray.tiles.workers import FieldExecutor, ThreadExecutor, in_order

_PATIENCE = 60  # seconds in which a node must say what it sees
_GLANCE = 5  # seconds between looks at nodes while one waits for them

_Job = TypeVar("_Job")
_Made = TypeVar("_Made")


@contextlib.contextmanager
def field_executor(
    address: str | None, screen: Screen, warn: Callable[[str], None], check: Callable[[], object] = lambda: None
) -> Iterator[FieldExecutor | None]:
    """Open the executor that prepares a screen's tiles.

    Parameters
    ----------
    address : str or None
        The address of a cluster, as `moa_ray.execution.cluster.connect` takes it.
    screen : Screen
        The screen to prepare.
    warn : callable
        Called with one sentence where some nodes do not see the screen's files.
    check : callable
        Called before the nodes begin, once the cluster is connected; may raise.

    Yields
    ------
    ClusterExecutor or None
        The nodes of the cluster; None where it is this machine alone.
    """
    if resolve_address(address) == "local":
        yield None
        return
    with contextlib.ExitStack() as connection:

        def join() -> None:
            connection.enter_context(connect(address))
            check()

        yield ClusterExecutor(join, screen, warn)


class ClusterExecutor:
    """Prepare fields in Ray tasks, one for each core of the nodes that see a screen's files.

    Results come back through Ray's object store, and a lost node's jobs run again elsewhere. Where only the driver's
    own node sees the files, threads of this process do the work.

    Parameters
    ----------
    join : callable
        Connects to the cluster. It is called once there is work, since a store that is whole needs none.
    screen : Screen
        The screen to prepare.
    warn : callable
        Called with one sentence where some nodes do not see the screen's files.
    """

    def __init__(self, join: Callable[[], object], screen: Screen, warn: Callable[[str], None]) -> None:
        self._join, self._screen, self._warn = join, screen, warn

    def root(self, screen: Screen) -> Place:
        """Return where the nodes read the screen.

        Parameters
        ----------
        screen : Screen
            The screen to prepare.

        Returns
        -------
        Path or Uri
            The screen's origin: nodes read from an object store what they need, and no copy is made.
        """
        return screen.origin

    def map(self, work: Callable[[_Job], _Made], jobs: Iterable[_Job]) -> Generator[_Made | InputError, None, None]:
        """Run work on jobs, spread over the nodes; see `FieldExecutor`.

        Parameters
        ----------
        work : callable
            Takes a job and returns its result; Ray must be able to send it to the nodes.
        jobs : iterable
            Drawn as results are taken, so that only so many are in flight.

        Yields
        ------
        object
            In the order of the jobs, each result or the InputError that took its place.

        Raises
        ------
        StuckError
            If every node that sees the files is lost.
        """
        if not set(self._seeing) - {ray.get_runtime_context().get_node_id()}:
            yield from ThreadExecutor(os.cpu_count() or 1).map(work, jobs)
            return
        task = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(_do)
        shared = ray.put(work)

        def submit(job: _Job) -> tuple[Any, set[str]]:
            self._look_again()
            on_seeing = {"ray.io/node-id": f"in({','.join(self._seeing)})"}
            return task.options(label_selector=on_seeing).remote(shared, job), set(self._seeing)

        yield from in_order(map(submit, jobs), self._outcome, 2 * sum(self._seeing.values()))

    @functools.cached_property
    def _seeing(self) -> dict[str, int]:
        """The nodes that see the screen's files, and their cores."""
        self._join()
        self._known = _cores()
        self._looked = time.monotonic()
        seeing = self._that_see(self._known)
        if len(seeing) < len(self._known):
            remedy = "give them credentials too" if self._screen.source else "put it where all of them see it"
            self._warn(
                f"{len(self._known) - len(seeing)} of {len(self._known)} nodes do not see {self._screen.origin} and "
                f"prepare no tiles; {remedy}"
            )
        return seeing

    def _that_see(self, cores: Mapping[str, int]) -> dict[str, int]:
        name = self._screen.fields[self._screen.path_columns[0]].iloc[0].partition("!")[0]
        if is_zarr(self._screen.root, name):
            name = metadata_file(self._screen.root, name)
        size = (self._screen.root / name).stat().st_size
        return {node: cores[node] for node in passing(cores, _sees, self._screen.origin / name, size)}

    def _look_again(self) -> None:
        """Let nodes take part that have joined meanwhile."""
        if time.monotonic() - self._looked < _GLANCE:
            return
        self._looked = time.monotonic()
        joined = {node: cores for node, cores in _cores().items() if node not in self._known}
        self._known |= joined
        self._seeing |= self._that_see(joined)

    def _outcome(self, begun: tuple[Any, set[str]]) -> Any:
        reference, nodes = begun
        while not ray.wait([reference], timeout=_GLANCE)[0]:
            if not nodes & _cores().keys():
                raise self._lost()
        try:
            return _outcome(reference)
        except ray.exceptions.TaskUnschedulableError:  # where Ray hears of it first
            raise self._lost() from None

    def _lost(self) -> StuckError:
        where = self._screen.origin
        return StuckError(f"every node that sees {where} is lost; the same command goes on from what was prepared")


def _cores() -> dict[str, int]:
    """Return the nodes that are alive and have cores, with the number of their cores."""
    nodes = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]}
    return {node: count for node, count in nodes.items() if count}


def passing(nodes: Iterable[str], probe: Callable[..., bool], *arguments: object) -> list[str]:
    """Return the nodes on which a probe is true.

    Parameters
    ----------
    nodes : iterable of str
        Ray's ids of the nodes.
    probe : callable
        Run on each node, at the same time.
    *arguments : object
        What the probe is called with.

    Returns
    -------
    list of str
        The nodes that passed, in the order given; one that fails or does not answer within a minute is left out.
    """
    answers = {}
    for node in nodes:
        on_node = NodeAffinitySchedulingStrategy(node, soft=False)
        answers[node] = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=on_node)(_do).remote(
            probe, *arguments
        )
    answered, _ = ray.wait(list(answers.values()), num_returns=len(answers), timeout=_PATIENCE)
    return [node for node, answer in answers.items() if answer in answered and _is_true(answer)]


def _is_true(answer: Any) -> bool:
    try:
        return bool(ray.get(answer))
    except ray.exceptions.RayError:
        return False


def _sees(file: Place, size: int) -> bool:
    try:
        return object_store.size(file) == size
    except OSError:
        return False


def _do(work: Callable[..., _Made], *arguments: object) -> _Made:
    return work(*arguments)


def _outcome(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            return error.cause
        raise
