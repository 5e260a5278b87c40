"""Extract the features of a frozen backbone in processes of a cluster."""

import dataclasses
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from moa_ray.config.recipe import Recipe
from moa_ray.execution.capacity import Demand, Slots
from moa_ray.execution.cluster import capacity, is_alone
from moa_ray.execution.sharing import on_this_node, share_files, share_pretrained
from moa_ray.execution.watch import Watch

# Passes of a backbone that make a stretch, and its fewest tiles: a GPU is busy with as many, and whoever waits hears of
# them soon.
_PASSES, _FEWEST = 256, 64
_GLANCE = 5  # seconds between looks at the nodes while one waits for features


def extract(
    recipe: Recipe, tiles: Path, slots: Slots, watch: Watch | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Extract a frozen backbone's features of all tiles in a file, and yield them a stretch at a time as they come.

    The rows are spread over as many processes as there are trials at once, each with a trial's part of the cluster:
    forward passes share nothing, so that two cores take two stretches in half the time, where two threads of one
    process would wait for each other. A process that is lost is started anew, elsewhere if need be; all end with the
    iteration.

    Parameters
    ----------
    recipe : Recipe
        A linear probe.
    tiles : Path
        The file of tiles, (rows, size, size, 3) uint8.
    slots : Slots
        What each process gets and how many there may be.
    watch : Watch, optional
        Told of processes that no node can hold; may end the waiting.

    Yields
    ------
    tuple of int, ndarray
        The first row of a stretch, and its features, (orientations, rows, channels) float32.

    Raises
    ------
    InputError
        If the weights cannot be read, as `share_pretrained` says it.
    RuntimeError
        If a process is lost again and again.
    """
    recipe = dataclasses.replace(recipe, batch_size=32)  # those that share the features differ in it
    files = {} if is_alone() else share_files([tiles])
    count = len(np.load(tiles, mmap_mode="r", allow_pickle=False))
    size = max(_FEWEST, _PASSES // recipe.features_key[-1])
    demand = slots.of(recipe.backbone)
    options = {"num_cpus": demand.cpus, "num_gpus": demand.gpus, "resources": dict(demand.others)}
    start = ray.remote(**options, max_restarts=2, max_task_retries=2)(_FeatureActor).remote
    waiting = deque(range(0, count, size))
    most = min(slots.concurrent or len(waiting), len(waiting))
    available = watch.capacity() if watch else capacity()
    actors = [start(recipe, tiles, files, size) for _ in range(available.at_once(demand, most))]
    pending = {}
    try:
        # While they begin. Those that train on features need no weights, and so `share_pretrained` passes them over.
        weights = list(share_pretrained([recipe.extractor]).values())
        for actor in actors:
            first = waiting.popleft()
            pending[actor.take.remote(first, weights)] = actor, first
        while pending:
            done = _first_done(pending, demand, watch)
            actor, first = pending.pop(done)
            stretch = _stretch(done, recipe)
            if waiting:
                following = waiting.popleft()
                pending[actor.take.remote(following, weights)] = actor, following
            else:
                ray.kill(actor)  # one that found no room so far can have its place
            yield first, stretch
    finally:
        for actor in actors:
            ray.kill(actor)


def _first_done(pending: Mapping[Any, object], demand: Demand, watch: Watch | None) -> Any:
    while True:
        done, _ = ray.wait(list(pending), timeout=_GLANCE)
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


class _FeatureActor:
    """Extract features of one frozen backbone, in a process of its own."""

    def __init__(self, recipe: Recipe, tiles: Path, files: Mapping[Path, Any], size: int) -> None:
        cpus = max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
        os.environ |= {"TF_NUM_INTRAOP_THREADS": str(cpus), "TF_NUM_INTEROP_THREADS": "1"}
        from moa_ray.training import frozen

        self._size = size
        self._begin = partial(frozen.FeatureExtractor, recipe, rows=size)
        self._features: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None = None
        self._tiles = np.load(on_this_node(tiles, files), mmap_mode="r", allow_pickle=False)

    def take(self, first: int, weights: list[Any]) -> NDArray[np.float32]:
        """Return the features of a stretch.

        Parameters
        ----------
        first : int
            The first row.
        weights : list of ObjectRef
            One reference, to the arrays of the backbone's weights.

        Returns
        -------
        ndarray
            (orientations, rows, channels) float32.
        """
        if self._features is None:
            self._features = self._begin(weights=list(ray.get(weights[0])))
        return self._features(self._tiles[first : first + self._size])
