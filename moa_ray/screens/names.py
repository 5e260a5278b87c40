"""Names of compounds and labels: one name for each, whatever the spelling.

A compound that is held out must be held out under every name that it has: where a blank or a capital makes another
compound of it, its fold learns from it.
"""

from collections.abc import Sequence

import pandas as pd

from moa_ray.common.schema import COMPOUND, LABEL
from moa_ray.common.spelling import shown, spelled_alike
from moa_ray.config.screen_rows import AliasNames
from moa_ray.screens.screen import Problem, problem


def one_name(name: str, aliases: AliasNames | None) -> str:
    """Return the name that a name stands for.

    Parameters
    ----------
    name : str
        Clean text.
    aliases : mapping or "distinct", optional
        Other names by name, as the sweep file has them.

    Returns
    -------
    str
        The name itself where it is none of the others.
    """
    if not isinstance(aliases, dict):
        return name
    return next((canonical for canonical, others in aliases.items() if name in others), name)


def merge_names(column: pd.Series, aliases: AliasNames | None) -> pd.Series:
    """Replace other names by the one that they stand for.

    Parameters
    ----------
    column : Series of str
        Clean names, or missing.
    aliases : mapping or "distinct", optional
        Other names by name, as the sweep file has them.

    Returns
    -------
    Series of str
    """
    if not isinstance(aliases, dict):
        return column
    return column.replace({other: name for name, others in aliases.items() for other in others})


def check_names(names: pd.Series, used: pd.Series, aliases: AliasNames | None, noun: str) -> list[Problem]:
    """Find names that differ by case, blanks, hyphens or Unicode form alone.

    Parameters
    ----------
    names : Series of str, one per row of the table
        Clean and merged names, or missing.
    used : Series of bool
        The rows that are fields of the screen; a group of names counts where one of them is in such a row.
    aliases : mapping or "distinct", optional
        What the sweep file says of them: a name that is a key there is one of its own.
    noun : str
        What they are names of, for messages.

    Returns
    -------
    list of Problem
        At most one.
    """
    if aliases == "distinct":
        return []
    counts = names.dropna().value_counts()
    is_used = set(names[used].dropna())
    settled = set(aliases or ())
    groups = [
        sorted(group, key=lambda name: (-counts[name], name))
        for group in spelled_alike([str(name) for name in counts.index])
        if not is_used.isdisjoint(group) and not settled.issuperset(group)
    ]
    if not groups:
        return []
    groups.sort(key=lambda group: group[0])
    rule = f"{noun} are spelled in several ways; {_advice(groups[0])}"
    return [problem("error", rule, [_counted(group, counts) for group in groups])]


def check_groups(fields: pd.DataFrame, columns: Sequence[str]) -> list[Problem]:
    """Find held-out groups that differ by case, blanks, hyphens or Unicode form alone.

    Parameters
    ----------
    fields : DataFrame, one row per field
        As `Screen.fields`.
    columns : sequence of str
        The metadata columns that are held out; compounds and labels are checked by `check_names`.

    Returns
    -------
    list of Problem
        Warnings, at most one a column: a batch 1-1 may well be another than batch 11.
    """
    problems = []
    for column in columns:
        if column in (COMPOUND, LABEL):
            continue
        counts = fields[column].astype("str").value_counts()
        groups = spelled_alike(sorted(counts.index))
        if groups:
            rule = (
                f"groups of {column} are spelled in several ways; a fold that holds out one learns from the other, so "
            )
            names = [_counted(group, counts) for group in groups]
            problems.append(problem("warning", f"{rule}mend the table where they are one", names))
    return problems


def check_aliases(names: Sequence[pd.Series], aliases: AliasNames | None) -> list[Problem]:
    """Find names in ``screen.aliases`` that no row has.

    Parameters
    ----------
    names : sequence of Series of str
        The names before any is merged: of compounds, of labels.
    aliases : mapping or "distinct", optional
        As the sweep file has them.

    Returns
    -------
    list of Problem
        At most one, a warning: a list of synonyms may hold more than a table has.
    """
    if not isinstance(aliases, dict):
        return []
    known = {name for column in names for name in column.dropna().unique()}
    absent = [other for others in aliases.values() for other in others if other not in known]
    return [problem("warning", "names in screen.aliases stand in no row", shown(absent))] if absent else []


def _counted(group: Sequence[str], counts: pd.Series) -> str:
    texts = [(text, int(counts[name])) for text, name in zip(shown(group), group, strict=True)]
    return " and ".join(f"{text} ({rows} row{'s' * (rows != 1)})" for text, rows in texts)


def _advice(group: Sequence[str]) -> str:
    first, *others = shown(group)
    apart = ", ".join(f"{text}: []" for text in (first, *others))
    return (
        f"screen.aliases: {{{first}: [{', '.join(others)}]}} makes them one, "
        f"{{{apart}}} keeps them apart, distinct all such names"
    )
