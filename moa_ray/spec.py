"""The sweep file: YAML to a checked, frozen `Sweep`. Every message names its path in the file.

This is the one border for text: nothing behind it parses YAML, and nothing before it is trusted.
"""

import difflib
import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

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
    """What is tried: every combination of the space's lists."""

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
        plain["recipe"] = {
            key: value for key, value in {**defaults, **self.recipe}.items() if key not in self.search.space
        }
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
        lines = [f"{name}: {line}" for line in _messages(error)]
        raise ValueError("\n".join(lines)) from None


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
            raise ValueError("; ".join(_recipe_messages(error, tried))) from None
        if recipe.backbone not in BACKBONES:
            where = "search.space.backbone" if "backbone" in space else "recipe.backbone"
            raise ValueError(f"{where}: unknown backbone {recipe.backbone!r}{_nearest(recipe.backbone, BACKBONES)}")
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
            raise ValueError(f"{where}: unknown hyperparameter {key!r}{_nearest(key, _RECIPE_KEYS)}")
        if hint and isinstance(value, list):
            raise ValueError(f"{where}.{key}: one value must stand here, but got the list {value!r}; {hint}")


def _recipe_messages(error: ValidationError, tried: Mapping[str, Any]) -> Iterator[str]:
    for problem in error.errors():
        # A rule of the whole recipe has no place of its own: its text opens with the key.
        text = _text(problem)
        key = str(problem["loc"][0]) if problem["loc"] else text.split()[0].rstrip(":")
        where = "search.space" if key in tried else "recipe"
        yield f"{'.'.join([where, *map(str, problem['loc'])])}: {text}" if problem["loc"] else f"{where}.{key}: {text}"


# What pydantic puts into a place that the sweep file has no key for: the branch of a union that it tried.
_BRANCH = re.compile(r"^(literal\[.*|constrained-.*|function-.*|str|int|float|tuple\[.*|bbbc021|table|synthetic)$")


def _messages(error: ValidationError) -> Iterator[str]:
    """One line a place, in the words of the sweep file."""
    seen: dict[str, list[str]] = {}
    for problem in error.errors():
        parts = [str(part) for part in problem["loc"] if not _BRANCH.match(str(part))]
        text = _text(problem)
        if problem["type"] == "extra_forbidden":
            *parents, key = parts
            place, text = ".".join(parents), f"unknown key {key!r}{_nearest(key, _keys_at(problem, parents))}"
            yield f"{place}: {text}" if place else text
            continue
        seen.setdefault(".".join(parts), []).append(text)
    for place, texts in seen.items():
        text = " or ".join(dict.fromkeys(texts))
        yield f"{place}: {text}" if place else text


def _text(problem: Any) -> str:
    text = str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    value = problem.get("input")
    if problem["type"] in {"value_error", "missing", "extra_forbidden"}:
        return text.replace("Field required", "this key is missing")
    if isinstance(value, bool):
        return f"{text}, but got {value}; YAML reads yes, no, on and off as true and false: put quotes around a word"
    return f"{text}, but got {value!r}"


def _keys_at(problem: Any, parents: Sequence[str]) -> list[str]:
    """The keys that the sweep file may have at a place."""
    model: Any = Sweep
    branches = {"bbbc021": Bbbc021, "table": Table, "synthetic": Synthetic}
    for part in problem["loc"][:-1]:
        if part in branches:
            model = branches[part]
            continue
        fields = _fields(model)
        if part not in fields:
            return []
        model = _model_in(fields[part])
    return list(_fields(model))


def _fields(model: Any) -> dict[str, Any]:
    if isinstance(model, type) and issubclass(model, BaseModel):
        return {name: field.annotation for name, field in model.model_fields.items()}
    return (
        {field.name: field.type for field in dataclass_fields(model)} if hasattr(model, "__dataclass_fields__") else {}
    )


def _model_in(annotation: Any) -> Any:
    """The section among an annotation's alternatives."""
    arguments = getattr(annotation, "__args__", ())
    return next((argument for argument in (annotation, *arguments) if _fields(argument)), annotation)


def _nearest(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}" if known else ""
