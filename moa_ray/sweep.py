"""Sweep a screen: recipes on folds, searched or all of a grid, recorded, scored and reported.

    python -m moa_ray.sweep SWEEP.yaml [KEY=VALUE ...] [--plan] [--address ADDRESS] [--fresh] [--debug]
    python -m moa_ray.sweep --schema

The same command run again does only what is missing.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence

from moa_ray import cli


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
    parser = cli.parser("sweep", "Sweep a screen: every recipe on every fold, recorded, scored and reported.")
    cli.add_sweep_file(parser)
    parser.add_argument(
        "--plan", action="store_true", help="print what would be done, and what stops it (exit status 2); write nothing"
    )
    parser.add_argument("--address", help="a Ray cluster to run on, e.g. auto; default: this machine alone")
    parser.add_argument("--fresh", action="store_true", help="start over in a new folder beside OUT; deletes nothing")
    parser.add_argument("--schema", action=cli.PrintSchema, help="print the JSON schema of a sweep file, for editors")
    return cli.run(_sweep, parser, words)


def _sweep(arguments: argparse.Namespace) -> int:
    """Print the plan, or run the sweep and say how it ended."""
    from moa_ray import api  # --help imports nothing of this

    if arguments.plan:
        from moa_ray import plan

        study = api.open_study(arguments.sweep, arguments.overrides, arguments.fresh, paint=False)
        print(plan.describe(study))
        return cli.WRONG_INPUT if study.errors or study.out_errors else cli.DONE
    console = cli.console()
    result = api.run_sweep(
        arguments.sweep,
        *arguments.overrides,
        address=arguments.address,
        fresh=arguments.fresh,
        console=console,
        command=shlex.join(["python", "-m", "moa_ray.sweep", *sys.argv[1:]]),
    )
    console.print(result.headline, markup=False)
    console.print(f"report: {result.place}/report.html\nruns:   {result.runs}", markup=False)
    if not result.finished:
        cli.warn(console, f"not finished: {result.unfinished}; the same command tries again what did not settle")
    return cli.DONE if result.finished and result.sent else cli.FAILED


if __name__ == "__main__":
    sys.exit(main())
