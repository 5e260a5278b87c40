"""What the commands share: their arguments, their exit status, and one clear message instead of a traceback."""

import argparse
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


class StuckError(Exception):
    """A command cannot go on, for a reason that is nobody's slip: the message says all, and no traceback is shown."""


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """An argument parser that calls itself by the command as people type it."""
    return argparse.ArgumentParser(prog=f"python -m moa_ray.{name}", description=description)


def warn(console: Console, sentence: str) -> None:
    """Tell the user of something that stops nothing."""
    console.print(f"warning: {sentence}", markup=False)


def in_bytes(count: int) -> str:
    """A size in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def add_sweep_file(arguments: argparse.ArgumentParser) -> None:
    """The sweep file and the values that replace some of its own."""
    arguments.add_argument("sweep", type=Path, metavar="SWEEP.yaml", help="the sweep file")
    arguments.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="set one value by its dotted path, e.g. recipe.epochs=5"
    )


def run(
    command: Callable[[argparse.Namespace], int], arguments: argparse.ArgumentParser, given: Sequence[str] | None
) -> int:
    """Run a command and return its exit status.

    0 done; 1 it failed; 2 the user's input is wrong (one message, no traceback); 130 interrupted, ledger intact.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)  # a job that is stopped ends as Ctrl-C would end it
    try:
        return command(arguments.parse_intermixed_args(given))
    except ValueError as error:
        if not _is_ours(error):
            traceback.print_exc()
            return FAILED
        print(error, file=sys.stderr)
        return WRONG_INPUT
    except StuckError as error:
        print(error, file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted; the ledger is intact: the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except Exception:
        traceback.print_exc()
        return FAILED
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_ours(error: ValueError) -> bool:
    """Whether moa_ray itself raised it, for the user to read, and not a library that we called wrongly."""
    innermost = traceback.extract_tb(error.__traceback__)[-1]
    return Path(innermost.filename).is_relative_to(Path(__file__).parent)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
