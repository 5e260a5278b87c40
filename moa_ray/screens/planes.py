"""The planes of an image file: which axes it has, which plane is meant, and projections over stacks.

A file of several planes does not say which is meant. Only the sweep file can, by a `Plane`; what it leaves open is an
error that names count and axes.
"""

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from moa_ray.common.errors import InputError
from moa_ray.config.planes import Plane

Array = NDArray[Any]
Step = int | Literal["max", "mean", "grey"]  # what is taken along an axis
Role = Literal["channel", "z", "time"]
Image = tuple[str, Plane | None]  # what tells one image of a screen from another: its file, and the plane of it

_ROLES: dict[str, Role] = {"C": "channel", "S": "channel", "Z": "z", "T": "time"}
_WORDS = {"C": "channels", "S": "samples a pixel", "Z": "planes in depth", "T": "points in time", "P": "pages"}
_KEYS = {"channel": "channel: 0", "z": "project: max", "time": "time: 0"}
ADVICE = "; say in screen.images which is meant, as in "
_PAGES = "{path: COLUMN, channel: 0}, or project: max, or time: 0"


@dataclass(frozen=True)
class Axes:
    """The axes of a file's images beside height and width.

    Attributes
    ----------
    sizes : mapping of str to int
        Length by axis: C channels, Z depth, T time, S samples of a pixel, P pages of which nothing is known. Those of
        length 1 may be missing.
    channels : tuple of str
        Names of the channels or samples, where the file has them.
    is_palette : bool
        Whether the samples are the colours of a palette.
    """

    sizes: Mapping[str, int]
    channels: tuple[str, ...] = ()
    is_palette: bool = False

    @property
    def long(self) -> dict[str, int]:
        """The axes of more than one element."""
        return {axis: size for axis, size in self.sizes.items() if size > 1}

    def __str__(self) -> str:
        names = f": {', '.join(self.channels)}" if self.channels else ""
        parts = [f"{size} {_WORDS[axis]}{names if axis in 'CS' else ''}" for axis, size in self.long.items()]
        return " x ".join(parts)


def select(axes: Axes, plane: Plane | None) -> dict[str, Step]:
    """Find what is taken along each axis of a file.

    Parameters
    ----------
    axes : Axes
        The axes of the file.
    plane : Plane or None
        What the sweep file says; None where it says nothing.

    Returns
    -------
    dict of int or str, by axis
        A number, ``max``, ``mean``, or ``grey`` where all samples must be the same; for each axis of `axes`.

    Raises
    ------
    InputError
        If an axis of several elements is left open, or what is asked for is not there.
    """
    plane = plane or Plane()
    asked: dict[Role, Any] = {"channel": plane.channel, "z": plane.z, "time": plane.time}
    roles = _roles(axes, asked)
    lacking = [_KEYS[role] for role in roles.values() if asked[role] is None]
    if lacking or ("P" in axes.long and "P" not in roles):
        choice = f"{{path: COLUMN, {', '.join(lacking)}}}" if lacking else _PAGES
        raise InputError(f"{_held(axes)}{ADVICE}{choice}")
    steps: dict[str, Step] = dict.fromkeys(axes.sizes, 0)
    for role, value in asked.items():
        axis = next((axis for axis, of_axis in roles.items() if of_axis == role), None)
        if value is None:
            continue
        if role == "channel" and isinstance(value, str):
            value = _channel(axes, axis, value)
        size = axes.long[axis] if axis else 1
        if isinstance(value, int) and value >= size:
            noun = {"P": "page", "S": "sample"}.get(axis or "", role)
            raise InputError(f"{_held(axes)}; there is no {noun} {value}, counted from 0")
        if axis:
            steps[axis] = value
    return steps


def _roles(axes: Axes, asked: Mapping[Role, Any]) -> dict[str, Role]:
    """Find which key of the sweep file speaks of which axis; pages of no known axis are what is asked for besides."""
    roles = {axis: _ROLES[axis] for axis in axes.long if axis in _ROLES}
    if len(set(roles.values())) < len(roles):
        raise InputError(f"{_held(axes)}; channels of several samples each are not read: give one file a channel")
    free = [role for role, value in asked.items() if value is not None and role not in roles.values()]
    if "P" in axes.long and len(free) == 1:
        roles["P"] = free[0]
    return roles


