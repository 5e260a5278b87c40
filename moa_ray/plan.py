"""Describe what a sweep would do: the text that ``--plan`` prints."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from moa_ray.common.schema import COMPOUND, LABEL, PLATE, TREATMENT, WELL_KEY
from moa_ray.common.text import in_bytes, listed
from moa_ray.config.hyperparameters import Choice, Entry
from moa_ray.config.recipe import Recipe
from moa_ray.config.search import GridSettings
from moa_ray.screens.left_out import ROWS, left_out_sentences
from moa_ray.study import Study
from moa_ray.tiles.store import expected_bytes
from moa_ray.tracking.ledger import Ledger
from moa_ray.training import memory

_UNITS = ("fields", "wells", "tiles")
_FLOAT32 = 4  # bytes of a feature
_WIDTH = 12  # characters of a line's name
_MOST_DROPPED = 10  # plates and compounds of which tiles were dropped


def describe(study: Study) -> str:
    """Return what would be done, and what is wrong with the data.

    Parameters
    ----------
    study : Study
        An opened study; nothing is started and nothing is written.

    Returns
    -------
    str
        One line per fact: its name in the first twelve columns, then the fact.
    """
    parts = (
        _study_and_screen,
        _left_out,
        _candidates,
        _folds,
        _open_set,
        _scored_treatments,
        _trials,
        _out,
        _linear_probes,
        _tiles,
        _frozen_features,
        _memory,
        _problems,
    )
    return "\n".join(line for part in parts for line in part(study))


def _line(name: str, fact: str) -> str:
    return f"{name:<{_WIDTH}} {fact}"


def _study_and_screen(study: Study) -> Iterator[str]:
    sweep, screen = study.sweep, study.screen
    labelled, controls = screen.labelled, screen.controls
    yield _line("study", f"{sweep.study}: {sweep.out}")
    yield _line("screen", f"{screen.name} at {sweep.screen.root}: {_counts(labelled)}")
    yield _line(
        "controls",
        f"{len(controls)} fields of {controls.groupby(WELL_KEY).ngroups} wells on {controls[PLATE].nunique()} plates",
    )


def _left_out(study: Study) -> Iterator[str]:
    left_out = study.screen.left_out
    if left_out.empty:
        return
    rows = int(left_out[ROWS].sum())
    yield _line("left out", f"{rows} of {rows + len(study.screen.fields)} rows of the table")
    yield from (_line("", sentence) for sentence in left_out_sentences(left_out))


def _candidates(study: Study) -> Iterator[str]:
    sweep = study.sweep
    if isinstance(sweep.search, GridSettings):
        recipes = list(dict.fromkeys(recipe.ensemble for recipe in sweep.grid_recipes))
        yield _line("candidates", f"{len(recipes)}{_seeds(sweep.seeds)}")
        yield from (_line("", f"{recipe.candidate}: {_difference(recipe, recipes)}") for recipe in recipes)
        return
    settings = sweep.search
    yield _line(
        "candidates",
        f"{settings.candidates}, proposed by Optuna ({settings.sampler}) to better the "
        f"{settings.objective.replace('_', ' ')}; {len(settings.first)} of them given",
    )
    yield from (_line("", f"{key}: {_entry(entry)}") for key, entry in sweep.space.entries.items())


def _seeds(seeds: Sequence[int] | None) -> str:
    return "" if seeds is None else f", each with {_plural(len(seeds), 'seed')}: {', '.join(map(str, seeds))}"


def _folds(study: Study) -> Iterator[str]:
    excluded = [fold for fold in study.folds if fold.excluded is not None]
    held_out = ", ".join(study.sweep.folds.columns)
    more = f", {len(excluded)} excluded" if excluded else ""
    yield _line("folds", f"{len(study.trained_folds)} (held out: {held_out}){more}")
    yield from (_line("", f"{fold.name}: {fold.excluded}") for fold in excluded)


def _open_set(study: Study) -> Iterator[str]:
    """Say how many treatments are held out with their whole label, and how many beside them as known ones."""
    labelled = study.screen.labelled
    if not any(fold.column == LABEL for fold in study.folds):
        return
    rows = [(fold.scored(labelled), fold.split(labelled).test) for fold in study.trained_folds]
    known = labelled.iloc[[row for scored, _ in rows for row in scored]]
    unknown = labelled.iloc[[row for scored, test in rows for row in np.setdiff1d(test, scored)]]
    beside = f"{_treatments(known)} held out beside them as known ones"
    yield _line("unknown", f"{_treatments(unknown)} held out with their whole label, {beside}")


def _scored_treatments(study: Study) -> Iterator[str]:
    lost, n = study.unscored, study.treatments
    if lost.empty:
        return
    yield _line("scored", f"{n - len(lost)} of {n} treatments can be scored")
    for reason, rows in lost.groupby("reason", sort=False):
        names = list(dict.fromkeys(f"{compound} ({label})" for compound, label in rows[[COMPOUND, LABEL]].to_numpy()))
        yield _line("", f"not scored: {_plural(len(rows), 'treatment')}: {reason}: {listed(names)}")


def _out(study: Study) -> Iterator[str]:
    """Say what OUT holds already."""
    ledger = Ledger(study.sweep.out)
    if study.out_errors or not ledger.exists():
        return
    results = list(ledger.results())
    settled = {result.key for result in results if result.is_settled}
    again = Counter(result.status.replace("_", " ") for result in results if not result.is_settled)
    if isinstance(study.sweep.search, GridSettings):
        wanted = {(recipe.candidate, fold) for recipe, fold in study.trials}
        held = f"{len(settled & wanted)} of {len(wanted)} trials done"
    else:
        held = f"{len(settled)} trials of {len(ledger.proposals())} candidates done"
    more = "".join(f", {count} {status} and tried again" for status, count in again.items())
    yield _line("there", held + more)


def _trials(study: Study) -> Iterator[str]:
    sweep, settings = study.sweep, study.sweep.search
    if isinstance(settings, GridSettings):
        yield _line("trials", f"{len(study.trials)}, and as many trainings at most")
        yield _line("epochs", f"{sum(recipe.epochs for recipe, _ in study.trials)} at most")
        return
    search, confirm = len(study.search_folds), len(study.confirm_folds)
    other_seeds = sweep.space.seeds[1:]
    trials = settings.candidates * search + (1 + settings.confirm) * confirm + len(other_seeds) * (search + confirm)
    first = min(search, settings.race.first_folds) if settings.race else search
    names = ", ".join(study.search_folds)
    yield _line("search", f"{search} folds, the first {first} for every candidate: {names}")
    yield _line("confirm", f"{confirm} folds, for the winner and {settings.confirm} runners-up")
    if other_seeds:
        yield _line("ensemble", f"the winner with {_plural(len(other_seeds), 'more seed')}, on all folds")
    yield _line("trials", f"{trials}, and as many trainings at most; fewer, since folds race")
    yield _line("epochs", f"{trials * max(recipe.epochs for recipe in study.sweep.resource_profiles)} at most")


def _linear_probes(study: Study) -> Iterator[str]:
    probes, folds, keep = study.sweep.linear_probes, len(study.search_folds), study.sweep.keep
    if not study.sweep.search.screen_with_frozen:
        return
    then = f"; the best {_plural(keep, 'backbone')} will go on" if keep is not None else ""
    trials = _plural(len(probes) * folds, "trial")
    yield _line(
        "linear probe",
        f"{_plural(len(probes), 'frozen backbone')} on {_plural(folds, 'fold')}, {trials} more{then}",
    )


def _tiles(study: Study) -> Iterator[str]:
    disk = expected_bytes(len(study.screen.labelled), study.sweep.images, study.sizes)
    store = study.existing_store()
    if store is None:
        yield _line("disk", f"{in_bytes(disk)} of tiles at most")
        return
    held = in_bytes(sum(store.file(size).stat().st_size for size in store.sizes))
    yield _line("disk", f"{held} of tiles are there already, {len(store.table)} of them: {store.path}")
    counts = store.counts(study.screen.labelled)
    lost = counts[counts["dropped_tiles"] > 0].sort_values("dropped_tiles", ascending=False, kind="stable")
    if lost.empty:
        return
    total = {unit: f"{counts[f'dropped_{unit}'].sum()} of {counts[unit].sum()} {unit}" for unit in _UNITS}
    fields, wells, tiles = (total[unit] for unit in _UNITS)
    yield _line("dropped", f"{tiles}; no tile is left of {fields} and {wells}; by plate and compound:")
    for row in lost.head(_MOST_DROPPED).to_dict("records"):
        yield _line("", f"{row[PLATE]}, {row[COMPOUND]}: {row['dropped_tiles']} of {row['tiles']} tiles")
    if len(lost) > _MOST_DROPPED:
        yield _line("", f"... and {len(lost) - _MOST_DROPPED} more")
    yield from (_line("", sentence) for sentence in store.warnings if "cannot be predicted" in sentence)


def _frozen_features(study: Study) -> Iterator[str]:
    """Say which sets of frozen features are taken, and their bytes at most."""
    sets = {recipe.features_key: recipe for recipe in [*study.sweep.frozen, *study.sweep.linear_probes]}
    if not sets:
        return
    preparation = study.sweep.images
    tiles = len(study.screen.labelled) * preparation.rows * preparation.columns
    sizes = [
        (recipe, key[-1], _FLOAT32 * key[-1] * tiles * memory.network(recipe.backbone).features)
        for key, recipe in sets.items()
    ]
    total = in_bytes(sum(size for _, _, size in sizes))
    yield _line(
        "features",
        f"{_plural(len(sets), 'set')} of frozen features, taken once and kept beside the tiles, {total} at most",
    )
    for recipe, orientations, size in sizes:
        name = f"{recipe.backbone}, {recipe.image_size} px, {_plural(orientations, 'orientation')}"
        yield _line("", f"{name}: {in_bytes(size)}")


def _memory(study: Study) -> Iterator[str]:
    """Say about how many bytes a worker needs, for the largest batch of each backbone and image size."""
    by_batch = sorted(study.sweep.resource_profiles, key=lambda recipe: recipe.batch_size)
    for recipe in {(recipe.backbone, recipe.image_size): recipe for recipe in by_batch}.values():
        needed = in_bytes(memory.expected_memory(recipe, len(study.screen.labels)))
        yield _line(
            "memory",
            f"about {needed} a worker with {recipe.backbone}, {recipe.image_size} px, batches of {recipe.batch_size}",
        )


def _problems(study: Study) -> Iterator[str]:
    for name, messages in (("errors", [*study.errors, *study.out_errors]), ("warnings", study.warnings)):
        yield _line(name, str(len(messages)))
        yield from (_line("", message) for message in messages)


def _counts(labelled: pd.DataFrame) -> str:
    return (
        f"{len(labelled)} fields of {labelled.groupby(WELL_KEY).ngroups} treated wells, "
        f"{labelled.groupby(TREATMENT).ngroups} treatments, {labelled[COMPOUND].nunique()} compounds, "
        f"{labelled[LABEL].nunique()} labels"
    )


def _treatments(fields: pd.DataFrame) -> str:
    treatments = _plural(fields.groupby(TREATMENT).ngroups, "treatment")
    return f"{treatments} of {_plural(fields[COMPOUND].nunique(), 'compound')}"


def _difference(recipe: Recipe, recipes: list[Recipe]) -> str:
    """Name the hyperparameters by which a recipe differs from the others, or its main ones where it stands alone."""
    plain = recipe.as_dict()
    differing = [key for key in plain if any(other.as_dict()[key] != plain[key] for other in recipes)]
    keys = differing or ["backbone", "weights", "learning_rate", "epochs"]
    return ", ".join(f"{key} {plain[key]}" for key in keys)


def _entry(entry: Entry) -> str:
    if isinstance(entry, Choice):
        text = ", ".join(map(str, entry.choices))
    else:
        kind = "logarithmic" if entry.log else "linear"
        text = f"{entry.low:g} to {entry.high:g}, {kind}" + (f", in steps of {entry.step:g}" if entry.step else "")
    when = " and ".join(f"{key} is {' or '.join(map(str, values))}" for key, values in entry.when.items())
    return f"{text}, where {when}" if when else text


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
