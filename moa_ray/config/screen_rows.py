"""How the rows of a screen's table are understood: which are kept, which are controls, what makes two names one."""

import codecs
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator
from typing_extensions import TypeAliasType

from moa_ray.common.spelling import clean_text
from moa_ray.config.settings import Name, Settings

Value = str | float | bool | None  # as YAML reads it
MISSING = ("NA", "N/A", "#N/A", "<NA>", "nan", "null", "none", "unknown", "-")


@dataclass(frozen=True)
class Condition:
    """Values of a column that are chosen, or all others.

    Attributes
    ----------
    values : tuple of str, float, bool or None
        A number stands for any spelling of it, None for an empty cell.
    is_negated : bool
        Whether all other values are chosen.
    """

    values: tuple[Value, ...]
    is_negated: bool = False


def read_condition(written: Any) -> Condition:
    """Read a value, a list of values, or ``{not: [...]}``.

    Parameters
    ----------
    written : Any
        What stands in the file.

    Returns
    -------
    Condition

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if isinstance(written, Condition):
        return written
    if isinstance(written, Mapping):
        if set(written) != {"not"}:
            others = ", ".join(repr(key) for key in written if key != "not") or "nothing"
            near = difflib.get_close_matches(str(next(iter(written), "")), ["not"], n=1, cutoff=0.5)
            raise ValueError(
                f"a list of values or not: [...], but got {others}" + ("; did you mean 'not'?" * bool(near))
            )
        return Condition(read_condition(written["not"]).values, is_negated=True)
    values = written if isinstance(written, list | tuple) else [written]
    if not values:
        raise ValueError("at least one value must stand there, but the list is empty")
    for value in values:
        if not isinstance(value, str | int | float | None):
            raise ValueError(f"a value must be text, a number or null, but got {value!r}")
    return Condition(tuple(clean_text(value) if isinstance(value, str) else value for value in values))


def _write_condition(condition: Condition) -> Any:
    values = list(condition.values)
    return {"not": values} if condition.is_negated else values


Values = TypeAliasType("Values", Value | list[Value] | dict[Literal["not"], list[Value]])
Choice = Annotated[
    Condition, PlainValidator(read_condition, json_schema_input_type=Values), PlainSerializer(_write_condition)
]


def _words(written: Any) -> Any:
    """Take what YAML reads as a number or as null for the word that was written."""
    if not isinstance(written, list | tuple):
        return written
    return ["null" if word is None else str(word) if type(word) in (int, float) else word for word in written]


def _separator(written: str) -> str:
    separator = {"comma": ",", "tab": "\t", r"\t": "\t", "semicolon": ";"}.get(written, written)
    if len(separator) != 1 or separator in '\r\n"':
        near = difflib.get_close_matches(written, ["comma", "tab", "semicolon"], n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"must be comma, tab, semicolon or one character, but got {written!r}{hint}")
    return separator


def _encoding(written: str) -> str:
    try:
        if codecs.lookup(written)._is_text_encoding:
            return written
    except LookupError:
        pass
    near = difflib.get_close_matches(written.lower(), ["utf-8", "utf-16", "latin-1", "cp1252"], n=1, cutoff=0.5)
    hint = (
        f"; did you mean {near[0]!r}?" if near else "; known are utf-8, utf-16, latin-1, cp1252 and others of Python's"
    )
    raise ValueError(f"unknown encoding {written!r}{hint}")


def _aliases(written: Any) -> Any:
    """Read ``distinct`` or names with lists of their others; each spelling belongs to one name."""
    if written is None or written == "distinct":
        return written
    if not isinstance(written, Mapping):
        raise ValueError(f"must be distinct, or a list of other spellings for each name, but got {written!r}")
    for name, others in written.items():
        if not isinstance(others, list | tuple) or not all(isinstance(text, str) and text for text in (name, *others)):
            raise ValueError(f"a name and a list of its other spellings, all text, but got {name!r}: {others!r}")
    cleaned = {clean_text(name): tuple(map(clean_text, others)) for name, others in written.items()}
    owner: dict[str, str] = {}
    for name, others in cleaned.items():
        for other in others:
            if other in cleaned and other != name:
                raise ValueError(f"{other!r} is a name of its own and another of {name!r}; keep one of them")
            if owner.setdefault(other, name) != name:
                raise ValueError(f"{other!r} is another name of both {owner[other]!r} and {name!r}; keep one of them")
    return cleaned


def _control(written: Any) -> Any:
    """Read the name of a compound, a list of names, or conditions by column."""
    if written is None:
        return None
    if isinstance(written, Mapping):
        conditions = {}
        for column, values in written.items():
            try:
                conditions[str(column)] = read_condition(values)
            except ValueError as error:
                raise ValueError(f"{column}: {error}") from None
        if not conditions:
            raise ValueError("at least one column must stand there, but the mapping is empty")
        return conditions
    names = written if isinstance(written, list | tuple) else [written]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"a compound, a list of compounds, or values by column, but got {written!r}")
    return clean_text(written) if isinstance(written, str) else tuple(map(clean_text, names))


def _write_control(control: Any) -> Any:
    if isinstance(control, dict):
        return {column: _write_condition(condition) for column, condition in control.items()}
    return list(control) if isinstance(control, tuple) else control


AliasNames = Literal["distinct"] | dict[str, tuple[str, ...]]
ControlRows = str | tuple[str, ...] | dict[str, Condition]
Aliases = Annotated[
    AliasNames | None,
    PlainValidator(_aliases, json_schema_input_type=Literal["distinct"] | dict[Name, list[Name]] | None),
]
Control = Annotated[
    ControlRows | None,
    PlainValidator(_control, json_schema_input_type=str | list[str] | dict[str, Values] | None),
    PlainSerializer(_write_control),
]
ColumnName = Annotated[str, AfterValidator(clean_text)]
Separator = Annotated[str, AfterValidator(_separator)]
Encoding = Annotated[str, AfterValidator(_encoding)]


class RowSettings(Settings):
    """What the screens that are described by tables share: how rows and their cells are understood."""

    columns: dict[str, ColumnName]
    """`Metadata_*` name to the file's column: `{Metadata_Plate: plate, Metadata_Label: moa}`."""
    control: Control = None
    """The untreated wells: their compound, several of them, or values of any column, `{control_type: [negcon]}`; null:
    there are none. They need no concentration."""
    control_is_class: bool = False
    """Whether the labels of controls count: such wells normalise their plates and are learnt and scored as well. By
    default a control has no label, whatever stands in the table."""
    where: dict[str, Choice] = Field(default={})
    """Rows that are kept, by `Metadata_*` names or columns of the file: a value, a list, or all others:
    `{Metadata_Field: [1, 2], Metadata_Label: {not: [toxic]}}`. A number stands for any spelling of it, null for an
    empty cell."""
    missing: Annotated[tuple[str, ...], BeforeValidator(_words)] = MISSING
    """Words that stand for no label, whatever their case; an empty cell always does. A compound may be called so."""
    aliases: Aliases = None
    """Other spellings of compounds and labels: `{Taxol: [taxol, paclitaxel]}` makes them one. Names that differ by
    case, blanks, hyphens or Unicode form alone are an error until it is said what they are: `{C-1: [], C1: []}` keeps
    these apart, `distinct` all."""
    decimal: Literal[".", ","] | None = None
    """The sign before the decimals of concentrations; null finds it out, and asks where `1,000` could be both."""
    separator: Separator | None = None
    """Between the cells of a text: `comma`, `tab`, `semicolon` or one character; null finds out which of the three."""
    encoding: Encoding | None = None
    """How a text is written: `utf-8`, `utf-16`, `latin-1`, `cp1252`; null takes UTF-8, or UTF-16 where it begins so."""
