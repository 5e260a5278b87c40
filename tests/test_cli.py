"""Exit statuses, and who sees a traceback."""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from moa_ray import cli
from moa_ray.common import schema
from moa_ray.common.errors import InputError, StuckError


def run(behaviour: Callable[[argparse.Namespace], int], *words: str) -> int:
    parser = cli.parser("test", "A test.")
    cli.add_sweep_file(parser)
    return cli.run(behaviour, parser, ["sweep.yaml", *words])


def test_command_gets_its_arguments_in_any_order() -> None:
    def check(arguments: argparse.Namespace) -> int:
        assert str(arguments.sweep) == "sweep.yaml"
        assert arguments.overrides == ["a=1", "b=2"]
        return cli.DONE

    assert run(check, "a=1", "b=2") == 0


def test_what_the_user_did_is_one_message_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(_: argparse.Namespace) -> int:
        schema.require_columns(__import__("pandas").DataFrame(), ["x"], "the table")
        return cli.DONE

    assert run(wrong) == 2
    assert capsys.readouterr().err.startswith("the table: column x is missing")


def test_librarys_value_error_is_our_slip_with_a_traceback_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    def slip(_: argparse.Namespace) -> int:
        return int(json.loads("no json"))

    assert run(slip) == 1
    assert "Traceback" in capsys.readouterr().err


def test_librarys_error_below_a_file_of_ours_keeps_its_traceback_and_is_status_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """NumPy's C code leaves no frame: the innermost one is ours, which alone made it the user's mistake before."""
    space: dict[str, Any] = {}
    code = "def slip(_):\n    import numpy\n    return numpy.zeros(2) + numpy.zeros(3)"
    exec(compile(code, cli.__file__, "exec"), space)
    assert run(space["slip"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "could not be broadcast" in shown


@pytest.mark.parametrize(("error", "status"), [(InputError("wrong: x"), 2), (StuckError("stuck: x"), 1)])
def test_debug_shows_where_a_message_was_raised(
    error: Exception, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def behaviour(_: argparse.Namespace) -> int:
        raise error

    assert run(behaviour) == status
    assert capsys.readouterr().err == f"{error}\n"
    assert run(behaviour, "--debug") == status
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert str(error) in shown


def test_command_may_run_in_a_thread() -> None:
    """Only the main thread may set signal handlers."""
    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(run, lambda _: cli.DONE).result() == 0


def test_other_errors_are_failures(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: argparse.Namespace) -> int:
        raise OSError("disk full")

    assert run(fail) == 1
    assert "disk full" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_and_termination_are_130_without_traceback(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def interrupted(_: argparse.Namespace) -> int:
        os.kill(os.getpid(), number)
        signal.pause()
        return cli.DONE

    assert run(interrupted) == 130
    assert "Traceback" not in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", ["sweep", "prepare", "report"])
def test_each_command_is_run_by_its_name(name: str) -> None:
    done = subprocess.run([sys.executable, "-m", f"moa_ray.{name}", "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[:4]) == (0, ["usage:", "python", "-m", f"moa_ray.{name}"])
