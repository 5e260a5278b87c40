"""Write what editors and people read of the sweep file: its JSON schema, and the table of its keys in sweeps/README.md.

    python -m moa_ray.config.reference [FOLDER]

writes ``sweep.schema.json`` and the part of ``README.md`` between its two markers into a folder, by default ``sweeps``.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from moa_ray.common.files import write_text
from moa_ray.config.json_schema import json_schema

BEGIN = "<!-- keys: written by `python -m moa_ray.config.reference` -->"
END = "<!-- end of the keys -->"
SCHEMA, PAGE = "sweep.schema.json", "README.md"

_NAMED = {
    "BackboneName": "a backbone",
    "When": "hyperparameter: list of its values",
    "Values": "a value, a list of values or `{not: [...]}`",
}
_WORDS = {"string": "text", "integer": "whole number", "boolean": "true or false", "null": "null", "number": "number"}
# What the sections of one place are told apart by.
_TAGS = ("name", "mode")
# The values to try of one hyperparameter: each has sections of its own, which differ in nothing but its type.
_SPACE = {"LearningRateChoice": "choice with a condition", "Range": "range"}


def main(folder: Path) -> None:
    """Write the schema and the part of the page.

    Parameters
    ----------
    folder : Path
        Where ``README.md`` lies and ``sweep.schema.json`` is written.
    """
    write_text(folder / SCHEMA, json_schema())
    page = folder / PAGE
    write_text(page, with_keys(page.read_text(encoding="utf-8")))


def with_keys(page: str) -> str:
    """Return a page whose part between the markers is what the schema says.

    Parameters
    ----------
    page : str
        Markdown with both markers.

    Returns
    -------
    str
        The page, all else as it was.
    """
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{keys(json.loads(json_schema()))}\n{END}{after}"


def keys(schema: Mapping[str, Any]) -> str:
    """Write the sections of a sweep file, each a heading and a table of its keys.

    Parameters
    ----------
    schema : mapping
        The JSON schema of the sweep file.

    Returns
    -------
    str
        Markdown.
    """
    return "\n".join(_section(schema, schema["$defs"], "", set()))


def _section(section: Mapping[str, Any], definitions: Mapping[str, Any], path: str, told: set[str]) -> Iterator[str]:
    """Yield the table of a section, then the sections within it."""
    tag = next((f"{tag}: {section['properties'][tag]['const']}" for tag in _TAGS if _is_tag(section, tag)), None)
    heading = _heading(path, tag)
    if heading in told:  # what two searches share
        return
    told.add(heading)
    yield f"### {heading}\n"
    yield f"{section['description']}\n"
    if section["title"] == "Searched":
        yield "Any key of `recipe`. What it may hold beside one value and a list of values:\n"
        for name, form in _SPACE.items():
            yield from _section(definitions[name], definitions, f"{path}.KEY, a {form}", told)
        return
    yield "| key | what may stand there | default | meaning |\n|---|---|---|---|"
    for key, held in section["properties"].items():
        default = _default(held, key in section.get("required", ()))
        meaning = held.get("description") or _definition(held, definitions)["description"]
        yield f"| `{key}` | {_kind(held, definitions)} | {default} | {_line(meaning)} |"
    yield ""
    for key, held in section["properties"].items():
        for inner in _within(held, definitions):
            yield from _section(inner, definitions, f"{path}.{key}".lstrip("."), told)


def _is_tag(section: Mapping[str, Any], key: str) -> bool:
    return "const" in section["properties"].get(key, {})


def _heading(path: str, tag: str | None) -> str:
    key, comma, form = path.partition(",")
    place = f"`{key}`{comma}{form}" if path else "At the top"
    return place if tag is None else f"{place} with `{tag}`"


def _line(text: str) -> str:
    """Return text as a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _default(held: Mapping[str, Any], required: bool) -> str:
    if required:
        return "must be given"
    return f"`{json.dumps(held['default'], ensure_ascii=False)}`" if "default" in held else "those of its keys"


def _within(held: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the sections that may stand in a place: its own, those among its alternatives, those under names."""
    if "$ref" in held:
        yield from _within(_definition(held, definitions), definitions)
    elif "properties" in held:
        if held["title"] != "When":
            yield held
    else:
        alternatives = [*held.get("anyOf", ()), *held.get("oneOf", ())]
        for inner in alternatives[:1] if _is_value(held) else alternatives:
            yield from _within(inner, definitions)
        if isinstance(held.get("additionalProperties"), dict):
            yield from _within(held["additionalProperties"], definitions)


def _definition(held: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    definition: Mapping[str, Any] = definitions[held["$ref"].rpartition("/")[2]]
    return definition


def _is_value(held: Mapping[str, Any]) -> bool:
    """Tell whether alternatives are a value and the same by backbone, which is said once for all."""
    last = held.get("oneOf", ({},))[-1]
    return "propertyNames" in last


def _kind(held: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Say in words what may stand in a place."""
    if "$ref" in held:
        definition = _definition(held, definitions)
        return _NAMED.get(held["$ref"].rpartition("/")[2]) or _kind(definition, definitions)
    if "const" in held:
        return f"`{json.dumps(held['const'])}`" if not isinstance(held["const"], str) else f"`{held['const']}`"
    if "enum" in held:
        return ", ".join(f"`{value}`" for value in held["enum"])
    alternatives = [*held.get("anyOf", ()), *held.get("oneOf", ())]
    if alternatives:
        shown = alternatives[:1] if _is_value(held) else alternatives
        return " or ".join(dict.fromkeys(_kind(inner, definitions) for inner in shown))
    if held["type"] == "array":
        return _list(held, definitions)
    if held["type"] == "object":
        inner = held.get("additionalProperties")
        return f"name: {_kind(inner, definitions)}" if isinstance(inner, dict) else "section"
    return _WORDS[held["type"]] + _limits(held)


def _list(held: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "prefixItems" in held:
        return f"list of {len(held['prefixItems'])}: {_kind(held['prefixItems'][0], definitions)}"
    return f"list: {_kind(held['items'], definitions)}"


def _limits(held: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {held[limit]:g}" for limit, sign in signs.items() if limit in held]
    return f" {', '.join(limits)}" if limits else ""


if __name__ == "__main__":
    main(Path(*sys.argv[1:2] or ["sweeps"]))
