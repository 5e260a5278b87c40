"""The Ray cluster: connecting to it, what its nodes prepare, what each trial gets of it, and what its nodes share.

Ray Tune is in `tuning`.
"""

import contextlib
import dataclasses
import fcntl
import functools
import logging
import os
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

# Ray reads these when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from moa_ray import stores
from moa_ray.recipe import Recipe
from moa_ray.screens import Screen
from moa_ray.stores import Place
from moa_ray.tiles import Crew, Threads, in_order

_PATIENCE = 60  # seconds in which a node must say what it sees
_ALONE = "moa_ray-alone"  # Ray's namespace where no node can join

_Job = TypeVar("_Job")
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Slots:
    """What each trial gets and how many run at once."""

    cpus: float
    gpus: float
    concurrent: int


@contextlib.contextmanager
def connect(address: str | None) -> Iterator[None]:
    """Ray: the cluster at an address, or one of this machine alone that ends with the block."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true", "PYTHONWARNINGS": "ignore"}
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
def preparers(address: str | None, screen: Screen, warn: Callable[[str], None]) -> Iterator[Crew | None]:
    """Who prepares a screen's tiles: the nodes of the cluster at an address; None where it is this machine alone.

    warn : told in one sentence how many nodes do not see the screen's files
    """
    if _address(address) == "local":
        yield None
        return
    with contextlib.ExitStack() as connection:
        yield Nodes(lambda: connection.enter_context(connect(address)), screen, warn)


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
        """See `Crew`."""
        cores = self._cores
        if not set(cores) - {ray.get_runtime_context().get_node_id()}:
            yield from Threads(os.cpu_count() or 1).map(work, jobs)
            return
        do = ray.remote(
            num_cpus=1, scheduling_strategy="SPREAD", label_selector={"ray.io/node-id": f"in({','.join(cores)})"}
        )(_do)
        shared = ray.put(work)
        yield from in_order((do.remote(shared, job) for job in jobs), _outcome, 2 * sum(cores.values()))

    @functools.cached_property
    def _cores(self) -> dict[str, int]:
        """The nodes that see the screen's files, and their cores."""
        self._join()
        nodes = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]}
        cores = {node: count for node, count in nodes.items() if count}
        root, name = self._screen.origin, self._screen.fields[self._screen.path_columns[0]].iloc[0].partition("!")[0]
        seeing = passing(cores, _sees, root / name, (self._screen.root / name).stat().st_size)
        if len(seeing) < len(cores):
            self._warn(
                f"{len(cores) - len(seeing)} of {len(cores)} nodes do not see {root} and prepare no tiles; "
                + ("give them credentials too" if self._screen.source else "put it where all of them see it")
            )
        return {node: cores[node] for node in seeing}


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


def slots(
    cpus: int | Literal["auto"], gpus: float | Literal["auto"], concurrent: int | None, open_cluster: bool
) -> Slots:
    """What each trial gets: one GPU where the cluster has any, else CPUs alone.

    Raises ValueError where this machine alone can never hold a trial; a cluster may still grow.
    """
    have = ray.cluster_resources()
    all_cpus, all_gpus = have.get("CPU", 1.0), have.get("GPU", 0.0)
    gpus = (1.0 if all_gpus else 0.0) if gpus == "auto" else gpus
    if cpus == "auto":
        # With GPUs the CPUs are shared out among them. Without, few CPUs a trial are best: small steps scale badly.
        cpus = max(1, int(all_cpus * gpus / all_gpus)) if gpus and all_gpus else max(1, int(all_cpus) // 8)
    for name, asked, available in (("gpus", gpus, all_gpus), ("cpus", cpus, all_cpus)):
        if asked > available and not open_cluster:
            raise ValueError(f"resources.{name}: each trial asks for {asked:g}, but this machine has {available:g}")
    fit = int(all_cpus // cpus) if not gpus else int(min(all_cpus // cpus, all_gpus / gpus))
    return Slots(float(cpus), float(gpus), concurrent or max(1, fit))


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
    with copy.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
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


def features(recipe: Recipe, tiles: Path, slots: Slots) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """What a frozen backbone makes of the tiles in a file, a stretch at a time as they come.

    Yields the first row of each stretch and its features, (orientations, rows, channels). The rows are spread over as
    many processes as there are trials at once, each with a trial's part of the cluster: forward passes share nothing,
    so that two cores take two stretches in half the time, where two threads of one process would wait for each other.
    A process that is lost is begun anew, elsewhere if need be; all end with the iteration.

    Raises ValueError where the weights cannot be had, as `share_pretrained` does.
    """
    recipe = dataclasses.replace(recipe, batch_size=32)  # those that share the features differ in it
    files = {} if is_alone() else share_files([tiles])
    count = len(np.load(tiles, mmap_mode="r", allow_pickle=False))
    size = max(_FEWEST, _PASSES // recipe.features_key[-1])
    begin = ray.remote(num_cpus=slots.cpus, num_gpus=slots.gpus, max_restarts=2, max_task_retries=2)(_Frozen).remote
    waiting = deque(range(0, count, size))
    crew = [begin(recipe, tiles, files, size) for _ in range(min(slots.concurrent, len(waiting)))]
    taking = {}
    try:
        # While they begin. Those that train on features need no weights, and so `share_pretrained` passes them over.
        weights = list(share_pretrained([dataclasses.replace(recipe, freeze=1.0)]).values())
        for process in crew:
            first = waiting.popleft()
            taking[process.take.remote(first, weights)] = process, first
        while taking:
            (done,), _ = ray.wait(list(taking))
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
