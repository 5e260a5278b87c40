"""YAML as plain values, without two traps of YAML 1.1: a repeated key, and a key that is a word for true or false.

Of two keys of one name YAML keeps the last and says nothing, so that a value which somebody reads in the file does
nothing. And it reads the key ``on`` as True, the compound ``NO`` as False; no key of a sweep file is a truth value.
"""

from collections.abc import Hashable, Iterator

import yaml

from moa_ray.common.errors import InputError

_MERGE, _BOOL, _TEXT = (f"tag:yaml.org,2002:{name}" for name in ("merge", "bool", "str"))


def read_yaml(text: str) -> object:
    """Read one YAML document as `yaml.safe_load` does; only keys that are words for true and false stay words.

    Parameters
    ----------
    text : str
        The document.

    Returns
    -------
    dict, list or scalar
        Plain values.

    Raises
    ------
    yaml.YAMLError
        If the text is not YAML.
    InputError
        If a key stands more than once in one mapping; one line for each such key, with its place and its lines.
    """
    loader = yaml.SafeLoader(text)
    try:
        document = loader.get_single_node()
        if document is None:
            return None
        repeated = list(_repeated_keys(loader, document, (), set()))
        if repeated:
            raise InputError("\n".join(repeated))
        plain: object = loader.construct_document(document)
        return plain
    finally:
        loader.dispose()


def _repeated_keys(loader: yaml.SafeLoader, node: yaml.Node, place: tuple[str, ...], seen: set[int]) -> Iterator[str]:
    """Yield a line for each repeated key of a node and of all below it; a node of several places is looked at once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _repeated_keys(loader, item, (*place, str(number)), seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[Hashable, list[int]] = {}
        for key, value in node.value:
            name: tuple[str, ...] = ()
            if (
                isinstance(key, yaml.ScalarNode) and key.tag != _MERGE
            ):  # what is merged may be replaced: it is a default
                if key.tag == _BOOL:
                    key.tag = _TEXT
                lines.setdefault(loader.construct_object(key), []).append(key.start_mark.line + 1)
                name = (str(key.value),)
            yield from _repeated_keys(loader, value, (*place, *name), seen)
        for repeated, numbers in lines.items():
            if len(numbers) > 1:
                where = ".".join((*place, str(repeated)))
                yield f"{where}: stands {_in_words(numbers)}, but a key may stand once; leave out all but one"


def _in_words(lines: list[int]) -> str:
    if len(set(lines)) == 1:
        return f"{len(lines)} times in line {lines[0]}"
    *first, last = map(str, lines)
    return f"in lines {', '.join(first)} and {last}"
