"""The Ray cluster: connecting to it, what its nodes prepare, what each trial gets of it, and what its nodes share.

Ray Tune is in `tuning`.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray

# Ray reads these when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from moa_ray import process, stores
from moa_ray.capacity import Amounts, Capacity, Demand, NodeType, Slots, Watch, refusal, share_out
from moa_ray.command import StuckError
from moa_ray.recipe import Recipe
from moa_ray.screens import Screen
from moa_ray.spec import Resources
from moa_ray.stores import Place
from moa_ray.tiles import Crew, Threads, in_order

_PATIENCE = 60  # seconds in which a node must say what it sees
_GLANCE = 5  # seconds between looks at nodes while one waits for them
_MANY = 1000  # nodes, where their number is not known
_JOINING = 40  # seconds in which the nodes of a cluster that is being started must have joined
_SCALING = Path("~/ray_bootstrap_config.yaml")  # what `ray up` tells the autoscaler, on the head
_ALONE = "moa_ray-alone"  # Ray's namespace where no node can join

_Job = TypeVar("_Job")
_Made = TypeVar("_Made")


@contextlib.contextmanager
def connect(address: str | None) -> Iterator[None]:
    """Ray: the cluster at an address, or one of this machine alone that ends with the block."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    environment = {
        **{"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"},
        # A process takes of a GPU's memory what it needs, not all: others may share it.
        **{"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
    }
    address = _address(address)
    local = {"include_dashboard": False, "namespace": _ALONE} if address == "local" else {}
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, runtime_env={"env_vars": environment}, **quiet, **local)
    except ConnectionError as error:
        raise ValueError(f"--address {address}: no Ray cluster answers there: {error}") from None
    # Ray sets a handler of its own, by which a job that is stopped would end with a status of Ray's.
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        ray.shutdown()


def is_alone() -> bool:
    """Whether Ray is this machine's alone, so that no other node is there or may ever join."""
    return bool(ray.get_runtime_context().namespace == _ALONE)


def _address(given: str | None) -> str:
    return given or os.environ.get("RAY_ADDRESS") or "local"  # Ray sets the variable for submitted jobs


@contextlib.contextmanager
def preparers(
    address: str | None, screen: Screen, warn: Callable[[str], None], check: Callable[[], object] = lambda: None
) -> Iterator[Crew | None]:
    """Who prepares a screen's tiles: the nodes of the cluster at an address; None where it is this machine alone.

    warn : told in one sentence how many nodes do not see the screen's files
    check : called before they begin, with the cluster at hand; it may raise
    """
    if _address(address) == "local":
        yield None
        return
    with contextlib.ExitStack() as connection:

        def join() -> None:
            connection.enter_context(connect(address))
            check()

        yield Nodes(join, screen, warn)


class Nodes:
    """A crew of Ray tasks, one for each core of the nodes that see a screen's files, spread over them.

    Results come back through Ray's object store, and a lost node's jobs run again elsewhere. Where only the driver's
    own node sees the files, its threads do the work.

    join : connects to the cluster, once there is work: a store that is whole needs none
    """

    def __init__(self, join: Callable[[], object], screen: Screen, warn: Callable[[str], None]) -> None:
        self._join, self._screen, self._warn = join, screen, warn

    def root(self, screen: Screen) -> Place:
        """See `Crew`: where it lies in an object store, nodes read there what they need, and no copy is made."""
        return screen.origin

    def map(self, work: Callable[[_Job], _Made], jobs: Iterable[_Job]) -> Generator[_Made | ValueError, None, None]:
        """See `Crew`. Raises StuckError when every node that sees the files is lost."""
        if not set(self._seeing) - {ray.get_runtime_context().get_node_id()}:
            yield from Threads(os.cpu_count() or 1).map(work, jobs)
            return
        do = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(_do)
        shared = ray.put(work)

        def begin(job: _Job) -> tuple[Any, set[str]]:
            self._look_again()
            there = {"ray.io/node-id": f"in({','.join(self._seeing)})"}
            return do.options(label_selector=there).remote(shared, job), set(self._seeing)

        yield from in_order(map(begin, jobs), self._outcome, 2 * sum(self._seeing.values()))

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
    """The nodes that are alive and have cores."""
    nodes = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]}
    return {node: count for node, count in nodes.items() if count}


