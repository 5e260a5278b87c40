"""Image quality of fields: measured while tiles are made, told of where a field differs from its plate.

A sample of rows is looked at, so that it costs little: every n-th row, 20,000 pixels and more in all. Images of up to
200 x 200 pixels are looked at whole. Grey levels are those of the files, ``images.offset`` added.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray.common.schema import FIELD_KEY, PLATE
from moa_ray.config.messages import nearest
from moa_ray.config.quality import MEASURES, ChannelQuality
from moa_ray.screens.screen import Problem, Screen
from moa_ray.tiles.intensities import Array

CHANNEL, EMPTY = "channel", "empty"  # columns of the table: the channel, the share of the field's tiles that is dropped
COLUMNS = [*FIELD_KEY, CHANNEL, *MEASURES, EMPTY]
MOST_DEVIATIONS = 5.0  # beyond which a field is an outlier of its plate
FEWEST_FIELDS = 8  # of a plate in which outliers are looked for

_SAMPLE = 20_000  # pixels at least, where the image has them
_BACKGROUND = 0.05  # share of pixels at most as bright as the background
# Deviations that are never an outlier, however alike the others are: of a share, and of a logarithm.
_SHARE, _RELATIVE = 0.001, 0.05
_SHOWN = 3


def measure_quality(planes: Sequence[Array]) -> NDArray[np.float64]:
    """Measure the quality of a field.

    Parameters
    ----------
    planes : sequence of array, each of shape (height, width)
        The channels, raw.

    Returns
    -------
    array of float64, shape (channels, measures)
        In the order of `MEASURES`. The focus of an image of fewer than three rows or columns is NaN.

    References
    ----------
    Pech-Pacheco et al. 2000, diatom autofocusing in brightfield microscopy: variance of the Laplacian.
    """
    return np.array([_of_plane(plane) for plane in planes])


def _of_plane(plane: Array) -> tuple[float, float, float, float]:
    step = max(1, plane.size // _SAMPLE)
    above, rows, below = (plane[first : len(plane) - 2 + first : step].astype(np.float32) for first in range(3))
    focus = np.nan
    if len(rows) and plane.shape[1] > 2:
        laplacian = above[:, 1:-1] + below[:, 1:-1]
        laplacian += rows[:, :-2]
        laplacian += rows[:, 2:]
        laplacian -= 4 * rows[:, 1:-1]
        focus = float(laplacian.var())
    sample = plane[min(1, len(plane) - 1) if step > 1 else 0 :: step].ravel()
    rank = int(_BACKGROUND * (len(sample) - 1))
    saturated = np.count_nonzero(sample == sample.max()) / len(sample)
    return focus, saturated, float(np.partition(sample, rank)[rank]), float(sample.mean(dtype=np.float64))


def quality_table(
    keys: Sequence[tuple[str, ...]], channels: Sequence[str], values: NDArray[np.float64], empty: Sequence[float]
) -> pd.DataFrame:
    """Make the table of what was measured of fields.

    Parameters
    ----------
    keys : sequence of tuple of str
        Plate, well and field of each field.
    channels : sequence of str
        Their channels.
    values : array, shape (fields, channels, measures)
        As `measure_quality` returns them.
    empty : sequence of float
        The share of each field's tiles that is dropped.

    Returns
    -------
    DataFrame, one row per field and channel
        The columns of `COLUMNS`.
    """
    rows = [(*key, channel) for key in keys for channel in channels]
    table = pd.DataFrame(rows, columns=[*FIELD_KEY, CHANNEL], dtype="str")
    measured = pd.DataFrame(values.reshape(len(rows), len(MEASURES)), columns=list(MEASURES))
    return pd.concat([table, measured], axis=1).assign(**{EMPTY: np.repeat(np.array(empty), len(channels))})


def none_measured() -> pd.DataFrame:
    """Return the table of a store that was made before quality was measured.

    Returns
    -------
    DataFrame
        The columns of `COLUMNS`, and no row.
    """
    return quality_table([], [], np.zeros((0, 0, len(MEASURES))), [])


def beyond_limits(
    values: NDArray[np.float64], channels: Sequence[str], limits: Mapping[str, ChannelQuality] | None
) -> str | None:
    """Say which limits a field is beyond.

    Parameters
    ----------
    values : array, shape (channels, measures)
        As `measure_quality` returns them.
    channels : sequence of str
        Their names.
    limits : mapping of ChannelQuality by channel, or None
        What a field may have.

    Returns
    -------
    str or None
        The reason why its tiles are dropped, which is the same for all fields beyond the same limits; None where it is
        within all.
    """
    reasons = []
    for channel, of_channel in (limits or {}).items():
        for measure, value in zip(MEASURES, values[channels.index(channel)], strict=True):
            limit = getattr(of_channel, measure)
            if limit is not None and limit.min is not None and not value >= limit.min:
                reasons.append(f"{channel} {measure} below {limit.min:g}")
            if limit is not None and limit.max is not None and not value <= limit.max:
                reasons.append(f"{channel} {measure} above {limit.max:g}")
    return f"quality: {', '.join(reasons)}" if reasons else None


def check_limits(screen: Screen, limits: Mapping[str, ChannelQuality] | None) -> list[Problem]:
    """Find limits of channels that a screen does not have.

    Parameters
    ----------
    screen : Screen
        The screen.
    limits : mapping of ChannelQuality by channel, or None
        What a field may have.

    Returns
    -------
    list of Problem
        An error for each.
    """
    used = screen.used_channels
    return [
        Problem("error", f"images.quality: no channel {channel!r} is in use{nearest(channel, used)}")
        for channel in limits or {}
        if channel not in used
    ]


def outliers(table: pd.DataFrame) -> pd.DataFrame:
    """Return the fields that differ from the others of their plate.

    Parameters
    ----------
    table : DataFrame, one row per field and channel
        The columns of `COLUMNS`.

    Returns
    -------
    DataFrame, one row per field, channel and measure
        The columns of `FIELD_KEY`, ``channel``, ``measure``, ``value``, and ``z``: by how many robust standard
        deviations (1.4826 times the median absolute deviation) it is off the median of its plate, more than
        `MOST_DEVIATIONS`.

    Notes
    -----
    Focus, background and intensity are compared by their logarithms where the plate's median is above 0. Deviations of
    a saturated share below 0.001, or of another measure below a twentieth, count as at most one standard deviation.
    Of focus the low values count alone, of saturation the high ones. Plates of fewer than `FEWEST_FIELDS` fields are
    not looked at.
    """
    long = table.melt([*FIELD_KEY, CHANNEL], list(MEASURES), "measure", "value").dropna(subset="value")
    parts = [
        rows.assign(z=_deviations(rows["value"].to_numpy(), str(measure)))
        for (_, _, measure), rows in long.groupby([PLATE, CHANNEL, "measure"], sort=False)
        if len(rows) >= FEWEST_FIELDS
    ]
    if not parts:
        return long.iloc[:0].assign(z=pd.Series(dtype=float))
    every = pd.concat(parts)
    off = every["z"] * every["measure"].map({"focus": -1, "saturated": 1}).fillna(np.sign(every["z"]))
    return every[off > MOST_DEVIATIONS].sort_values([*FIELD_KEY, CHANNEL], ignore_index=True)


def _deviations(values: NDArray[np.float64], measure: str) -> NDArray[np.float64]:
    """Return robust z-scores."""
    least, center = _SHARE, float(np.median(values))
    if measure != "saturated":
        least = _RELATIVE
        if center > 0:
            values = np.log(np.maximum(values / center, 1e-6))
            center = 0.0
        else:
            least *= abs(center)
    off = values - center
    scale = max(1.4826 * float(np.median(abs(off))), least)
    deviations: NDArray[np.float64] = off / scale if scale else np.zeros_like(off)
    return deviations


def warnings(table: pd.DataFrame) -> list[str]:
    """Say which fields differ from the others of their plate.

    Parameters
    ----------
    table : DataFrame, one row per field and channel
        The columns of `COLUMNS`; may be empty.

    Returns
    -------
    list of str
        One sentence, or none.
    """
    rows = outliers(table)
    if rows.empty:
        return []
    total, fields = (len(each[FIELD_KEY].drop_duplicates()) for each in (table, rows))
    parts = "; ".join(_examples(rows))
    return [
        f"{fields} of {total} fields differ in image quality from the others of their plate (by more than "
        f"{MOST_DEVIATIONS:g} robust standard deviations): {parts}; look at them, or leave them out by images.quality"
    ]


def _examples(rows: pd.DataFrame) -> Iterator[str]:
    for measure, of_measure in rows.groupby("measure", sort=False):
        worst = of_measure.reindex(of_measure["z"].abs().sort_values(ascending=False).index).head(_SHOWN)
        names = [" ".join([*key, f"{value:g}"]) for *key, value in worst[[*FIELD_KEY, CHANNEL, "value"]].to_numpy()]
        more = ", ..." if len(of_measure) > _SHOWN else ""
        yield f"{measure} of {len(of_measure[FIELD_KEY].drop_duplicates())} ({', '.join(names)}{more})"
