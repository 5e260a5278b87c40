"""Pixels as they were read, fit to become tiles: an offset is added, and those that are no grey level are refused.

Images of unsigned whole numbers have no such pixels, and cost nothing here.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moa_ray.common.errors import InputError
from moa_ray.config.preparation import Preparation
from moa_ray.tiles.intensities import Array

_OF_16_BITS = 32_768  # what a program takes off that writes unsigned levels as signed ones


class UnfitPixelsError(InputError):
    """Pixels of a field's files are NaN, infinite or negative: the message names each file and counts its pixels.

    Parameters
    ----------
    message : str
        A line for the user.
    lowest : float, optional
        The lowest pixel as it was read, where negative ones are refused.
    is_finite : bool
        Whether no pixel is NaN or infinite.
    """

    def __init__(self, message: str, lowest: float | None = None, is_finite: bool = True) -> None:
        super().__init__(message)
        self.lowest, self.is_finite = lowest, is_finite


def fit_pixels(planes: Sequence[Array], locations: Sequence[str], preparation: Preparation) -> list[Array]:
    """Add the offset of a preparation to the channels of a field, and refuse pixels that are no grey level.

    Parameters
    ----------
    planes : sequence of array, each of shape (height, width)
        The channels as they were read.
    locations : sequence of str
        Their files, for the message.
    preparation : Preparation
        Its offset, and whether Anscombe's transform follows, which takes no negative pixels.

    Returns
    -------
    list of array
        The channels; whole numbers stay whole where the offset is, and become unsigned where they fit.

    Raises
    ------
    UnfitPixelsError
        If pixels are NaN or infinite, or negative and Anscombe's transform follows.
    """
    offset = preparation.offset
    fit = list(planes) if offset is None else [_shifted(plane, offset) for plane in planes]
    errors = [
        error
        for plane, location in zip(fit, locations, strict=True)
        if (error := _unfit(plane, location, preparation)) is not None
    ]
    if errors:
        lowest = [error.lowest for error in errors if error.lowest is not None]
        message, is_finite = "; ".join(map(str, errors)), all(error.is_finite for error in errors)
        raise UnfitPixelsError(message, min(lowest, default=None), is_finite)
    return fit


def _shifted(plane: Array, offset: float) -> Array:
    if plane.dtype.kind not in "iu" or not offset.is_integer():
        return plane.astype(np.float32) + np.float32(offset)
    low, high = int(plane.min()) + int(offset), int(plane.max()) + int(offset)
    for kind in (np.uint16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            # Both terms wrap around where they do not fit; their sum fits.
            whole: Array = plane.astype(kind) + np.array(int(offset)).astype(kind)
            return whole
    return plane.astype(np.float32) + np.float32(offset)


def _unfit(plane: Array, location: str, preparation: Preparation) -> UnfitPixelsError | None:
    """Return what is wrong with the pixels of one file, the offset added; None where nothing is."""
    if plane.dtype.kind == "u" or (plane.dtype.kind == "i" and not preparation.anscombe):
        return None
    with np.errstate(invalid="ignore"):  # a minimum over NaN is NaN, which is what is looked for
        low, high = float(plane.min()), float(plane.max())
    if math.isfinite(low) and math.isfinite(high) and (low >= 0 or not preparation.anscombe):
        return None
    finite: NDArray[np.bool_] = np.isfinite(plane)
    nan = int(np.isnan(plane).sum())
    infinite = plane.size - nan - int(finite.sum())
    negative = int((plane[finite] < 0).sum()) if preparation.anscombe else 0
    lowest = float(plane[finite].min()) - (preparation.offset or 0) if negative else math.nan
    after = "" if preparation.offset is None else f" after images.offset {preparation.offset:g}"
    counts = {f"negative{after} (lowest {lowest:g})": negative, "NaN": nan, "infinite": infinite}
    parts = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    return UnfitPixelsError(
        f"{location}: {parts} of {plane.size} pixels", lowest if negative else None, not (nan or infinite)
    )


def advice(errors: Sequence[InputError]) -> list[str]:
    """Say what to do about unfit pixels.

    Parameters
    ----------
    errors : sequence of InputError
        Of all fields, whatever is wrong with them.

    Returns
    -------
    list of str
        A sentence for each thing to do; nothing where no pixel is unfit.
    """
    unfit = [error for error in errors if isinstance(error, UnfitPixelsError)]
    sentences = []
    if lows := [error.lowest for error in unfit if error.lowest is not None]:
        lowest = math.ceil(-min(lows))
        offset = _OF_16_BITS if _OF_16_BITS // 2 <= lowest <= _OF_16_BITS else lowest
        sentences.append(
            "Anscombe's transform takes no negative pixels: set images.anscombe: false, or, for signed data, "
            f"images.offset: {offset}, which is added to every pixel first"
        )
    if not all(error.is_finite for error in unfit):
        sentences.append(
            "NaN and infinite pixels are no grey levels: write these files again with numbers in their place, or "
            "leave their rows out of the table"
        )
    return sentences
