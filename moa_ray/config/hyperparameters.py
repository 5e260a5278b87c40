"""The types of hyperparameters in a sweep file: fixed values under ``recipe``, values to try under ``search.space``.

They follow from the fields of `Recipe`, so that a hyperparameter that is added there can be fixed, searched, named in a
condition and looked up in the file's JSON schema without another line.
"""

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Annotated, Any, ClassVar, get_type_hints

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
    TypeAdapter,
    create_model,
    model_validator,
)
from pydantic_core import CoreSchema
from typing_extensions import TypeAliasType

from moa_ray.config.as_written import AsWritten
from moa_ray.config.backbones import BackboneName, is_by_backbone
from moa_ray.config.recipe import Recipe

# What pdoc shows: it cannot read the keys of classes that are made at run time (Fixed, Searched, When).
__all__ = ["KEYS", "WHOLE_NUMBERS", "Choice", "Condition", "Entry", "Hyperparameters", "Range", "WholeRange"]

# Tags of the forms that a value may have. No key of a sweep file has brackets: `messages` leaves them out of paths.
_VALUE, _BY_BACKBONE, _LIST, _CHOICE, _RANGE = "<value>", "<by backbone>", "<list>", "<choice>", "<range>"

_HINTS = {item.name: get_type_hints(Recipe, include_extras=True)[item.name] for item in fields(Recipe)}
KEYS = tuple(name for name in _HINTS if name != "seed")
"""Every hyperparameter that a sweep file may name."""
WHOLE_NUMBERS = tuple(name for name in KEYS if get_type_hints(Recipe)[name] is int)
"""Those of which a range holds whole numbers alone."""
_NUMBERS = (*WHOLE_NUMBERS, *(name for name in KEYS if get_type_hints(Recipe)[name] is float))


class Hyperparameters(BaseModel):
    """Hyperparameters by name, none of which must be there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    noun: ClassVar[str] = "hyperparameter"
    """What messages call an unknown key."""
    advice: ClassVar[dict[str, str]] = {
        "seed": "a recipe takes no seed of its own; write seeds: [1, 2, 3] at the top",
    }
    """What messages say of a key that must not stand here."""
    has_defaults: ClassVar[bool] = False
    """Whether a hyperparameter that is not here has the default of `Recipe`, which the JSON schema then shows."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe each hyperparameter as `Recipe` does."""
        described = handler.resolve_ref_schema(handler(schema))
        for name, entry in described["properties"].items():
            entry.pop("title", None)
            entry["description"] = _recipe_schema()[name]["description"]
            if cls.has_defaults:
                entry["default"] = Recipe().as_dict()[name]
        return described


@cache
def _recipe_schema() -> dict[str, Any]:
    properties: dict[str, Any] = TypeAdapter(Recipe).json_schema()["properties"]
    return properties


class _WithDefaults(Hyperparameters):
    has_defaults: ClassVar[bool] = True


def _model(
    name: str, doc: str, kinds: Mapping[str, Any], base: type[Hyperparameters] = Hyperparameters
) -> type[Hyperparameters]:
    """Make a model with a key for each hyperparameter; a factory leaves no default in the JSON schema."""
    absent = {key: (kind, Field(default_factory=lambda: None)) for key, kind in kinds.items()}
    return create_model(name, __base__=base, __doc__=doc, **absent)  # type: ignore[call-overload, no-any-return]


# mypy takes these for types, where types are made at run time.
_ANNOTATED: Any = Annotated
_DICT: Any = dict
_LIST_OF: Any = list


def _marked(kind: Any, *marks: Any) -> Any:
    return _ANNOTATED[(kind, *marks)]


def _title(name: str) -> str:
    return name.title().replace("_", "")


def _value(name: str) -> Any:
    """Type one value of a hyperparameter, or one for each backbone; the alias makes it one definition in the schema."""
    by_backbone = _marked(_DICT[BackboneName, _HINTS[name]], Field(min_length=1), Tag(_BY_BACKBONE))
    forms = _marked(_HINTS[name], Tag(_VALUE)) | by_backbone
    choose = Discriminator(lambda value: _BY_BACKBONE if is_by_backbone(value) else _VALUE)
    return TypeAliasType(f"{_title(name)}Value", _marked(forms, choose))


