"""What Optuna proposes, and what it is told."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from moa_ray.config.search import OptunaSettings
from moa_ray.config.search_space import Space
from moa_ray.search.proposer import JOURNAL, Journal, Proposer
from moa_ray.search.standing import Standing
from moa_ray.tracking.results import Proposal

FIXED = {"backbone": "SmallCNN", "weights": "random", "image_size": 32}
SPACE: dict[str, Any] = {
    "optimizer": ["sgd", "adam"],
    "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
    "epochs": {"low": 2, "high": 8, "step": 2},
    "dropout": {"low": 0.1, "high": 0.5, "when": {"optimizer": ["adam"]}},
}


def proposer(space: dict[str, Any] = SPACE, seed: int = 0, **settings: Any) -> Proposer:
    read = Space.read({key: value for key, value in FIXED.items() if key not in space}, space)
    return Proposer(read, OptunaSettings.model_validate({"mode": "optuna", "space": space, **settings}), seed)


def complete(proposal: Proposal, loss: float) -> Standing:
    return Standing(proposal, "complete", (loss, loss), "")


def searched(proposing: Proposer, n: int, seed: int = 0) -> list[Standing]:
    """A search whose loss is the distance of the learning rate from 1e-3, in powers of ten."""
    standings: list[Standing] = []
    while len(standings) < n and (proposal := proposing.propose(standings)) is not None:
        standings.append(complete(proposal, abs(np.log10(proposal.recipe.learning_rate) + 3)))
    return standings


def names(standings: list[Standing]) -> list[str]:
    return [standing.proposal.recipe.candidate for standing in standings]


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
def test_every_proposal_lies_in_the_space_and_is_new(sampler: str) -> None:
    standings = searched(proposer(sampler=sampler), 14)
    assert len(set(names(standings))) == 14
    for standing in standings:
        values, recipe = standing.proposal.values, standing.proposal.recipe
        assert 1e-5 <= values["learning_rate"] <= 1e-1
        assert values["epochs"] in (2, 4, 6, 8)
        assert ("dropout" in values) == (values["optimizer"] == "adam")
        assert (recipe.optimizer, recipe.epochs) == (values["optimizer"], values["epochs"])


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_an_interrupted_search_goes_on_with_the_same_proposals(sampler: str) -> None:
    """A new proposer that sees the same standings proposes the same, whatever was proposed before."""
    space = {"optimizer": ["sgd", "adam"], "epochs": [1, 2, 3, 4], "batch_size": [4, 8, 16]}
    whole = searched(proposer(space, sampler=sampler), 16)
    for cut in (1, 5, 12):
        again = proposer(space, sampler=sampler).propose(whole[:cut])
        assert again == whole[cut].proposal


def test_seeds_differ_and_one_seed_repeats() -> None:
    first, same, other = (names(searched(proposer(seed=seed), 5)) for seed in (1, 1, 2))
    assert first == same
    assert not set(first) & set(other)


def test_known_recipes_come_first_and_what_they_leave_open_is_proposed() -> None:
    first = [{"optimizer": "adam", "learning_rate": 0.001, "epochs": 4, "dropout": 0.2}, {"learning_rate": 0.01}]
    standings = searched(proposer(first=first), 3)
    assert standings[0].proposal.values == first[0]
    assert standings[1].proposal.values["learning_rate"] == 0.01
    assert "optimizer" in standings[1].proposal.values


def test_grid_takes_every_combination_once_and_then_ends() -> None:
    space = {"optimizer": ["sgd", "adam"], "epochs": [1, 2, 3]}
    standings = searched(proposer(space, sampler="grid"), 100)
    assert len(standings) == 6
    assert len(set(names(standings))) == 6


def test_a_small_space_ends_with_every_sampler() -> None:
    assert len(searched(proposer({"epochs": [1, 2]}, sampler="tpe"), 10)) == 2


def test_tpe_comes_closer_than_random() -> None:
    """Over several seeds, by the mean of the last ten of thirty proposals."""
    space = {"learning_rate": SPACE["learning_rate"]}
    late = {
        sampler: np.mean(
            [s.losses[0] for seed in range(4) for s in searched(proposer(space, seed, sampler=sampler), 30)[20:]]
        )
        for sampler in ("tpe", "random")
    }
    assert late["tpe"] < 0.8 * late["random"]


def test_optuna_is_told_the_truth() -> None:
    proposing = proposer()
    proposal = proposing.propose([])
    assert proposal is not None
    standings = [
        Standing(proposal, "complete", (1.0, 3.0), ""),
        Standing(proposal, "stopped", (2.0, 4.0, 9.0), "number 5 of 6"),
        Standing(proposal, "failed", (), "diverged"),
        Standing(proposal, "running", (2.0,), ""),
        Standing(proposal, "waiting", (2.0,), ""),
    ]
    trials = proposing.study(standings).trials
    states = [trial.state for trial in trials]
    assert states == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.RUNNING,
        TrialState.PRUNED,
    ]
    assert trials[0].value == 2.0
    assert trials[1].intermediate_values == {1: 2.0, 2: 3.0, 3: 5.0}
    assert trials[1].user_attrs["why"] == "number 5 of 6"


def test_accuracy_is_maximised() -> None:
    proposing = proposer(objective="treatment_accuracy")
    proposal = proposing.propose([])
    assert proposal is not None
    study = proposing.study([Standing(proposal, "complete", (0.25, 0.75), "")])
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert study.trials[0].intermediate_values == {1: -0.25, 2: -0.5}


def test_journal_opens_in_optuna_and_shows_every_candidate_once(tmp_path: Path) -> None:
    proposing = proposer()
    journal = Journal(tmp_path, "a study", proposing)
    first = proposing.propose([])
    assert first is not None
    second = proposing.propose([Standing(first, "running", (), "")])
    assert second is not None
    for losses, state in [((), "running"), ((1.0,), "running"), ((1.0, 2.0), "waiting"), ((1.0, 2.0), "stopped")]:
        standings = [Standing(first, state, losses, "")]  # type: ignore[arg-type]
        journal.update(standings)
    journal.update([*standings, Standing(second, "complete", (0.5,), "")])
    journal.update([*standings, Standing(second, "complete", (0.5,), "")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / JOURNAL))
        study = optuna.load_study(study_name="a study", storage=optuna.storages.JournalStorage(backend))
    assert [trial.state for trial in study.trials] == [TrialState.PRUNED, TrialState.COMPLETE]
    assert study.trials[0].intermediate_values == {1: 1.0, 2: 1.5}
    assert study.best_trial.user_attrs["candidate"] == second.recipe.candidate


def test_a_new_start_writes_the_journal_anew(tmp_path: Path) -> None:
    standings = searched(proposer(), 3)
    for _ in range(2):
        Journal(tmp_path, "s", proposer()).update(standings)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / JOURNAL))
    assert len(optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(backend)).trials) == 3


def test_choices_that_are_no_plain_values_are_found_again() -> None:
    calm = {"orientations": True, "channel_jitter": [], "blur": 0, "noise": 0}
    standings = searched(proposer({"augment": [calm, {}]}), 2)
    assert {standing.proposal.recipe.augment.blur for standing in standings} == {0.0, 0.5}
    assert len(proposer({"augment": [calm, {}]}).study(standings).trials) == 2
