"""By which fields each field is normalised: those of its plate, its week, its screen, or of any column's value.

Pixels are measured by unit: a plate, or where a column of the screen is named, the fields of a plate that share its
value. A unit is normalised by all units of its group together. Where a group has fewer fields than
`Normalise.min_control_fields` a wider one takes its place: the week's for a plate, then the screen's.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Mapping

import pandas as pd

from moa_ray.common.schema import CONTROL, LABEL, METADATA_PREFIX, PLATE, WEEK
from moa_ray.common.text import listed
from moa_ray.config.messages import nearest
from moa_ray.config.preparation import Normalise, Preparation
from moa_ray.screens.screen import Problem, Screen

Unit = tuple[str, ...]  # plate, and the value of a column where one is named and not missing

_SOURCES = {"week": "their week's", "screen": "the whole screen's"}


def measured_fields(screen: Screen, preparation: Preparation) -> pd.DataFrame:
    """Return the fields whose pixels are measured to normalise by.

    Parameters
    ----------
    screen : Screen
        The screen.
    preparation : Preparation
        Whether and by what fields are normalised.

    Returns
    -------
    DataFrame, one row per field
        All controls of the screen, or all fields in use; no row where nothing is normalised.
    """
    settings, fields = preparation.normalise, screen.fields
    if settings.by == "none":
        return fields.iloc[:0]
    return fields[fields[CONTROL] | fields[LABEL].notna()] if settings.of == "all" else screen.controls


def units(fields: pd.DataFrame, settings: Normalise) -> list[Unit]:
    """Return the unit of each field.

    Parameters
    ----------
    fields : DataFrame, one row per field
        With the columns of the screen.
    settings : Normalise
        By what fields are normalised.

    Returns
    -------
    list of tuple of str
        In the order of the fields.
    """
    plates = fields[PLATE].tolist()
    if settings.column is None:
        return [(plate,) for plate in plates]
    values = fields[settings.column]
    return [
        (plate,) if missing else (plate, str(value))
        for plate, value, missing in zip(plates, values, values.isna(), strict=True)
    ]


def check_normalise(screen: Screen, settings: Normalise) -> list[Problem]:
    """Find what keeps a screen from being normalised as the sweep file says.

    Parameters
    ----------
    screen : Screen
        The screen.
    settings : Normalise
        By what fields are normalised.

    Returns
    -------
    list of Problem
        An error where the screen has no such column.
    """
    if settings.column is None or settings.column in screen.fields:
        return []
    columns = [name for name in screen.fields if name.startswith(METADATA_PREFIX)]
    hint = nearest(settings.column, columns)
    return [Problem("error", f"images.normalise.by: the screen has no column {settings.column!r}{hint}")]


def fallbacks(screen: Screen, preparation: Preparation) -> tuple[dict[Unit, list[Unit]], list[str]]:
    """Return by which units each unit is normalised.

    Parameters
    ----------
    screen : Screen
        The screen.
    preparation : Preparation
        By what fields are normalised, and how many are enough.

    Returns
    -------
    sources : dict of lists of units, by unit
        Empty where nothing is normalised.
    sentences : list of str
        One for each way in which others were taken.
    """
    settings = preparation.normalise
    if settings.by == "none":
        return {}, []
    counts = Counter(units(measured_fields(screen, preparation), settings))
    groups = _groups(screen.fields, settings)
    asked = next(iter(groups))
    sources: dict[Unit, list[Unit]] = {}
    fallen: dict[str, list[Unit]] = {"week": [], "screen": []}
    for unit in groups["screen"]:
        sizes = ((step, sum(counts[other] for other in of_unit[unit])) for step, of_unit in groups.items())
        step = next((name for name, fields in sizes if fields >= settings.min_control_fields), "screen")
        sources[unit] = groups[step][unit]
        if step != asked:
            fallen[step].append(unit)
    return sources, [_sentence(names, step, settings) for step, names in fallen.items() if names]


def _groups(fields: pd.DataFrame, settings: Normalise) -> dict[str, dict[Unit, list[Unit]]]:
    """Return the group of each unit in the step that is asked for, then in those that take its place."""
    of_fields = units(fields, settings)
    keys: dict[str, dict[Unit, Hashable]] = {"screen": dict.fromkeys(of_fields, "all")}
    if settings.column is not None:
        keys = {"column": {unit: unit[1:] or None for unit in of_fields}, **keys}
    elif settings.by != "screen":
        weeks = (
            fields[WEEK].astype(object).where(fields[WEEK].notna(), None) if WEEK in fields else [None] * len(fields)
        )
        # A plate's first row says of which week it is.
        keys = {"week": dict(reversed(list(zip(of_fields, weeks, strict=True)))), **keys}
        if settings.by == "plate":
            keys = {"plate": {unit: unit for unit in of_fields}, **keys}
    return {step: _members(key_of, dict.fromkeys(of_fields)) for step, key_of in keys.items()}


def _members(key_of: Mapping[Unit, Hashable], every: Collection[Unit]) -> dict[Unit, list[Unit]]:
    """Return for each unit all that share its key; none share a key that is missing."""
    members: dict[Hashable, list[Unit]] = defaultdict(list)
    for unit in every:
        members[key_of[unit]].append(unit)
    members[None] = []
    return {unit: members[key_of[unit]] for unit in every}


def _sentence(fallen: list[Unit], step: str, settings: Normalise) -> str:
    """Say that units have too few fields of their own, and what they are normalised by."""
    fields = "control fields" if settings.of == "controls" else "fields"
    if settings.column is not None:
        values = [unit[-1] if len(unit) > 1 else "(none)" for unit in fallen]
        names = list(dict.fromkeys(values))
        return (
            f"{len(names)} values of {settings.column} have fewer than {settings.min_control_fields} {fields} and are "
            f"normalised by the whole screen's: {listed(names)}"
        )
    own = "of their own" if settings.by == "plate" else "in their week"
    return (
        f"{len(fallen)} plates have fewer than {settings.min_control_fields} {fields} {own} and are normalised by "
        f"{_SOURCES[step]}: {listed(unit[0] for unit in fallen)}"
    )
