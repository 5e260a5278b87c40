"""The search space: which values each hyperparameter may take, and the recipe that a choice of values makes.

What may stand in it is typed in `moa_ray.config.hyperparameters`; here is what one entry demands of another.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from moa_ray.common.errors import InputError
from moa_ray.config import messages
from moa_ray.config.backbones import is_by_backbone, native_size
from moa_ray.config.hyperparameters import WHOLE_NUMBERS, Choice, Entry, Fixed, Range, Searched, WholeRange
from moa_ray.config.recipe import Recipe


@dataclass(frozen=True)
class Space:
    """What is searched, and what is fixed beside it.

    Attributes
    ----------
    fixed : mapping
        Value by hyperparameter; also what a conditional entry takes where its condition does not hold.
    entries : mapping
        What each searched hyperparameter may be.
    seeds : tuple of int or None
        Seeds of the members that each recipe of a grid has; any other recipe has the first. One None: no ensemble.
    """

    fixed: Mapping[str, Any]
    entries: Mapping[str, Entry]
    seeds: tuple[int | None, ...] = (None,)

    @classmethod
    def read(
        cls, fixed: Mapping[str, Any], searched: Mapping[str, Any], seeds: tuple[int | None, ...] = (None,)
    ) -> "Space":
        """Read the space of a sweep file: lists are choices, ``{low, high}`` ranges, all else is one value.

        Parameters
        ----------
        fixed : mapping
            Value by hyperparameter, as under ``recipe``.
        searched : mapping
            Values to try by hyperparameter, as under ``search.space``.
        seeds : tuple of int or None
            Seeds of the members of each ensemble; one None for no ensemble.

        Returns
        -------
        Space
            A space every value of which makes a recipe.

        Raises
        ------
        InputError
            At the first entry that cannot be.
        """
        _require_typed(Fixed, fixed, "recipe")
        _require_typed(Searched, searched, "search.space")
        space = cls(fixed, {key: _entry(key, value) for key, value in searched.items()}, seeds)
        space._check()
        return space

    def draw(self, pick: Callable[[str, Entry], Any]) -> dict[str, Any]:
        """Draw values for the entries that apply.

        Parameters
        ----------
        pick : callable
            Returns the value of an entry, given its hyperparameter and itself. Conditional entries come last.

        Returns
        -------
        dict
            Value by hyperparameter; entries whose condition does not hold are left out.
        """
        values: dict[str, Any] = {}
        for key, entry in sorted(self.entries.items(), key=lambda item: bool(item[1].when)):
            if self._applies(entry, values):
                values[key] = pick(key, entry)
        return values

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        """Make the recipe of some values.

        Parameters
        ----------
        values : mapping
            Value by searched hyperparameter, as `draw` returns them.

        Returns
        -------
        Recipe
            With the image size as a number, and the first of the seeds.

        Raises
        ------
        InputError
            If a value cannot be.
        """
        try:
            recipe = _RECIPE.validate_python(_for_backbone({**self.fixed, **values}))
        except ValidationError as error:
            first = error.errors()[0]
            key = str(first["loc"][0]) if first["loc"] else str(first["ctx"]["error"]).split()[0].rstrip(":")
            place = "search.space" if key in values else "recipe"
            raise InputError("; ".join(messages.lines(error, Recipe, place))) from None
        size = native_size(recipe.backbone) if recipe.image_size == "native" else recipe.image_size
        return replace(recipe, image_size=size, seed=self.seeds[0])

    @property
    def ranged(self) -> list[str]:
        """The hyperparameters that are searched over a range."""
        return [key for key, entry in self.entries.items() if isinstance(entry, Range)]

    def require_within(self, values: Mapping[str, Any], where: str) -> None:
        """Raise InputError where some values do not lie in the space.

        Parameters
        ----------
        values : mapping
            Value by hyperparameter.
        where : str
            Dotted path of the values in the sweep file.

        Raises
        ------
        InputError
            If a hyperparameter is not searched, a value is none of its choices or outside its range, or the recipe
            cannot be.
        """
        for key, value in values.items():
            if key not in self.entries:
                hint = messages.nearest(key, self.entries.keys())
                raise InputError(f"{where}: {key!r} is not searched{hint}")
            entry = self.entries[key]
            if isinstance(entry, Choice) and value not in entry.choices:
                raise InputError(f"{where}.{key}: one of {entry.choices} must stand here, but got {value!r}")
            if isinstance(entry, Range) and not entry.low <= float(value) <= entry.high:
                raise InputError(f"{where}.{key}: must lie in {entry.low:g} to {entry.high:g}, but got {value!r}")
        self.recipe(self._with(values))

    def grid(self) -> list[Recipe]:
        """List every recipe of a space without ranges.

        Returns
        -------
        list of Recipe
            In the file's order, each once with each seed.
        """
        recipes = dict.fromkeys(self.recipe(values) for values in self._combinations(list(self.entries)))
        return [replace(recipe, seed=seed) for recipe in recipes for seed in self.seeds]

    def representatives(self) -> list[Recipe]:
        """List one recipe for each combination of what shapes tiles, weights files and memory.

        Returns
        -------
        list of Recipe
            Of each combination the one with the largest batch and the longest training.
        """
        recipes = [self.recipe(values) for values in self._combinations(self._decisive(*_SHAPING, "freeze"))]
        kinds = {(r.backbone, r.weights, r.image_size, r.is_linear_probe): r for r in sorted(recipes, key=_cost)}
        return list(kinds.values())

    def frozen(self) -> list[Recipe]:
        """List one recipe for each set of frozen features that the space may ask for.

        Returns
        -------
        list of Recipe
            With ``freeze: all``.

        Raises
        ------
        InputError
            If ``freeze: all`` meets what it excludes.
        """
        recipes = [self.recipe(values) for values in self._combinations(self._decisive(*_FEATURES, "freeze"))]
        return list({r.features_key: r for r in recipes if r.is_linear_probe}.values())

    def require_dropout(self) -> None:
        """Raise InputError where a recipe may come that has no dropout layer at work.

        Raises
        ------
        InputError
            If Monte-Carlo dropout would draw the same sample again and again.
        """
        for values in self._combinations(self._decisive("backbone", "freeze", "dropout")):
            recipe = self.recipe(values)
            if not recipe.has_dropout:
                raise InputError(
                    f"predict.mc_dropout: {recipe.backbone} with dropout {recipe.dropout:g} has no dropout layer at "
                    "work, so that all its samples would be equal; set dropout above 0, or leave mc_dropout out"
                )

    def require_frozen(self) -> None:
        """Raise InputError where a recipe may come whose backbone is not frozen.

        Raises
        ------
        InputError
            If the Laplace approximation would meet more than a head.
        """
        for values in self._combinations(self._decisive("backbone", "freeze")):
            recipe = self.recipe(values)
            if not recipe.is_linear_probe:
                raise InputError(
                    f"predict.laplace: it is for heads on frozen features, but {recipe.backbone} has freeze "
                    f"{recipe.freeze:g}; write recipe.freeze: all, or leave laplace out"
                )

    def _decisive(self, *keys: str) -> list[str]:
        """Return the searched ones of some keys, and those that decide whether they apply."""
        searched = [key for key in keys if key in self.entries]
        deciding = (other for key in searched for other in self.entries[key].when)
        return [*searched, *(other for other in deciding if other in self.entries)]

    def _combinations(self, keys: list[str]) -> Iterator[dict[str, Any]]:
        """Yield every combination of the values of some entries; of a range its ends, of other entries the first."""
        names = [key for key in self.entries if key in keys]
        for picked in itertools.product(*(self._tried(key) for key in names)):
            yield self._with(dict(zip(names, picked, strict=True)))

    def _tried(self, key: str) -> list[Any]:
        """Return examples of an entry; of a range also what conditions name."""
        examples = _examples(self.entries[key])
        if isinstance(self.entries[key], Choice):
            return examples
        named = [value for entry in self.entries.values() for value in entry.when.get(key, [])]
        return list(dict.fromkeys([*examples, *named]))

    def _with(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Return some values, and of the entries that they leave open the first one."""
        return self.draw(lambda key, entry: chosen.get(key, _examples(entry)[0]))

    def _applies(self, entry: Entry, values: Mapping[str, Any]) -> bool:
        settled = {**_DEFAULTS, **self.fixed, **values}
        return all(settled[key] in allowed for key, allowed in entry.when.items())

    def _check(self) -> None:
        """Try every value in a recipe, so that none turns out wrong in the middle of a search."""
        for key, entry in self.entries.items():
            if key in self.fixed and not entry.when:
                raise InputError(f"search.space.{key}: it is fixed under recipe too; keep one of the two")
            for other in entry.when:
                if other in self.entries and self.entries[other].when:
                    raise InputError(f"search.space.{key}.when: {other} is itself conditional; name another one")
        for key in ["backbone", *self.entries]:
            for values in self._combinations(["backbone", key]):
                self.recipe(values)


