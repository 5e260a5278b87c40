"""The JSON schema of a sweep file, from the types of its keys and the docstrings below them."""

import json
from typing import Any

from moa_ray.config.sweep_file import Sweep


def json_schema() -> str:
    """Write the JSON schema of a sweep file, for editors.

    Returns
    -------
    str
        JSON of the draft 2020-12. It knows keys, types and limits; what one key demands of another is checked by `load`
        alone.
    """
    schema = _tidy(Sweep.model_json_schema())
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "A sweep file of moa_ray"}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _tidy(node: Any) -> Any:
    """Return a part of a schema with the first paragraph of each description, on one line, and no titles of keys."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidied = {key: _tidy(value) for key, value in node.items() if key != "title" or "properties" in node}
    if isinstance(node.get("description"), str):
        tidied["description"] = " ".join(node["description"].partition("\n\n")[0].split())
    return tidied
