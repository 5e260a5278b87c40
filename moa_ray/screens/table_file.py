"""Tables as files: text with any of the usual separators and encodings, or parquet; every cell as text.

A row goes by its number in the file, where the header is row 1, so that a message can be followed in an editor: blank
lines count, and a cell that holds line breaks takes as many rows as it has lines.
"""

import bz2
import csv
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.common.spelling import clean_text, cut_blanks
from moa_ray.screens.text_cells import clean_column

_PARQUET = b"PAR1"
_UNPACKED = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ": lzma.decompress}
_SHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # zip archives, as .xlsx and .ods are, and Excel's older files
_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon"}
_SAMPLE = 100  # rows that are looked at to find the separator
csv.field_size_limit(2**24)  # characters of a cell


def read_table(path: Path, separator: str | None = None, encoding: str | None = None) -> pd.DataFrame:
    """Read a table of fields, or one that is joined to it.

    Parameters
    ----------
    path : Path
        A parquet file, or text with a separator, as it is or in gzip, bzip2, xz or alone in a zip archive.
    separator : str, optional
        The character between cells; by default comma, tab or semicolon, whichever the file has.
    encoding : str, optional
        How the text is written; by default UTF-8, or UTF-16 where the file begins so.

    Returns
    -------
    DataFrame, one row per row of the file that is not blank
        Its index is the row of the file; the first below the header of a parquet file is row 2. Of text every cell is
        text without blanks at its ends, so that plate 0012 keeps its zeros and a compound may be called NA; only a
        blank cell is missing. Names of columns are clean text.

    Raises
    ------
    InputError
        If the file is missing or cannot be understood.
    """
    try:
        content = path.read_bytes()
        content = next((unpack(content) for mark, unpack in _UNPACKED.items() if content.startswith(mark)), content)
        if path.suffix == ".zip":
            content = _only_member(content)
        if path.suffix == ".parquet" or content.startswith(_PARQUET):
            table = pd.read_parquet(io.BytesIO(content)).rename(columns=lambda name: clean_text(str(name)))
            return table.set_axis(range(2, len(table) + 2))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; screen.fields is relative to screen.root") from None
    except (ValueError, OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no table of fields: {error}") from None
    if content.startswith(_SHEETS):
        raise InputError(f"{path}: a spreadsheet or archive, no text; save the sheet as CSV and name that file")
    return _text_table(_decoded(content, encoding, path), separator, path)


def _only_member(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        if len(names) != 1:
            raise ValueError(f"the archive holds {len(names)} files; unpack it and name the one that is the table")
        return archive.read(names[0])


def _decoded(content: bytes, encoding: str | None, path: Path) -> str:
    written = encoding or next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    if written is None:  # UTF-16 without its mark: each letter of the header has a byte of zeros
        halves = content[:200:2], content[1:200:2]
        zeros = [half.count(0) > len(half) / 2 > 0 for half in halves]
        written = "utf-16-be" if zeros[0] else "utf-16-le" if zeros[1] else "utf-8"
    try:
        return content.decode(written).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        value = content[error.start : error.start + 1].hex()
        raise InputError(
            f"{path}: row {row}: byte 0x{value} is no {written}; say how the file is written with screen.encoding: "
            "latin-1 (or cp1252, utf-16, ...), or save it as UTF-8"
        ) from None


def _text_table(text: str, separator: str | None, path: Path) -> pd.DataFrame:
    """Make a table of text with a separator."""
    first, _, rest = text.partition("\n")
    skipped = 0
    if first.lower().startswith("sep=") and len(first.rstrip("\r")) == len("sep=,"):  # as Excel understands it
        separator, text, skipped = separator or first[4], rest, 1
    records = _records(text, separator or _separator(text, path), path, skipped)
    header_row, header = next(records, (0, []))
    if not header_row:
        raise InputError(f"{path}: no table of fields: it is empty")
    rows, cells = [], []
    for row, record in records:
        if len(record) > len(header):
            raise InputError(
                f"{path}: row {row} has {len(record)} cells, but the header has {len(header)}: "
                f"{_excerpt(record)}; put quotes around a cell that holds the separator (a decimal comma, a name), or "
                "say which it is with screen.separator"
            )
        rows.append(row)
        cells.append(record + [""] * (len(header) - len(record)))
    columns = list(zip(*cells, strict=True)) or [()] * len(header)
    index = pd.Index(rows, dtype="int64")
    cleaned = [clean_column(pd.Series(column, index, dtype="object"), cut_blanks) for column in columns]
    return pd.concat(cleaned, axis="columns", keys=range(len(header))).set_axis(map(clean_text, header), axis="columns")


def _records(text: str, separator: str, path: Path, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Yield each record that is not blank, and the row of the file in which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    row = 1
    try:
        for record in reader:
            if any(map(cut_blanks, record)):
                yield row + skipped, record
            row = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}: row {row + skipped}: no row of cells: {error}; look at its quotes") from None


def _separator(text: str, path: Path) -> str:
    """Find the character between cells, by which the header and each row have the same number of them, and the most."""
    widths: dict[str, list[int]] = {}
    for separator in _SEPARATORS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        try:
            widths[separator] = [len(record) for record in islice(filter(any, reader), _SAMPLE)]
        except csv.Error:
            continue
    several = {separator: counts for separator, counts in widths.items() if counts and counts[0] > 1}
    even = {separator: counts for separator, counts in several.items() if len(set(counts)) == 1}
    if "\t" in even:  # hardly a cell holds a tab, but many a name a comma
        return "\t"
    cells = {separator: counts[0] for separator, counts in (even or several).items()}
    best = [separator for separator, count in cells.items() if count == max(cells.values())]
    if len(best) > 1:
        names = " and ".join(_SEPARATORS[separator] for separator in best)
        raise InputError(f"{path}: {names} part it into {cells[best[0]]} columns each; say which with screen.separator")
    return best[0] if best else ","


def _excerpt(record: list[str]) -> str:
    text = " | ".join(record)
    return text if len(text) <= 80 else text[:77] + "..."