_VALUES = {name: _value(name) for name in KEYS}


def _no_list(value: Any) -> Any:
    if isinstance(value, list):
        raise ValueError(
            f"one value must stand here, but got the list {value!r}; put a list of values to try under search.space"
        )
    return value


Fixed = _model(
    "Fixed",
    "Hyperparameters that all recipes share. A value may be given by backbone: `weights: {ResNet50: a.h5}`.",
    {name: _marked(kind, BeforeValidator(_no_list)) for name, kind in _VALUES.items()},
    _WithDefaults,
)

When = _model(
    "When",
    "Values of other hyperparameters, one of which each must have.",
    {name: _marked(_LIST_OF[kind], Field(min_length=1)) for name, kind in _VALUES.items()},
)
Condition = Annotated[dict[str, list[Any]], AsWritten(When)]


_STEP = "Only low, low + step, ... are drawn; null draws any number."
_WHEN = "The hyperparameter is searched only where others have one of these values: `{optimizer: [adam, adamw]}`."


class Range(BaseModel):
    """Numbers from low to high, both included; whole ones where the hyperparameter is a whole number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float = Field(description="The least number.")
    high: float = Field(description="The largest number.")
    log: bool = Field(default=False, description="Whether numbers are drawn evenly on a logarithmic scale.")
    step: float | None = Field(default=None, gt=0, description=_STEP)
    when: Condition = Field(default={}, description=_WHEN)

    @model_validator(mode="after")
    def _is_sound(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low < high must hold, but got low={self.low:g}, high={self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 on a logarithmic scale, but got {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("step and log exclude each other; keep one of the two")
        return self


class WholeRange(Range):
    """Whole numbers from low to high, both included."""

    low: float = Field(description="The least number.", json_schema_extra={"type": "integer"})
    high: float = Field(description="The largest number.", json_schema_extra={"type": "integer"})
    step: float | None = Field(default=None, gt=0, description=_STEP, json_schema_extra={"multipleOf": 1})

    @model_validator(mode="after")
    def _is_whole(self) -> "WholeRange":
        ends = [self.low, self.high, *([self.step] if self.step is not None else [])]
        if not all(end.is_integer() for end in ends):
            raise ValueError(f"whole numbers must stand here, but got {ends}")
        return self


class Choice(BaseModel):
    """Some values to try."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    choices: Annotated[list[Any], Field(min_length=1, description="The values.")]
    when: Condition = Field(default={}, description=_WHEN)


Entry = Choice | Range


def _form(name: str, value: Any) -> str:
    """Return the tag of the form in which values to try are given."""
    if isinstance(value, list):
        return _LIST
    if isinstance(value, dict) and "choices" in value:
        return _CHOICE
    return _RANGE if name in _NUMBERS and isinstance(value, dict) and not is_by_backbone(value) else _VALUE


def _searchable(name: str, value: Any) -> Any:
    """Raise ValueError for what no message of a type would explain."""
    if value == []:
        raise ValueError("the list of values to try is empty")
    if isinstance(value, dict) and {"low", "high"} & value.keys() and name not in _NUMBERS:
        why = "tiles are stored for each size" if name == "image_size" else "it is no number"
        raise ValueError(f"a list must stand here: {why}")
    return value


def _to_try(name: str) -> Any:
    """Type the values to try of one hyperparameter: one, a list, choices with a condition, of a number also a range."""
    values = _marked(_LIST_OF[_VALUES[name]], Field(min_length=1))
    choices = _marked(values, Field(description="The values."))
    choice = create_model(f"{_title(name)}Choice", __base__=Choice, __doc__=Choice.__doc__, choices=(choices, ...))
    forms = _marked(_VALUES[name], Tag(_VALUE)) | _marked(values, Tag(_LIST)) | _marked(choice, Tag(_CHOICE))
    if name in _NUMBERS:
        forms |= _marked(WholeRange if name in WHOLE_NUMBERS else Range, Tag(_RANGE))
    choose = Discriminator(lambda value: _form(name, value))
    return _marked(forms, choose, BeforeValidator(lambda value: _searchable(name, value)))


Searched = _model(
    "Searched",
    "Values to try of each hyperparameter: one, a list, or `{low, high}` for numbers of a search.",
    {name: _to_try(name) for name in KEYS},
)
