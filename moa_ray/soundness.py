"""What stops a sweep: all of it at once, before hours of tiles and trials. The plan and the sweep say the same."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from moa_ray.common import uri
from moa_ray.common.errors import InputError
from moa_ray.common.random_streams import rng
from moa_ray.common.schema import COMPOUND, LABEL, TREATMENT, WELL_KEY
from moa_ray.common.text import in_bytes, listed
from moa_ray.screens.validation import validation_split
from moa_ray.tiles import build
from moa_ray.tiles.controls import check_controls
from moa_ray.tiles.store import expected_bytes
from moa_ray.tracking.ledger import Ledger

if TYPE_CHECKING:
    from moa_ray.study import Study


def data_errors(study: "Study") -> list[str]:
    """Find what is wrong with a screen and its folds.

    Parameters
    ----------
    study : Study
        An opened study.

    Returns
    -------
    list of str
        A line each.
    """
    errors = [problem.message for problem in study.problems if problem.severity == "error"]
    # Of images that are missing nothing more can be known.
    read = not errors and not study.is_to_be_painted
    errors += check_controls(study.screen, study.sweep.images, read)
    errors += _unit_errors(study)
    if not study.trained_folds:
        errors.append("folds: none can be trained: " + "; ".join(f"{f.name}: {f.excluded}" for f in study.folds))
    return errors + _validation_errors(study)


def _unit_errors(study: "Study") -> list[str]:
    """Find that compounds cannot be scored as wholes."""
    if study.sweep.score.unit != "compound":
        return []
    labels = study.screen.labelled.groupby(COMPOUND)[LABEL].unique()
    torn = [f"{compound} ({', '.join(several)})" for compound, several in labels.items() if len(several) > 1]
    text = f"score.unit: {len(torn)} compounds carry two labels: {listed(torn)}; set it to treatment"
    return [text] if torn else []


def _validation_errors(study: "Study") -> list[str]:
    """Find folds whose training wells cannot be split into those to train on and those to watch."""
    validation = study.sweep.validation
    if validation is None:
        return []
    labelled = study.screen.labelled
    wells = labelled.drop_duplicates([*WELL_KEY, *TREATMENT, LABEL])
    confirm = set(study.confirm_folds)
    wrong: dict[str, list[str]] = {}
    for fold in study.trained_folds:
        if fold.name in confirm:
            continue
        train = wells.iloc[fold.split(wells).train]
        try:
            watched = validation_split(train, validation.share, rng(study.sweep.seed, fold.name))[1]
        except InputError as error:
            wrong.setdefault(str(error), []).append(fold.name)
        else:
            if not len(watched):
                reason = "each label has one training well, which is trained on, so none is left to watch"
                wrong.setdefault(reason, []).append(fold.name)
    return [f"validation: {reason} (fold {listed(folds)}); set validation to null" for reason, folds in wrong.items()]


def out_errors(study: "Study") -> list[str]:
    """Find why OUT and the tiles could not be written.

    Parameters
    ----------
    study : Study
        An opened study.

    Returns
    -------
    list of str
        A line each: OUT holds another sweep, a folder cannot be written, the disk is too small.
    """
    sweep = study.sweep
    out, tiles = uri.folder(sweep.out), sweep.tile_folder
    errors = []
    for key, folder in {"out": out, "tiles": tiles}.items():
        if why := _unwritable(folder):
            errors.append(f"{key}: {folder}: {why}")
    if not errors:
        errors += [message] if (message := _other_sweep(study)) else []
        errors += _disk_errors(study, tiles)
    return errors


def _unwritable(folder: Path) -> str:
    """Say why a folder cannot be made or written; empty where it can."""
    nearest = _nearest(folder)
    if not nearest.is_dir():
        return f"{nearest} is a file; give another folder"
    if not os.access(nearest, os.W_OK | os.X_OK):
        return f"{nearest} cannot be written; give another folder, or the right to write there"
    return ""


def _nearest(folder: Path) -> Path:
    """Return the folder itself, or the nearest of its parents that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists() or path.is_symlink())


def _other_sweep(study: "Study") -> str:
    """Say that OUT holds another sweep; empty where it does not."""
    try:
        return Ledger(study.sweep.out).refusal(study.sweep, None if study.is_to_be_painted else study.identity)
    except InputError as error:  # weights that cannot be read, a ledger that is not whole
        return str(error)


def _disk_errors(study: "Study", tiles: Path) -> list[str]:
    """Find that the tiles may not fit where they are to be."""
    if study.is_to_be_painted:
        there = 0
    else:
        store = build.store_path(study.screen, study.sweep.images, study.sizes, tiles)
        there = sum(path.stat().st_size for path in store.glob("tiles-*.npy"))
    needed = expected_bytes(len(study.screen.labelled), study.sweep.images, study.sizes) - there
    free = shutil.disk_usage(_nearest(tiles)).free
    if needed <= free:
        return []
    sizes = f"{in_bytes(needed)} of tiles may have to be written, but {in_bytes(free)} are free"
    return [f"tiles: {tiles}: {sizes}; free some, or give another folder"]
