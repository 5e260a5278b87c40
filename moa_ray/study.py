"""A study: what a sweep file and its data come to, before anything is trained."""

import contextlib
import hashlib
import os
import platform
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray import copies, examples, tiles
from moa_ray.command import in_bytes
from moa_ray.downloads import Progress
from moa_ray.folds import Fold, make_folds, unscored, validation_split
from moa_ray.recipe import Recipe
from moa_ray.screens import Problem, Screen, bbbc014, bbbc021, check_hold_out, synthetic, table, translocation
from moa_ray.selection import search_order
from moa_ray.space import Choice, Entry
from moa_ray.spec import Bbbc014, Bbbc021, Grid, Sweep, Table
from moa_ray.stores import Uri
from moa_ray.tables import COMPOUND, FIELD_KEY, LABEL, PLATE, TREATMENT, WELL_KEY, metadata_columns
from moa_ray.tiles import Features, TileStore

_SHOWN_VERSIONS = ("moa_ray", "keras", "tensorflow", "ray", "optuna", "mlflow", "numpy", "pandas", "scikit-learn")


@dataclass(frozen=True)
class Material:
    """What every trial of a study needs, read-only.

    table : one row a tile with its ``Metadata_*`` columns and ``row``, its place in the arrays
    tiles : for each image size the file of the tile store, (n, size, size, 3) uint8
    confirm : folds that nothing is chosen by, so that no training wells are watched there but all are trained on
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    folds: Mapping[str, Fold]
    tiles: Mapping[int, Path]
    seed: int
    validation_share: float | None = None
    confirm: frozenset[str] = frozenset()

    def split(self, fold: str) -> dict[str, NDArray[np.int64]]:
        """Positions in `table` to train on, to validate on and to predict; the same on any machine."""
        parts = self.folds[fold].split(self.table)
        train, validation = parts.train, parts.train[:0]
        if self.validation_share is not None and fold not in self.confirm:
            # Not by the member: all of an ensemble watch the same wells.
            rng = np.random.default_rng(self.seeds(fold))
            fit, watched = validation_split(self.table.iloc[train], self.validation_share, rng)
            train, validation = train[fit], train[watched]
        return {"train": train, "validation": validation, "test": parts.test}

    def seeds(self, fold: str, member: int | None = None) -> list[int]:
        """What a trial's draws are seeded with: the study's seed, the fold's name, and of an ensemble the member's."""
        return [self.seed, zlib.crc32(fold.encode()), *([] if member is None else [member])]

    def labels(self) -> NDArray[np.int64]:
        """Class index of every row of the arrays, -1 where no tile of the table lies."""
        rows = self.table["row"].to_numpy()
        labels = np.full(rows.max() + 1, -1, dtype=np.int64)
        labels[rows] = pd.Categorical(self.table[LABEL], categories=list(self.classes)).codes
        return labels


@dataclass(frozen=True)
class Study:
    """A sweep with its screen opened and its folds made."""

    sweep: Sweep
    screen: Screen
    folds: tuple[Fold, ...]
    problems: tuple[Problem, ...]

    @classmethod
    def open(cls, sweep: Sweep, progress: Callable[[Progress], None] = lambda progress: None) -> "Study":
        """Open the screen and make the folds; problems of the data are gathered, not raised.

        progress : called while the files of a screen are fetched that lies in an object store
        """
        screen = _open_screen(sweep, copies.fetch(sweep.screen.root, progress))
        folds = make_folds(screen.labelled, sweep.folds.hold_out)
        problems = [*screen.problems, *check_hold_out(screen.fields, folds[0].column)] if folds else screen.problems
        return cls(sweep, screen, tuple(folds), tuple(problems))

    @property
    def recipes(self) -> list[Recipe]:
        """The recipes of a grid; of a search one for each that shapes tiles, weights and memory."""
        return self.sweep.recipes

    @property
    def trained_folds(self) -> list[Fold]:
        """The folds that are not excluded."""
        return [fold for fold in self.folds if fold.excluded is None]

    @property
    def trials(self) -> list[tuple[Recipe, str]]:
        """Every recipe on every fold, recipe by recipe."""
        return [(recipe, fold.name) for recipe in self.recipes for fold in self.trained_folds]

    @cached_property
    def search_folds(self) -> list[str]:
        """The folds that the search may look at, in the order in which every candidate gets them; a grid's are all."""
        if isinstance(self.sweep.search, Grid):
            return [fold.name for fold in self.trained_folds]
        return search_order(self.trained_folds, self.screen.labelled, self.sweep.folds.search, self.sweep.seed)

    @property
    def confirm_folds(self) -> list[str]:
        """The folds that the search may not look at."""
        search = set(self.search_folds)
        return [fold.name for fold in self.trained_folds if fold.name not in search]

    @property
    def sizes(self) -> list[int]:
        """The image sizes in use, pixels."""
        return sorted({int(recipe.image_size) for recipe in self.recipes})

    @property
    def warnings(self) -> list[str]:
        """The problems that do not stop a sweep."""
        return [problem.message for problem in self.problems if problem.severity == "warning"]

    def require_sound(self) -> None:
        """Raise ValueError with every problem that stops a sweep, one a line."""
        errors = [problem.message for problem in self.problems if problem.severity == "error"]
        if not self.trained_folds:
            errors.append("folds: none can be trained: " + "; ".join(f"{f.name}: {f.excluded}" for f in self.folds))
        if errors:
            raise ValueError(
                "\n".join([f"{self.sweep.screen.root}: the data cannot be swept:", *(f"  {e}" for e in errors)])
            )

    def prepare(self, progress: Callable[[int, int], None], crew: tiles.Crew | None = None) -> TileStore:
        """The screen's tiles, from the store where they are whole and up to date; else this machine's cores make them.

        crew : other workers that make them
        """
        return tiles.prepare(
            self.screen,
            self.sweep.images,
            self.sizes,
            self.sweep.tile_folder,
            crew=crew or tiles.Threads(os.cpu_count() or 1),
            progress=progress,
        )

    def material(self, store: TileStore) -> Material:
        """The tiles with the metadata of their fields, joined by key."""
        keyed = store.table.merge(
            self.screen.labelled[metadata_columns(self.screen.fields)], on=FIELD_KEY, validate="many_to_one"
        )
        validation = self.sweep.validation
        return Material(
            table=keyed.sort_values("row", ignore_index=True),
            classes=self.screen.labels,
            folds={fold.name: fold for fold in self.trained_folds},
            tiles={size: store.file(size).resolve() for size in self.sizes},
            seed=self.sweep.seed,
            validation_share=validation.share if validation else None,
            confirm=frozenset(self.confirm_folds),
        )

    def features(self, store: Path, recipes: list[Recipe]) -> dict[Recipe, Features]:
        """The sets of frozen features that some recipes train on, each beside one recipe that does.

        store : the folder of the tile store
        """
        return {recipe: Features.of(store, recipe, _content(recipe.weights)) for recipe in recipes}

    def record(self, store: TileStore, command: str) -> dict[str, Any]:
        """What all trials share, for the ledger."""
        return {
            "study": self.sweep.study,
            "command": command,
            "seed": self.sweep.seed,
            # Sizes apart: a grid may grow by a backbone of another size, and the images are still the same.
            "tiles": tiles.fingerprint(self.screen, self.sweep.images, sizes=()),
            "tile_store": str(store.path.resolve()),
            "labels": list(self.screen.labels),
            "channels": list(self.screen.channels),
            "folds": {fold.name: fold.excluded for fold in self.folds},
            "weights": {path: _digest(Path(path)) for path in _weight_files(self.recipes)},
            "treatments": self.screen.labelled.groupby(TREATMENT).ngroups,
            "unscored": unscored(self.screen.labelled, self.folds).to_dict("records"),
            "examples": examples.choose(self.screen),
            "search_folds": self.search_folds,
            "confirm_folds": self.confirm_folds,
            "warnings": [*self.warnings, *store.warnings],
            "versions": versions(),
        }

    def describe(self) -> str:
        """The plan: what would be done, and what is wrong with the data."""
        labelled = self.screen.labelled
        disk = tiles.expected_bytes(len(labelled), self.sweep.images, self.sizes)
        excluded = [fold for fold in self.folds if fold.excluded is not None]
        lines = [
            f"study        {self.sweep.study}: {self.sweep.out}",
            f"screen       {self.screen.name} at {self.sweep.screen.root}: {_count(labelled)}",
            f"controls     {len(self.screen.controls)} fields of "
            f"{self.screen.controls.groupby(WELL_KEY).ngroups} wells on {self.screen.controls[PLATE].nunique()} plates",
            *self._describe_candidates(),
            f"folds        {len(self.trained_folds)} (held out: {', '.join(self.sweep.folds.columns)})"
            + (f", {len(excluded)} excluded" if excluded else ""),
            *(f"             {fold.name}: {fold.excluded}" for fold in excluded),
            *self._describe_unknown(),
            *self._describe_unscored(),
            *self._describe_trials(),
            *self._describe_looks(),
            f"disk         {in_bytes(disk)} of tiles at most",
            *self._describe_features(),
            *(
                f"memory       about {in_bytes(memory)} a worker with {recipe.backbone}, {recipe.image_size} px, "
                f"batches of {recipe.batch_size}"
                for recipe, memory in _memory(_largest(self.recipes), len(self.screen.labels))
            ),
        ]
        for severity in ("error", "warning"):
            found = [problem.message for problem in self.problems if problem.severity == severity]
            lines += [f"{severity + 's':<12} {len(found)}", *(f"             {message}" for message in found)]
        return "\n".join(lines)

    def _describe_candidates(self) -> list[str]:
        if isinstance(self.sweep.search, Grid):
            recipes = list(dict.fromkeys(recipe.ensemble for recipe in self.recipes))
            named = [f"             {recipe.candidate}: {_words(recipe, recipes)}" for recipe in recipes]
            return [f"candidates   {len(recipes)}{self._describe_seeds()}", *named]
        settings, space = self.sweep.search, self.sweep.space
        return [
            f"candidates   {settings.candidates}, proposed by Optuna ({settings.sampler}) to better the "
            f"{settings.objective.replace('_', ' ')}; {len(settings.first)} of them given",
            *(f"             {key}: {_entry_words(entry)}" for key, entry in space.entries.items()),
        ]

    def _describe_seeds(self) -> str:
        seeds = self.sweep.seeds
        return "" if seeds is None else f", each with {_plural(len(seeds), 'seed')}: {', '.join(map(str, seeds))}"

    def _describe_unknown(self) -> list[str]:
        """Where labels are held out, how many treatments are predicted as known ones and how many as unknown."""
        labelled = self.screen.labelled
        if not any(fold.column == LABEL for fold in self.folds):
            return []
        parts = [(fold.scored(labelled), fold.split(labelled).test) for fold in self.trained_folds]
        known = labelled.iloc[[row for scored, _ in parts for row in scored]]
        unknown = labelled.iloc[[row for scored, test in parts for row in np.setdiff1d(test, scored)]]
        return [
            f"unknown      {_held_out(unknown)} held out with their whole label, "
            f"{_held_out(known)} held out beside them as known ones"
        ]

    def _describe_unscored(self) -> list[str]:
        lost, n = len(unscored(self.screen.labelled, self.folds)), self.screen.labelled.groupby(TREATMENT).ngroups
        return [f"scored       {n - lost} of {n} treatments can be scored"] if lost else []

    def _describe_trials(self) -> list[str]:
        settings = self.sweep.search
        if isinstance(settings, Grid):
            epochs = sum(recipe.epochs for recipe, _ in self.trials)
            return [f"trials       {len(self.trials)}, and as many trainings at most", f"epochs       {epochs} at most"]
        search, confirm = len(self.search_folds), len(self.confirm_folds)
        trials = settings.candidates * search + (1 + settings.confirm) * confirm
        others = self.sweep.space.seeds[1:]
        trials += len(others) * (search + confirm)
        longest = max(recipe.epochs for recipe in self.recipes)
        first = min(search, settings.race.first_folds) if settings.race else search
        return [
            f"search       {search} folds, the first {first} for every candidate: {', '.join(self.search_folds)}",
            f"confirm      {confirm} folds, for the winner and {settings.confirm} runners-up",
            *([f"ensemble     the winner with {_plural(len(others), 'more seed')}, on all folds"] if others else []),
            f"trials       {trials}, and as many trainings at most; fewer, since folds race",
            f"epochs       {trials * longest} at most",
        ]

    def _describe_looks(self) -> list[str]:
        looks, folds, keep = self.sweep.looks, len(self.search_folds), self.sweep.keep
        if not self.sweep.search.screen_with_frozen:
            return []
        then = f"; the best {_plural(keep, 'backbone')} will go on" if keep is not None else ""
        what = f"{_plural(len(looks), 'frozen backbone')} on {_plural(folds, 'fold')}"
        return [f"first look   {what}, {_plural(len(looks) * folds, 'trial')} more{then}"]

    def _describe_features(self) -> list[str]:
        """The sets of frozen features, and their bytes at most."""
        sets = {recipe.features_key: recipe for recipe in [*self.sweep.frozen, *self.sweep.looks]}
        if not sets:
            return []
        preparation = self.sweep.images
        most = len(self.screen.labelled) * preparation.rows * preparation.columns
        with _native_noise_hidden():
            from moa_ray import models

            values = [
                (recipe, key[-1] * most * models.channels(recipe.backbone, int(recipe.image_size)))
                for key, recipe in sets.items()
            ]
        total = sum(count for _, count in values)
        return [
            f"features     {_plural(len(sets), 'set')} of frozen features, taken once and kept beside the tiles, "
            f"{in_bytes(4 * total)} at most",
            *(
                f"             {recipe.backbone}, {recipe.image_size} px, "
                f"{_plural(recipe.features_key[-1], 'orientation')}: {in_bytes(4 * count)}"
                for recipe, count in values
            ),
        ]


