"""The data stage alone: check a screen and prepare its tiles.

python -m moa_ray.prepare SWEEP.yaml [KEY=VALUE ...] [--address ADDRESS]
"""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from moa_ray import cluster, command, spec
from moa_ray.progress import field_progress
from moa_ray.study import Study


def main(given: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = command.parser("prepare", "Check a screen and prepare its tiles.")
    command.add_sweep_file(arguments)
    arguments.add_argument("--address", help="a Ray cluster to prepare on, e.g. auto; default: this machine alone")
    return command.run(_prepare, arguments, given)


def _prepare(arguments: argparse.Namespace) -> int:
    console = Console(highlight=False, soft_wrap=True)
    study = Study.open(spec.load(arguments.sweep, arguments.overrides))
    study.require_sound()

    def warn(sentence: str) -> None:
        console.print(f"warning: {sentence}", markup=False)

    with field_progress(console) as progress, cluster.preparers(arguments.address, study.screen, warn) as crew:
        store = study.prepare(progress, crew)
    for warning in [*study.warnings, *store.warnings]:
        warn(warning)
    console.print(
        f"{len(store.table)} tiles of {', '.join(f'{size} px' for size in study.sizes)}: {store.path}", markup=False
    )
    return command.DONE


if __name__ == "__main__":
    sys.exit(main())
