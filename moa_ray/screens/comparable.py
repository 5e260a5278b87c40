"""Images of another size or depth than most: an error, unless plates differ and the preparation makes them comparable.

Sizes are made one by `images.field_size`; depths (8 and 16 bits, say) by normalising each plate by itself.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from moa_ray.common.schema import CONTROL, PLATE
from moa_ray.config.preparation import Preparation
from moa_ray.screens.screen import Problem, problem

Header = tuple[tuple[int, int], str]


@dataclass(frozen=True)
class Comparable:
    """Which differences between plates a preparation takes out.

    Attributes
    ----------
    shape : bool
        Whether fields of all sizes become one.
    dtype : bool
        Whether each plate is normalised by itself.
    shape_advice, dtype_advice : str
        What to do where it is not so, for messages.
    """

    shape: bool = False
    dtype: bool = False
    shape_advice: str = "set images.field_size"
    dtype_advice: str = "set images.normalise.by: plate"

    @classmethod
    def of(cls, preparation: Preparation | None, fields: pd.DataFrame) -> "Comparable":
        """Find what a preparation takes out.

        Parameters
        ----------
        preparation : Preparation or None
            How fields become tiles; None where that is not known.
        fields : DataFrame, one row per field
            As `moa_ray.screens.screen.Screen.fields`.

        Returns
        -------
        Comparable
        """
        if preparation is None:
            return cls()
        normalise = preparation.normalise
        if normalise.by not in ("plate", PLATE):
            return cls(shape=preparation.field_size is not None)
        measured = fields if normalise.of == "all" else fields[fields[CONTROL]]
        few = fields[PLATE].map(measured[PLATE].value_counts()).fillna(0) < normalise.min_control_fields
        advice = (
            f"give each at least images.normalise.min_control_fields ({normalise.min_control_fields}) control fields"
        )
        return cls(preparation.field_size is not None, not few.any(), dtype_advice=advice)


def odd_images(headers: Mapping[str, Header], plates: Mapping[str, str], comparable: Comparable) -> list[Problem]:
    """Find images of another shape or dtype than most.

    Parameters
    ----------
    headers : mapping of tuple, by location
        Shape and dtype of each image.
    plates : mapping of str, by location
        The plate of each image; those that are not in it count as one plate.
    comparable : Comparable
        Which differences between plates do not count.

    Returns
    -------
    list of Problem
        At most one for each of the two.
    """
    shapes = {location: header[0] for location, header in headers.items()}
    dtypes = {location: header[1] for location, header in headers.items()}
    return [
        *_odd("shape", shapes, plates, comparable.shape, comparable.shape_advice),
        *_odd("dtype", dtypes, plates, comparable.dtype, comparable.dtype_advice),
    ]


def _odd(
    name: str, values: Mapping[str, Any], plates: Mapping[str, str], may_differ: bool, advice: str
) -> list[Problem]:
    common = _most_common(values.values())
    by_plate: dict[str, dict[str, Any]] = {}
    for location, value in values.items():
        by_plate.setdefault(plates.get(location, ""), {})[location] = value
    torn = [images for images in by_plate.values() if len(set(images.values())) > 1]
    if torn and (may_differ or len(by_plate) > 1):
        odd = [
            f"{location} {value}"
            for images in torn
            for location, value in _differing(images, _most_common(images.values()))
        ]
        return [problem("error", f"image files have another {name} than most of their plate", odd)]
    odd = [f"{location} {value}" for location, value in _differing(values, common)]
    if not odd or (may_differ and not torn):
        return []
    plates_differ = f"; where plates differ, {advice}" if len(by_plate) > 1 else ""
    return [problem("error", f"image files have another {name} than most ({common}){plates_differ}", odd)]


def _most_common(values: Any) -> Any:
    return next((value for value, _ in Counter(values).most_common(1)), None)


def _differing(values: Mapping[str, Any], common: Any) -> list[tuple[str, Any]]:
    return [(location, value) for location, value in values.items() if value != common]