def versions() -> dict[str, str]:
    """Versions of what shapes a result."""
    found = {"python": platform.python_version()}
    for name in _SHOWN_VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def _open_screen(sweep: Sweep, root: Path) -> Screen:
    settings = sweep.screen
    source = settings.root if isinstance(settings.root, Uri) else None
    if isinstance(settings, Table):
        screen = table.open_screen(
            root, settings.fields, settings.columns, settings.images, settings.control, settings.channels
        )
    elif isinstance(settings, Bbbc021):
        screen = bbbc021.open_screen(root, settings.channels)
    elif isinstance(settings, Bbbc014):
        if settings.painting is not None:
            translocation.paint(root, settings.painting)
        screen = bbbc014.open_screen(root, settings.channels)
    else:
        synthetic.paint(root, settings.painting)
        screen = replace(bbbc021.open_screen(root, settings.channels), name="synthetic")
    return replace(screen, source=source)


def _weight_files(recipes: list[Recipe]) -> list[str]:
    return sorted({recipe.weights for recipe in recipes} - {"imagenet", "random"})


def _content(weights: str) -> str:
    """What tells the content of weights."""
    return f"imagenet of keras {version('keras')}" if weights == "imagenet" else _digest(Path(weights))


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"recipe.weights: {path} cannot be read: {error}") from None


