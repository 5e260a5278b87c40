"""Turn pydantic's errors into messages in the words of the sweep file: place, rule, value, next step."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Union

from pydantic import BaseModel, Tag, ValidationError

from moa_ray.config.as_written import AsWritten


def lines(error: ValidationError, model: type, prefix: str = "") -> Iterator[str]:
    """Yield one line for each place that is wrong, its dotted path first.

    Parameters
    ----------
    error : ValidationError
        What pydantic raised.
    model : type
        What was validated: a pydantic model or a dataclass. Its keys are suggested for unknown ones; it may have a
        ``noun``, which messages call an unknown key, and ``advice``, what they say of keys that must not be there.
    prefix : str
        Dotted path of the model itself.

    Yields
    ------
    str
        Place, rule, value, next step.
    """
    texts: dict[str, list[str]] = {}
    for problem in error.errors():
        path, sections = _walk(model, problem["loc"])
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            path, text = _unknown(path, sections)
        else:
            text = _text(problem)
        texts.setdefault(".".join([*([prefix] if prefix else []), *path]), []).append(text)
    for place, alternatives in texts.items():
        # Alternatives of one key, each of which the value misses, make one line.
        text = " or ".join(dict.fromkeys(alternatives))
        yield f"{place}: {text}" if place else text


def nearest(word: str, words: Collection[str]) -> str:
    """Return a hint at the word that was probably meant, or at all of them.

    Parameters
    ----------
    word : str
        What was written.
    words : collection of str
        What might have been.

    Returns
    -------
    str
        The end of a message, from its semicolon on.
    """
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(words)}"


def _unknown(path: list[str], sections: list[Any]) -> tuple[list[str], str]:
    """Return the place and the text for a key that no section has."""
    *place, key = path
    for section in sections:
        if key in getattr(section, "advice", {}):
            return path, section.advice[key]
    noun = next((section.noun for section in sections if hasattr(section, "noun")), "key")
    keys = [name for section in sections for name in _fields(section)]
    return place, f"unknown {noun} {key!r}{nearest(key, keys)}"


def _walk(model: type, loc: tuple[int | str, ...]) -> tuple[list[str], list[Any]]:
    """Return the path in the sweep file of a place that pydantic names, and the sections that know its last key.

    Pydantic's places hold more than keys: where a key has alternatives, also which of them was tried.
    """
    path: list[str] = []
    kind: Any = model
    last: list[Any] = []
    named = False  # whether the next part is a name that the user gave, not a key of ours
    for part in loc:
        if named:
            path.append(str(part))
            named = False
            continue
        sections = _sections(kind)
        alternative = _tagged(kind, part)
        if alternative is None and len(sections) > 1:
            alternative = next((section for section in sections if part in _tags(section)), None)
        if alternative is not None:
            kind, named = alternative, _is_mapping(alternative)
            continue
        fields = {name: held for section in sections for name, held in _fields(section).items()}
        if part in fields or (sections and part == loc[-1]):
            path.append(str(part))
            last, kind = sections, fields.get(str(part))
            named = _is_mapping(kind)
        elif isinstance(part, int):
            path.append(str(part))
    return path, last


def _fields(section: Any) -> dict[str, Any]:
    """Return the keys of a section and what each may hold."""
    if issubclass(section, BaseModel):
        return {
            name: next((mark.model for mark in field.metadata if isinstance(mark, AsWritten)), field.annotation)
            for name, field in section.model_fields.items()
        }
    return {field.name: field.type for field in dataclasses.fields(section)}


def _inner(kind: Any) -> tuple[Any, ...]:
    """Return what an annotation is made of: the alternatives of a union, what a list holds."""
    kind = getattr(kind, "__value__", kind)
    if typing.get_origin(kind) is Annotated:
        inner, *marks = typing.get_args(kind)
        return tuple(mark.model for mark in marks if isinstance(mark, AsWritten)) or (inner,)
    return typing.get_args(kind)


def _sections(kind: Any) -> list[Any]:
    """Return the sections among the alternatives of a key."""
    if isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)):
        return [kind]
    return [section for inner in _inner(kind) for section in _sections(inner)]


def _tagged(kind: Any, tag: object) -> Any:
    """Return the outermost alternative of a key that has a tag; None where there is none."""
    level = [kind]
    while level:
        for annotation in level:
            marks = getattr(annotation, "__metadata__", ())
            if any(isinstance(mark, Tag) and mark.tag == tag for mark in marks):
                return typing.get_args(annotation)[0]
        level = [inner for annotation in level for inner in _inner(annotation)]
    return None


def _is_mapping(kind: Any) -> bool:
    """Tell whether the keys of what stands here are names that the user gives; not so before a tag has chosen."""
    if any(isinstance(mark, Tag) for mark in getattr(kind, "__metadata__", ())):
        return False
    kind = getattr(kind, "__value__", kind)
    if typing.get_origin(kind) in (Annotated, Union, types.UnionType):
        return any(_is_mapping(inner) for inner in _inner(kind))
    return typing.get_origin(kind) is dict


def _tags(section: Any) -> tuple[Any, ...]:
    """Return the names by which a section is told from its alternatives."""
    fields = _fields(section)
    return typing.get_args(fields.get("mode", fields.get("name")))


def _text(problem: Any) -> str:
    """Return rule and value."""
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
    if problem["type"] == "invalid_key":
        problem = {**problem, "msg": "a key must be text"}
    if problem["type"] in ("model_type", "dataclass_type", "dict_type"):
        problem = {**problem, "msg": "must be a mapping of keys"}
    text = f"{str(problem['msg']).replace('Input should be', 'must be')}, but got {value!r}"
    if isinstance(value, bool):
        text += "; YAML reads yes, no, on and off as true and false: put quotes around a word"
    return text