def passing(nodes: Iterable[str], probe: Callable[..., bool], *given: object) -> list[str]:
    """The nodes on which a probe is true; one that fails or does not answer is none of them."""
    begun = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        begun[node] = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_do).remote(probe, *given)
    answered, _ = ray.wait(list(begun.values()), num_returns=len(begun), timeout=_PATIENCE)
    return [node for node, answer in begun.items() if answer in answered and _is_true(answer)]


def _is_true(answer: Any) -> bool:
    try:
        return bool(ray.get(answer))
    except ray.exceptions.RayError:
        return False


def _sees(file: Place, size: int) -> bool:
    try:
        return stores.size(file) == size
    except OSError:
        return False


def _do(work: Callable[..., _Made], *given: object) -> _Made:
    return work(*given)


def _outcome(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ValueError):
            return error.cause
        raise


# What there is for trials ---------------------------------------------------------------------------------------------


def slots(resources: Resources, backbones: Collection[str], address: str | None) -> Slots:
    """What each trial gets of the cluster at an address. One whose nodes are still joining is waited for.

    Raises ValueError where the trials of some backbone can never have a place: they fit into no node, busy or not, and
    into none that an autoscaler may add.
    """
    deadline = time.monotonic() + (0 if _address(address) == "local" else _JOINING)
    while True:
        have = capacity(address)
        found = share_out(resources, backbones, have)
        problem = refusal(found, backbones, have)
        if problem is None:
            return found
        if time.monotonic() >= deadline:
            raise ValueError(problem)
        time.sleep(1)


def capacity(address: str | None = None) -> Capacity:
    """What the nodes have now, busy or not, and what the autoscaler of the cluster at an address may add.

    `ray up` leaves its file on the head, where a submitted driver finds it. Elsewhere only the nodes tell by a label
    that there is an autoscaler (on Kubernetes, say), and not what it may add.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    totals = [node["Resources"] for node in nodes]
    if _address(address) == "local":
        return Capacity(tuple(totals))
    try:
        return scaled(totals, yaml.safe_load(_SCALING.expanduser().read_text()))
    except FileNotFoundError:
        is_scaled = any("ray.io/node-group" in node["Labels"] for node in nodes)
        unknown = NodeType("unknown", {}, _MANY)
        return Capacity(tuple(totals), (unknown,) if is_scaled else (), _MANY)


def scaled(nodes: Sequence[Amounts], config: Mapping[str, Any]) -> Capacity:
    """The capacity of a cluster with an autoscaler.

    config : what `ray up` was told, with the defaults that it filled in
    """
    types = (
        NodeType(name, kind["resources"], kind["max_workers"]) for name, kind in config["available_node_types"].items()
    )
    workers = len(nodes) - 1  # the head is none
    return Capacity(tuple(nodes), tuple(types), max(0, config["max_workers"] - workers))


def on_this_node(path: Path, files: Mapping[Path, Any]) -> Path:
    """A file of the driver's: where it lies if this node sees it, else a copy out of Ray's object store, made once."""
    if path.exists():
        return path
    mine = Path(tempfile.gettempdir(), f"moa_ray-{os.getuid()}")
    mine.mkdir(mode=0o700, exist_ok=True)
    if mine.is_symlink() or mine.stat().st_uid != os.getuid():
        raise ValueError(f"{mine}: belongs to another user; remove it, or give Ray another TMPDIR on this node")
    copy = mine / path.parent.name / path.name
    copy.parent.mkdir(exist_ok=True)
    with process.alone(copy.with_suffix(".lock")):
        if not copy.exists():
            writing = copy.with_suffix(".writing.npy")
            np.save(writing, ray.get(files[path]), allow_pickle=False)
            writing.replace(copy)
    return copy


def share_files(paths: Iterable[Path]) -> dict[Path, Any]:
    """Arrays in Ray's object store, as plain ones: it would copy a memory map for every worker."""
    return {path: ray.put(np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))) for path in paths}