def _count(labelled: pd.DataFrame) -> str:
    return (
        f"{len(labelled)} fields of {labelled.groupby(WELL_KEY).ngroups} treated wells, "
        f"{labelled.groupby(TREATMENT).ngroups} treatments, {labelled[COMPOUND].nunique()} compounds, "
        f"{labelled[LABEL].nunique()} labels"
    )


def _held_out(fields: pd.DataFrame) -> str:
    return (
        f"{_plural(fields.groupby(TREATMENT).ngroups, 'treatment')} of "
        f"{_plural(fields[COMPOUND].nunique(), 'compound')}"
    )


def _words(recipe: Recipe, among: list[Recipe]) -> str:
    """The hyperparameters by which a recipe differs from the others, or its main ones where it stands alone."""
    plain = recipe.as_dict()
    differing = [key for key in plain if any(other.as_dict()[key] != plain[key] for other in among)]
    keys = differing or ["backbone", "weights", "learning_rate", "epochs"]
    return ", ".join(f"{key} {plain[key]}" for key in keys)


def _entry_words(entry: Entry) -> str:
    if isinstance(entry, Choice):
        text = ", ".join(map(str, entry.choices))
    else:
        kind = "logarithmic" if entry.log else "linear"
        text = f"{entry.low:g} to {entry.high:g}, {kind}" + (f", in steps of {entry.step:g}" if entry.step else "")
    when = " and ".join(f"{key} is {' or '.join(map(str, values))}" for key, values in entry.when.items())
    return f"{text}, where {when}" if when else text


def _largest(recipes: list[Recipe]) -> list[Recipe]:
    """One recipe for each backbone and image size, the one with the largest batch."""
    by_size = sorted(recipes, key=lambda recipe: recipe.batch_size)
    return list({(recipe.backbone, recipe.image_size): recipe for recipe in by_size}.values())


def _memory(recipes: list[Recipe], n_classes: int) -> list[tuple[Recipe, int]]:
    """About the bytes that a worker needs for each recipe."""
    with _native_noise_hidden():
        from moa_ray import models  # Keras takes seconds to import, and only a plan needs it on the driver

        return [(recipe, models.expected_memory(recipe, n_classes)) for recipe in recipes]


@contextlib.contextmanager
def _native_noise_hidden() -> Iterator[None]:
    """TensorFlow's C++ side greets on stderr whatever it is told; what Python raises still comes through."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
