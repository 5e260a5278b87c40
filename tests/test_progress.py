"""What a sweep says while it runs, without a terminal."""

from io import StringIO

import pytest
from rich.console import Console

from moa_ray import downloads
from moa_ray.ledger import Result, Status
from moa_ray.progress import Board, download_progress, duration, features_progress, field_progress
from moa_ray.race import Assignment
from moa_ray.recipe import Recipe

RECIPE = Recipe(backbone="SmallCNN", epochs=3)


def result(fold: str, status: Status = "finished", error: str | None = None) -> Result:
    return Result(RECIPE.candidate, fold, status, {}, error=error)


def test_lines_count_done_running_and_failed_trials() -> None:
    out = StringIO()
    with Board(Console(file=out, width=200), at_most=lambda: 5, done=2, best=lambda: "leading: none") as board:
        for fold in "abc":
            board.started(Assignment(RECIPE, fold))
        board.epoch(Assignment(RECIPE, "a"), {"epoch": 1, "accuracy": 0.5, "validation_accuracy": 0.25})
        board.ended(result("a"), final=True)
        board.ended(result("b", "crashed", "the worker was lost\nTraceback"), final=False)
        board.ended(result("b", "crashed", "the worker was lost"), final=True)
        board.ended(result("c"), final=True)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("3 of 5 trials, 2 running, 0 failed")
    assert lines[1] == f"{RECIPE.candidate} b: crashed (will be tried again): the worker was lost"
    assert lines[2] == f"{RECIPE.candidate} b: crashed (given up): the worker was lost"
    assert lines[3].startswith("4 of 5 trials, 1 running, 1 failed")
    assert lines[4].startswith("5 of 5 trials, 0 running, 1 failed")
    assert lines[4].endswith("leading: none")


def test_terminal_shows_what_each_running_trial_does() -> None:
    out = StringIO()
    with Board(Console(file=out, width=120, force_terminal=True), at_most=lambda: 2, done=0, best=lambda: "") as board:
        board.started(Assignment(RECIPE, "compound=a"))
        board.epoch(Assignment(RECIPE, "compound=a"), {"epoch": 2, "accuracy": 0.5, "validation_accuracy": None})
    assert "compound=a" in out.getvalue()
    assert "epoch 2 of 3, accuracy 0.50" in out.getvalue()


def test_long_sweeps_say_little() -> None:
    out = StringIO()
    with Board(Console(file=out, width=200), at_most=lambda: 1000, done=0, best=lambda: "") as board:
        for number in range(1000):
            board.started(Assignment(RECIPE, str(number)))
            board.ended(result(str(number)), final=True)
    assert len(out.getvalue().splitlines()) == 20


def test_preparing_says_ten_lines_at_most_and_nothing_where_nothing_is_done() -> None:
    out = StringIO()
    with field_progress(Console(file=out, width=200)):
        pass
    assert out.getvalue() == ""
    with field_progress(Console(file=out, width=200)) as progress:
        for done in range(1, 98):
            progress(done, 97)
    assert len(out.getvalue().splitlines()) <= 10
    assert "97 of 97 fields" in out.getvalue()


def test_taking_features_says_four_lines_a_set() -> None:
    out = StringIO()
    with features_progress(Console(file=out, width=200)) as progress:
        for name in ("VGG16, 96 px", "VGG16, 224 px"):
            for done in range(0, 101, 5):
                progress(name, done, 100)
    lines = out.getvalue().splitlines()
    assert [line.partition(" tiles")[0] for line in lines[:2]] == [
        "taking features of VGG16, 96 px: 25 of 100",
        "taking features of VGG16, 96 px: 50 of 100",
    ]
    assert len(lines) == 8


def test_fields_that_were_finished_before_do_not_count_in_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))  # a second each time that it is looked at
    monkeypatch.setattr("moa_ray.progress.time.monotonic", lambda: next(clock))
    out = StringIO()
    with field_progress(Console(file=out, width=200)) as progress:
        for done in (90, *range(91, 101)):
            progress(done, 100)
    assert out.getvalue().splitlines()[-1] == "preparing tiles: 100 of 100 fields, 1 a second"


def test_durations_read_like_a_clock() -> None:
    assert [duration(seconds) for seconds in (5, 65, 3665.4)] == ["0:05", "1:05", "1:01:05"]


def test_downloading_says_a_line_a_tenth_and_nothing_where_all_is_there() -> None:
    out = StringIO()
    with download_progress(Console(file=out, width=200)) as show:
        show(downloads.Progress(57, 57, 0, 0))
    assert out.getvalue() == ""
    with download_progress(Console(file=out, width=200)) as show:
        for million in range(101):
            show(downloads.Progress(million // 50, 2, million * 1_000_000, 100_000_000))
    lines = out.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[4] == "downloading: 50.0 of 100.0 MB, 1 of 2 files"


def test_terminal_shows_bytes_and_files_while_downloading() -> None:
    out = StringIO()
    with download_progress(Console(file=out, width=200, force_terminal=True)) as show:
        show(downloads.Progress(0, 2, 10_000_000, 100_000_000))
        show(downloads.Progress(1, 2, 50_000_000, 100_000_000))
    assert "50.0/100.0 MB" in out.getvalue()
    assert "1 of 2 files" in out.getvalue()
