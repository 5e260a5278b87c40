"""Members folded into ensembles, against loops over tiles."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from moa_ray import ensembles, metrics, spec
from moa_ray.ledger import Ledger, Proposal, Result, Status
from moa_ray.recipe import Recipe
from moa_ray.spec import Sweep
from moa_ray.sweep import _members
from moa_ray.tables import (
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

FOLDS = {"compound=a": "A", "compound=b": "B", "compound=c": "A"}


def sweep(seeds: list[int] | None = None, **more: Any) -> Sweep:
    plain = {
        **{"study": "s", "out": "o", "seeds": seeds, "screen": {"name": "synthetic", "root": "p"}},
        **{"recipe": {"backbone": "SmallCNN", "weights": "random"}, **more},
    }
    return spec.check({"search": {"space": {"learning_rate": [0.1, 0.01]}}, **plain}, "s.yaml")


def trial(recipe: Recipe, fold: str, status: Status = "finished") -> tuple[Result, pd.DataFrame]:
    """A trial and its predictions of four tiles, drawn by recipe and fold, in an order of its own."""
    rng = np.random.default_rng([recipe.seed or 0, int(1e4 * recipe.learning_rate), list(FOLDS).index(fold)])
    shares = rng.random(4, dtype=np.float32)
    tiles = {PLATE: "P", WELL: fold[-1], FIELD: "1", TILE: [f"{place}" for place in range(4)]}
    treatment = {COMPOUND: fold[-1], CONCENTRATION: 1.0, LABEL: FOLDS[fold]}
    named = {FOLD: fold, CANDIDATE: recipe.candidate, BACKBONE: recipe.backbone}
    table = pd.DataFrame({**tiles, **treatment, **named, "prob_A": shares, "prob_B": 1 - shares})
    result = Result(recipe.candidate, fold, status, recipe.as_dict(), epochs=2, seconds=3.0)
    return result, table.sample(frac=1, random_state=int(rng.integers(99))) if status == "finished" else table[:0]


def trials(made: Sweep, **ends: Status) -> tuple[list[Result], pd.DataFrame]:
    """Every recipe on every fold; `ends` says by number of the recipe and fold's group how one ended otherwise."""
    both = [
        trial(recipe, fold, ends.get(f"{fold[-1]}{number}", "finished"))
        for number, recipe in enumerate(made.recipes)
        for fold in FOLDS
    ]
    return [result for result, _ in both], pd.concat([table for _, table in both], ignore_index=True)


def test_without_seeds_nothing_changes() -> None:
    made = sweep()
    results, predictions = trials(made)
    folded = ensembles.fold(made, results, predictions)
    assert folded.results == folded.first == results
    assert folded.predictions is predictions
    assert folded.members.empty
    assert folded.shown("anyone") == "anyone"


def test_tiles_probabilities_are_the_averages_over_members_whatever_their_order() -> None:
    made = sweep([1, 2, 3])
    results, predictions = trials(made)
    found = ensembles.fold(made, results, predictions).predictions
    assert list(found.columns) == list(predictions.columns)
    assert len(found) == 2 * 3 * 4
    for row in found.to_dict("records"):
        members = [one.candidate for one in made.recipes if one.ensemble.candidate == row[CANDIDATE]]
        same = predictions[predictions[CANDIDATE].isin(members)]
        for name in (PLATE, WELL, FIELD, TILE, FOLD):
            same = same[same[name] == row[name]]
        assert len(same) == 3
        for name in probability_columns(found):
            assert row[name] == pytest.approx(same[name].mean(), abs=1e-6)


def test_trials_of_an_ensemble_are_its_members_added_up() -> None:
    made = sweep([1, 2, 3])
    folded = ensembles.fold(made, *trials(made))
    assert len(folded.results) == 2 * 3
    assert {(one.status, one.epochs, one.seconds) for one in folded.results} == {("finished", 6, 9.0)}
    assert {one.candidate for one in folded.results} == {one.ensemble.candidate for one in made.recipes}
    assert {len(folded.shown(one.candidate).split(", seed ")) for one in made.recipes} == {2}


def test_fold_counts_where_all_members_finished_it() -> None:
    made = sweep([1, 2])
    results, predictions = trials(made, a1="diverged")
    results = [one for one in results if one.key != (made.recipes[0].candidate, "compound=b")]
    predictions = predictions[
        (predictions[CANDIDATE] != made.recipes[0].candidate) | (predictions[FOLD] != "compound=b")
    ]
    folded = ensembles.fold(made, results, predictions)
    name = made.recipes[0].ensemble.candidate
    ends = {one.fold: one.status for one in folded.results if one.candidate == name}
    assert ends == {"compound=a": "diverged", "compound=c": "finished"}
    for table in (folded.predictions, folded.members):
        assert set(table.loc[table[CANDIDATE] == name, FOLD]) == {"compound=c"}


