"""Normalise fields by others: measure the control fields or all, and make curves of intensities of them.

`moa_ray.tiles.groups` says by which fields each is normalised. Where a group has too few, a wider one takes its place;
each such step is told once, in `TileStore.warnings`.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from urllib.parse import quote

from moa_ray.common.errors import InputError
from moa_ray.common.schema import FIELD_KEY
from moa_ray.common.uri import Place
from moa_ray.config.planes import Plane
from moa_ray.config.preparation import Preparation
from moa_ray.screens.reading import read_field
from moa_ray.screens.screen import Screen
from moa_ray.tiles.cropping import sized
from moa_ray.tiles.groups import Unit, check_normalise, fallbacks, measured_fields, units
from moa_ray.tiles.intensities import Curve, settle_process
from moa_ray.tiles.levels import Levels
from moa_ray.tiles.moments import Moments, Statistic
from moa_ray.tiles.pixels import advice, fit_pixels
from moa_ray.tiles.quality import beyond_limits, measure_quality
from moa_ray.tiles.workers import FieldCounter, FieldExecutor

_NO_CONTROLS = (
    "images.normalise.by: the screen has no control fields to normalise by; name the control, or set it to none"
)
_STATISTICS: Mapping[str, type[Statistic]] = {"mean_std": Moments, "median_mad": Levels}
_SUFFIXES = {"mean_std": ".controls.json", "median_mad": ".controls.npz"}


@dataclass(frozen=True)
class _Measure:
    """Turns the locations of a field into the statistic of its pixels."""

    root: Place
    channels: list[str]
    planes: tuple[Plane | None, ...]
    preparation: Preparation

    def __call__(self, locations: list[str]) -> Statistic:
        settle_process()
        raw = fit_pixels(read_field(self.root, locations, self.planes), locations, self.preparation)
        statistic = _STATISTICS[self.preparation.normalise.statistic]
        if self.preparation.quality and beyond_limits(measure_quality(raw), self.channels, self.preparation.quality):
            return statistic.zero(len(raw))
        return statistic.of(sized(raw, self.preparation), Curve(self.preparation.anscombe))


def measure(
    screen: Screen, preparation: Preparation, parts: Path, executor: FieldExecutor, counter: FieldCounter
) -> tuple[dict[Unit, Path], list[InputError]]:
    """Measure the pixels that fields are normalised by, in one streaming pass.

    Parameters
    ----------
    screen : Screen
        The screen.
    preparation : Preparation
        At what size and after which transform fields are measured.
    parts : Path
        The folder in which each unit's statistic is kept as soon as it is known; none is measured that is there.
    executor : FieldExecutor
        Reads the fields.
    counter : FieldCounter
        Told of each field.

    Returns
    -------
    files : dict of Path by unit
        The statistic of all pixels of the unit's measured fields, channel by channel.
    errors : list of InputError
        Of the fields that cannot be read; their units have no file.

    Raises
    ------
    InputError
        If the screen has no such column as fields are normalised by.
    """
    fields, settings = measured_fields(screen, preparation), preparation.normalise
    if problems := check_normalise(screen, settings):
        raise InputError(problems[0].message)
    keys = fields[FIELD_KEY].itertuples(index=False, name=None)
    # In the order of the keys, so that rounding does not depend on the order of the table.
    jobs = sorted(zip(units(fields, settings), keys, fields[screen.path_columns].to_numpy().tolist(), strict=True))
    files = {unit: parts / f"{_file_name(unit)}{_SUFFIXES[settings.statistic]}" for unit, _, _ in jobs}
    finished = {unit for unit, path in files.items() if path.exists()}
    to_do = [job for job in jobs if job[0] not in finished]
    counter.add(len(jobs) - len(to_do))
    errors: list[InputError] = []
    work = _Measure(executor.root(screen), screen.used_channels, screen.used_planes, preparation)
    with closing(executor.map(work, [locations for _, _, locations in to_do])) as results:
        for unit, of_unit in groupby(to_do, key=lambda job: job[0]):
            total, wrong = _zero(screen, preparation), len(errors)
            for result in counter.counted(islice(results, len(list(of_unit)))):
                if isinstance(result, InputError):
                    errors.append(result)
                else:
                    total += result
            if len(errors) == wrong:
                total.save(files[unit])
    return {unit: path for unit, path in files.items() if path.exists()}, errors


def _file_name(unit: Unit) -> str:
    return "&".join(quote(part, safe=" ") for part in unit)


def _zero(screen: Screen, preparation: Preparation) -> Statistic:
    return _STATISTICS[preparation.normalise.statistic].zero(len(screen.path_columns))


def curves(screen: Screen, preparation: Preparation, files: Mapping[Unit, Path]) -> dict[Unit, list[Curve]]:
    """Return the curves that map the intensities of each unit.

    Parameters
    ----------
    screen : Screen
        The screen.
    preparation : Preparation
        By what fields are normalised.
    files : mapping of Path by unit
        As `measure` returns them. One group is held in memory at a time.

    Returns
    -------
    dict of lists of Curve, by unit
        One for each channel, by centre and scale of the unit's group.

    Raises
    ------
    InputError
        If there is nothing to normalise by, or nothing to divide by.
    """
    plain = [Curve(preparation.anscombe)] * len(screen.path_columns)
    if preparation.normalise.by == "none":
        return dict.fromkeys(units(screen.fields, preparation.normalise), plain)
    load = _STATISTICS[preparation.normalise.statistic].load
    by_group: dict[tuple[Unit, ...], list[Curve]] = {}
    by_unit: dict[Unit, list[Curve]] = {}
    for unit, group in fallbacks(screen, preparation)[0].items():
        if (key := tuple(group)) not in by_group:
            total = sum((load(files[other]) for other in group if other in files), start=_zero(screen, preparation))
            center, scale = _checked(total, unit, screen, preparation)
            by_group[key] = [
                replace(curve, mean=mean, std=std) for curve, mean, std in zip(plain, center, scale, strict=True)
            ]
        by_unit[unit] = by_group[key]
    return by_unit


def _checked(total: Statistic, unit: Unit, screen: Screen, preparation: Preparation) -> tuple[list[float], list[float]]:
    """Return centre and scale of each channel; refuse those that nothing can be divided by."""
    settings = preparation.normalise
    whose = "controls" if settings.of == "controls" else "fields"
    if not total.count and preparation.quality and len(measured_fields(screen, preparation)):
        raise InputError(f"plate {unit[0]}: none of its {whose} is within images.quality; widen the limits")
    if not total.count:
        raise InputError(_NO_CONTROLS)
    scale = total.scale
    if not (scale == 0).any():
        return total.center.tolist(), scale.tolist()
    flat = ", ".join(name for name, of_channel in zip(screen.path_columns, scale, strict=True) if of_channel == 0)
    if settings.statistic == "median_mad":
        raise InputError(
            f"plate {unit[0]}: at least half of the pixels of its {whose} have one single value in {flat}, so that "
            "their deviation is 0; look at the images, or set images.normalise.statistic: mean_std"
        )
    raise InputError(f"plate {unit[0]}: its {whose} have one single value in {flat}; look at the images")


def check_controls(screen: Screen, preparation: Preparation, read: bool = True) -> list[str]:
    """Find why a screen cannot be normalised, by reading as few fields as tell it.

    Parameters
    ----------
    screen : Screen
        Its images can be read, unless `read` says that they are not to be.
    preparation : Preparation
        Whether and by what fields are normalised.
    read : bool
        Whether to read images, or to look at the table alone.

    Returns
    -------
    list of str
        A line each: there is nothing to normalise by, or nothing to divide by.
    """
    settings = preparation.normalise
    if settings.by == "none" or check_normalise(screen, settings):
        return []
    fields = measured_fields(screen, preparation)
    if fields.empty:
        return [_NO_CONTROLS]
    paths: dict[Unit, list[list[str]]] = {}
    for unit, locations in zip(units(fields, settings), fields[screen.path_columns].to_numpy().tolist(), strict=True):
        paths.setdefault(unit, []).append(locations)
    groups: dict[tuple[Unit, ...], Unit] = {}
    for unit, group in fallbacks(screen, preparation)[0].items() if read else ():
        groups.setdefault(tuple(group), unit)
    errors = []
    for members, unit in groups.items():
        try:
            some = _enough([locations for other in members for locations in paths.get(other, ())], screen, preparation)
            _checked(some, unit, screen, preparation)
        except InputError as error:
            errors += [str(error), *advice([error])]
    return list(dict.fromkeys(errors))


def _enough(paths: list[list[str]], screen: Screen, preparation: Preparation) -> Statistic:
    """Measure fields until there is something to divide each channel by, or no field is left."""
    work = _Measure(screen.root.resolve(), screen.used_channels, screen.used_planes, preparation)
    total = _zero(screen, preparation)
    for locations in paths:
        total += work(locations)
        if (total.scale > 0).all():
            break
    return total
