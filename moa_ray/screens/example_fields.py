"""Example fields: one treated field a label beside an untreated one of the same plate.

Which ones is settled when the screen is open, so that the report reads these few files and nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray.screens import Screen, read_field
from moa_ray.tables import COMPOUND, CONCENTRATION, FIELD, FIELD_KEY, LABEL, PLATE, WELL

_SHOWN = 480  # pixels of a field's longer side, as it is shown


@dataclass(frozen=True)
class Shot:
    """One field as it is shown: raw grey levels, averaged over blocks of pixels.

    planes : (height, width) float32 for each channel in use
    size : width and height of the field itself, pixels
    """

    compound: str
    concentration: float
    place: str
    planes: list[NDArray[np.float32]]
    size: tuple[int, int]


@dataclass(frozen=True)
class Pair:
    """A label's treated field and an untreated one of its plate, None where the plate has none."""

    label: str
    treated: Shot
    control: Shot | None


def choose(screen: Screen) -> dict[str, Any]:
    """Which fields to show, in plain values for the ledger.

    Of each label the first field, by plate, well and field, on a plate that has controls; beside it the first control
    of that plate. A label that is on no such plate stands alone.
    """
    controls = screen.controls.sort_values(FIELD_KEY).drop_duplicates(PLATE).set_index(PLATE, drop=False)
    pairs = []
    for label, fields in screen.labelled.sort_values(FIELD_KEY).groupby(LABEL):
        accompanied = fields[fields[PLATE].isin(controls.index)]
        treated = (fields if accompanied.empty else accompanied).iloc[0]
        control = controls.loc[treated[PLATE]] if len(accompanied) else None
        made = {"treated": _plain(screen, treated), "control": None if control is None else _plain(screen, control)}
        pairs.append({"label": str(label), **made})
    return {"root": str(screen.root.resolve()), "pairs": pairs}


def read(chosen: Mapping[str, Any] | None) -> tuple[list[Pair], str]:
    """The fields of `choose`, and a sentence on what is not shown and why; empty where all is.

    chosen : None in ledgers that were begun before fields were chosen
    """
    if not chosen:
        return [], "No example fields: this ledger does not say which; run the sweep's command again to note them."
    root = Path(chosen["root"])
    if not root.is_dir():
        return [], f"No example fields: the screen's folder {root} is not at hand."
    pairs, missing = [], []
    for pair in chosen["pairs"]:
        try:
            control = None if pair["control"] is None else _shot(root, pair["control"])
            pairs.append(Pair(pair["label"], _shot(root, pair["treated"]), control))
        except ValueError as error:
            missing.append(f"{pair['label']} ({error})")
    return pairs, f"Fields that cannot be read are not shown: {'; '.join(missing)}." if missing else ""


def _plain(screen: Screen, field: "pd.Series[Any]") -> dict[str, Any]:
    return {
        "compound": str(field[COMPOUND]),
        "concentration": float(field[CONCENTRATION]),
        "place": f"{field[PLATE]}, {field[WELL]}, field {field[FIELD]}",
        "paths": [str(field[column]) for column in screen.path_columns],
    }


def _shot(root: Path, plain: Mapping[str, Any]) -> Shot:
    planes = read_field(root, plain["paths"])
    height, width = planes[0].shape
    block = max(1, -(-max(height, width) // _SHOWN))
    return Shot(
        plain["compound"],
        plain["concentration"],
        plain["place"],
        [_averaged(plane, block) for plane in planes],
        (width, height),
    )


def _averaged(plane: NDArray[Any], block: int) -> NDArray[np.float32]:
    """Means over square blocks; pixels left over at the far edges are not shown."""
    height, width = (length // block for length in plane.shape)
    whole = plane[: height * block, : width * block].astype(np.float32)
    means: NDArray[np.float32] = whole.reshape(height, block, width, block).mean(axis=(1, 3), dtype=np.float32)
    return means


def limits(pair: Pair, percentiles: Sequence[float]) -> list[tuple[float, float]]:
    """For each channel the grey levels at two percentiles over both fields of a pair."""
    shots = [pair.treated] if pair.control is None else [pair.treated, pair.control]
    found = []
    for channel in range(len(pair.treated.planes)):
        values = np.concatenate([shot.planes[channel].ravel() for shot in shots])
        low, high = np.percentile(values, list(percentiles))
        found.append((float(low), float(max(high, low + 1))))
    return found
