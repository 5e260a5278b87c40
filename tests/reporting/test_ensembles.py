"""Members folded into ensembles, against loops over tiles."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from moa_ray.common.schema import (
    BACKBONE,
    CANDIDATE,
    COMPOUND,
    CONCENTRATION,
    FIELD,
    FOLD,
    LABEL,
    METHOD,
    PLATE,
    SAMPLE,
    SEED,
    TILE,
    WELL,
    probability_columns,
)
from moa_ray.config import sweep_file
from moa_ray.config.recipe import Recipe
from moa_ray.config.sweep_file import Sweep
from moa_ray.reporting import ensembles
from moa_ray.stages import _members
from moa_ray.statistics import aggregation
from moa_ray.statistics import scores as statistics_scores
from moa_ray.tracking.ledger import Ledger
from moa_ray.tracking.results import Proposal, Result, Status, TrialKind

FOLDS = {"compound=a": "A", "compound=b": "B", "compound=c": "A"}


def checked(seeds: list[int] | None = None, **more: Any) -> Sweep:
    plain = {
        **{"study": "s", "out": "o", "seeds": seeds, "screen": {"name": "synthetic", "root": "p"}},
        **{"recipe": {"backbone": "SmallCNN", "weights": "random"}, **more},
    }
    return sweep_file.check({"search": {"space": {"learning_rate": [0.1, 0.01]}}, **plain}, "s.yaml")


def trial(recipe: Recipe, fold: str, status: Status = "finished") -> tuple[Result, pd.DataFrame]:
    """A trial and its predictions of four tiles, drawn by recipe and fold, in an order of its own."""
    rng = np.random.default_rng([recipe.seed or 0, int(1e4 * recipe.learning_rate), list(FOLDS).index(fold)])
    shares = rng.random(4, dtype=np.float32)
    tiles = {PLATE: "P", WELL: fold[-1], FIELD: "1", TILE: [f"{place}" for place in range(4)]}
    treatment = {COMPOUND: fold[-1], CONCENTRATION: 1.0, LABEL: FOLDS[fold]}
    named = {FOLD: fold, CANDIDATE: recipe.candidate, BACKBONE: recipe.backbone}
    table = pd.DataFrame({**tiles, **treatment, **named, "prob_A": shares, "prob_B": 1 - shares})
    result = Result(recipe.candidate, fold, status, recipe.as_dict(), TrialKind.of(recipe), epochs=2, seconds=3.0)
    return result, table.sample(frac=1, random_state=int(rng.integers(99))) if status == "finished" else table[:0]


def trials(sweep: Sweep, **ends: Status) -> tuple[list[Result], pd.DataFrame]:
    """Every recipe on every fold; `ends` says by number of the recipe and fold's group how one ended otherwise."""
    both = [
        trial(recipe, fold, ends.get(f"{fold[-1]}{number}", "finished"))
        for number, recipe in enumerate(sweep.grid_recipes)
        for fold in FOLDS
    ]
    return [result for result, _ in both], pd.concat([table for _, table in both], ignore_index=True)


def test_without_seeds_nothing_changes() -> None:
    sweep = checked()
    results, predictions = trials(sweep)
    folded = ensembles.fold(sweep, results, predictions)
    assert folded.results == folded.first == results
    assert folded.predictions is predictions
    assert folded.members.empty
    assert folded.shown("anyone") == "anyone"


def test_tiles_probabilities_are_the_averages_over_members_whatever_their_order() -> None:
    sweep = checked([1, 2, 3])
    results, predictions = trials(sweep)
    averages = ensembles.fold(sweep, results, predictions).predictions
    assert list(averages.columns) == list(predictions.columns)
    assert len(averages) == 2 * 3 * 4
    for row in averages.to_dict("records"):
        members = [recipe.candidate for recipe in sweep.grid_recipes if recipe.ensemble.candidate == row[CANDIDATE]]
        same = predictions[predictions[CANDIDATE].isin(members)]
        for name in (PLATE, WELL, FIELD, TILE, FOLD):
            same = same[same[name] == row[name]]
        assert len(same) == 3
        for name in probability_columns(averages):
            assert row[name] == pytest.approx(same[name].mean(), abs=1e-6)


def test_trials_of_an_ensemble_are_its_members_added_up() -> None:
    sweep = checked([1, 2, 3])
    folded = ensembles.fold(sweep, *trials(sweep))
    assert len(folded.results) == 2 * 3
    assert {(result.status, result.epochs, result.seconds) for result in folded.results} == {("finished", 6, 9.0)}
    assert {result.candidate for result in folded.results} == {
        recipe.ensemble.candidate for recipe in sweep.grid_recipes
    }
    assert {len(folded.shown(recipe.candidate).split(", seed ")) for recipe in sweep.grid_recipes} == {2}


