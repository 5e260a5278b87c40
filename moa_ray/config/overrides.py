"""Overrides: values of a sweep file that stand on the command line, ``KEY=VALUE`` by dotted path."""

import copy
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import yaml

from moa_ray.common.errors import InputError
from moa_ray.common.text import flat
from moa_ray.config.yaml_text import read_yaml


class _Override(NamedTuple):
    """One override as it was written, its dotted path, and its value."""

    written: str
    key: str
    value: Any

    @property
    def values(self) -> dict[str, Any]:
        """The values that it sets, by dotted paths."""
        return flat({self.key: self.value})

    def sets(self, key: str) -> bool:
        """Whether it sets what stands at a dotted path, alone or with the section around it."""
        return f"{key}.".startswith(f"{self.key}.")


def apply_overrides(plain: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set the values that overrides name, in their order.

    Parameters
    ----------
    plain : dict
        The sweep file as YAML reads it; it is changed.
    overrides : sequence of str
        ``KEY=VALUE``, e.g. ``search.space.backbone=[ResNet50]``.

    Raises
    ------
    InputError
        If one is not of this form, leads into a value, or undoes one before it.
    """
    parsed = [_parsed(override) for override in overrides]
    for first, second in combinations(parsed, 2):
        missing = object()
        undone = (
            key for key, value in first.values.items() if second.sets(key) and second.values.get(key, missing) != value
        )
        if (key := next(undone, None)) is not None:
            raise InputError(f"{first.written!r} and {second.written!r}: both set {key}; keep one of the two")
    for override in parsed:
        _set(plain, override)


def _parsed(override: str) -> _Override:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f"{override!r}: an override reads KEY=VALUE, e.g. recipe.epochs=5")
    try:
        return _Override(override, key, read_yaml(text))
    except InputError as error:
        raise InputError(f"{override!r}: {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{override!r}: the value is not YAML: {' '.join(str(error).split())}") from None


def _set(plain: dict[str, Any], override: _Override) -> None:
    *parents, last = override.key.split(".")
    node = plain
    for parent in parents:
        if node.get(parent) is None:
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            raise InputError(f"{override.written!r}: {parent} holds a value, not keys")
    node[last] = copy.deepcopy(override.value)
