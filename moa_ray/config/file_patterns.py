"""Patterns of file names: text with named parts, such as ``{plate}/r{row}c{col}f{field}p{z}-ch{channel}sk{t}*.tiff``.

A pattern stands for the end of a path: for as many folders as it names, and the file. Case does not count. A star is
any text within a folder's or a file's name. What a part may be is known by its name, or said in it as a regular
expression: ``{channel:[0-9]}``, and ``{:[0-9a-f-]*}`` for text that has no name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from moa_ray.config.messages import nearest
from moa_ray.config.vendor_patterns import PATTERNS

_NUMBER, _TEXT = r"\d+", r"[^/]+?"
_FORMS = {
    "row": r"[a-z]{1,2}|\d{1,3}",
    "col": r"\d{1,3}",
    "well": r"[a-z]{1,2}\d{1,3}",
    "z": _NUMBER,
    "t": _NUMBER,
    "plate": _TEXT,
    "field": _TEXT,
    "channel": _TEXT,
}
_METADATA = "Metadata_"
_ALIASES = {"Metadata_Plate": "plate", "Metadata_Well": "well", "Metadata_Field": "field"}
_PIECE = re.compile(r"\{(?P<part>\w*)(?P<colon>:)?(?P<form>[^{}]*)\}|(?P<star>\*+)|(?P<words>[^{}*]+)|(?P<brace>[{}])")


@dataclass(frozen=True)
class FilePattern:
    """A pattern of the paths of image files.

    Attributes
    ----------
    text : str
        As it is written.
    """

    text: str

    @cached_property
    def pieces(self) -> tuple[tuple[str, str], ...]:
        """What it is made of, in order: as it is written, and as a regular expression."""
        return tuple(_pieces(self.text))

    @cached_property
    def parts(self) -> frozenset[str]:
        """The names of its parts."""
        return frozenset(self._expression.groupindex)

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return re.compile("".join(expression for _, expression in self.pieces), re.IGNORECASE)

    @cached_property
    def _folders(self) -> int:
        return sum(written.count("/") for written, _ in self.pieces if not written.startswith("{"))

    def match(self, location: str) -> dict[str, str] | None:
        """Find the parts in the path of a file.

        Parameters
        ----------
        location : str
            Path relative to the screen's root, or ``archive.zip!member``.

        Returns
        -------
        dict of str
            Text of each part, by its name; None where the pattern does not match.
        """
        found = self._expression.fullmatch(self._end(location))
        return None if found is None else found.groupdict()

    def above(self, location: str) -> str:
        """Return the folders above what a pattern names.

        Parameters
        ----------
        location : str
            As `match` takes it.

        Returns
        -------
        str
            A path without a slash at its end; empty where there are none.
        """
        return "/".join(location.replace("!", "/").split("/")[: -1 - self._folders])

    def mismatch(self, location: str) -> str:
        """Say where a path that does not match ceases to do so.

        Parameters
        ----------
        location : str
            As `match` takes it.

        Returns
        -------
        str
            A clause on the path.
        """
        end = self._end(location)
        if end.count("/") < self._folders:
            return f"lies in {end.count('/')} folders, not in {self._folders}"
        for count in range(len(self.pieces) - 1, -1, -1):
            expression = "".join(piece for _, piece in self.pieces[:count])
            if re.match(expression, end, re.IGNORECASE):
                return (
                    f"does not go on as {self.pieces[count][0]!r}" if count else f"does not begin {self.pieces[0][0]!r}"
                )
        raise AssertionError(location)

    def _end(self, location: str) -> str:
        return "/".join(location.replace("!", "/").split("/")[-1 - self._folders :])


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for piece in _PIECE.finditer(text):
        written = piece.group()
        if piece["brace"]:
            raise ValueError(f"a {{ or }} stands alone in {text!r}; parts are {{row}}, {{col}}, {{channel}}, ...")
        if piece["words"]:
            yield written, re.escape(written)
        elif piece["star"]:
            yield written, r"[^/]*?"
        elif piece["part"] in seen:
            yield written, f"(?P={_name(piece['part'])})"
        else:
            yield written, _part(piece["part"], piece["form"] if piece["colon"] else "", written)
            seen |= {piece["part"]} - {""}


def _part(name: str, form: str, written: str) -> str:
    if name and _name(name) not in _FORMS and not re.fullmatch(rf"{_METADATA}\w+", name):
        raise ValueError(f"unknown part {written!r}{nearest(name, [*_FORMS, 'Metadata_NAME'])}")
    if not name and not form:
        raise ValueError(f"the part {written!r} has no name; any text is *")
    form = form or _FORMS.get(_name(name), _TEXT)
    try:
        if re.compile(form).groupindex:
            raise ValueError(f"{written!r}: a part holds no named groups")
    except re.error as error:
        raise ValueError(f"{written!r}: {form!r} is no regular expression: {error}") from None
    return f"(?P<{_name(name)}>{form})" if name else f"(?:{form})"


def _name(part: str) -> str:
    return _ALIASES.get(part, part)


def read_pattern(written: str) -> tuple[FilePattern, ...]:
    """Read a pattern, or the name of ready ones.

    Parameters
    ----------
    written : str
        What stands in the file.

    Returns
    -------
    tuple of FilePattern
        Of each path the first that matches is meant.

    Raises
    ------
    ValueError
        If it is no pattern, or tells no wells.
    """
    if written in PATTERNS:
        return tuple(map(FilePattern, PATTERNS[written]))
    if "{" not in written and "}" not in written:
        raise ValueError(f"unknown pattern {written!r}{nearest(written, PATTERNS)}, or text with {{row}}, {{col}}, ...")
    pattern = FilePattern(written)
    if not {"row", "col"} <= pattern.parts and "well" not in pattern.parts:
        raise ValueError(f"{{well}}, or {{row}} and {{col}}, must be parts of a pattern, but got {written!r}")
    if "well" in pattern.parts and pattern.parts & {"row", "col"}:
        raise ValueError(f"{{well}} and {{row}} or {{col}} say the same; keep one of them in {written!r}")
    return (pattern,)
