"""How names are spelled: what is cut off, what makes two spellings one name, and how a difference is shown."""

import json
import unicodedata
from collections.abc import Sequence


def _is_blank(character: str) -> bool:
    """Tell whether a character shows nothing: white space, zero-width spaces, joiners, marks of direction."""
    return character.isspace() or unicodedata.category(character) == "Cf"


def _is_hyphen(character: str) -> bool:
    return unicodedata.category(character) == "Pd" or character in _FURTHER_HYPHENS


_FURTHER_HYPHENS = "\u2212\u2043\u02d7"  # minus sign, hyphen bullet, modifier minus: no dashes to Unicode
# All of them lie in the first blocks of Unicode, but for the byte order mark.
_BLANKS = "".join(filter(_is_blank, map(chr, range(0x3001)))) + "\ufeff\0"


def clean_text(text: str) -> str:
    """Cut off what cannot be seen at the ends of a text, and compose its accents.

    Parameters
    ----------
    text : str
        A cell of a table, or a name that stands for one.

    Returns
    -------
    str
        Without white space, non-breaking and zero-width blanks at its ends, in Unicode's form NFC.
    """
    return unicodedata.normalize("NFC", cut_blanks(text))


def cut_blanks(text: str) -> str:
    """Cut off what cannot be seen at the ends of a text.

    Parameters
    ----------
    text : str
        A cell of a table.

    Returns
    -------
    str
        All else as it was, so that the name of a file is still its name.
    """
    return text.strip(_BLANKS)


def spelling_key(name: str) -> str:
    """Return what all spellings of a name have in common.

    Parameters
    ----------
    name : str
        A name of a compound or a label.

    Returns
    -------
    str
        Without blanks and hyphens (any dash of Unicode), in the form NFKC, without difference of case.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    bare = "".join(character for character in folded if not _is_blank(character) and not _is_hyphen(character))
    return bare or folded


def shown(names: Sequence[str]) -> list[str]:
    """Write names so that each can be told from the others, and copied into a sweep file.

    Parameters
    ----------
    names : sequence of str
        Spellings that may look alike.

    Returns
    -------
    list of str
        In double quotes. What would not be seen (blanks and dashes beyond ASCII, and all beyond ASCII where two names
        have one form NFKC) stands as ``\\u2011``, which YAML reads as the character.
    """
    forms = [unicodedata.normalize("NFKC", name) for name in names]
    look_alike = len(set(forms)) < len(forms)
    return ["".join(_shown(character, look_alike) for character in name).join('""') for name in names]


def _shown(character: str, look_alike: bool) -> str:
    if not character.isascii() and (look_alike or _is_blank(character) or _is_hyphen(character)):
        number = ord(character)
        return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
    return json.dumps(character, ensure_ascii=False)[1:-1]


def spelled_alike(names: Sequence[str]) -> list[list[str]]:
    """Group names that differ by case, blanks, hyphens or Unicode form alone.

    Parameters
    ----------
    names : sequence of str
        Different names.

    Returns
    -------
    list of list of str
        The groups of two and more, in the order of the names.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(spelling_key(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]
