"""Tables that are joined to the fields of a screen: plate maps and annotations of compounds."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, PlainSerializer, Tag

from moa_ray.common.spelling import clean_text
from moa_ray.config.screen_rows import Encoding, Separator
from moa_ray.config.settings import Name, Settings


def _key_columns(written: Any) -> Any:
    columns = (written,) if isinstance(written, str) else written
    if isinstance(columns, list | tuple) and not 1 <= len(columns) <= 2:
        raise ValueError(f"a column, or those of row and column of a well, but got {written!r}")
    return columns


def _written(columns: tuple[str, ...]) -> str | list[str]:
    return columns[0] if len(columns) == 1 else list(columns)


KeyColumns = Annotated[
    tuple[Annotated[str, AfterValidator(clean_text)], ...],
    BeforeValidator(_key_columns, json_schema_input_type=Name | list[Name]),
    PlainSerializer(_written),
]


class JoinSettings(Settings):
    """A table whose columns are joined to the fields, row by row, by a key that the fields know."""

    file: Name
    """Text or parquet, relative to the root. `maps/{plate}.csv` is a file for each plate; any `Metadata_*` name or
    column of the fields may stand in braces."""
    on: Annotated[dict[str, KeyColumns], Field(min_length=1)]
    """What is joined by: `Metadata_*` name or column of the fields to the column of this table, as in
    `{Metadata_Well: well}`. Wells are known in any usual spelling (A1, a01, r1c1), or from two columns:
    `{Metadata_Well: [row, column]}`."""
    separator: Separator | None = None
    """Between its cells, as `screen.separator`."""
    encoding: Encoding | None = None
    """How it is written, as `screen.encoding`."""


def joins_of(tables: JoinSettings | tuple[JoinSettings, ...] | None) -> tuple[JoinSettings, ...]:
    """Return the tables that are joined, in order.

    Parameters
    ----------
    tables : JoinSettings, tuple of JoinSettings or None
        What the sweep file has.

    Returns
    -------
    tuple of JoinSettings
        Empty where it has none.
    """
    return (tables,) if isinstance(tables, JoinSettings) else tables or ()


def _form(written: Any) -> str:
    return "tables" if isinstance(written, list | tuple) else "table"


Joins = Annotated[
    Annotated[JoinSettings, Tag("table")] | Annotated[tuple[JoinSettings, ...], Tag("tables")], Discriminator(_form)
]


class JoiningSettings(Settings):
    """What the screens share whose fields are joined with other tables."""

    platemap: Joins | None = None
    """What stands in the wells; a list of tables is joined in order. Wells without a row are left out and counted."""
    annotation: Joins | None = None
    """What is known of compounds, joined after the plate map; a list is joined in order. Fields without a row are
    kept."""
