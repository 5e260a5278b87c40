"""What painted screens share: a folder that is painted once, whole or not at all, and the light of a round thing."""

import dataclasses
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moa_ray.common.errors import InputError
from moa_ray.config.painting import Painting, Translocation

Plane = NDArray[np.float64]

_MARKER = "painting.json"


@contextmanager
def paint_once(root: Path, painting: Painting | Translocation) -> Iterator[Path | None]:
    """Give a folder to paint in, which becomes the root when all went well.

    Parameters
    ----------
    root : Path
        Where the screen is to be: a folder that does not exist, or is empty.
    painting : Painting or Translocation
        The settings of the painting, which are kept beside it.

    Yields
    ------
    Path or None
        The folder to paint in; None where the same painting is there already.

    Raises
    ------
    InputError
        If the root holds another painting, or other files.
    """
    if is_painted(root, painting):
        yield None
        return
    writing = root.with_name(f".{root.name}-{uuid.uuid4().hex}")
    writing.mkdir(parents=True)
    try:
        yield writing
        (writing / _MARKER).write_text(json.dumps(dataclasses.asdict(painting), indent=1), encoding="utf-8")
        if root.exists():
            root.rmdir()
        writing.rename(root)
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def is_painted(root: Path, painting: Painting | Translocation) -> bool:
    """Tell whether a painting is there already.

    Parameters
    ----------
    root : Path
        Where it is to be.
    painting : Painting or Translocation
        The settings of the painting.

    Returns
    -------
    bool
        False where the root does not exist, or is empty.

    Raises
    ------
    InputError
        If the root holds another painting, or other files.
    """
    marker = root / _MARKER
    if marker.exists():
        if json.loads(marker.read_text(encoding="utf-8")) != dataclasses.asdict(painting):
            raise InputError(f"{root}: holds another painting; give another screen.root, or move that folder away")
        return True
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root}: holds other files; give a screen.root that does not exist yet")
    return False


def disc(radius: Plane, edge: float, softness: float) -> Plane:
    """Paint a round thing: 1 inside of an edge, 0 outside.

    Parameters
    ----------
    radius : array of shape (height, width)
        Distance of each pixel from the centre, pixels.
    edge : float
        Radius of the thing, pixels.
    softness : float
        About how many pixels the fall from 1 to 0 takes.

    Returns
    -------
    array of shape (height, width)
        Light in [0, 1].
    """
    light: Plane = 1 / (1 + np.exp(np.clip((radius - edge) / (0.4 * softness), -50, 50)))
    return light
