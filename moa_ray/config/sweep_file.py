"""Read the sweep file: YAML to a checked, frozen `Sweep`. Every message names its path in the file.

This is the one border for text: nothing behind it parses YAML, and nothing before it is trusted.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from moa_ray.common import uri
from moa_ray.common.errors import InputError
from moa_ray.common.uri import Uri
from moa_ray.config import messages
from moa_ray.config.as_written import AsWritten
from moa_ray.config.backbones import is_by_backbone
from moa_ray.config.conformal import ConformalSettings
from moa_ray.config.hyperparameters import Choice, Fixed
from moa_ray.config.overrides import apply_overrides
from moa_ray.config.preparation import Preparation
from moa_ray.config.recipe import Recipe, linear_probe_of
from moa_ray.config.resources import Resources
from moa_ray.config.screens import AnyScreen, Bbbc014Settings, SyntheticSettings
from moa_ray.config.search import AnySearch, GridSettings, OptunaSettings
from moa_ray.config.search_space import Space
from moa_ray.config.sections import Folds, Predict, Score, Tracking, Validation
from moa_ray.config.settings import LocalFolder, Location, Name, Settings
from moa_ray.config.yaml_text import read_yaml


def _within(place: Path | Uri) -> Path | Uri:
    if isinstance(place, Uri) and "/" not in place.path:
        raise ValueError(f"a folder in the bucket must stand there, as in {place / 'runs'}, but got {place}")
    return place


class Sweep(Settings):
    """One sweep file, checked, with every default filled in."""

    study: Name
    """Name of the study, which also names MLflow's experiment."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of all that is drawn."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """Seeds of the members of an ensemble, which share the held-out fold and the validation wells: a grid trains every
    recipe with each, a search every candidate with the first and the winner with all; null trains by `seed` alone."""
    out: Annotated[Location, AfterValidator(_within)]
    """Folder or URI of what the sweep leaves: ledger, tables, report."""
    screen: AnyScreen
    """The images and what is known of them."""
    images: Preparation = Field(default_factory=Preparation)
    """How a field becomes tiles."""
    tiles: LocalFolder | None = None
    """Folder of the tile stores; null is `tiles` beside OUT, so that sweeps of the same images share them."""
    folds: Folds = Field(default_factory=Folds)
    """What is held out."""
    score: Score = Field(default_factory=Score)
    """What counts as one."""
    validation: Validation | None = None
    """Training wells that are watched, not learnt from; null trains on all. A search with ASHA has them by default."""
    recipe: Annotated[dict[str, Any], AsWritten(Fixed)] = Field(default={})
    """Hyperparameters that all recipes share; a value may be given by backbone."""
    search: AnySearch = Field(default_factory=GridSettings)
    """Which recipes are trained: all of a grid, or those that a search proposes."""
    aggregate: Literal["median", "mean"] = "median"
    """Reduction over the tiles of a replicate, then over the replicates of a treatment; the paper's is the median."""
    evaluate_every: Annotated[int, Field(ge=1)] | None = None
    """The held-out tiles are predicted after each so many epochs, and the last, to draw how accuracy goes on; nothing
    is stopped or chosen by it. null predicts them after the last epoch alone."""
    predict: Predict = Field(default_factory=Predict)
    """Samples of how sure a network is."""
    resources: Resources = Field(default_factory=Resources)
    """What each trial gets of the machines."""
    tracking: Tracking = Field(default_factory=Tracking)
    """Where MLflow records."""
    reference: Literal["kensert2019"] | None = None
    """Published results that the report lays the sweep's beside; null: none."""
    conformal: ConformalSettings | None = Field(default_factory=ConformalSettings)
    """Which sets of labels the report gives for each treatment; null gives none."""

    @model_validator(mode="before")
    @classmethod
    def _asha_watches(cls, plain: Any) -> Any:
        """Where epochs are compared and nothing else is said, some wells are watched."""
        search = plain.get("search") if isinstance(plain, dict) else None
        if isinstance(search, dict) and search.get("mode") == "optuna" and search.get("asha", {}) is not None:
            return {"validation": {}, **plain}
        return plain

    @model_validator(mode="after")
    def _is_sound(self) -> "Sweep":
        space = self.space
        space.frozen()
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: each must stand once, but got {list(self.seeds)}")
        if self.predict.mc_dropout is not None:
            space.require_dropout()
        if self.predict.laplace is not None:
            space.require_frozen()
        if self.keep is not None and "backbone" in space.entries and space.entries["backbone"].when:
            raise ValueError(
                "search.space.backbone.when: backbones that search.screen_with_frozen.keep may drop take no condition"
            )
        if isinstance(self.search, GridSettings):
            if space.ranged:
                raise ValueError(
                    f"search.space.{space.ranged[0]}: a grid takes lists; for a range set search.mode: optuna"
                )
            space.grid()
            return self
        if self.search.sampler == "grid" and space.ranged:
            raise ValueError(f"search.space.{space.ranged[0]}: sampler grid takes lists; take tpe, random or cmaes")
        if self.search.asha and not self.validation:
            raise ValueError("search.asha: it compares validation wells, but validation is null; leave out one of them")
        for number, values in enumerate(self.search.first):
            space.require_within(values, f"search.first.{number}")
        return self

    @property
    def space(self) -> Space:
        """What is searched, and what is fixed beside it."""
        return Space.read(self.recipe, self.search.space, self.seeds or (None,))

    @property
    def grid_recipes(self) -> list[Recipe]:
        """Every recipe of a grid, in the file's order, with each seed; none of a search, which proposes its own."""
        return self.space.grid() if isinstance(self.search, GridSettings) else []

    @property
    def resource_profiles(self) -> list[Recipe]:
        """The recipes that show what the trials need of tiles, weights and memory.

        Of a grid all; of a search one for each backbone, weights and tile size, with the longest training and the
        largest batch.
        """
        return self.grid_recipes or self.space.representatives()

    @property
    def backbones(self) -> list[str]:
        """The backbones that are trained."""
        return list(dict.fromkeys(recipe.backbone for recipe in self.resource_profiles))

    @property
    def frozen(self) -> list[Recipe]:
        """One recipe for each set of frozen features that heads are trained on."""
        return self.space.frozen()

    @property
    def linear_probes(self) -> list[Recipe]:
        """The linear probes that are wanted, one for each backbone, weights and image size; none at random weights."""
        if not self.search.screen_with_frozen:
            return []
        probed: dict[tuple[Any, ...], Recipe] = {}
        for recipe in self.resource_profiles:
            probed.setdefault((recipe.backbone, recipe.weights, recipe.image_size), recipe)
        return [linear_probe_of(recipe) for recipe in probed.values() if recipe.weights != "random"]

    @property
    def keep(self) -> int | None:
        """How many backbones go on after the linear probe; None where it drops none."""
        return self.search.screen_with_frozen.keep if self.search.screen_with_frozen else None

    def without(self, backbones: Collection[str]) -> "Sweep":
        """Return the same sweep without the recipes of some backbones.

        Parameters
        ----------
        backbones : collection of str
            Names of the backbones to leave out.

        Returns
        -------
        Sweep
            This one where nothing is left out, or the backbone is not searched.
        """
        entry = self.space.entries.get("backbone")
        if not backbones or not isinstance(entry, Choice):
            return self
        space = {**self.search.space, "backbone": [name for name in entry.choices if name not in backbones]}
        search = self.search.model_copy(update={"space": space})
        if isinstance(search, OptunaSettings):
            first = tuple(values for values in search.first if values.get("backbone") not in backbones)
            search = search.model_copy(update={"first": first})
        return self.model_copy(update={"search": search})

    @property
    def is_painted(self) -> bool:
        """Whether the images are drawn by a program."""
        return isinstance(self.screen, SyntheticSettings) or (
            isinstance(self.screen, Bbbc014Settings) and self.screen.painting is not None
        )

    @property
    def tile_folder(self) -> Path:
        """The folder of tile stores: beside OUT unless the file says otherwise, so that sweeps share them.

        Where OUT lies in an object store it is the folder beside this machine's copy.
        """
        return self.tiles or uri.folder(self.out).parent / "tiles"

    def as_yaml(self) -> str:
        """Write the sweep as it was run, every default filled in.

        Returns
        -------
        str
            A sweep file.
        """
        plain = self.model_dump(mode="json")
        defaults = Recipe().as_dict()
        augment = self.recipe.get("augment", {})
        filled = {**defaults, **self.recipe}
        if not is_by_backbone(augment):
            filled["augment"] = {**defaults["augment"], **augment}
        searched = self.search.space.keys() - self.recipe.keys()
        plain["recipe"] = {key: value for key, value in filled.items() if key not in searched}
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def load(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file, set the values that overrides name, and check it whole.

    Parameters
    ----------
    path : Path
        The file. Relative paths in it are relative to the working directory, as in the command that names the file.
    overrides : sequence of str
        ``KEY=VALUE``, each setting one value by its dotted path: ``recipe.epochs=5``.

    Returns
    -------
    Sweep
        The sweep with every default filled in.

    Raises
    ------
    InputError
        With one line for each thing wrong, each naming its path in the file.
    """
    return check(_read(path), str(path), overrides)


def check(plain: Any, name: str, overrides: Sequence[str] = ()) -> Sweep:
    """Check a sweep that is given as plain values.

    Parameters
    ----------
    plain : Any
        What YAML reads: a mapping. Overrides are set in it.
    name : str
        Stands before each message.
    overrides : sequence of str
        As in `load`.

    Returns
    -------
    Sweep
        The sweep with every default filled in.

    Raises
    ------
    InputError
        With one line for each thing wrong, each naming its path in the file.
    """
    if not isinstance(plain, dict):
        raise InputError(f"{name}: a mapping of keys must stand at the top, but got {type(plain).__name__}")
    apply_overrides(plain, overrides)
    try:
        return Sweep.model_validate(plain)
    except ValidationError as error:
        raise InputError("\n".join(f"{name}: {line}" for line in messages.lines(error, Sweep))) from None


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such sweep file; see sweeps/ for examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    try:
        return read_yaml(text)
    except InputError as error:
        raise InputError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
