"""Which candidate leads, and what a sweep says of its trials without a terminal."""

from io import StringIO

import pandas as pd
from rich.console import Console

from moa_ray.common.schema import BACKBONE, CANDIDATE, COMPOUND, CONCENTRATION, FIELD, FOLD, LABEL, PLATE, TILE, WELL
from moa_ray.config.recipe import Recipe
from moa_ray.execution.callbacks import ProgressCallback, RunningBest
from moa_ray.search.plan import Assignment
from moa_ray.tracking.results import Result, Status

RECIPE = Recipe(backbone="SmallCNN", epochs=3)


def trial(candidate: str, fold: str, right: int) -> pd.DataFrame:
    """Predictions of three treatments, so many of them right; those of every fold have the same names."""
    rows = pd.DataFrame({PLATE: fold, WELL: ["A01", "A02", "A03"], FIELD: "1", TILE: "0", COMPOUND: "c"})
    rows = rows.assign(**{CONCENTRATION: [1.0, 2.0, 3.0], LABEL: "x", FOLD: fold, CANDIDATE: candidate, BACKBONE: "b"})
    return rows.assign(prob_x=[0.9 if number < right else 0.1 for number in range(3)], prob_y=0.5)


def test_who_predicted_most_leads_and_of_those_who_has_most_right() -> None:
    leader = RunningBest("median")
    assert leader.words() == "no result yet"
    leader.add(trial("m", "f", 3))
    leader.add(trial("n", "f", 1))
    assert leader.words() == "leading: m, 3 of 3 treatments right"
    leader.add(trial("n", "g", 1))
    assert leader.words() == "leading: n, 2 of 6 treatments right"


def test_trials_of_an_earlier_start_count_together_as_they_did_one_by_one() -> None:
    trials = [trial("m", "f", 3), trial("n", "f", 1), trial("m", "g", 2)]
    together, single = RunningBest("median"), RunningBest("median")
    together.add(pd.concat(trials))
    for predictions in trials:
        single.add(predictions)
    assert together.words() == single.words() == "leading: m, 5 of 6 treatments right"
    together.add(pd.DataFrame())
    assert together.words() == single.words()


def result(fold: str, status: Status = "finished", error: str | None = None) -> Result:
    return Result(RECIPE.candidate, fold, status, {}, error=error)


def test_lines_count_done_running_and_failed_trials() -> None:
    out = StringIO()
    with ProgressCallback(
        Console(file=out, width=200), at_most=lambda: 5, done=2, best=lambda: "leading: none"
    ) as progress:
        for fold in "abc":
            progress.started(Assignment(RECIPE, fold))
        progress.epoch(Assignment(RECIPE, "a"), {"epoch": 1, "accuracy": 0.5, "validation_accuracy": 0.25})
        progress.ended(result("a"), final=True)
        progress.ended(result("b", "crashed", "the worker was lost\nTraceback"), final=False)
        progress.ended(result("b", "crashed", "the worker was lost"), final=True)
        progress.ended(result("c"), final=True)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("3 of 5 trials, 2 running, 0 failed")
    assert lines[1] == f"{RECIPE.candidate} b: crashed (will be tried again): the worker was lost"
    assert lines[2] == f"{RECIPE.candidate} b: crashed (given up): the worker was lost"
    assert lines[3].startswith("4 of 5 trials, 1 running, 1 failed")
    assert lines[4].startswith("5 of 5 trials, 0 running, 1 failed")
    assert lines[4].endswith("leading: none")


def test_terminal_shows_what_each_running_trial_does() -> None:
    out = StringIO()
    with ProgressCallback(
        Console(file=out, width=120, force_terminal=True), at_most=lambda: 2, done=0, best=lambda: ""
    ) as progress:
        progress.started(Assignment(RECIPE, "compound=a"))
        progress.epoch(Assignment(RECIPE, "compound=a"), {"epoch": 2, "accuracy": 0.5, "validation_accuracy": None})
    assert "compound=a" in out.getvalue()
    assert "epoch 2 of 3, accuracy 0.50" in out.getvalue()


def test_long_sweeps_say_little() -> None:
    out = StringIO()
    with ProgressCallback(Console(file=out, width=200), at_most=lambda: 1000, done=0, best=lambda: "") as progress:
        for number in range(1000):
            progress.started(Assignment(RECIPE, str(number)))
            progress.ended(result(str(number)), final=True)
    assert len(out.getvalue().splitlines()) == 20
