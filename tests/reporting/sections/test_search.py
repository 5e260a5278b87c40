"""A search is judged on folds that it did not see; Optuna's figures need enough candidates."""

import optuna
import pytest

from moa_ray.reporting import page
from moa_ray.reporting.sections.search import Search, hyperparameters
from reporting.evidence_factory import searched, visible


@pytest.mark.usefixtures("undrawn")
def test_a_search_is_judged_on_the_folds_that_it_did_not_see() -> None:
    text = visible(page.render(searched()))
    assert "2 of 2 treatments right" in text
    assert "Over all folds 3 of 4, 75.0 % (95 % Wilson interval 34.0 % to" in text
    assert "): includes the folds used for choosing, optimistic" in text
    assert "the majority class: 1 of 2" in text
    assert "25 % of the epochs" in text
    assert set(page.draw(page.sections_of(searched()))) >= {"race", "leaderboard"}


def test_numbers_of_a_search_are_its_winner_s_over_all_folds() -> None:
    section = Search.of(searched())
    assert section is not None
    assert section.summary()["epochs_saved"] == 0.25
    assert section.summary()["over_all_folds"]["k"] == 3


def candidates(n: int) -> optuna.Study:
    """Candidates that differ in two hyperparameters and in their objective."""
    study = optuna.create_study()
    space = {"learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True)}
    space["dropout"] = optuna.distributions.FloatDistribution(0, 0.5)
    for number in range(n):
        params = {"learning_rate": 10.0 ** -(1 + number % 4), "dropout": number / 20}
        study.add_trial(optuna.create_trial(params=params, distributions=space, value=(number - 3) ** 2))
    return study


def test_figures_are_drawn_from_enough_candidates() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    assert hyperparameters(candidates(3)) == {}
    assert set(hyperparameters(candidates(8))) == {
        "optuna_importance",
        "optuna_slice",
        "optuna_parallel_coordinate",
    }