def _require_typed(model: type[BaseModel], values: Mapping[str, Any], place: str) -> None:
    """Raise InputError for an unknown hyperparameter, or a value of another type."""
    try:
        model.model_validate(dict(values))
    except ValidationError as error:
        raise InputError("; ".join(messages.lines(error, model, place))) from None


def _entry(key: str, value: Any) -> Entry:
    if isinstance(value, dict) and "choices" in value:
        return Choice.model_validate(value)
    if isinstance(value, dict) and {"low", "high"} <= value.keys():
        return (WholeRange if key in WHOLE_NUMBERS else Range).model_validate(value)
    return Choice(choices=value if isinstance(value, list) else [value])


def is_whole(key: str) -> bool:
    """Tell whether a hyperparameter is a whole number.

    Parameters
    ----------
    key : str
        Name of the hyperparameter.

    Returns
    -------
    bool
        True where a range of it holds whole numbers alone.
    """
    return key in WHOLE_NUMBERS


def _examples(entry: Entry) -> list[Any]:
    return entry.choices if isinstance(entry, Choice) else [entry.low, entry.high]


def _cost(recipe: Recipe) -> tuple[int, int]:
    return recipe.batch_size, recipe.epochs


# What tiles, weights and memory depend on, and what frozen features do.
_SHAPING = ("backbone", "weights", "image_size", "batch_size", "epochs")
_FEATURES = ("backbone", "weights", "image_size", "input_scaling", "precision", "augment")

_RECIPE = TypeAdapter(Recipe)
_DEFAULTS = Recipe().as_dict()


def _for_backbone(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with those that are given by backbone, ``weights: {ResNet50: FILE, ...}``, looked up."""
    backbone = values.get("backbone", Recipe.backbone)
    chosen = {}
    for key, value in values.items():
        if is_by_backbone(value) and backbone not in value:
            raise InputError(f"recipe.{key}: given by backbone, but not for {backbone}")
        chosen[key] = value[backbone] if is_by_backbone(value) else value
    return chosen