def test_fold_counts_where_all_members_finished_it() -> None:
    sweep = checked([1, 2])
    results, predictions = trials(sweep, a1="diverged")
    results = [result for result in results if result.key != (sweep.grid_recipes[0].candidate, "compound=b")]
    predictions = predictions[
        (predictions[CANDIDATE] != sweep.grid_recipes[0].candidate) | (predictions[FOLD] != "compound=b")
    ]
    folded = ensembles.fold(sweep, results, predictions)
    name = sweep.grid_recipes[0].ensemble.candidate
    ends = {result.fold: result.status for result in folded.results if result.candidate == name}
    assert ends == {"compound=a": "diverged", "compound=c": "finished"}
    for table in (folded.predictions, folded.members):
        assert set(table.loc[table[CANDIDATE] == name, FOLD]) == {"compound=c"}


def test_grid_waits_for_members_that_have_not_begun_and_a_search_has_none_but_its_winners() -> None:
    grid = checked([1, 2])
    search = checked([1, 2], search={"mode": "optuna", "space": {"learning_rate": {"low": 0.01, "high": 0.1}}})
    first = [trial(grid.grid_recipes[0], fold) for fold in FOLDS]
    results, predictions = [result for result, _ in first], pd.concat([table for _, table in first])
    assert ensembles.fold(grid, results, predictions).predictions.empty
    folded = ensembles.fold(search, results, predictions)
    assert len(folded.predictions) == 12
    assert [result.candidate for result in folded.first] == [grid.grid_recipes[0].ensemble.candidate] * 3
    measured = ensembles.first_predictions(folded, predictions, 1)
    assert set(measured[CANDIDATE]) == {grid.grid_recipes[0].ensemble.candidate}


def test_other_members_of_a_winner_are_trained_on_all_folds_once_the_race_is_over(tmp_path: Path) -> None:
    space = {"learning_rate": [0.1, 0.01]}
    search = {"mode": "optuna", "candidates": 2, "asha": None, "race": None, "space": space}
    sweep = checked([1, 2, 3], search=search, out=str(tmp_path / "out"))
    names = [*FOLDS]
    folds: Any = {"search_folds": names[:2], "confirm_folds": names[2:]}
    opened: Any = SimpleNamespace(sweep=sweep, trained_folds=[SimpleNamespace(name=name) for name in names], **folds)
    ledger = Ledger(sweep.out)
    ledger.open(sweep, {**folds, "tiles": "t", "labels": ["A", "B"], "weights": {}})
    console = Console(quiet=True)
    assert _members(opened, ledger, cast(Any, None), console) is None  # nobody has won
    recipes = [sweep.space.recipe({"learning_rate": rate}) for rate in space["learning_rate"]]
    for number, recipe in enumerate(recipes):
        ledger.propose(Proposal(number, recipe))
        for fold in names[: 2 + number]:
            result, table = trial(recipe, fold)
            share = 0.9 if number else 0.2
            table = table.assign(prob_A=share if FOLDS[fold] == "A" else 1 - share)
            table = table.assign(prob_B=1 - table["prob_A"])
            ledger.write(replace(result, predictions=table))
    job = _members(opened, ledger, cast(Any, None), console)
    assert job is not None
    asked = []
    while assignment := job.plan.ask():
        asked.append((assignment.recipe, assignment.fold))
        result, table = trial(*asked[-1])
        ledger.write(replace(result, predictions=table))
    assert sorted(asked, key=str) == sorted(
        ((replace(recipes[1], seed=seed), fold) for seed in (2, 3) for fold in names), key=str
    )
    assert _members(opened, ledger, cast(Any, None), console) is None  # all is done


def test_spread_is_of_the_worst_and_the_best_member() -> None:
    sweep = checked([5, 1, 2])
    results, predictions = trials(sweep)
    folded = ensembles.fold(sweep, results, predictions)
    spread = ensembles.spread(folded.members, "median").set_index(CANDIDATE)
    for first in (0, 3):
        members = sweep.grid_recipes[first : first + 3]
        own = [predictions[predictions[CANDIDATE] == recipe.candidate] for recipe in members]
        accuracies = [statistics_scores.scores(table)["treatment_accuracy"] for table in own]
        row = spread.loc[members[0].ensemble.candidate]
        assert list(row) == ["1, 2, 5", min(accuracies), max(accuracies)]
    assert list(ensembles.spread(pd.DataFrame(), "median").columns) == [CANDIDATE, *ensembles.SPREAD]


@pytest.mark.parametrize("how", ["median", "mean"])
def test_samples_become_treatments_one_by_one(how: aggregation.Aggregation) -> None:
    sweep = checked([1, 2])
    members = ensembles.fold(sweep, *trials(sweep)).members
    samples = members.rename(columns={SEED: SAMPLE}).assign(**{METHOD: "ensemble"})
    treatments = aggregation.sampled(samples, how)
    assert len(treatments) == 2 * 2 * 3
    for (candidate, sample), rows in treatments.groupby([CANDIDATE, SAMPLE]):
        own = samples[(samples[CANDIDATE] == candidate) & (samples[SAMPLE] == sample)]
        expected = aggregation.treatments(own.drop(columns=[SAMPLE, METHOD]), how)
        columns = list(expected.columns)
        pd.testing.assert_frame_equal(rows[columns].reset_index(drop=True), expected)
