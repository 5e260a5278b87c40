"""Exit statuses, and who sees a traceback."""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from moa_ray import command, tables


def run(behaviour: Callable[[argparse.Namespace], int], *given: str) -> int:
    parser = command.parser("test", "A test.")
    command.add_sweep_file(parser)
    return command.run(behaviour, parser, ["sweep.yaml", *given])


def test_command_gets_its_arguments_in_any_order() -> None:
    def check(arguments: argparse.Namespace) -> int:
        assert str(arguments.sweep) == "sweep.yaml"
        assert arguments.overrides == ["a=1", "b=2"]
        return command.DONE

    assert run(check, "a=1", "b=2") == 0


def test_what_the_user_did_is_one_message_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(_: argparse.Namespace) -> int:
        tables.require_columns(__import__("pandas").DataFrame(), ["x"], "the table")
        return command.DONE

    assert run(wrong) == 2
    assert capsys.readouterr().err.startswith("the table: column x is missing")


def test_librarys_value_error_is_our_slip_with_a_traceback_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    def slip(_: argparse.Namespace) -> int:
        return int(json.loads("no json"))

    assert run(slip) == 1
    assert "Traceback" in capsys.readouterr().err


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
        return command.DONE

    assert run(interrupted) == 130
    assert "Traceback" not in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", ["sweep", "prepare", "report"])
def test_each_command_is_run_by_its_name(name: str) -> None:
    done = subprocess.run([sys.executable, "-m", f"moa_ray.{name}", "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[:4]) == (0, ["usage:", "python", "-m", f"moa_ray.{name}"])
