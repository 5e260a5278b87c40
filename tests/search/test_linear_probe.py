"""The first look: who is looked at, who is dropped, and that nobody else sees its trials."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from moa_ray import report, screening, spec
from moa_ray.ledger import Ledger, Proposal, Result, Status
from moa_ray.recipe import Recipe, first_look, is_first_look
from moa_ray.spec import Sweep
from moa_ray.sweep import _job
from moa_ray.tables import (
    BACKBONE,
    CANDIDATE,
    COMPOUND,
    CONCENTRATION,
    FIELD,
    FOLD,
    LABEL,
    PLATE,
    TILE,
    WELL,
    probability_column,
)

LABELS = {"a": "A", "b": "B", "c": "A"}
FOLDS = [f"compound={name}" for name in LABELS]
WEIGHTS = {"ResNet50": "r.h5", "VGG16": "v.h5", "Xception": "x.h5"}
STUDY = {
    **{"study": "s", "command": "c", "seed": 0, "tiles": "t", "tile_store": "nowhere", "labels": ["A", "B"]},
    **{"channels": ["x"], "folds": dict.fromkeys(FOLDS), "weights": {}, "warnings": [], "versions": {}},
    **{"search_folds": FOLDS, "confirm_folds": []},
}


def sweep(out: Path, look: Any = True, **search: Any) -> Sweep:
    plain = {
        **{"study": "s", "out": str(out), "screen": {"name": "synthetic", "root": "p"}},
        "recipe": {"weights": WEIGHTS, "image_size": 96},
        "search": {"space": {"backbone": list(WEIGHTS)}, "screen_with_frozen": look, **search},
    }
    return spec.check(plain, "s.yaml")


def trial(recipe: Recipe, fold: str, sure: float, status: Status = "finished") -> Result:
    """A trial that gives the true label such a probability."""
    compound = fold.partition("=")[2]
    label = LABELS[compound]
    row = {PLATE: "P", WELL: compound, FIELD: "1", TILE: "0", COMPOUND: compound, CONCENTRATION: 1.0, LABEL: label}
    shares = {probability_column(name): sure if name == label else 1 - sure for name in ("A", "B")}
    named = {FOLD: fold, CANDIDATE: recipe.candidate, BACKBONE: recipe.backbone}
    history = pd.DataFrame({"epoch": [1], "accuracy": [0.5], "validation_accuracy": [np.nan]})
    tables = {"history": history, "predictions": pd.DataFrame([{**row, **named, **shares}])}
    return Result(
        recipe.candidate, fold, status, recipe.as_dict(), epochs=1, **(tables if status == "finished" else {})
    )


def looked(made: Sweep, sure: dict[str, float], study: dict[str, Any] = STUDY) -> Ledger:
    """A ledger that holds a first look, each backbone so sure of the true labels; below zero it diverged."""
    book = Ledger(made.out)
    book.open(made, study)
    for look in made.looks:
        for fold in study["search_folds"]:
            share = sure[look.backbone]
            book.write(trial(look, fold, share, "finished" if share >= 0 else "diverged"))
    return book


def read(made: Sweep, book: Ledger) -> screening.Look:
    look = screening.read(made, FOLDS, book, list(book.results()))
    assert look is not None
    return look


# Who is looked at


def test_each_backbone_weights_and_size_is_looked_at_once_by_one_recipe(tmp_path: Path) -> None:
    space = {"backbone": ["ResNet50", "VGG16"], "image_size": [64, 96], "learning_rate": [0.1, 0.01]}
    made = spec.check(
        {
            **{"study": "s", "out": str(tmp_path), "screen": {"name": "synthetic", "root": "p"}},
            "recipe": {"weights": {"ResNet50": "r.h5", "VGG16": "random"}},
            "search": {"space": space, "screen_with_frozen": True},
        },
        "s.yaml",
    )
    found = [(look.backbone, look.weights, look.image_size) for look in made.looks]
    assert found == [("ResNet50", "r.h5", 64), ("ResNet50", "r.h5", 96)]
    assert {look.freeze for look in made.looks} == {"all"}
    assert len({(look.learning_rate, look.epochs, look.optimizer) for look in made.looks}) == 1


def test_a_look_is_known_by_its_hyperparameters() -> None:
    recipe = Recipe("ResNet50", "r.h5", 96, learning_rate=0.5, input_scaling="none")
    assert is_first_look(first_look(recipe).as_dict())
    assert first_look(first_look(recipe)) == first_look(recipe)
    assert not is_first_look(recipe.as_dict())
    assert not is_first_look(dataclasses.replace(first_look(recipe), epochs=3).as_dict())


def test_nothing_is_looked_at_unless_it_is_asked_for(tmp_path: Path) -> None:
    made = sweep(tmp_path / "out", look=False)
    assert made.looks == []
    assert screening.read(made, FOLDS, Ledger(made.out), []) is None


# Who is dropped


@pytest.mark.parametrize(
    ("keep", "sure", "dropped"),
    [
        (True, {"ResNet50": 0.9, "VGG16": 0.8, "Xception": 0.7}, ()),
        ({"keep": 1}, {"ResNet50": 0.7, "VGG16": 0.9, "Xception": 0.8}, ("Xception", "ResNet50")),
        ({"keep": 2}, {"ResNet50": 0.7, "VGG16": 0.9, "Xception": 0.8}, ("ResNet50",)),
        ({"keep": 3}, {"ResNet50": 0.7, "VGG16": 0.9, "Xception": 0.8}, ()),
        ({"keep": 1}, {"ResNet50": -1, "VGG16": 0.9, "Xception": 0.8}, ("Xception",)),  # no score, no drop
    ],
)
def test_all_but_the_best_by_log_loss_are_dropped(
    keep: Any, sure: dict[str, float], dropped: tuple[str, ...], tmp_path: Path
) -> None:
    made = sweep(tmp_path / "out", keep)
    assert read(made, looked(made, sure)).dropped == dropped


def test_backbone_that_is_trained_already_is_not_dropped(tmp_path: Path) -> None:
    made = sweep(tmp_path / "out", {"keep": 1})
    book = looked(made, {"ResNet50": 0.7, "VGG16": 0.9, "Xception": 0.8})
    book.write(trial(made.recipes[0], FOLDS[0], 0.6))
    assert read(made, book).dropped == ("Xception",)


def test_sweep_without_a_backbone_lacks_its_recipes_and_keeps_its_conditions(tmp_path: Path) -> None:
    space = {"backbone": list(WEIGHTS), "dropout": {"choices": [0.1, 0.2], "when": {"backbone": ["VGG16", "Xception"]}}}
    made = sweep(tmp_path / "out", space=space)
    assert [r.backbone for r in made.recipes] == ["ResNet50", *["VGG16"] * 2, *["Xception"] * 2]
    assert [r.backbone for r in made.without(["VGG16"]).recipes] == ["ResNet50", "Xception", "Xception"]
    first = [{"backbone": "VGG16"}, {"backbone": "ResNet50"}]
    search = sweep(tmp_path / "out", mode="optuna", space=space, first=first).without(["VGG16", "Xception"])
    assert search.space.entries["backbone"].choices == ["ResNet50"]  # type: ignore[union-attr]
    assert search.search.first == ({"backbone": "ResNet50"},)  # type: ignore[union-attr]
    assert {recipe.backbone for recipe in search.recipes} == {"ResNet50"}


@pytest.mark.parametrize(
    ("look", "message"),
    [
        ({"keep": 0}, "search.screen_with_frozen.keep: must be greater than or equal to 1, but got 0"),
        ({"kepe": 1}, "search.screen_with_frozen: unknown key 'kepe'; did you mean 'keep'?"),
        ("some", "search.screen_with_frozen: true, false or {keep: 2} must stand here, but got 'some'"),
    ],
)
def test_a_first_look_that_cannot_be_is_named(look: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        sweep(tmp_path, look)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_backbone_that_may_be_dropped_takes_no_condition(tmp_path: Path) -> None:
    space = {"backbone": {"choices": ["ResNet50", "VGG16"], "when": {"optimizer": ["adam"]}}}
    with pytest.raises(ValueError, match=r"search\.space\.backbone\.when: backbones that"):
        sweep(tmp_path, {"keep": 1}, space={**space, "optimizer": ["adam"]})


# The ledger


def test_looking_may_begin_and_end_later_but_what_is_kept_is_settled_with_the_first_other_trial(tmp_path: Path) -> None:
    made = sweep(tmp_path / "out", look=False)
    book = Ledger(made.out)
    book.open(made, STUDY)
    book.write(trial(made.recipes[0], FOLDS[0], 0.6))
    for look in (True, False, True):
        book.open(sweep(tmp_path / "out", look), STUDY)
    with pytest.raises(ValueError, match=r"these differ: search\.screen_with_frozen\.keep"):
        book.open(sweep(tmp_path / "out", {"keep": 1}), STUDY)


def test_how_many_are_kept_may_change_while_there_is_nothing_but_looks(tmp_path: Path) -> None:
    made = sweep(tmp_path / "out", {"keep": 2})
    book = looked(made, dict.fromkeys(WEIGHTS, 0.9))
    book.open(sweep(tmp_path / "out", {"keep": 1}), STUDY)
    # Looks at what is swept no more are in nobody's way.
    book.open(sweep(tmp_path / "out", {"keep": 1}, space={"backbone": ["VGG16"]}), STUDY)
    search = sweep(tmp_path / "other", {"keep": 2}, mode="optuna", asha=None)
    book = looked(search, dict.fromkeys(WEIGHTS, 0.9))
    book.open(sweep(tmp_path / "other", {"keep": 1}, mode="optuna", asha=None), STUDY)
    book.propose(Proposal(0, search.recipes[0]))
    with pytest.raises(ValueError, match=r"search\.screen_with_frozen\.keep"):
        book.open(sweep(tmp_path / "other", {"keep": 3}, mode="optuna", asha=None), STUDY)


# The report


def text_of(out: Path) -> str:
    return " ".join((out / "report.html").read_text().split())


def test_looks_are_reported_apart_and_ranked_nowhere(tmp_path: Path) -> None:
    made = sweep(tmp_path / "out")
    book = looked(made, {"ResNet50": 0.9, "VGG16": 0.4, "Xception": 0.7})
    for recipe in made.recipes:
        for fold in FOLDS:
            book.write(trial(recipe, fold, 0.6))
    written = report.write(made.out)
    board = pd.read_csv(made.out / "leaderboard.csv")
    assert set(board[CANDIDATE]) == {recipe.candidate for recipe in made.recipes}
    assert set(pd.read_parquet(made.out / "predictions.parquet")[CANDIDATE]) == set(board[CANDIDATE])
    summary = json.loads((made.out / "summary.json").read_text())
    looks = [(look["backbone"], look["k"], look["n"]) for look in summary["first_look"]["looks"]]
    assert looks == [("ResNet50", 3, 3), ("Xception", 3, 3), ("VGG16", 0, 3)]
    assert summary["first_look"]["dropped"] == []
    assert "dropped" not in written.headline
    assert "Nothing was dropped by it." in text_of(made.out)
    assert (made.out / "figures" / "first_look.svg").exists()
    assert set(written.candidates) == {recipe.candidate for recipe in [*made.recipes, *made.looks]}


@pytest.mark.parametrize("keep", [1, 2])
def test_a_drop_that_saw_the_folds_of_the_headline_is_said(keep: int, tmp_path: Path) -> None:
    made = sweep(tmp_path / "out", {"keep": keep})
    book = looked(made, {"ResNet50": 0.9, "VGG16": 0.4, "Xception": 0.7})
    kept = made.without(read(made, book).dropped)
    for recipe in kept.recipes:
        for fold in FOLDS:
            book.write(trial(recipe, fold, 0.6))
    written = report.write(made.out)
    chosen = json.loads((made.out / "summary.json").read_text())["chosen_by"]
    names = "VGG16" if keep == 2 else "Xception, VGG16"
    assert f"backbones were dropped by a look at these folds ({names}): optimistic, and nothing corrects" in chosen
    assert chosen in written.headline
    assert ("the one recipe that was left" in chosen) == (keep == 1)
    assert "nothing was chosen" not in chosen
    assert len(pd.read_csv(made.out / "leaderboard.csv")) == keep
    assert "The look saw the folds that the headline is judged on." in text_of(made.out)
    assert f"dropped and not fine-tuned: {names}." in text_of(made.out)


def test_a_search_that_is_confirmed_was_looked_at_on_its_search_folds_alone(tmp_path: Path) -> None:
    study = {**STUDY, "search_folds": FOLDS[:2], "confirm_folds": FOLDS[2:]}
    made = sweep(tmp_path / "out", {"keep": 1}, mode="optuna", asha=None, race=None)
    book = looked(made, {"ResNet50": 0.9, "VGG16": 0.4, "Xception": 0.7}, study)
    recipe = made.recipes[0]
    book.propose(Proposal(0, recipe, {"backbone": "ResNet50"}))
    for fold in FOLDS:
        book.write(trial(recipe, fold, 0.6))
    written = report.write(made.out)
    assert (
        "judged on 1 folds that no choice saw; backbones were dropped by a look at the search folds" in written.headline
    )
    assert "optimistic" not in written.headline
    assert "on the search folds alone" in text_of(made.out)
    assert "The look saw the folds" not in text_of(made.out)
    board = pd.read_csv(made.out / "leaderboard.csv")
    assert list(board[CANDIDATE]) == [recipe.candidate]
    assert board["epochs_trained"][0] == 3


def test_recipe_of_the_sweep_that_equals_a_look_is_ranked_with_its_trials(tmp_path: Path) -> None:
    plain = first_look(Recipe("ResNet50", "r.h5", 96)).as_dict()
    own = {key: value for key, value in plain.items() if key not in ("backbone", "weights", "image_size")}
    made = sweep(tmp_path / "out", True, space={"backbone": ["ResNet50"]})
    made = made.model_copy(update={"recipe": {**made.recipe, **own}})
    assert made.recipes == made.looks
    looked(made, {"ResNet50": 0.9})
    assert "3 of 3 treatments right" in report.write(made.out).headline


def test_recipe_that_a_search_proposes_and_that_equals_a_look_has_its_trials_already(tmp_path: Path) -> None:
    plain = first_look(Recipe("ResNet50", "r.h5", 96)).as_dict()
    own = {key: value for key, value in plain.items() if key not in ("backbone", "weights", "image_size")}
    made = sweep(tmp_path / "out", True, mode="optuna", asha=None, race=None, candidates=1)
    made = made.model_copy(update={"recipe": {**made.recipe, **own}})
    study = {**STUDY, "search_folds": FOLDS[:2], "confirm_folds": FOLDS[2:]}
    book = looked(made, {"ResNet50": 0.9, "VGG16": 0.4, "Xception": 0.7}, study)
    opened: Any = SimpleNamespace(sweep=made, recipes=made.recipes, search_folds=FOLDS[:2], confirm_folds=FOLDS[2:])
    job = _job(opened, book, cast(Any, None), Console(quiet=True))
    assert job is not None
    assignment = job.plan.ask()
    assert assignment is not None
    assert (assignment.recipe in made.looks, assignment.fold) == (True, FOLDS[2])


def test_look_that_failed_is_listed_with_the_failed_trials(tmp_path: Path) -> None:
    made = sweep(tmp_path / "out", {"keep": 1})
    looked(made, {"ResNet50": 0.9, "VGG16": -1, "Xception": 0.8})
    report.write(made.out)
    assert "0 of 3, 3 failed" in text_of(made.out)
    assert text_of(made.out).count("diverged after 1 attempt") == 3


def test_backbones_of_random_weights_are_named_as_not_looked_at(tmp_path: Path) -> None:
    made = sweep(tmp_path / "out")
    made = made.model_copy(update={"recipe": {"weights": {**WEIGHTS, "VGG16": "random"}, "image_size": 96}})
    looked(made, dict.fromkeys(WEIGHTS, 0.9))
    report.write(made.out)
    assert "Not looked at, since their weights are random: VGG16." in text_of(made.out)
    made = sweep(tmp_path / "none")
    made = made.model_copy(update={"recipe": {"weights": "random", "image_size": 96}})
    looked(made, {})
    report.write(made.out)
    assert "Not looked at, since their weights are random: ResNet50, VGG16, Xception." in text_of(made.out)


def test_page_without_a_first_look_has_no_section(tmp_path: Path) -> None:
    made = sweep(tmp_path / "out", look=False)
    looked(made, {})
    report.write(made.out)
    assert "First look" not in text_of(made.out)
