"""What pydantic finds wrong, in the words of the sweep file: place, rule, value, next step."""

import dataclasses
import difflib
import typing
from collections.abc import Collection, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError


def lines(error: ValidationError, model: type, prefix: str = "") -> Iterator[str]:
    """One line for each place that is wrong, its dotted path first.

    model : what was validated: a pydantic model or a dataclass, whose keys are suggested for unknown ones
    prefix : the dotted path of the model itself
    """
    texts: dict[str, list[str]] = {}
    for problem in error.errors():
        path, known = _walk(model, problem["loc"])
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            *path, key = path
            text = f"unknown key {key!r}{nearest(key, known)}"
        else:
            text = _text(problem)
        texts.setdefault(".".join([*([prefix] if prefix else []), *path]), []).append(text)
    for place, found in texts.items():
        # Alternatives of one key, each of which the value misses, make one line.
        text = " or ".join(dict.fromkeys(found))
        yield f"{place}: {text}" if place else text


def nearest(word: str, known: Collection[str]) -> str:
    """A hint at the known word that was probably meant, or at all of them."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"


def _walk(model: type, loc: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """The path in the sweep file of a place that pydantic names, and the keys known at its last step.

    Pydantic's places hold more than keys: where a key has alternatives, also which of them was tried.
    """
    path: list[str] = []
    sections: list[Any] = [model]
    known: list[str] = []
    named = False  # whether the next part is a name that the user gave, not a key of ours
    for part in loc:
        if named:
            path.append(str(part))
            named = False
            continue
        fields = {name: kind for section in sections for name, kind in _fields(section).items()}
        tagged = [section for section in sections if part in _tags(section)]
        if len(sections) > 1 and tagged:
            sections = tagged
        elif part in fields or (sections and part == loc[-1]):
            path.append(str(part))
            known = list(fields)
            sections, named = _sections(fields.get(str(part))), _is_mapping(fields.get(str(part)))
        elif isinstance(part, int):
            path.append(str(part))
    return path, known


def _fields(section: Any) -> dict[str, Any]:
    """Keys of a section and what each may hold."""
    if issubclass(section, BaseModel):
        return {name: field.annotation for name, field in section.model_fields.items()}
    return {field.name: field.type for field in dataclasses.fields(section)}


def _sections(kind: Any) -> list[Any]:
    """The sections among the alternatives of a key."""
    if isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)):
        return [kind]
    return [section for argument in typing.get_args(kind) for section in _sections(argument)]


def _is_mapping(kind: Any) -> bool:
    return any(typing.get_origin(one) is dict for one in (kind, *typing.get_args(kind)))


def _tags(section: Any) -> tuple[Any, ...]:
    """The names by which a section is told from its alternatives."""
    fields = _fields(section)
    return typing.get_args(fields.get("mode", fields.get("name")))


def _text(problem: Any) -> str:
    """Rule and value."""
    value = problem["input"]
    if problem["type"] == "missing":
        return "this key is missing"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    if problem["type"] == "union_tag_invalid":
        key = problem["ctx"]["discriminator"].strip("'_()")
        return f"{key} must be {problem['ctx']['expected_tags']}, but got {problem['ctx']['tag']!r}"
    if problem["type"] == "union_tag_not_found":
        return "this section needs a name"
    if problem["type"] == "path_type":
        return f"must be a path, but got {value!r}"
    text = f"{str(problem['msg']).replace('Input should be', 'must be')}, but got {value!r}"
    if isinstance(value, bool):
        text += "; YAML reads yes, no, on and off as true and false: put quotes around a word"
    return text
