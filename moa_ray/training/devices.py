"""Ask what the devices of this machine can do, and choose by it: precision and the batch of predictions."""

import os
import subprocess
from functools import lru_cache

import keras

from moa_ray.config.recipe import Recipe
from moa_ray.training import memory

_GPU_SHARE = 10  # a tenth of a GPU's memory is for predicting


def precision(recipe: Recipe) -> str:
    """Choose the precision of a recipe on this device.

    Parameters
    ----------
    recipe : Recipe
        Where its precision is ``auto``, bfloat16 is taken on GPUs that compute in it, float32 elsewhere.

    Returns
    -------
    str
        A Keras dtype policy.
    """
    if recipe.precision != "auto":
        return recipe.precision
    return "mixed_bfloat16" if has_gpu() and _has_bfloat16() else "float32"


def prediction_batch(recipe: Recipe, rows: int) -> int:
    """Choose how many images are predicted at once.

    Parameters
    ----------
    recipe : Recipe
        Gives the least: its training batch.
    rows : int
        Images to predict.

    Returns
    -------
    int
        On a CPU the training batch, since more gain nothing there. On a GPU more, as a tenth of its memory has room
        for: the training batch times a power of two, so that folds of many sizes share few compiled shapes.
    """
    if not has_gpu():
        return recipe.batch_size
    room = gpu_memory() // (_GPU_SHARE * memory.forward_pass(recipe.backbone, recipe.input_size))
    batch = recipe.batch_size
    while batch * 2 <= min(rows, room):
        batch *= 2
    return batch


def has_gpu() -> bool:
    """Tell whether Keras' backend sees a GPU.

    Returns
    -------
    bool
    """
    if keras.backend.backend() == "torch":  # of which keras.distribution knows nothing
        return "cuda" in str(keras.ops.zeros(()).device)
    try:
        return bool(keras.distribution.list_devices("gpu"))
    except RuntimeError:  # what JAX answers where there is none
        return False


def gpu_memory() -> int:
    """Return the memory of the GPU that Keras' backend computes on.

    Returns
    -------
    int
        Bytes; 0 without a GPU, or where NVIDIA's tool cannot tell.
    """
    return int(_ask_gpu("memory.total") * 2**20) if has_gpu() else 0


def _has_bfloat16() -> bool:
    """Whether the GPU computes in bfloat16: from compute capability 8 on (Ampere)."""
    return _ask_gpu("compute_cap") >= 8


@lru_cache
def _ask_gpu(field: str) -> float:
    """Ask NVIDIA's tool for a number of the first GPU that this process may use; 0 where there is no such tool."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    command = ["nvidia-smi", f"--id={visible}", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0])
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return 0.0