def share_pretrained(recipes: list[Recipe]) -> dict[tuple[str, str, int], Any]:
    """Read each set of pretrained weights once, on the driver's node, into the object store."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    load = ray.remote(num_cpus=0, max_calls=1, max_retries=0, scheduling_strategy=here)(_read_pretrained)
    wanted = dict.fromkeys(
        (recipe.backbone, recipe.weights, int(recipe.image_size))
        for recipe in recipes
        if recipe.weights != "random" and recipe.freeze != "all"
    )
    # A worker's own folder is not the one that the sweep was started in.
    shared = {
        (name, weights, size): load.remote(
            name, weights if weights == "imagenet" else str(Path(weights).resolve()), size
        )
        for name, weights, size in wanted
    }
    for reference in shared.values():
        try:
            ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
    return shared


def _read_pretrained(backbone: str, weights: str, size: int) -> list[np.ndarray]:
    """In a process of its own, so that the driver does not hold Keras and its backend in memory."""
    from moa_ray.models import pretrained

    return pretrained(backbone, weights, size)


# Features of frozen backbones -----------------------------------------------------------------------------------------

# Passes of a backbone that make a stretch, and its fewest tiles: a GPU is busy with as many, and whoever waits hears of
# them soon.
_PASSES, _FEWEST = 256, 64


def features(
    recipe: Recipe, tiles: Path, slots: Slots, watch: Watch | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """What a frozen backbone makes of the tiles in a file, a stretch at a time as they come.

    Yields the first row of each stretch and its features, (orientations, rows, channels). The rows are spread over as
    many processes as there are trials at once, each with a trial's part of the cluster: forward passes share nothing,
    so that two cores take two stretches in half the time, where two threads of one process would wait for each other.
    A process that is lost is begun anew, elsewhere if need be; all end with the iteration.

    watch : told of processes that no node can hold, and may end the waiting
    Raises ValueError where the weights cannot be had, as `share_pretrained` does.
    """
    recipe = dataclasses.replace(recipe, batch_size=32)  # those that share the features differ in it
    files = {} if is_alone() else share_files([tiles])
    count = len(np.load(tiles, mmap_mode="r", allow_pickle=False))
    size = max(_FEWEST, _PASSES // recipe.features_key[-1])
    demand = slots.of(recipe.backbone)
    options = {"num_cpus": demand.cpus, "num_gpus": demand.gpus, "resources": dict(demand.others)}
    begin = ray.remote(**options, max_restarts=2, max_task_retries=2)(_Frozen).remote
    waiting = deque(range(0, count, size))
    most = min(slots.concurrent or len(waiting), len(waiting))
    have = watch.capacity() if watch else capacity()
    crew = [begin(recipe, tiles, files, size) for _ in range(have.at_once(demand, most))]
    taking = {}
    try:
        # While they begin. Those that train on features need no weights, and so `share_pretrained` passes them over.
        weights = list(share_pretrained([dataclasses.replace(recipe, freeze=1.0)]).values())
        for process in crew:
            first = waiting.popleft()
            taking[process.take.remote(first, weights)] = process, first
        while taking:
            done = _first_done(taking, demand, watch)
            process, first = taking.pop(done)
            stretch = _stretch(done, recipe)
            if waiting:
                following = waiting.popleft()
                taking[process.take.remote(following, weights)] = process, following
            else:
                ray.kill(process)  # one that found no room so far can have its place
            yield first, stretch
    finally:
        for process in crew:
            ray.kill(process)


def _first_done(taking: Mapping[Any, object], demand: Demand, watch: Watch | None) -> Any:
    while True:
        done, _ = ray.wait(list(taking), timeout=_GLANCE)
        if done:
            return done[0]
        if watch is not None:
            watch.look([demand], idle=True)  # where no node could hold a process, none is there that works


def _stretch(reference: Any, recipe: Recipe) -> NDArray[np.float32]:
    try:
        stretch: NDArray[np.float32] = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.ActorDiedError as error:
        raise RuntimeError(
            f"the features of {recipe.backbone} cannot be taken: the process is lost again and again, as where memory "
            f"runs out; give it fewer neighbours (resources.concurrent): {error}"
        ) from None
    return stretch


class _Frozen:
    """A frozen backbone in a process of its own."""

    def __init__(self, recipe: Recipe, tiles: Path, files: Mapping[Path, Any], size: int) -> None:
        cpus = max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
        os.environ |= {"TF_NUM_INTRAOP_THREADS": str(cpus), "TF_NUM_INTEROP_THREADS": "1"}
        from moa_ray import training

        self._size = size
        self._begin = partial(training.Frozen, recipe, rows=size)
        self._features: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None = None
        self._tiles = np.load(on_this_node(tiles, files), mmap_mode="r", allow_pickle=False)

    def take(self, first: int, weights: list[Any]) -> NDArray[np.float32]:
        """The features of a stretch; `weights` holds a reference to the backbone's."""
        if self._features is None:
            self._features = self._begin(weights=list(ray.get(weights[0])))
        return self._features(self._tiles[first : first + self._size])
