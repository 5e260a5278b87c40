"""The folder that a report of predictions made elsewhere may go to: nothing of anyone else's is overwritten."""

import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from moa_ray.common.errors import InputError

_SHOWN = 3  # files that a message names

FILES = (
    *("summary.json", "report.html", "treatments.parquet", "leaderboard.csv", "reference.csv"),
    *("conformal.parquet", "uncertainty.parquet"),
)


def earlier_files(out: Path, predictions: Path) -> set[str]:
    """List the files of an earlier report of this kind in a folder.

    Parameters
    ----------
    out : Path
        The folder; it need not be there.
    predictions : Path
        The table that the report is of.

    Returns
    -------
    set of str
        Relative to the folder; empty where it is new or empty.

    Raises
    ------
    InputError
        If the folder holds anything else, or the table itself: nothing of it would be overwritten.
    """
    if not out.exists() and not out.is_symlink():
        return set()
    if not out.is_dir():
        raise InputError(f"{out}: is no folder; give a folder that is empty or does not exist yet")
    if (out / "ledger").exists() or (out / "sweep.yaml").exists():
        raise InputError(
            f"{out}: holds a sweep; its report comes from its ledger. Give --predictions a folder of its own"
        )
    if predictions.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{predictions}: lies in {out}, where the report would overwrite it; give another folder")
    own, earlier, foreign = _listed(out), set(), []
    for name, is_file in _walk(out):
        if is_file and name in own:
            earlier.add(name)
        elif is_file or name != "figures":
            foreign.append(name)
        if len(foreign) == _SHOWN:
            break
    if foreign:
        raise InputError(
            f"{out}: holds files that are of no earlier report of predictions: {', '.join(foreign)}; nothing was "
            "written. Give a folder that is empty or does not exist yet"
        )
    return earlier


def _listed(out: Path) -> set[str]:
    """What an earlier report says that it wrote."""
    try:
        plain = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        return {name for name in map(str, plain["files"]) if _is_ours(name)} if plain["predictions"] else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()  # no report of predictions, so all that is there is someone's


def _is_ours(name: str) -> bool:
    """Whether a report of this kind may write a file of this name."""
    path = PurePosixPath(name)
    return name in FILES or (path.parent == PurePosixPath("figures") and path.suffix in (".svg", ".png"))


def _walk(out: Path) -> Iterator[tuple[str, bool]]:
    """Everything below a folder, relative to it, and whether it is a plain file; links are not followed."""
    for folder, below, names in os.walk(out):
        for name in sorted([*below, *names]):
            path = Path(folder, name)
            relative = path.relative_to(out).as_posix()
            if path.is_symlink():
                yield f"{relative} (a link)", True
            else:
                yield relative, path.is_file()