def test_grid_waits_for_members_that_have_not_begun_and_a_search_has_none_but_its_winners() -> None:
    grid = sweep([1, 2])
    search = sweep([1, 2], search={"mode": "optuna", "space": {"learning_rate": {"low": 0.01, "high": 0.1}}})
    first = [trial(grid.recipes[0], fold) for fold in FOLDS]
    given = [result for result, _ in first], pd.concat([table for _, table in first])
    assert ensembles.fold(grid, *given).predictions.empty
    folded = ensembles.fold(search, *given)
    assert len(folded.predictions) == 12
    assert [one.candidate for one in folded.first] == [grid.recipes[0].ensemble.candidate] * 3
    measured = ensembles.first_predictions(folded, given[1], 1)
    assert set(measured[CANDIDATE]) == {grid.recipes[0].ensemble.candidate}


def test_other_members_of_a_winner_are_trained_on_all_folds_once_the_race_is_over(tmp_path: Path) -> None:
    space = {"learning_rate": [0.1, 0.01]}
    search = {"mode": "optuna", "candidates": 2, "asha": None, "race": None, "space": space}
    made = sweep([1, 2, 3], search=search, out=str(tmp_path / "out"))
    names = [*FOLDS]
    folds: Any = {"search_folds": names[:2], "confirm_folds": names[2:]}
    opened: Any = SimpleNamespace(sweep=made, trained_folds=[SimpleNamespace(name=name) for name in names], **folds)
    book = Ledger(made.out)
    book.open(made, {**folds, "tiles": "t", "labels": ["A", "B"], "weights": {}})
    console = Console(quiet=True)
    assert _members(opened, book, cast(Any, None), console) is None  # nobody has won
    recipes = [made.space.recipe({"learning_rate": rate}) for rate in space["learning_rate"]]
    for number, recipe in enumerate(recipes):
        book.propose(Proposal(number, recipe))
        for fold in names[: 2 + number]:
            result, table = trial(recipe, fold)
            sure = 0.9 if number else 0.2
            table = table.assign(prob_A=sure if FOLDS[fold] == "A" else 1 - sure).assign(
                prob_B=lambda one: 1 - one.prob_A
            )
            book.write(replace(result, predictions=table))
    job = _members(opened, book, cast(Any, None), console)
    assert job is not None
    asked = []
    while assignment := job.plan.ask():
        asked.append((assignment.recipe, assignment.fold))
        result, table = trial(*asked[-1])
        book.write(replace(result, predictions=table))
    assert sorted(asked, key=str) == sorted(
        ((replace(recipes[1], seed=seed), fold) for seed in (2, 3) for fold in names), key=str
    )
    assert _members(opened, book, cast(Any, None), console) is None  # all is done


def test_spread_is_of_the_worst_and_the_best_member() -> None:
    made = sweep([5, 1, 2])
    results, predictions = trials(made)
    found = ensembles.spread(ensembles.fold(made, results, predictions).members, "median").set_index(CANDIDATE)
    for first in (0, 3):
        members = made.recipes[first : first + 3]
        own = [metrics.scores(predictions[predictions[CANDIDATE] == one.candidate]) for one in members]
        accuracies = [scores["treatment_accuracy"] for scores in own]
        row = found.loc[members[0].ensemble.candidate]
        assert list(row) == ["1, 2, 5", min(accuracies), max(accuracies)]
    assert list(ensembles.spread(pd.DataFrame(), "median").columns) == [CANDIDATE, *ensembles.SPREAD]


@pytest.mark.parametrize("how", ["median", "mean"])
def test_samples_become_treatments_one_by_one(how: metrics.How) -> None:
    made = sweep([1, 2])
    members = ensembles.fold(made, *trials(made)).members
    samples = members.rename(columns={SEED: SAMPLE}).assign(**{METHOD: "ensemble"})
    found = metrics.sampled(samples, how)
    assert len(found) == 2 * 2 * 3
    for (candidate, sample), mine in found.groupby([CANDIDATE, SAMPLE]):
        own = samples[(samples[CANDIDATE] == candidate) & (samples[SAMPLE] == sample)]
        expected = metrics.treatments(own.drop(columns=[SAMPLE, METHOD]), how)
        columns = list(expected.columns)
        pd.testing.assert_frame_equal(mine[columns].reset_index(drop=True), expected)
