"""Open a study: what a sweep file and its data come to, before anything is trained."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from moa_ray import soundness
from moa_ray.common.errors import InputError
from moa_ray.common.schema import FIELD_KEY, LABEL, TREATMENT, metadata_columns
from moa_ray.common.versions import versions
from moa_ray.config.recipe import Recipe
from moa_ray.config.search import GridSettings
from moa_ray.config.sweep_file import Sweep
from moa_ray.execution.trial_data import TrialData
from moa_ray.screens import bucket_cache, example_fields
from moa_ray.screens.checks import check_hold_out
from moa_ray.screens.downloads import Progress
from moa_ray.screens.folds import Fold, make_folds, unscored
from moa_ray.screens.names import check_groups
from moa_ray.screens.needed_files import NeededFiles
from moa_ray.screens.opening import is_painted, open_screen
from moa_ray.screens.rare_labels import check_rare_labels, rare_labels, rare_treatments
from moa_ray.screens.screen import Problem, Screen
from moa_ray.search.fold_order import search_order
from moa_ray.tiles import build, fingerprint, workers
from moa_ray.tiles.features import FrozenFeatures
from moa_ray.tiles.groups import check_normalise
from moa_ray.tiles.quality import check_limits
from moa_ray.tiles.scored import scored_treatments
from moa_ray.tiles.store import TileStore


@dataclass(frozen=True)
class Study:
    """A sweep with its screen opened and its folds made.

    Attributes
    ----------
    sweep : Sweep
        The sweep file.
    screen : Screen
        The opened screen.
    folds : tuple of Fold
        Every fold, the excluded ones too.
    problems : tuple of Problem
        What is wrong with the data; errors stop a sweep.
    rare : DataFrame, one row per treatment
        The treatments of labels with too few compounds (`moa_ray.screens.rare_labels.rare_treatments`).
    is_to_be_painted : bool
        Whether the screen is a painted one that is not there yet, so that its fields are known and its files are not.
    """

    sweep: Sweep
    screen: Screen
    folds: tuple[Fold, ...]
    problems: tuple[Problem, ...]
    rare: pd.DataFrame
    is_to_be_painted: bool = False

    @classmethod
    def open(
        cls, sweep: Sweep, progress: Callable[[Progress], None] = lambda progress: None, paint: bool = True
    ) -> "Study":
        """Open the screen and make the folds; problems of the data are gathered, not raised.

        Parameters
        ----------
        sweep : Sweep
            The sweep file.
        progress : callable
            Called while the files of a screen that lies in an object store are fetched.
        paint : bool
            Paint the screen where it is a painted one and not there yet; else nothing is written.

        Returns
        -------
        Study

        Raises
        ------
        InputError
            If the screen cannot be opened, or there is nothing to hold out.
        """
        needed = NeededFiles(sweep)
        root = bucket_cache.fetch(sweep.screen.root, progress, needed)
        screen = open_screen(sweep, root, paint, needed.names)
        settings = sweep.folds
        rare = rare_labels(screen.fields, settings.min_compounds)
        of_rare = settings.min_compounds, settings.below
        problems = [*screen.problems, *check_rare_labels(screen.fields, rare, *of_rare)]
        treatments = rare_treatments(screen.fields, rare, *of_rare)
        held_out = screen.fields[~screen.fields[LABEL].isin(list(rare))]
        if settings.below == "leave_out" and rare:
            screen = replace(screen, fields=held_out.reset_index(drop=True))
        folds = make_folds(screen.labelled, settings.hold_out, rare)
        problems += check_hold_out(held_out, folds[0].column) if folds else []
        problems += check_groups(held_out, [folds[0].column, *folds[0].also]) if folds else []
        problems += check_normalise(screen, sweep.images.normalise)
        problems += check_limits(screen, sweep.images.quality)
        to_be_painted = sweep.is_painted and not is_painted(sweep, root)
        return cls(sweep, screen, tuple(folds), tuple(problems), treatments, to_be_painted)

    @property
    def trained_folds(self) -> list[Fold]:
        """The folds that are not excluded."""
        return [fold for fold in self.folds if fold.excluded is None]

    @property
    def trials(self) -> list[tuple[Recipe, str]]:
        """Every recipe of a grid on every trained fold, recipe by recipe."""
        return [(recipe, fold.name) for recipe in self.sweep.grid_recipes for fold in self.trained_folds]

    @cached_property
    def search_folds(self) -> list[str]:
        """The folds that the search may look at, in the order in which every candidate gets them; a grid's are all."""
        if isinstance(self.sweep.search, GridSettings):
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
        return sorted({int(recipe.image_size) for recipe in self.sweep.resource_profiles})

    @property
    def unscored(self) -> pd.DataFrame:
        """The treatments that no fold can score, as `moa_ray.screens.folds.unscored` lists them."""
        others = unscored(self.screen.labelled, self.folds)
        return pd.concat([table for table in (others, self.rare) if len(table)] or [others], ignore_index=True)

    @property
    def treatments(self) -> int:
        """How many treatments have a label, those of labels that are left out among them."""
        columns = pd.concat([self.screen.labelled[TREATMENT], self.rare[TREATMENT]])
        return len(columns.drop_duplicates())

    @property
    def warnings(self) -> list[str]:
        """The problems that do not stop a sweep."""
        return [problem.message for problem in self.problems if problem.severity == "warning"]

    @cached_property
    def errors(self) -> list[str]:
        """What is wrong with the data and stops a sweep, a line each."""
        return soundness.data_errors(self)

    @cached_property
    def out_errors(self) -> list[str]:
        """Why OUT and the tiles could not be written, a line each."""
        return soundness.out_errors(self)

    def require_sound(self, out: bool = True) -> None:
        """Raise an error that names every problem that stops a sweep, one per line.

        Parameters
        ----------
        out : bool
            Whether OUT must be fit for the sweep, too.

        Raises
        ------
        InputError
            If there is a problem that stops a sweep.
        """
        lines = [f"{self.sweep.screen.root}: the data cannot be swept:", *(f"  {line}" for line in self.errors)]
        lines = lines if self.errors else []
        if out:
            lines += self.out_errors
        if lines:
            raise InputError("\n".join(lines))

    def prepare(self, progress: Callable[[int, int], None], executor: workers.FieldExecutor | None = None) -> TileStore:
        """Return the screen's tiles: from the store where they are whole and up to date, else made now.

        Parameters
        ----------
        progress : callable
            Called with the fields done and the fields in all.
        executor : FieldExecutor, optional
            Who makes the tiles; by default the cores of this machine.

        Returns
        -------
        TileStore
        """
        return build.prepare(
            self.screen,
            self.sweep.images,
            self.sizes,
            self.sweep.tile_folder,
            executor=executor or workers.ThreadExecutor(os.cpu_count() or 1),
            progress=progress,
        )

    def trial_data(self, store: TileStore) -> TrialData:
        """Join the tiles with the metadata of their fields, by key.

        Parameters
        ----------
        store : TileStore
            The tiles of this study's screen.

        Returns
        -------
        TrialData
        """
        keyed = store.table.merge(
            self.screen.labelled[metadata_columns(self.screen.fields)], on=FIELD_KEY, validate="many_to_one"
        )
        validation = self.sweep.validation
        return TrialData(
            table=keyed.sort_values("row", ignore_index=True),
            classes=self.screen.labels,
            folds={fold.name: fold for fold in self.trained_folds},
            tiles={size: store.file(size).resolve() for size in self.sizes},
            seed=self.sweep.seed,
            validation_share=validation.share if validation else None,
            confirm=frozenset(self.confirm_folds),
        )

    def frozen_features(self, store: Path, recipes: list[Recipe]) -> dict[Recipe, FrozenFeatures]:
        """Return the sets of frozen features that some recipes train on, each by one recipe that does.

        Parameters
        ----------
        store : Path
            The folder of the tile store.
        recipes : list of Recipe
            Linear probes.

        Returns
        -------
        dict of Recipe to FrozenFeatures
            Whether they have been taken or not.

        Raises
        ------
        InputError
            If a file of weights cannot be read.
        """
        return {recipe: FrozenFeatures.of(store, recipe, _weights_content(recipe.weights)) for recipe in recipes}

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What must be the same at every start of a sweep in one OUT, fit for JSON; no tile is needed to know it.

        Raises
        ------
        InputError
            If a file of weights cannot be read.
        """
        return {
            # Sizes apart: a grid may grow by a backbone of another size, and the images are still the same.
            "tiles": fingerprint.fingerprint(self.screen, self.sweep.images, sizes=()),
            "labels": list(self.screen.labels),
            "weights": {path: _file_digest(Path(path)) for path in _weight_files(self.sweep.resource_profiles)},
        }

    def existing_store(self) -> TileStore | None:
        """Open the screen's tiles where they are whole and up to date.

        Returns
        -------
        TileStore or None
            None where they are to be made.
        """
        if self.is_to_be_painted:
            return None
        return build.existing(self.screen, self.sweep.images, self.sizes, self.sweep.tile_folder)

    def scored(self, store: TileStore) -> pd.DataFrame:
        """List what each fold is to score.

        Parameters
        ----------
        store : TileStore
            The tiles of this study's screen.

        Returns
        -------
        DataFrame, one row per fold and unit
            As `moa_ray.tiles.scored.scored_treatments` makes it.
        """
        fields, unit = self.screen.labelled, self.sweep.score.unit
        return scored_treatments(fields, self.trained_folds, store.table, store.dropped, unit)

    def record(self, store: TileStore, command: str) -> dict[str, Any]:
        """Return what all trials share, for the ledger's ``study.json``.

        Parameters
        ----------
        store : TileStore
            The tiles of this study's screen.
        command : str
            The command that started the sweep.

        Returns
        -------
        dict
            Plain values that JSON can hold.
        """
        return {
            "study": self.sweep.study,
            "command": command,
            "seed": self.sweep.seed,
            **self.identity,
            "tile_store": str(store.path.resolve()),
            "channels": list(self.screen.channels),
            "folds": {fold.name: fold.excluded for fold in self.folds},
            "treatments": self.treatments,
            "unscored": self.unscored.to_dict("records"),
            "scored": self.scored(store).to_dict("records"),
            "dropped": store.counts(self.screen.labelled).to_dict("records"),
            "left_out": self.screen.left_out.to_dict("records"),
            "examples": example_fields.choose(self.screen),
            "search_folds": self.search_folds,
            "confirm_folds": self.confirm_folds,
            "warnings": [*self.warnings, *store.warnings],
            "versions": versions(),
        }


def _weight_files(recipes: list[Recipe]) -> list[str]:
    return sorted({recipe.weights for recipe in recipes} - {"imagenet", "random"})


def _weights_content(weights: str) -> str:
    """Return what tells the content of weights apart from that of others under the same name."""
    return f"imagenet of keras {version('keras')}" if weights == "imagenet" else _file_digest(Path(weights))


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"recipe.weights: {path} cannot be read: {error}") from None
