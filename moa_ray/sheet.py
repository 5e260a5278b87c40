"""A table as the report prints it."""

from typing import NamedTuple


class Sheet(NamedTuple):
    """Text alone, and which columns hold numbers."""

    headings: list[str]
    rows: list[list[str]]
    numeric: list[bool]
