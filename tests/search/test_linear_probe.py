"""Linear probes: which backbones have one, which are dropped, and that nobody else sees their trials."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from moa_ray.common.errors import InputError
from moa_ray.common.schema import (
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
from moa_ray.config import sweep_file
from moa_ray.config.recipe import Recipe, is_standard_probe, linear_probe_of
from moa_ray.config.sweep_file import Sweep
from moa_ray.reporting import write
from moa_ray.search import linear_probe
from moa_ray.stages import _candidates
from moa_ray.tracking.ledger import Ledger
from moa_ray.tracking.results import Proposal, Result, Status, TrialKind

pytestmark = pytest.mark.usefixtures("undrawn")

LABELS = {"a": "A", "b": "B", "c": "A"}
FOLDS = [f"compound={name}" for name in LABELS]
WEIGHTS = {"ResNet50": "r.h5", "VGG16": "v.h5", "Xception": "x.h5"}
STUDY = {
    **{"study": "s", "command": "c", "seed": 0, "tiles": "t", "tile_store": "nowhere", "labels": ["A", "B"]},
    **{"channels": ["x"], "folds": dict.fromkeys(FOLDS), "weights": {}, "warnings": [], "versions": {}},
    **{"search_folds": FOLDS, "confirm_folds": []},
}


def make_sweep(out: Path, probe: Any = True, **search: Any) -> Sweep:
    plain = {
        **{"study": "s", "out": str(out), "screen": {"name": "synthetic", "root": "p"}},
        "recipe": {"weights": WEIGHTS, "image_size": 96},
        "search": {"space": {"backbone": list(WEIGHTS)}, "screen_with_frozen": probe, **search},
    }
    return sweep_file.check(plain, "s.yaml")


def trial(
    recipe: Recipe, fold: str, sure: float, status: Status = "finished", kind: TrialKind = TrialKind.CANDIDATE
) -> Result:
    """A trial that gives the true label such a probability."""
    compound = fold.partition("=")[2]
    label = LABELS[compound]
    row = {PLATE: "P", WELL: compound, FIELD: "1", TILE: "0", COMPOUND: compound, CONCENTRATION: 1.0, LABEL: label}
    shares = {probability_column(name): sure if name == label else 1 - sure for name in ("A", "B")}
    named = {FOLD: fold, CANDIDATE: recipe.candidate, BACKBONE: recipe.backbone}
    history = pd.DataFrame({"epoch": [1], "accuracy": [0.5], "validation_accuracy": [np.nan]})
    tables = {"history": history, "predictions": pd.DataFrame([{**row, **named, **shares}])}
    return Result(
        recipe.candidate, fold, status, recipe.as_dict(), kind, epochs=1, **(tables if status == "finished" else {})
    )


def probed(sweep: Sweep, sure: dict[str, float], study: dict[str, Any] = STUDY) -> Ledger:
    """A ledger that holds linear probes, each backbone so sure of the true labels; below zero it diverged."""
    ledger = Ledger(sweep.out)
    ledger.open(sweep, study)
    for probe in sweep.linear_probes:
        for fold in study["search_folds"]:
            share = sure[probe.backbone]
            status: Status = "finished" if share >= 0 else "diverged"
            ledger.write(trial(probe, fold, share, status, TrialKind.LINEAR_PROBE))
    return ledger


def read_probes(sweep: Sweep, ledger: Ledger) -> linear_probe.ProbeResults:
    probes = linear_probe.read(sweep, FOLDS, ledger, list(ledger.results()))
    assert probes is not None
    return probes


# Who is probed


def test_each_backbone_weights_and_size_is_probed_once_by_one_recipe(tmp_path: Path) -> None:
    space = {"backbone": ["ResNet50", "VGG16"], "image_size": [64, 96], "learning_rate": [0.1, 0.01]}
    sweep = sweep_file.check(
        {
            **{"study": "s", "out": str(tmp_path), "screen": {"name": "synthetic", "root": "p"}},
            "recipe": {"weights": {"ResNet50": "r.h5", "VGG16": "random"}},
            "search": {"space": space, "screen_with_frozen": True},
        },
        "s.yaml",
    )
    probed = [(probe.backbone, probe.weights, probe.image_size) for probe in sweep.linear_probes]
    assert probed == [("ResNet50", "r.h5", 64), ("ResNet50", "r.h5", 96)]
    assert {probe.freeze for probe in sweep.linear_probes} == {"all"}
    assert len({(probe.learning_rate, probe.epochs, probe.optimizer) for probe in sweep.linear_probes}) == 1


def test_a_probe_is_known_by_its_hyperparameters() -> None:
    recipe = Recipe("ResNet50", "r.h5", 96, learning_rate=0.5, input_scaling="none")
    assert is_standard_probe(linear_probe_of(recipe).as_dict())
    assert linear_probe_of(linear_probe_of(recipe)) == linear_probe_of(recipe)
    assert not is_standard_probe(recipe.as_dict())
    assert not is_standard_probe(dataclasses.replace(linear_probe_of(recipe), epochs=3).as_dict())


def test_nothing_is_probed_unless_it_is_asked_for(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "out", probe=False)
    assert sweep.linear_probes == []
    assert linear_probe.read(sweep, FOLDS, Ledger(sweep.out), []) is None


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
    sweep = make_sweep(tmp_path / "out", keep)
    assert read_probes(sweep, probed(sweep, sure)).dropped == dropped


def test_backbone_that_is_trained_already_is_not_dropped(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "out", {"keep": 1})
    ledger = probed(sweep, {"ResNet50": 0.7, "VGG16": 0.9, "Xception": 0.8})
    ledger.write(trial(sweep.grid_recipes[0], FOLDS[0], 0.6))
    assert read_probes(sweep, ledger).dropped == ("Xception",)


def test_sweep_without_a_backbone_lacks_its_recipes_and_keeps_its_conditions(tmp_path: Path) -> None:
    space = {"backbone": list(WEIGHTS), "dropout": {"choices": [0.1, 0.2], "when": {"backbone": ["VGG16", "Xception"]}}}
    sweep = make_sweep(tmp_path / "out", space=space)
    assert [r.backbone for r in sweep.grid_recipes] == ["ResNet50", *["VGG16"] * 2, *["Xception"] * 2]
    assert [r.backbone for r in sweep.without(["VGG16"]).grid_recipes] == ["ResNet50", "Xception", "Xception"]
    first = [{"backbone": "VGG16"}, {"backbone": "ResNet50"}]
    search = make_sweep(tmp_path / "out", mode="optuna", space=space, first=first).without(["VGG16", "Xception"])
    assert search.space.entries["backbone"].choices == ["ResNet50"]  # type: ignore[union-attr]
    assert search.search.first == ({"backbone": "ResNet50"},)  # type: ignore[union-attr]
    assert {recipe.backbone for recipe in search.resource_profiles} == {"ResNet50"}


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ({"keep": 0}, "search.screen_with_frozen.keep: must be greater than or equal to 1, but got 0"),
        ({"kepe": 1}, "search.screen_with_frozen: unknown key 'kepe'; did you mean 'keep'?"),
        ("some", "search.screen_with_frozen: true, false or {keep: 2} must stand here, but got 'some'"),
    ],
)
def test_a_linear_probe_that_cannot_be_is_named(probe: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r".") as error:
        make_sweep(tmp_path, probe)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_backbone_that_may_be_dropped_takes_no_condition(tmp_path: Path) -> None:
    space = {"backbone": {"choices": ["ResNet50", "VGG16"], "when": {"optimizer": ["adam"]}}}
    with pytest.raises(InputError, match=r"search\.space\.backbone\.when: backbones that"):
        make_sweep(tmp_path, {"keep": 1}, space={**space, "optimizer": ["adam"]})


# The ledger


def test_probing_may_begin_and_end_later_but_what_is_kept_is_settled_with_the_first_other_trial(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "out", probe=False)
    ledger = Ledger(sweep.out)
    ledger.open(sweep, STUDY)
    ledger.write(trial(sweep.grid_recipes[0], FOLDS[0], 0.6))
    for probe in (True, False, True):
        ledger.open(make_sweep(tmp_path / "out", probe), STUDY)
    with pytest.raises(InputError, match=r"these differ: search\.screen_with_frozen\.keep"):
        ledger.open(make_sweep(tmp_path / "out", {"keep": 1}), STUDY)


def test_how_many_are_kept_may_change_while_there_is_nothing_but_probes(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "out", {"keep": 2})
    ledger = probed(sweep, dict.fromkeys(WEIGHTS, 0.9))
    ledger.open(make_sweep(tmp_path / "out", {"keep": 1}), STUDY)
    # Probes of what is swept no more are in nobody's way.
    ledger.open(make_sweep(tmp_path / "out", {"keep": 1}, space={"backbone": ["VGG16"]}), STUDY)
    search = make_sweep(tmp_path / "other", {"keep": 2}, mode="optuna", asha=None)
    ledger = probed(search, dict.fromkeys(WEIGHTS, 0.9))
    ledger.open(make_sweep(tmp_path / "other", {"keep": 1}, mode="optuna", asha=None), STUDY)
    ledger.propose(Proposal(0, search.resource_profiles[0]))
    with pytest.raises(InputError, match=r"search\.screen_with_frozen\.keep"):
        ledger.open(make_sweep(tmp_path / "other", {"keep": 3}, mode="optuna", asha=None), STUDY)


# The report


def text_of(out: Path) -> str:
    return " ".join((out / "report.html").read_text().split())


def test_probes_are_reported_apart_and_ranked_nowhere(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "out")
    ledger = probed(sweep, {"ResNet50": 0.9, "VGG16": 0.4, "Xception": 0.7})
    for recipe in sweep.grid_recipes:
        for fold in FOLDS:
            ledger.write(trial(recipe, fold, 0.6))
    written = write.write(sweep.out)
    leaderboard = pd.read_csv(sweep.out / "leaderboard.csv")
    assert set(leaderboard[CANDIDATE]) == {recipe.candidate for recipe in sweep.grid_recipes}
    assert set(pd.read_parquet(sweep.out / "predictions.parquet")[CANDIDATE]) == set(leaderboard[CANDIDATE])
    summary = json.loads((sweep.out / "summary.json").read_text())
    rows = [(row["backbone"], row["k"], row["n"]) for row in summary["first_look"]["looks"]]
    assert rows == [("ResNet50", 3, 3), ("Xception", 3, 3), ("VGG16", 0, 3)]
    assert summary["first_look"]["dropped"] == []
    assert "dropped" not in written.headline
    assert "Nothing was dropped by it." in text_of(sweep.out)
    assert (sweep.out / "figures" / "first_look.svg").exists()
    assert set(written.candidates) == {recipe.candidate for recipe in [*sweep.grid_recipes, *sweep.linear_probes]}


@pytest.mark.parametrize("keep", [1, 2])
def test_a_drop_that_saw_the_folds_of_the_headline_is_said(keep: int, tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "out", {"keep": keep})
    ledger = probed(sweep, {"ResNet50": 0.9, "VGG16": 0.4, "Xception": 0.7})
    kept = sweep.without(read_probes(sweep, ledger).dropped)
    for recipe in kept.grid_recipes:
        for fold in FOLDS:
            ledger.write(trial(recipe, fold, 0.6))
    written = write.write(sweep.out)
    chosen = json.loads((sweep.out / "summary.json").read_text())["chosen_by"]
    names = "VGG16" if keep == 2 else "Xception, VGG16"
    assert f"backbones were dropped by a look at these folds ({names}): optimistic, and nothing corrects" in chosen
    assert chosen in written.headline
    assert ("the one recipe that was left" in chosen) == (keep == 1)
    assert "nothing was chosen" not in chosen
    assert len(pd.read_csv(sweep.out / "leaderboard.csv")) == keep
    assert "The look saw the folds that the headline is judged on." in text_of(sweep.out)
    assert f"dropped and not fine-tuned: {names}." in text_of(sweep.out)


def test_a_search_that_is_confirmed_was_probed_on_its_search_folds_alone(tmp_path: Path) -> None:
    study = {**STUDY, "search_folds": FOLDS[:2], "confirm_folds": FOLDS[2:]}
    sweep = make_sweep(tmp_path / "out", {"keep": 1}, mode="optuna", asha=None, race=None)
    ledger = probed(sweep, {"ResNet50": 0.9, "VGG16": 0.4, "Xception": 0.7}, study)
    recipe = sweep.resource_profiles[0]
    ledger.propose(Proposal(0, recipe, {"backbone": "ResNet50"}))
    for fold in FOLDS:
        ledger.write(trial(recipe, fold, 0.6))
    written = write.write(sweep.out)
    assert (
        "judged on 1 folds that no choice saw; backbones were dropped by a look at the search folds" in written.headline
    )
    assert "optimistic" not in written.headline
    assert "on the search folds alone" in text_of(sweep.out)
    assert "The look saw the folds" not in text_of(sweep.out)
    leaderboard = pd.read_csv(sweep.out / "leaderboard.csv")
    assert list(leaderboard[CANDIDATE]) == [recipe.candidate]
    assert leaderboard["epochs_trained"][0] == 3


def test_recipe_of_the_sweep_that_equals_a_probe_is_ranked_with_its_trials(tmp_path: Path) -> None:
    plain = linear_probe_of(Recipe("ResNet50", "r.h5", 96)).as_dict()
    own = {key: value for key, value in plain.items() if key not in ("backbone", "weights", "image_size")}
    sweep = make_sweep(tmp_path / "out", True, space={"backbone": ["ResNet50"]})
    sweep = sweep.model_copy(update={"recipe": {**sweep.recipe, **own}})
    assert sweep.grid_recipes == sweep.linear_probes
    probed(sweep, {"ResNet50": 0.9})
    assert "3 of 3 treatments right" in write.write(sweep.out).headline


def test_recipe_that_a_search_proposes_and_that_equals_a_probe_has_its_trials_already(tmp_path: Path) -> None:
    plain = linear_probe_of(Recipe("ResNet50", "r.h5", 96)).as_dict()
    own = {key: value for key, value in plain.items() if key not in ("backbone", "weights", "image_size")}
    sweep = make_sweep(tmp_path / "out", True, mode="optuna", asha=None, race=None, candidates=1)
    sweep = sweep.model_copy(update={"recipe": {**sweep.recipe, **own}})
    study = {**STUDY, "search_folds": FOLDS[:2], "confirm_folds": FOLDS[2:]}
    ledger = probed(sweep, {"ResNet50": 0.9, "VGG16": 0.4, "Xception": 0.7}, study)
    opened: Any = SimpleNamespace(sweep=sweep, search_folds=FOLDS[:2], confirm_folds=FOLDS[2:])
    job = _candidates(opened, ledger, cast(Any, None), Console(quiet=True))
    assert job is not None
    assignment = job.plan.ask()
    assert assignment is not None
    assert (assignment.recipe in sweep.linear_probes, assignment.fold) == (True, FOLDS[2])


def test_probe_that_failed_is_listed_with_the_failed_trials(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "out", {"keep": 1})
    probed(sweep, {"ResNet50": 0.9, "VGG16": -1, "Xception": 0.8})
    write.write(sweep.out)
    assert "0 of 3, 3 failed" in text_of(sweep.out)
    assert text_of(sweep.out).count("diverged after 1 attempt") == 3


def test_backbones_of_random_weights_are_named_as_not_probed(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "out")
    sweep = sweep.model_copy(update={"recipe": {"weights": {**WEIGHTS, "VGG16": "random"}, "image_size": 96}})
    probed(sweep, dict.fromkeys(WEIGHTS, 0.9))
    write.write(sweep.out)
    assert "Not looked at, since their weights are random: VGG16." in text_of(sweep.out)
    sweep = make_sweep(tmp_path / "none")
    sweep = sweep.model_copy(update={"recipe": {"weights": "random", "image_size": 96}})
    probed(sweep, {})
    write.write(sweep.out)
    assert "Not looked at, since their weights are random: ResNet50, VGG16, Xception." in text_of(sweep.out)


def test_page_without_a_linear_probe_has_no_section(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "out", probe=False)
    probed(sweep, {})
    write.write(sweep.out)
    assert "First look" not in text_of(sweep.out)
