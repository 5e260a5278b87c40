"""Tables as files: CSV or parquet, every cell as text."""

from pathlib import Path

import pandas as pd

from moa_ray.common.errors import InputError


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of fields.

    Parameters
    ----------
    path : Path
        A CSV or parquet file.

    Returns
    -------
    DataFrame
        Of a CSV file every cell is text, so that plate 0012 keeps its zeros and a compound may be called NA; only an
        empty cell is missing.

    Raises
    ------
    InputError
        If the file is missing or cannot be understood.
    """
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, encoding="utf-8-sig", dtype=str, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise InputError(f"{path}: missing; screen.fields is relative to screen.root") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError, OSError) as error:
        raise InputError(f"{path}: no table of fields: {error}") from None
