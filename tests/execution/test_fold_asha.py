"""ASHA within a fold: Ray's own, on each fold alone."""

from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from moa_ray.config.search import AshaSettings
from moa_ray.execution.fold_asha import FoldAsha

EPOCHS = 9


def trial(name: str, fold: str, stoppable: bool = True) -> Trial:
    return Trial("a", stub=True, trial_id=name, config={"fold": fold, "stoppable": stoppable})


def result(epoch: int, loss: float) -> dict[str, Any]:
    return {"epoch/epoch": epoch, "epoch/validation_loss": loss}


def run(scheduler: Any, trials: list[Trial], losses: np.ndarray, order: np.ndarray) -> dict[str, int]:
    """Epochs that each trial gets when results come in some order."""
    done = {each.trial_id: 0 for each in trials}
    over = set()
    for number in order:
        current = trials[number]
        if current.trial_id in over:
            continue
        if not done[current.trial_id]:
            scheduler.on_trial_add(None, current)
        done[current.trial_id] += 1
        told = result(done[current.trial_id], losses[number, done[current.trial_id] - 1])
        if done[current.trial_id] == EPOCHS or scheduler.on_trial_result(None, current, told) == TrialScheduler.STOP:
            scheduler.on_trial_complete(None, current, told)
            over.add(current.trial_id)
    return done


def shuffled(seed: int) -> tuple[list[Trial], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    trials = [trial(f"t{number}", "abc"[number % 3]) for number in range(18)]
    losses = rng.normal(1, 0.3, (18, EPOCHS)) + np.array([0, 5, 10])[np.arange(18) % 3][:, None]
    return trials, losses, rng.permutation(np.repeat(np.arange(18), EPOCHS))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), grace=st.integers(1, 4), factor=st.sampled_from([2, 3, 4]))
def test_it_is_rays_own_asha_on_each_fold_run_alone(seed: int, grace: int, factor: int) -> None:
    trials, losses, order = shuffled(seed)
    together = run(FoldAsha(AshaSettings(grace_epochs=grace, reduction_factor=factor)), trials, losses, order)
    alone: dict[str, int] = {}
    for fold in "abc":
        rays = AsyncHyperBandScheduler(
            "epoch/epoch", "epoch/validation_loss", "min", grace_period=grace, reduction_factor=factor, max_t=EPOCHS
        )
        of_fold = [number for number in order if trials[number].config["fold"] == fold]
        done = run(rays, trials, losses, np.array(of_fold))
        alone |= {name: epochs for name, epochs in done.items() if epochs}
    assert together == alone
    assert any(epochs < EPOCHS for epochs in together.values())


def test_an_easy_fold_stops_nobody_on_a_hard_one() -> None:
    """The best candidate of a hard fold runs on, though everyone of the easy fold is far better."""
    scheduler = FoldAsha(AshaSettings(grace_epochs=1, reduction_factor=2))
    for number in range(6):
        easy = trial(f"easy{number}", "easy")
        scheduler.on_trial_add(None, easy)
        scheduler.on_trial_result(None, easy, result(1, 0.1 + 0.01 * number))
    for number, expected in enumerate([TrialScheduler.CONTINUE, TrialScheduler.STOP, TrialScheduler.CONTINUE]):
        hard = trial(f"hard{number}", "hard")
        scheduler.on_trial_add(None, hard)
        assert scheduler.on_trial_result(None, hard, result(1, [5.0, 6.0, 4.0][number])) == expected


def test_a_trial_that_the_race_protects_is_never_stopped_and_stops_nobody() -> None:
    scheduler = FoldAsha(AshaSettings(grace_epochs=1, reduction_factor=2))
    for number in range(5):
        protected = trial(f"p{number}", "f", stoppable=False)
        scheduler.on_trial_add(None, protected)
        assert scheduler.on_trial_result(None, protected, result(1, float(number))) == TrialScheduler.CONTINUE
        scheduler.on_trial_complete(None, protected, result(2, float(number)))
    first = trial("first", "f")
    scheduler.on_trial_add(None, first)
    assert scheduler.on_trial_result(None, first, result(1, 99.0)) == TrialScheduler.CONTINUE


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), cut=st.integers(1, 17))
def test_a_restart_decides_as_if_there_had_been_none(seed: int, cut: int) -> None:
    """One trial after the other, as with one slot; the first `cut` of them come from the ledger."""
    trials, losses, _ = shuffled(seed)
    order = np.repeat(np.arange(18), EPOCHS)
    whole = run(FoldAsha(AshaSettings()), trials, losses, order)
    ledger = [
        (
            trials[number].trial_id,
            trials[number].config["fold"],
            pd.DataFrame({"epoch": range(1, epochs + 1), "validation_loss": losses[number, :epochs]}),
            epochs == EPOCHS,
        )
        for number, epochs in enumerate(list(whole.values())[:cut])
    ]
    again = FoldAsha(AshaSettings())
    again.replay(ledger)
    after = run(again, trials, losses, order[cut * EPOCHS :])
    assert {name: epochs for name, epochs in after.items() if epochs} == {
        later.trial_id: whole[later.trial_id] for later in trials[cut:]
    }
