"""Share files and pretrained weights with the nodes of a cluster, through Ray's object store."""

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from moa_ray.common.errors import InputError
from moa_ray.common.files import file_lock
from moa_ray.config.recipe import Recipe


def on_this_node(path: Path, files: Mapping[Path, Any]) -> Path:
    """Return where a file of the driver's lies on this node.

    Parameters
    ----------
    path : Path
        An array file (``.npy``) of the driver's.
    files : mapping of Path to ObjectRef
        What `share_files` returned on the driver.

    Returns
    -------
    Path
        The file itself if this node sees it, else a copy from Ray's object store, which is made once per node.

    Raises
    ------
    InputError
        If the folder of copies belongs to another user.
    """
    if path.exists():
        return path
    folder = Path(tempfile.gettempdir(), f"moa_ray-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise InputError(f"{folder}: belongs to another user; remove it, or give Ray another TMPDIR on this node")
    copy = folder / path.parent.name / path.name
    copy.parent.mkdir(exist_ok=True)
    with file_lock(copy.with_suffix(".lock")):
        if not copy.exists():
            unfinished = copy.with_suffix(".writing.npy")
            np.save(unfinished, ray.get(files[path]), allow_pickle=False)
            unfinished.replace(copy)
    return copy


def share_files(paths: Iterable[Path]) -> dict[Path, Any]:
    """Put arrays into Ray's object store.

    Parameters
    ----------
    paths : iterable of Path
        Array files (``.npy``).

    Returns
    -------
    dict of Path to ObjectRef
        For each file its array; a plain one, since Ray would copy a memory map for every worker.
    """
    return {path: ray.put(np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))) for path in paths}


def share_pretrained(recipes: list[Recipe]) -> dict[tuple[str, str, int], Any]:
    """Put each set of pretrained weights into Ray's object store, read once on the driver's node.

    Parameters
    ----------
    recipes : list of Recipe
        Trials that may ask for weights. Linear probes need none: they train on features.

    Returns
    -------
    dict of tuple to ObjectRef
        By backbone, weights and image size in pixels, the arrays of the backbone's weights.

    Raises
    ------
    InputError
        If a file of weights cannot be read or does not fit its backbone.
    """
    on_driver = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    read = ray.remote(num_cpus=0, max_calls=1, max_retries=0, scheduling_strategy=on_driver)(_read_pretrained)
    wanted = dict.fromkeys(
        (recipe.backbone, recipe.weights, int(recipe.image_size))
        for recipe in recipes
        if recipe.weights != "random" and not recipe.is_linear_probe
    )
    # A worker's own folder is not the one that the sweep was started in.
    shared = {
        (name, weights, size): read.remote(
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
    """Read weights in a process of its own, so that the driver does not hold Keras and its backend in memory."""
    from moa_ray.training.pretrained import pretrained

    return pretrained(backbone, weights, size)
