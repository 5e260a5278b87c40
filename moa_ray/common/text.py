"""Format numbers, sizes, durations and lists of names as text."""

from collections.abc import Iterable, Mapping
from typing import Any


def in_bytes(count: int) -> str:
    """Format a size.

    Parameters
    ----------
    count : int
        Bytes.

    Returns
    -------
    str
        In gigabytes from 0.1 GB on, else in megabytes, with one decimal.
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def first_line(text: str) -> str:
    """Return the first line of a text, without space around it.

    Parameters
    ----------
    text : str
        Of one line or more.

    Returns
    -------
    str
    """
    return text.strip().partition("\n")[0]


def listed(names: Iterable[str], shown: int = 3) -> str:
    """List the first few names, and say by dots that there are more.

    Parameters
    ----------
    names : iterable of str
        All names.
    shown : int
        How many are written out.

    Returns
    -------
    str
        Separated by commas.
    """
    every = list(names)
    return ", ".join(every[:shown]) + (", ..." if len(every) > shown else "")


def duration(seconds: float) -> str:
    """Format a duration.

    Parameters
    ----------
    seconds : float
        Rounded to whole seconds.

    Returns
    -------
    str
        As ``1:02:03`` or ``2:03``.
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings.

    Parameters
    ----------
    plain : mapping
        Its values may be dicts, to any depth.
    prefix : str
        Begins every key.

    Returns
    -------
    dict
        The values that are no dicts, by dotted keys.
    """
    values: dict[str, Any] = {}
    for key, value in plain.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return values
