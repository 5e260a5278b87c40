"""The sweep file: YAML to a checked, frozen `Sweep`. Every message names its path in the file.

This is the one border for text: nothing behind it parses YAML, and nothing before it is trusted.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from moa_ray import complaints
from moa_ray.backbones import BACKBONES, native_size
from moa_ray.images import Preparation
from moa_ray.recipe import Recipe
from moa_ray.screens.synthetic import Painting

Channels = Annotated[tuple[str | None, ...], Field(min_length=1, max_length=3)]
Name = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """A part of the sweep file: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Bbbc021(Section):
    """A folder in BBBC021's own layout: the two CSV tables and the plates' folders or zip files."""

    name: Literal["bbbc021"]
    root: Path
    channels: Channels = ("Actin", "Tubulin", "DAPI")


class Table(Section):
    """Any screen that one table of fields describes.

    fields : CSV or parquet file, relative to the root
    columns : ``Metadata_*`` name to the file's column
    images : channel name to the file's column of image paths, relative to the root
    control : the compound that marks the untreated wells
    """

    name: Literal["table"]
    root: Path
    fields: Name
    columns: dict[str, str]
    images: dict[str, str]
    control: str | None = None
    channels: Channels | None = None


class Synthetic(Section):
    """A screen of painted cells in BBBC021's layout, made at the root when it is not there yet."""

    name: Literal["synthetic"]
    root: Path
    channels: Channels = ("Actin", "Tubulin", "DAPI")
    painting: Painting = Field(default_factory=Painting)


class Folds(Section):
    """What is held out: one column, or several of which training shares no value with the held-out group."""

    hold_out: str | Annotated[tuple[str, ...], Field(min_length=1)] = "compound"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns held out, the first of which makes the groups."""
        return (self.hold_out,) if isinstance(self.hold_out, str) else self.hold_out


class Validation(Section):
    """The part of the training wells that is watched, not learnt from: whole wells, spread over treatments."""

    by: Literal["well"] = "well"
    share: Share = 0.15


class Search(Section):
    """What is tried: every combination of the space's lists. Searching within ranges is not built yet."""

    mode: Literal["grid"] = "grid"
    space: dict[str, list[Any]] = Field(default_factory=dict)


class Resources(Section):
    """What each trial gets; ``auto``: one GPU where the cluster has any, else CPUs alone.

    concurrent : trials at once at most; null means as many as the cluster can hold
    retries : how often a trial that crashed is tried again
    """

    gpus: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    cpus: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    concurrent: Annotated[int, Field(ge=1)] | None = None
    retries: Annotated[int, Field(ge=0)] = 2


class Tracking(Section):
    """Where MLflow records; a null uri means SQLite in OUT."""

    uri: str | None = None
    experiment: Name | None = None


