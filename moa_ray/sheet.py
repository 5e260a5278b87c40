"""A table as the report prints it."""

import math
from typing import NamedTuple


class Sheet(NamedTuple):
    """Text alone, and which columns hold numbers."""

    headings: list[str]
    rows: list[list[str]]
    numeric: list[bool]


def percent(share: float) -> str:
    """A share in words; a dash where it is not known."""
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"
