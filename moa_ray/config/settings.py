"""What the sections of a sweep file share: their base, and the types of places and names."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator

from moa_ray.common import uri
from moa_ray.common.uri import Uri


class Settings(BaseModel):
    """A part of the sweep file: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def read_place(written: Any) -> Path | Uri:
    """Read a path or a URI.

    Parameters
    ----------
    written : Any
        What stands in the file.

    Returns
    -------
    Path or Uri
        The place.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if not isinstance(written, str | Path | Uri):
        raise ValueError(f"must be a path or a URI, but got {written!r}")
    return uri.place(written) if isinstance(written, str) else written


def read_folder(written: Any) -> Path:
    """Read a path of this machine.

    Parameters
    ----------
    written : Any
        What stands in the file.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        If it is a URI, or no text.
    """
    place = read_place(written)
    if isinstance(place, Uri):
        raise ValueError(f"must be a folder of this machine, but got {place}; what is kept there is used in place")
    return place


Location = Annotated[Path | Uri, PlainValidator(read_place, json_schema_input_type=str), PlainSerializer(str)]
LocalFolder = Annotated[Path, PlainValidator(read_folder, json_schema_input_type=str), PlainSerializer(str)]
Name = Annotated[str, Field(min_length=1)]
