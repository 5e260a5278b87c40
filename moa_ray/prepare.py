"""The data stage alone: fetch a screen if asked to, check it and prepare its tiles.

python -m moa_ray.prepare SWEEP.yaml [KEY=VALUE ...] [--download [--from URL]] [--address ADDRESS]
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from moa_ray import cli
from moa_ray.common.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from moa_ray.config.sweep_file import Sweep


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    words : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        The exit status.
    """
    parser = cli.parser("prepare", "Check a screen and prepare its tiles.")
    cli.add_sweep_file(parser)
    parser.add_argument("--address", help="a Ray cluster to prepare on, e.g. auto; default: this machine alone")
    parser.add_argument(
        "--download", action="store_true", help="first fetch the files of the screen that are not at its root yet"
    )
    parser.add_argument(
        "--from", dest="base", metavar="URL", help="fetch them from here, not from their publisher; URL/NAME is a file"
    )
    return cli.run(_prepare, parser, words)


def _prepare(arguments: argparse.Namespace) -> int:
    from moa_ray.config import sweep_file  # --help imports nothing of this
    from moa_ray.execution import preparers
    from moa_ray.progress import download_progress, field_progress
    from moa_ray.study import Study

    console = cli.console()
    sweep = sweep_file.load(arguments.sweep, arguments.overrides)
    if arguments.base is not None and not arguments.download:
        raise InputError(f"--from {arguments.base}: says where to fetch a screen from; add --download to fetch it")
    if arguments.download and not _download(sweep, arguments, console):
        return cli.FAILED
    with download_progress(console) as progress:
        study = Study.open(sweep, progress)
    study.require_sound(out=False)
    warn = partial(cli.warn, console)
    with field_progress(console) as fields, preparers.field_executor(arguments.address, study.screen, warn) as executor:
        store = study.prepare(fields, executor)
    for warning in [*study.warnings, *store.warnings]:
        warn(warning)
    console.print(
        f"{len(store.table)} tiles of {', '.join(f'{size} px' for size in study.sizes)}: {store.path}", markup=False
    )
    return cli.DONE


def _download(sweep: "Sweep", arguments: argparse.Namespace, console: "Console") -> bool:
    """Fetch what is not at the screen's root yet, list what could not be, and return whether everything is there."""
    from moa_ray.common.uri import Uri
    from moa_ray.progress import download_progress
    from moa_ray.screens import bbbc014, bbbc021, downloads

    published = {"bbbc014": bbbc014.DOWNLOADS, "bbbc021": bbbc021.DOWNLOADS}
    name, root = sweep.screen.name, sweep.screen.root
    if name not in published or sweep.is_painted:
        kind = "painted" if sweep.is_painted else name
        raise InputError(
            f"{arguments.sweep}: screen.name: a {kind} screen is not downloaded, only {' and '.join(published)} are; "
            "call again without --download"
        )
    if isinstance(root, Uri):
        raise InputError(
            f"{arguments.sweep}: screen.root: files are downloaded to a folder, but got {root}; download them to one, "
            "copy that to the bucket, and call again without --download"
        )
    files = published[name]
    if arguments.base is not None:
        files = downloads.from_base(arguments.base, files)
    with download_progress(console) as progress:
        outcome = downloads.fetch(files, root, progress)
    counts = f"{len(outcome.fetched)} files fetched, {len(outcome.present)} were there, {len(outcome.missing)} missing"
    console.print(f"{counts}: {root}", markup=False)
    if outcome.leftovers:
        names = ", ".join(part.name for part in outcome.leftovers)
        console.print(f"no longer needed there and yours to delete: {names}", markup=False)
    for missing in outcome.missing:
        print(f"not fetched: {missing.download.address}: {missing.reason}", file=sys.stderr)
    if outcome.missing:
        print("the same command fetches these alone", file=sys.stderr)
    return not outcome.missing


if __name__ == "__main__":
    sys.exit(main())
