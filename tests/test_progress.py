"""What counted work says while it goes on, with and without a terminal."""

from io import StringIO

import pytest
from rich.console import Console

from moa_ray.common.text import duration
from moa_ray.progress import download_progress, features_progress, field_progress
from moa_ray.screens import downloads


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
