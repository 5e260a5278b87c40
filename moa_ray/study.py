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
from moa_ray.screens.opening import open_screen
from moa_ray.screens.rare_labels import check_rare_labels, rare_labels, rare_treatments
from moa_ray.screens.screen import Problem, Screen
from moa_ray.search.fold_order import search_order
from moa_ray.tiles import build, dropped, fingerprint, workers
from moa_ray.tiles.features import FrozenFeatures
from moa_ray.tiles.groups import check_normalise
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
    """

    sweep: Sweep
    screen: Screen
    folds: tuple[Fold, ...]
    problems: tuple[Problem, ...]
    rare: pd.DataFrame

    @classmethod
    def open(cls, sweep: Sweep, progress: Callable[[Progress], None] = lambda progress: None) -> "Study":
        """Open the screen and make the folds; problems of the data are gathered, not raised.

        Parameters
        ----------
        sweep : Sweep
            The sweep file.
        progress : callable
            Called while the files of a screen that lies in an object store are fetched.

        Returns
        -------
        Study

        Raises
        ------
        InputError
            If the screen cannot be opened, or there is nothing to hold out.
        """
        screen = open_screen(sweep, bucket_cache.fetch(sweep.screen.root, progress))
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
        return cls(sweep, screen, tuple(folds), tuple(problems), treatments)

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

    def require_sound(self) -> None:
        """Raise an error that names every problem that stops a sweep, one per line.

        Raises
        ------
        InputError
            If there is a problem that stops a sweep, or no fold can be trained.
        """
        errors = [problem.message for problem in self.problems if problem.severity == "error"]
        if not self.trained_folds:
            errors.append("folds: none can be trained: " + "; ".join(f"{f.name}: {f.excluded}" for f in self.folds))
        if errors:
            raise InputError(
                "\n".join([f"{self.sweep.screen.root}: the data cannot be swept:", *(f"  {e}" for e in errors)])
            )

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
            # Sizes apart: a grid may grow by a backbone of another size, and the images are still the same.
            "tiles": fingerprint.fingerprint(self.screen, self.sweep.images, sizes=()),
            "tile_store": str(store.path.resolve()),
            "labels": list(self.screen.labels),
            "channels": list(self.screen.channels),
            "folds": {fold.name: fold.excluded for fold in self.folds},
            "weights": {path: _file_digest(Path(path)) for path in _weight_files(self.sweep.resource_profiles)},
            "treatments": self.treatments,
            "unscored": self.unscored.to_dict("records"),
            "scored": scored_treatments(self.screen.labelled, self.trained_folds, store.table, store.dropped).to_dict(
                "records"
            ),
            "dropped": dropped.counts(store.table, store.dropped, self.screen.labelled).to_dict("records"),
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
