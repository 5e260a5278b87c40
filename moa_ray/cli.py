"""What the commands share: their arguments, their exit status, and one clear message instead of a traceback."""

import argparse
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from moa_ray.common.errors import InputError, StuckError

if TYPE_CHECKING:
    from rich.console import Console

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """Make an argument parser that calls itself by the command as people type it.

    Parameters
    ----------
    name : str
        The command, a module at the package's root.
    description : str
        What it does, one sentence.

    Returns
    -------
    ArgumentParser
        With ``--debug``, which every command has.
    """
    arguments = argparse.ArgumentParser(prog=f"python -m moa_ray.{name}", description=description)
    arguments.add_argument("--debug", action="store_true", help="show where a message was raised, too")
    return arguments


def add_sweep_file(parser: argparse.ArgumentParser) -> None:
    """Add the sweep file and the values that replace some of its own.

    Parameters
    ----------
    parser : ArgumentParser
        Gets ``sweep`` (Path) and ``overrides`` (list of str).
    """
    parser.add_argument("sweep", type=Path, metavar="SWEEP.yaml", help="the sweep file")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="set one value by its dotted path, e.g. recipe.epochs=5"
    )


def console() -> "Console":
    """Return the console on which commands show their progress.

    Returns
    -------
    Console
        Of standard output; sentences are not wrapped.
    """
    from rich.console import Console  # --help shows none

    return Console(highlight=False, soft_wrap=True)


def warn(console: "Console", sentence: str) -> None:
    """Tell the user of something that stops nothing.

    Parameters
    ----------
    console : Console
        Where it is shown.
    sentence : str
        What it is.
    """
    console.print(f"warning: {sentence}", markup=False)


class PrintSchema(argparse.Action):
    """Print the JSON schema of a sweep file and end, as ``--help`` prints and ends.

    Parameters
    ----------
    option_strings : sequence of str
        The option's spellings.
    dest : str
        Name of the attribute, which is never set.
    help : str
        What ``--help`` says of the option.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print and end with exit status 0."""
        from moa_ray.config.json_schema import json_schema  # no other argument of a command needs it

        print(json_schema(), end="")
        parser.exit()


def run(
    command: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser, words: Sequence[str] | None
) -> int:
    """Run a command and turn how it ends into an exit status.

    An `InputError` is the only thing that ends with 2: its message is for the user, and no traceback is shown unless
    ``--debug`` asks for it. Whatever else is raised is a slip of ours or of the machine and keeps its traceback.

    Parameters
    ----------
    command : callable
        Takes the parsed arguments and returns an exit status.
    parser : ArgumentParser
        As `parser` makes it.
    words : sequence of str or None
        The arguments; None takes those of the process.

    Returns
    -------
    int
        0 done; 1 it failed; 2 the user's input is wrong; 130 interrupted, ledger intact.
    """
    arguments = parser.parse_intermixed_args(words)
    in_main_thread = threading.current_thread() is threading.main_thread()
    # A job that is stopped ends as Ctrl-C would end it.
    before = signal.signal(signal.SIGTERM, _interrupt) if in_main_thread else None
    try:
        return command(arguments)
    except InputError as error:
        return _say(error, WRONG_INPUT, arguments.debug)
    except StuckError as error:
        return _say(error, FAILED, arguments.debug)
    except KeyboardInterrupt:
        print("interrupted; the ledger is intact: the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except Exception:
        traceback.print_exc()
        return FAILED
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)


def _say(error: Exception, status: int, debug: bool) -> int:
    """Show a message that is for the user, with its traceback where that is asked for."""
    if debug:
        traceback.print_exception(error)
    else:
        print(error, file=sys.stderr)
    return status


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