def _held(axes: Axes) -> str:
    if axes.is_palette:
        return f"holds a palette of colours ({', '.join(axes.channels)})"
    if list(axes.long) == ["S"]:
        return f"holds several channels ({axes})"
    return f"holds {math.prod(axes.sizes.values())} plane{'s' * bool(axes.long)}{f' ({axes})' if axes.long else ''}"


def _channel(axes: Axes, axis: str | None, name: str) -> Step:
    places = [number for number, of_file in enumerate(axes.channels) if of_file == name]
    if len(places) == 1:
        return places[0]
    if name == "grey" and axis in ("S", None):
        return "grey" if axis else 0
    if places:
        raise InputError(f"{_held(axes)}; {len(places)} channels are named {name!r}: give the channel's number, from 0")
    if not axes.channels:
        raise InputError(f"{_held(axes)}; it names no channels, so {name!r} is not known: give the number, from 0")
    near = difflib.get_close_matches(name, axes.channels, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"its channels are {', '.join(axes.channels)}"
    raise InputError(f"{_held(axes)}; no channel is named {name!r}; {hint}")


def places(axes: Axes, steps: Mapping[str, Step]) -> Iterator[dict[str, int]]:
    """List the planes that are read.

    Parameters
    ----------
    axes : Axes
        The axes of the file.
    steps : mapping
        As `select` returns them.

    Yields
    ------
    dict of int, by axis
        Where the plane lies; 0 along the samples where all must be the same.
    """
    over = {axis: range(size) for axis, size in axes.sizes.items() if steps[axis] in ("max", "mean")}
    fixed = {axis: step if isinstance(step, int) else 0 for axis, step in steps.items()}
    for number in range(math.prod(map(len, over.values()))):
        indices = np.unravel_index(number, [len(values) for values in over.values()]) if over else ()
        yield fixed | {axis: int(index) for axis, index in zip(over, indices, strict=True)}


def projected(axes: Axes, steps: Mapping[str, Step], read: Callable[[dict[str, int]], Array]) -> Array:
    """Read a plane, or the projection of several: over depth first, then over time; one plane is held at a time.

    Parameters
    ----------
    axes : Axes
        The axes of the file.
    steps : mapping
        As `select` returns them.
    read : callable
        Reads the plane at a place.

    Returns
    -------
    array of shape (height, width)
        Of the planes' dtype; means of whole numbers are rounded to the nearest.
    """
    order = sorted(steps, key=lambda axis: axis == "T", reverse=True)  # time is the outermost
    over = [axis for axis in order if steps[axis] in ("max", "mean")]
    fixed = {axis: step if isinstance(step, int) else 0 for axis, step in steps.items()}
    dtype: np.dtype[Any] | None = None

    def along(depth: int, place: dict[str, int]) -> Array:
        nonlocal dtype
        if depth == len(over):
            plane = read(place)
            dtype = plane.dtype
            return plane
        axis = over[depth]
        planes = (along(depth + 1, place | {axis: index}) for index in range(axes.sizes[axis]))
        return _maximum(planes) if steps[axis] == "max" else _mean(planes)

    plane = along(0, fixed)
    if plane.dtype == dtype or dtype is None:
        return plane
    return (np.rint(plane, out=plane) if np.issubdtype(dtype, np.integer) else plane).astype(dtype)


def _maximum(planes: Iterator[Array]) -> Array:
    highest = next(planes)
    for plane in planes:
        np.maximum(highest, plane, out=highest)
    return highest


def _mean(planes: Iterator[Array]) -> Array:
    total = next(planes).astype(np.float64)
    count = 1
    for plane in planes:
        total += plane
        count += 1
    total /= count
    return total


def require_grey(colours: Sequence[Array]) -> None:
    """Refuse red, green and blue that differ.

    Parameters
    ----------
    colours : sequence of array
        Three, of one shape.

    Raises
    ------
    InputError
        If they are not the same.
    """
    if any((colour != colours[0]).any() for colour in colours[1:]):
        raise InputError("its red, green and blue differ, so it is not grey; say channel: 0, 1 or 2")


def image_identity(location: str, plane: Plane | None = None) -> Image:
    """Return what tells one image of a screen from another: two planes of a file are two images.

    Parameters
    ----------
    location : str
        Where the file is.
    plane : Plane, optional
        Which plane of the file; None is its only one.

    Returns
    -------
    tuple
        To be compared and hashed.
    """
    return location, plane