class Sweep(Section):
    """One sweep file, checked, with every default filled in."""

    study: Name
    seed: Annotated[int, Field(ge=0)] = 0
    out: Path
    screen: Annotated[Bbbc021 | Table | Synthetic, Field(discriminator="name")]
    images: Preparation = Field(default_factory=Preparation)
    tiles: Path | None = None
    folds: Folds = Field(default_factory=Folds)
    validation: Validation | None = None
    recipe: dict[str, Any] = Field(default_factory=dict)
    search: Search = Field(default_factory=Search)
    aggregate: Literal["median", "mean"] = "median"
    resources: Resources = Field(default_factory=Resources)
    tracking: Tracking = Field(default_factory=Tracking)

    @model_validator(mode="after")
    def _recipes_are_sound(self) -> "Sweep":
        list(_combinations(self.recipe, self.search.space))
        return self

    @property
    def recipes(self) -> list[Recipe]:
        """Every recipe of the grid, in the file's order, each once."""
        return list(dict.fromkeys(_combinations(self.recipe, self.search.space)))

    @property
    def tile_folder(self) -> Path:
        """The folder of tile stores: beside OUT unless the file says otherwise, so that sweeps share them."""
        return self.tiles or self.out.parent / "tiles"

    def as_yaml(self) -> str:
        """The sweep as it was run, every default filled in."""
        plain = self.model_dump(mode="json")
        defaults = Recipe().as_dict()
        filled = {**defaults, **self.recipe, "augment": {**defaults["augment"], **self.recipe.get("augment", {})}}
        plain["recipe"] = {key: value for key, value in filled.items() if key not in self.search.space}
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def load(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file, set the values that ``KEY=VALUE`` overrides name by dotted path, and check it whole.

    Relative paths in the file are relative to the working directory, as in the command that names the file.

    Raises ValueError with one line for each thing wrong, each naming its path in the file.
    """
    return check(_read(path), str(path), overrides)


def check(plain: Any, name: str, overrides: Sequence[str] = ()) -> Sweep:
    """Check a sweep given as plain values; `name` stands before each message."""
    if not isinstance(plain, dict):
        raise ValueError(f"{name}: a mapping of keys must stand at the top, but got {type(plain).__name__}")
    for override in overrides:
        _set(plain, override)
    try:
        return Sweep.model_validate(plain)
    except ValidationError as error:
        raise ValueError("\n".join(f"{name}: {line}" for line in complaints.lines(error, Sweep))) from None


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such sweep file; see sweeps/ for examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def _set(plain: dict[str, Any], override: str) -> None:
    """Set one value by its dotted path, e.g. ``search.space.backbone=[ResNet50]``."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ValueError(f"{override!r}: an override reads KEY=VALUE, e.g. recipe.epochs=5")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{override!r}: the value is not YAML: {' '.join(str(error).split())}") from None
    *parents, last = key.split(".")
    node = plain
    for parent in parents:
        if node.get(parent) is None:
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            raise ValueError(f"{override!r}: {parent} holds a value, not keys")
    node[last] = value


_RECIPE = TypeAdapter(Recipe)
_RECIPE_KEYS = [field.name for field in dataclass_fields(Recipe)]


def _combinations(fixed: Mapping[str, Any], space: Mapping[str, Sequence[Any]]) -> Iterator[Recipe]:
    """Every recipe of the grid, image sizes as numbers; raises ValueError at the first value that cannot be."""
    _known(fixed, "recipe", "put a list of values to try under search.space")
    _known(space, "search.space", "")
    for key in fixed.keys() & space.keys():
        raise ValueError(f"search.space.{key}: it is fixed under recipe too; keep one of the two")
    for key, values in space.items():
        if not values:
            raise ValueError(f"search.space.{key}: the list of values to try is empty")
    for values in itertools.product(*space.values()):
        tried = dict(zip(space, values, strict=True))
        try:
            recipe = _RECIPE.validate_python(_for_backbone({**fixed, **tried}))
        except ValidationError as error:
            first = error.errors()[0]
            key = str(first["loc"][0]) if first["loc"] else str(first["ctx"]["error"]).split()[0]
            place = "search.space" if key in tried else "recipe"
            raise ValueError("; ".join(complaints.lines(error, Recipe, place))) from None
        if recipe.backbone not in BACKBONES:
            hint = complaints.nearest(recipe.backbone, BACKBONES)
            raise ValueError(f"recipe.backbone: unknown backbone {recipe.backbone!r}{hint}")
        yield replace(recipe, image_size=native_size(recipe.backbone)) if recipe.image_size == "native" else recipe


def _for_backbone(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with those that are given by backbone, ``weights: {ResNet50: FILE, ...}``, looked up."""
    backbone = values.get("backbone", Recipe.backbone)
    chosen = {}
    for key, value in values.items():
        by_backbone = isinstance(value, dict) and value and all(name in BACKBONES for name in value)
        if by_backbone and backbone not in value:
            raise ValueError(f"recipe.{key}: given by backbone, but not for {backbone}")
        chosen[key] = value[backbone] if by_backbone else value
    return chosen


def _known(mapping: Mapping[str, Any], where: str, hint: str) -> None:
    for key, value in mapping.items():
        if key not in _RECIPE_KEYS:
            raise ValueError(f"{where}: unknown hyperparameter {key!r}{complaints.nearest(key, _RECIPE_KEYS)}")
        if hint and isinstance(value, list):
            raise ValueError(f"{where}.{key}: one value must stand here, but got the list {value!r}; {hint}")
