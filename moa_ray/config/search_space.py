"""The search space: which values each hyperparameter may take, and the recipe that a choice of values makes."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from moa_ray import complaints
from moa_ray.backbones import BACKBONES, native_size
from moa_ray.recipe import Recipe

When = dict[str, Annotated[list[Any], Field(min_length=1)]]


class Range(BaseModel):
    """Numbers from low to high, both included; whole ones where the hyperparameter is a whole number.

    log : even on a logarithmic scale
    step : only low, low + step, ...
    when : the entry is searched only where other hyperparameters have these values
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float
    high: float
    log: bool = False
    step: Annotated[float, Field(gt=0)] | None = None
    when: When = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_sound(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low < high must hold, but got low={self.low:g}, high={self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 on a logarithmic scale, but got {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("step and log exclude each other; keep one of the two")
        return self


class Choice(BaseModel):
    """Some values to try.

    when : the entry is searched only where other hyperparameters have these values
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    choices: Annotated[list[Any], Field(min_length=1)]
    when: When = Field(default_factory=dict)


Entry = Choice | Range


@dataclass(frozen=True)
class Space:
    """What is searched, and what is fixed beside it.

    fixed : value by hyperparameter; also what a conditional entry takes where its condition does not hold
    entries : what each searched hyperparameter may be
    seeds : of the members that each recipe of a grid has; any other recipe has the first. One None: no ensemble
    """

    fixed: Mapping[str, Any]
    entries: Mapping[str, Entry]
    seeds: tuple[int | None, ...] = (None,)

    @classmethod
    def read(
        cls, fixed: Mapping[str, Any], plain: Mapping[str, Any], seeds: tuple[int | None, ...] = (None,)
    ) -> "Space":
        """The space of a sweep file: lists are choices, ``{low, high}`` ranges, all else is one value.

        Raises ValueError at the first entry that cannot be.
        """
        _require_known(fixed, "recipe")
        for key, value in fixed.items():
            if isinstance(value, list):
                raise ValueError(
                    f"recipe.{key}: one value must stand here, but got the list {value!r}; "
                    "put a list of values to try under search.space"
                )
        _require_known(plain, "search.space")
        space = cls(fixed, {key: _entry(key, value) for key, value in plain.items()}, seeds)
        space._check()
        return space

    def draw(self, pick: Callable[[str, Entry], Any]) -> dict[str, Any]:
        """Values for the entries that apply, each picked by a callback; conditional ones come last."""
        values: dict[str, Any] = {}
        for key, entry in sorted(self.entries.items(), key=lambda item: bool(item[1].when)):
            if self._applies(entry, values):
                values[key] = pick(key, entry)
        return values

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe of some values, its image size as a number; raises ValueError where one cannot be."""
        try:
            recipe = _RECIPE.validate_python(_for_backbone({**self.fixed, **values}))
        except ValidationError as error:
            first = error.errors()[0]
            key = str(first["loc"][0]) if first["loc"] else str(first["ctx"]["error"]).split()[0].rstrip(":")
            place = "search.space" if key in values else "recipe"
            raise ValueError("; ".join(complaints.lines(error, Recipe, place))) from None
        if recipe.backbone not in BACKBONES:
            hint = complaints.nearest(recipe.backbone, BACKBONES)
            raise ValueError(f"recipe.backbone: unknown backbone {recipe.backbone!r}{hint}")
        size = native_size(recipe.backbone) if recipe.image_size == "native" else recipe.image_size
        return replace(recipe, image_size=size, seed=self.seeds[0])

    @property
    def ranged(self) -> list[str]:
        """The hyperparameters that are searched over a range."""
        return [key for key, entry in self.entries.items() if isinstance(entry, Range)]

    def require_within(self, known: Mapping[str, Any], where: str) -> None:
        """Raise ValueError where some values do not lie in the space."""
        for key, value in known.items():
            if key not in self.entries:
                hint = complaints.nearest(key, self.entries.keys())
                raise ValueError(f"{where}: {key!r} is not searched{hint}")
            entry = self.entries[key]
            if isinstance(entry, Choice) and value not in entry.choices:
                raise ValueError(f"{where}.{key}: one of {entry.choices} must stand here, but got {value!r}")
            if isinstance(entry, Range) and not entry.low <= float(value) <= entry.high:
                raise ValueError(f"{where}.{key}: must lie in {entry.low:g} to {entry.high:g}, but got {value!r}")
        self.recipe(self._with(known))

    def grid(self) -> list[Recipe]:
        """Every recipe of a space without ranges, in the file's order, each once with each seed."""
        recipes = dict.fromkeys(self.recipe(values) for values in self._combinations(list(self.entries)))
        return [replace(recipe, seed=seed) for recipe in recipes for seed in self.seeds]

    def representatives(self) -> list[Recipe]:
        """One recipe for each combination of what shapes tiles, weights files and memory; the longest training."""
        recipes = [self.recipe(values) for values in self._combinations(self._decisive(*_SHAPING, "freeze"))]
        kinds = {(r.backbone, r.weights, r.image_size, r.freeze == "all"): r for r in sorted(recipes, key=_cost)}
        return list(kinds.values())

    def frozen(self) -> list[Recipe]:
        """One recipe for each set of frozen features that the space may ask for.

        Raises ValueError where ``freeze: all`` meets what it cannot be with.
        """
        recipes = [self.recipe(values) for values in self._combinations(self._decisive(*_FEATURES, "freeze"))]
        return list({r.features_key: r for r in recipes if r.freeze == "all"}.values())

    def require_dropout(self) -> None:
        """Raise ValueError where a recipe may come that has no dropout layer at work."""
        for values in self._combinations(self._decisive("backbone", "freeze", "dropout")):
            recipe = self.recipe(values)
            if not recipe.has_dropout:
                raise ValueError(
                    f"predict.mc_dropout: {recipe.backbone} with dropout {recipe.dropout:g} has no dropout layer at "
                    "work, so that all its samples would be equal; set dropout above 0, or leave mc_dropout out"
                )

    def require_frozen(self) -> None:
        """Raise ValueError where a recipe may come whose backbone is not frozen."""
        for values in self._combinations(self._decisive("backbone", "freeze")):
            recipe = self.recipe(values)
            if recipe.freeze != "all":
                raise ValueError(
                    f"predict.laplace: it is for heads on frozen features, but {recipe.backbone} has freeze "
                    f"{recipe.freeze:g}; write recipe.freeze: all, or leave laplace out"
                )

    def _decisive(self, *keys: str) -> list[str]:
        """The entries of some keys, and those that decide whether they apply."""
        mine = [key for key in keys if key in self.entries]
        return [*mine, *(other for key in mine for other in self.entries[key].when if other in self.entries)]

    def _combinations(self, keys: list[str]) -> Iterator[dict[str, Any]]:
        """Every combination of the values of some entries; of a range its ends, of other entries the first value."""
        names = [key for key in self.entries if key in keys]
        for picked in itertools.product(*(self._tried(key) for key in names)):
            yield self._with(dict(zip(names, picked, strict=True)))

    def _tried(self, key: str) -> list[Any]:
        """Examples of an entry; of a range also what conditions name."""
        examples = _examples(self.entries[key])
        if isinstance(self.entries[key], Choice):
            return examples
        named = [value for entry in self.entries.values() for value in entry.when.get(key, [])]
        return list(dict.fromkeys([*examples, *named]))

    def _with(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Some values, and of the entries that they leave open the first one."""
        return self.draw(lambda key, entry: chosen.get(key, _examples(entry)[0]))

    def _applies(self, entry: Entry, values: Mapping[str, Any]) -> bool:
        settled = {**_DEFAULTS, **self.fixed, **values}
        return all(settled[key] in allowed for key, allowed in entry.when.items())

    def _check(self) -> None:
        """Every value is tried in a recipe, so that none is found wrong in the middle of a search."""
        for key, entry in self.entries.items():
            if key in self.fixed and not entry.when:
                raise ValueError(f"search.space.{key}: it is fixed under recipe too; keep one of the two")
            for other in entry.when:
                if other not in _RECIPE_KEYS:
                    hint = complaints.nearest(other, _RECIPE_KEYS)
                    raise ValueError(f"search.space.{key}.when: unknown hyperparameter {other!r}{hint}")
                if other in self.entries and self.entries[other].when:
                    raise ValueError(f"search.space.{key}.when: {other} is itself conditional; name another one")
            if isinstance(entry, Range):
                _check_range(key, entry)
        for key in ["backbone", *self.entries]:
            for values in self._combinations(["backbone", key]):
                self.recipe(values)


def _entry(key: str, value: Any) -> Entry:
    if isinstance(value, dict) and value and not all(name in BACKBONES for name in value):
        kind: type[Entry] = Choice if "choices" in value else Range
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            raise ValueError("; ".join(complaints.lines(error, kind, f"search.space.{key}"))) from None
    if value == []:
        raise ValueError(f"search.space.{key}: the list of values to try is empty")
    return Choice(choices=value if isinstance(value, list) else [value])


def _check_range(key: str, entry: Range) -> None:
    kind = next(item.type for item in dataclass_fields(Recipe) if item.name == key)
    if key == "image_size":
        raise ValueError("search.space.image_size: a list must stand here: tiles are stored for each size")
    if kind not in (int, float):
        raise ValueError(f"search.space.{key}: a list must stand here: it is no number")
    ends = [entry.low, entry.high, *([entry.step] if entry.step is not None else [])]
    if kind is int and not all(end.is_integer() for end in ends):
        raise ValueError(f"search.space.{key}: whole numbers must stand here, but got {ends}")


def is_whole(key: str) -> bool:
    """Whether a hyperparameter is a whole number."""
    return any(item.name == key and item.type is int for item in dataclass_fields(Recipe))


def _examples(entry: Entry) -> list[Any]:
    return entry.choices if isinstance(entry, Choice) else [entry.low, entry.high]


def _cost(recipe: Recipe) -> tuple[int, int]:
    return recipe.batch_size, recipe.epochs


# What tiles, weights and memory depend on, and what frozen features do.
_SHAPING = ("backbone", "weights", "image_size", "batch_size", "epochs")
_FEATURES = ("backbone", "weights", "image_size", "input_scaling", "precision", "augment")

_RECIPE = TypeAdapter(Recipe)
_RECIPE_KEYS = [field.name for field in dataclass_fields(Recipe) if field.name != "seed"]
_DEFAULTS = Recipe().as_dict()


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


def _require_known(mapping: Mapping[str, Any], where: str) -> None:
    for key in mapping:
        if key == "seed":
            raise ValueError(f"{where}.seed: a recipe takes no seed of its own; write seeds: [1, 2, 3] at the top")
        if key not in _RECIPE_KEYS:
            raise ValueError(f"{where}: unknown hyperparameter {key!r}{complaints.nearest(key, _RECIPE_KEYS)}")
