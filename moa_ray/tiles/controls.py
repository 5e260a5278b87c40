"""Normalise plates by their controls: measure the control fields, and make curves of intensities of them.

A plate with fewer control fields than `Normalise.min_control_fields` takes those of its week, and where these are too
few those of the whole screen. Each such step is told once, in `TileStore.warnings`.
"""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.common.files import write_json
from moa_ray.common.schema import FIELD_KEY, PLATE, WEEK
from moa_ray.common.uri import Place
from moa_ray.config.planes import Plane
from moa_ray.config.preparation import Preparation
from moa_ray.screens.reading import read_field
from moa_ray.screens.screen import Screen
from moa_ray.tiles.cropping import sized
from moa_ray.tiles.intensities import Curve, Moments, settle_process
from moa_ray.tiles.pixels import fit_pixels
from moa_ray.tiles.workers import FieldCounter, FieldExecutor

_SOURCES = {"week": "their week's", "screen": "the whole screen's"}


def used_controls(screen: Screen, preparation: Preparation) -> pd.DataFrame:
    """Return the control fields that a preparation measures.

    Parameters
    ----------
    screen : Screen
        The screen.
    preparation : Preparation
        Whether and by what plates are normalised.

    Returns
    -------
    DataFrame, one row per field
        All controls of the screen, or no row where plates are not normalised.
    """
    return screen.controls if preparation.normalise.by != "none" else screen.controls.iloc[:0]


@dataclass(frozen=True)
class _Measure:
    """Turns the locations of a control field into moments."""

    root: Place
    planes: tuple[Plane | None, ...]
    preparation: Preparation

    def __call__(self, locations: list[str]) -> Moments:
        settle_process()
        planes = sized(
            fit_pixels(read_field(self.root, locations, self.planes), locations, self.preparation), self.preparation
        )
        return Moments.of(planes, Curve(self.preparation.anscombe))


def control_moments(
    screen: Screen, preparation: Preparation, parts: Path, executor: FieldExecutor, counter: FieldCounter
) -> tuple[dict[str, Moments], list[InputError]]:
    """Measure the control fields of each plate, in one streaming pass.

    Parameters
    ----------
    screen : Screen
        The screen.
    preparation : Preparation
        At what size and after which transform fields are measured.
    parts : Path
        The folder in which each plate's moments are kept as soon as they are known; they are read back from there.
    executor : FieldExecutor
        Reads the fields.
    counter : FieldCounter
        Told of each field.

    Returns
    -------
    moments : dict of Moments by plate
        Of all pixels of a plate's control fields, channel by channel.
    errors : list of InputError
        Of the fields that cannot be read; their plates have no moments.
    """
    controls = used_controls(screen, preparation)
    files = {str(plate): parts / f"{quote(str(plate), safe=' ')}.controls.json" for plate in controls[PLATE].unique()}
    saved = {plate: json.loads(path.read_text(encoding="utf-8")) for plate, path in files.items() if path.exists()}
    moments = {
        plate: Moments(plain["count"], np.array(plain["mean"]), np.array(plain["m2"])) for plate, plain in saved.items()
    }
    finished = controls[PLATE].isin(list(moments))
    counter.add(int(finished.sum()))
    # In the order of the keys, so that rounding does not depend on the order of the table.
    fields = controls[~finished].sort_values(FIELD_KEY)
    work = _Measure(executor.root(screen), screen.used_planes, preparation)
    errors: list[InputError] = []
    with closing(executor.map(work, fields[screen.path_columns].to_numpy().tolist())) as results:
        for plate, of_plate in fields.groupby(PLATE):
            measured = list(counter.counted(islice(results, len(of_plate))))
            wrong = [result for result in measured if isinstance(result, InputError)]
            errors += wrong
            if not wrong:
                of_fields = (result for result in measured if isinstance(result, Moments))
                total = sum(of_fields, start=Moments.zero(len(screen.path_columns)))
                moments[plate] = total
                plain = {"count": total.count, "mean": total.mean.tolist(), "m2": total.m2.tolist()}
                write_json(files[plate], plain)
    return moments, errors


def fallbacks(screen: Screen, preparation: Preparation) -> tuple[dict[str, list[str]], list[str]]:
    """Return by the controls of which plates each plate is normalised.

    Parameters
    ----------
    screen : Screen
        The screen.
    preparation : Preparation
        By what plates are normalised, and how many control fields are enough.

    Returns
    -------
    sources : dict of lists of plates, by plate
        Empty where plates are not normalised.
    sentences : list of str
        One for each way in which plates took the controls of others.
    """
    settings = preparation.normalise
    if settings.by == "none":
        return {}, []
    first = screen.fields.drop_duplicates(PLATE)
    plates = first[PLATE].tolist()
    week_of = dict(zip(plates, first[WEEK], strict=True)) if WEEK in first else {}
    counts = Counter(screen.controls[PLATE])
    sources: dict[str, list[str]] = {}
    fell: dict[str, list[str]] = {"week": [], "screen": []}
    for plate in plates:
        week = [other for other in plates if week_of and week_of[other] == week_of[plate]]
        steps = {"plate": [plate], "week": week, "screen": plates}
        allowed = list(steps)[list(steps).index(settings.by) :]
        enough = [step for step in allowed if sum(counts[name] for name in steps[step]) >= settings.min_control_fields]
        step = enough[0] if enough else "screen"
        sources[plate] = steps[step]
        if step != settings.by:
            fell[step].append(plate)
    sentences = [
        f"{len(names)} plates have fewer than {settings.min_control_fields} control fields "
        f"{'of their own' if settings.by == 'plate' else 'in their week'} and are normalised by {_SOURCES[step]}: "
        f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for step, names in fell.items()
        if names
    ]
    return sources, sentences


def curves(screen: Screen, preparation: Preparation, moments: Mapping[str, Moments]) -> dict[str, list[Curve]]:
    """Return the curves that map the intensities of each plate.

    Parameters
    ----------
    screen : Screen
        The screen.
    preparation : Preparation
        By what plates are normalised.
    moments : mapping of Moments by plate
        As `control_moments` returns them.

    Returns
    -------
    dict of lists of Curve, by plate
        One for each channel, by mean and standard deviation of the plate's controls.

    Raises
    ------
    InputError
        If there is no control, or the controls of a plate have one single value.
    """
    plain = [Curve(preparation.anscombe)] * len(screen.path_columns)
    if preparation.normalise.by == "none":
        return dict.fromkeys(screen.fields[PLATE].unique(), plain)
    by_plate: dict[str, list[Curve]] = {}
    zero = Moments.zero(len(screen.path_columns))
    for plate, sources in fallbacks(screen, preparation)[0].items():
        total = sum((moments.get(source, zero) for source in sources), start=zero)
        if not total.count:
            raise InputError(
                "images.normalise.by: the screen has no control fields to normalise by; name the control, or set it to "
                "none"
            )
        if (total.std == 0).any():
            flat = [name for name, std in zip(screen.path_columns, total.std, strict=True) if std == 0]
            raise InputError(
                f"plate {plate}: its controls have one single value in {', '.join(flat)}; look at the images"
            )
        by_plate[plate] = [
            replace(curve, mean=float(mean), std=float(std))
            for curve, mean, std in zip(plain, total.mean, total.std, strict=True)
        ]
    return by_plate
