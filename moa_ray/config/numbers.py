"""Types of numbers with limits, and what all dataclasses of a sweep file share."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

SECTION = ConfigDict(extra="forbid", use_attribute_docstrings=True)
"""Configuration of a dataclass that stands in a sweep file: an unknown key is an error, and the docstring below a field
describes it in the JSON schema."""


def limits(**keywords: float) -> Any:
    """Name the limits of a number for the JSON schema alone; the dataclass itself checks them, in its own words.

    Parameters
    ----------
    **keywords : float
        JSON schema's keywords: ``minimum``, ``exclusiveMinimum``, ``maximum``, ``exclusiveMaximum``.

    Returns
    -------
    Any
        Metadata for `typing.Annotated`.
    """
    return Field(json_schema_extra=dict(keywords))


Probability = Annotated[float, limits(minimum=0, maximum=1)]
Above0Below1 = Annotated[float, limits(exclusiveMinimum=0, exclusiveMaximum=1)]
NotNegative = Annotated[float, limits(minimum=0)]
BelowOne = Annotated[float, limits(minimum=0, exclusiveMaximum=1)]
Count = Annotated[int, limits(minimum=1)]
