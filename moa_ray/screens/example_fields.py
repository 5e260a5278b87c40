"""Example fields for the report: one treated field of each label beside an untreated one of the same plate.

They are chosen when the screen is open, so that the report reads these few files and nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray.common.errors import InputError
from moa_ray.common.schema import COMPOUND, CONCENTRATION, FIELD, FIELD_KEY, LABEL, PLATE, WELL
from moa_ray.config.planes import Plane
from moa_ray.screens.reading import read_field
from moa_ray.screens.root_folder import LinkedFolder
from moa_ray.screens.screen import Screen

_SHOWN = 480  # pixels of a field's longer side, as it is shown


@dataclass(frozen=True)
class ExampleField:
    """One field as it is shown: raw grey levels, averaged over blocks of pixels.

    Attributes
    ----------
    compound : str
        Its compound.
    concentration : float
        In µmol/L.
    place : str
        Plate, well and field, for a caption.
    planes : list of array of float32, each of shape (height, width)
        The channels in use, in the network's order.
    size : tuple of int
        Width and height of the field itself, pixels.
    """

    compound: str
    concentration: float
    place: str
    planes: list[NDArray[np.float32]]
    size: tuple[int, int]


@dataclass(frozen=True)
class Pair:
    """A treated field and an untreated one of its plate.

    Attributes
    ----------
    label : str
        The label that the pair is an example of.
    treated : ExampleField
        A field of that label.
    control : ExampleField or None
        None where the plate has no controls.
    """

    label: str
    treated: ExampleField
    control: ExampleField | None


def choose(screen: Screen) -> dict[str, Any]:
    """Choose the fields to show.

    Of each label it is the first field, by plate, well and field, on a plate that has controls; beside it the first
    control of that plate. A label that is on no such plate stands alone.

    Parameters
    ----------
    screen : Screen
        The open screen.

    Returns
    -------
    dict
        ``root`` and ``pairs``, in plain values for the ledger, as `read` takes them.
    """
    controls = screen.controls.sort_values(FIELD_KEY).drop_duplicates(PLATE).set_index(PLATE, drop=False)
    pairs = []
    for label, fields in screen.labelled.sort_values(FIELD_KEY).groupby(LABEL):
        accompanied = fields[fields[PLATE].isin(controls.index)]
        treated = (fields if accompanied.empty else accompanied).iloc[0]
        control = controls.loc[treated[PLATE]] if len(accompanied) else None
        pairs.append(
            {
                "label": str(label),
                "treated": _plain(screen, treated),
                "control": None if control is None else _plain(screen, control),
            }
        )
    links = {"follow_links": True} if isinstance(screen.root, LinkedFolder) else {}
    return {"root": str(screen.root.resolve()), **links, "pairs": pairs}


def read(chosen: Mapping[str, Any] | None) -> tuple[list[Pair], str]:
    """Read the fields that `choose` chose.

    Parameters
    ----------
    chosen : mapping or None
        What `choose` returned; None in ledgers that were begun before fields were chosen.

    Returns
    -------
    pairs : list of Pair
        In the order of `choose`, without those that cannot be read.
    missing : str
        A sentence on what is not shown and why; empty where all is.
    """
    if not chosen:
        return [], "No example fields: this ledger does not say which; run the sweep's command again to note them."
    root = LinkedFolder(chosen["root"]) if chosen.get("follow_links") else Path(chosen["root"])
    if not root.is_dir():
        return [], f"No example fields: the screen's folder {root} is not at hand."
    pairs, missing = [], []
    for pair in chosen["pairs"]:
        try:
            control = None if pair["control"] is None else _example(root, pair["control"])
            pairs.append(Pair(pair["label"], _example(root, pair["treated"]), control))
        except InputError as error:
            missing.append(f"{pair['label']} ({error})")
    return pairs, f"Fields that cannot be read are not shown: {'; '.join(missing)}." if missing else ""


def _plain(screen: Screen, field: pd.Series) -> dict[str, Any]:
    return {
        "compound": str(field[COMPOUND]),
        "concentration": float(field[CONCENTRATION]),
        "place": f"{field[PLATE]}, {field[WELL]}, field {field[FIELD]}",
        "paths": [str(field[column]) for column in screen.path_columns],
        **({"planes": [plane and asdict(plane) for plane in screen.used_planes]} if any(screen.used_planes) else {}),
    }


def _example(root: Path, plain: Mapping[str, Any]) -> ExampleField:
    chosen = [None if plane is None else Plane(**plane) for plane in plain.get("planes", ())]
    planes = read_field(root, plain["paths"], chosen)
    height, width = planes[0].shape
    block = max(1, -(-max(height, width) // _SHOWN))
    return ExampleField(
        plain["compound"],
        plain["concentration"],
        plain["place"],
        [_averaged(plane, block) for plane in planes],
        (width, height),
    )


def _averaged(plane: NDArray[Any], block: int) -> NDArray[np.float32]:
    """Average over square blocks; pixels left over at the far edges are not shown."""
    height, width = (length // block for length in plane.shape)
    whole = plane[: height * block, : width * block].astype(np.float32)
    means: NDArray[np.float32] = whole.reshape(height, block, width, block).mean(axis=(1, 3), dtype=np.float32)
    return means


def limits(pair: Pair, percentiles: Sequence[float]) -> list[tuple[float, float]]:
    """Find the grey levels between which each channel of a pair is shown.

    Parameters
    ----------
    pair : Pair
        Its fields share their limits.
    percentiles : sequence of float
        Two, in [0, 100], over the pixels of both fields.

    Returns
    -------
    list of tuple of float
        Lowest and highest grey level of each channel, at least 1 apart.
    """
    fields = [pair.treated] if pair.control is None else [pair.treated, pair.control]
    levels = []
    for channel in range(len(pair.treated.planes)):
        values = np.concatenate([field.planes[channel].ravel() for field in fields])
        low, high = np.percentile(values, list(percentiles))
        levels.append((float(low), float(max(high, low + 1))))
    return levels
