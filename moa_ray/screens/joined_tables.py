"""Plate maps and annotations: tables that are joined to the fields by a key, and a report of what did not join.

A row of the fields gets the columns of the row with its key, and never more than one. Nothing is lost in silence: wells
that no plate map knows are left out and counted, and both sides' leftovers are named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.common.schema import COMPOUND, FIELD, PLATE, WELL
from moa_ray.common.text import listed
from moa_ray.config.joined_tables import JoinSettings, joins_of
from moa_ray.config.messages import nearest
from moa_ray.screens.join_keys import Key, comparable, keys_of, meaning
from moa_ray.screens.joined_files import Settings, fields_of_files, read_joined
from moa_ray.screens.left_out import count_left_out, join_left_out, none_left_out
from moa_ray.screens.names import check_names
from moa_ray.screens.screen import Problem, problem
from moa_ray.screens.text_cells import clean_column

Kind = Literal["platemap", "annotation"]
_LEFT_OUT = "the plate map has no row of the well (screen.platemap)"
_OWN = "fields"  # what the columns are called by that the screen had before


@dataclass(frozen=True)
class JoinedTable:
    """A table of fields with the columns of the tables that are joined to it.

    Attributes
    ----------
    table : DataFrame, one row per field
        On the index of the fields.
    left_out : DataFrame
        The fields that no plate map knows, as `count_left_out` counts them.
    problems : tuple of Problem
        What did not join, and keys that stand in two rows.
    """

    table: pd.DataFrame
    left_out: pd.DataFrame = field(default_factory=none_left_out)
    problems: tuple[Problem, ...] = ()


def join_tables(
    root: Path,
    settings: Settings,
    table: pd.DataFrame,
    columns: Mapping[str, str],
) -> JoinedTable:
    """Join the plate maps and annotations of a sweep file to a table of fields.

    Parameters
    ----------
    root : Path
        The folder that the tables' files are relative to.
    settings : TableSettings, FilesSettings or OmeZarrSettings
        The section ``screen``.
    table : DataFrame, one row per field
        What is known of the fields so far.
    columns : mapping
        ``Metadata_*`` name to a column of the table, or of one that is joined.

    Returns
    -------
    JoinedTable
        Where two tables have a column of one name and other values, each is called by its table, ``platemap.dose``.

    Raises
    ------
    InputError
        If a table is missing, cannot be understood, or joins nothing, or a column that is used stands in two tables.
    """
    joining = _Joining(table, columns, settings)
    for join in joins_of(settings.platemap):
        joining.join(root, "platemap", join)
    for join in joins_of(settings.annotation):
        joining.join(root, "annotation", join)
    joining.require_one_origin()
    return JoinedTable(joining.table, join_left_out(joining.left_out), tuple(joining.problems))


class _Joining:
    """A table of fields while others are joined to it."""

    def __init__(self, table: pd.DataFrame, columns: Mapping[str, str], settings: Settings) -> None:
        self.table = table
        self.problems: list[Problem] = []
        self.left_out: list[pd.DataFrame] = []
        self._columns, self._settings = columns, settings
        self._origins = dict.fromkeys(map(str, table.columns), _OWN)
        self._kept = {columns.get(name, name) for name in (PLATE, WELL, FIELD)}
        self._ambiguous: dict[str, list[str]] = {}

    def join(self, root: Path, kind: Kind, join: JoinSettings) -> None:
        """Join one table, or one table a plate."""
        place = f"screen.{kind}"
        names = [meaning(name, self._columns) for name in join.on]
        cells = [[self._column(name, f"{place}.on")] for name in join.on]
        keys = self._keys(cells, names)
        others: list[pd.DataFrame] = []
        matched, unused = [-1] * len(keys), dict[Key, str]()
        column = partial(self._column, place=f"{place}.file")
        for name, places in fields_of_files(root, join, place, column, self.table.index).items():
            other = read_joined(root / name, join, self._settings)
            rows: dict[Key, list[int]] = {}
            for row, key in enumerate(self._keys([[other[c] for c in of] for of in join.on.values()], names)):
                if key is not None:
                    rows.setdefault(key, []).append(row)
            self._require_single(rows, other.index, f"{place}: {name}")
            before = sum(len(of) for of in others)
            for number in places:
                matched[number] = before + rows[keys[number]][0] if keys[number] in rows else -1  # type: ignore[index]
            present = {keys[number] for number in places}
            unused |= {key: f"{name} row {other.index[of[0]]}" for key, of in rows.items() if key not in present}
            others.append(other.reset_index(drop=True))
        if max(matched, default=-1) < 0:
            self._refuse(join, kind, keys, list(unused))
        added = pd.concat(others, ignore_index=True).reindex(matched).set_axis(self.table.index)
        is_joined = pd.Series([number >= 0 for number in matched], index=self.table.index)
        self._report(kind, names, keys, is_joined, unused)
        if kind == "platemap":
            self._leave_out(~is_joined)
            added = added[is_joined]
        sources = [self._columns.get(name, name) for name in join.on]
        self._kept |= set(sources)
        keyed = {of[0] for of, source in zip(join.on.values(), sources, strict=True) if [*of] == [source]}
        self._add(added.drop(columns=list(keyed)), kind)

    def require_one_origin(self) -> None:
        """Refuse a column that is used and stands in two tables with other values."""
        control = self._settings.control if isinstance(self._settings.control, dict) else {}
        for name in [*self._columns.values(), *self._settings.where, *control]:
            if name in self._ambiguous:
                choices = " or ".join(self._ambiguous[name])
                raise InputError(f"screen: two tables have a column {name!r}, with other values; say {choices}")

    def _keys(self, cells: Sequence[Sequence[pd.Series]], names: Sequence[str]) -> list[Key | None]:
        aliases = self._settings.aliases
        return keys_of([comparable(columns, name, aliases) for columns, name in zip(cells, names, strict=True)])

    def _column(self, name: str, place: str) -> pd.Series:
        source = self._columns.get(name, name)
        if source in self._ambiguous:
            raise InputError(
                f"{place}: two tables have a column {source!r}; say {' or '.join(self._ambiguous[source])}"
            )
        if source not in self.table:
            known = [*(key for key, of in self._columns.items() if of in self.table), *map(str, self.table.columns)]
            raise InputError(
                f"{place}: the fields have no column {source!r}{nearest(source, list(dict.fromkeys(known)))}"
            )
        return self.table[source]

    def _require_single(self, rows: Mapping[Key, Sequence[int]], index: pd.Index, place: str) -> None:
        repeated = [
            f"{' '.join(key)} (rows {', '.join(str(index[row]) for row in of)})" for key, of in rows.items() if of[1:]
        ]
        if repeated:
            self.problems.append(problem("error", f"keys stand in more than one row of {place}", repeated))

    def _refuse(self, join: JoinSettings, kind: Kind, keys: Sequence[Key | None], others: Sequence[Key]) -> None:
        here = _examples([" ".join(key) for key in keys if key])
        there = _examples([" ".join(key) for key in others])
        columns = ", ".join(column for of in join.on.values() for column in of)
        raise InputError(
            f"screen.{kind}: {join.file} joins no field: {', '.join(join.on)} is {here}, {columns} is {there}; "
            f"look at screen.{kind}.on"
        )

    def _report(
        self, kind: Kind, names: Sequence[str], keys: Sequence[Key | None], is_joined: pd.Series, unused: dict[Key, str]
    ) -> None:
        """Say what did not join on either side."""
        lacking = self._wells(~is_joined) if kind == "platemap" else self._lacking(names, keys, is_joined)
        noun, fate = (
            ("wells", "and are left out") if kind == "platemap" else ("keys of the fields", "and get no values")
        )
        if names == [COMPOUND]:
            noun = "compounds"
            texts = pd.Series([*lacking, *(key[0] for key in unused)], dtype="str")
            is_of_fields = pd.Series([True] * len(lacking) + [False] * len(unused), dtype=bool)
            self.problems += check_names(texts, is_of_fields, self._settings.aliases, "compounds of two tables")
        if lacking:
            self.problems.append(problem("warning", f"{noun} have no row in screen.{kind} {fate}", lacking))
        if unused:
            rows = [f"{' '.join(key)} ({row})" for key, row in unused.items()]
            self.problems.append(problem("warning", f"rows of screen.{kind} are of no field", rows))

    def _wells(self, rows: pd.Series) -> list[str]:
        columns = [self._columns.get(name, name) for name in (PLATE, WELL)]
        wells = self.table.loc[rows, [column for column in columns if column in self.table]].drop_duplicates()
        return [" ".join(map(str, well)) for well in wells.itertuples(index=False, name=None)]

    def _lacking(self, names: Sequence[str], keys: Sequence[Key | None], is_joined: pd.Series) -> list[str]:
        control = self._settings.control
        named = (control,) if isinstance(control, str) else control if isinstance(control, tuple) else ()
        controls = named if names == [COMPOUND] else ()  # of which nothing need be known
        lacking = [" ".join(key) for key, joined in zip(keys, is_joined, strict=True) if key and not joined]
        return [key for key in dict.fromkeys(lacking) if key not in controls]

    def _leave_out(self, rows: pd.Series) -> None:
        if rows.any():
            left = self.table[rows]
            named = {
                name: left[source] if (source := self._columns.get(name, name)) in left else None
                for name in (PLATE, COMPOUND)
            }
            self.left_out.append(count_left_out(pd.DataFrame(named, index=left.index), _LEFT_OUT))
        self.table = self.table[~rows]

    def _add(self, added: pd.DataFrame, kind: Kind) -> None:
        """Add columns; where the fields have one of the name with other values, both are called by their tables."""
        for column in map(str, added.columns):
            name = column
            if column in self._ambiguous or column in self.table:
                if column in self.table and _agree(self.table[column], added[column]):
                    continue
                name = f"{kind}.{column}"
                choices = self._ambiguous.setdefault(column, []) if column not in self._kept else []
                if column in self.table and column not in self._kept:
                    choices.append(f"{self._origins[column]}.{column}")
                    self.table = self.table.rename(columns={column: choices[0]})
                choices.append(name)
            self._origins[column] = kind
            self.table = self.table.assign(**{name: added[column]})


def _agree(column: pd.Series, other: pd.Series) -> bool:
    """Tell whether a column says nothing that another does not say."""
    texts = clean_column(other)
    has_text = texts.notna()
    return bool((clean_column(column)[has_text].fillna("") == texts[has_text]).all())


def _examples(texts: Sequence[str]) -> str:
    return listed(map(repr, dict.fromkeys(texts))) or "empty"
