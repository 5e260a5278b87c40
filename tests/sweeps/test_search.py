"""Whole searches: what they leave, and that a kill changes nothing."""

import json
import warnings
from pathlib import Path

import factories
import optuna
import pandas as pd
import pytest
from commands import QUICK, killed, predictions, results, run_here, times

from moa_ray.common.schema import CANDIDATE, TILE_KEY
from moa_ray.search.proposer import JOURNAL

pytestmark = pytest.mark.usefixtures("one_ray", "untracked", "quick_trials")


@pytest.fixture(scope="module")
def search_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labels, three compounds each: 2 search folds, 4 to confirm; four recipes, the first of which diverges."""
    folder = tmp_path_factory.mktemp("search")
    screen = {"name": "synthetic", "root": str(folder / "painted"), "painting": factories.painting(compounds=3)}
    search = {
        "mode": "optuna",
        "candidates": 4,
        "sampler": "grid",
        "confirm": 1,
        "first": [{"learning_rate": 1.0e30}],
        "space": {"learning_rate": [1.0e30, 0.1, 0.01, 0.001]},
        "asha": {"grace_epochs": 1, "reduction_factor": 2},
        "race": {"first_folds": 1, "reduction_factor": 2, "keep": 2},
    }
    recipe = factories.recipe(epochs=3)
    sections = {"screen": screen, "recipe": recipe, "search": search, "resources": {"concurrent": 1}}
    return factories.sweep_file(folder, study="tiny search", **sections)


def ends(out: Path) -> dict[tuple[str, str], tuple[str, int]]:
    return {(trial["candidate"], trial["fold"]): (trial["status"], trial["epochs"]) for trial in results(out)}


@pytest.fixture(scope="module")
def undisturbed(search_file: Path) -> Path:
    """OUT of a search that nothing disturbed."""
    run_here(search_file)
    return search_file.parent / "out"


def test_the_winner_is_judged_on_folds_that_no_choice_saw(undisturbed: Path) -> None:
    summary = json.loads((undisturbed / "summary.json").read_text())
    study = json.loads((undisturbed / "ledger/study.json").read_text())
    assert (len(study["search_folds"]), len(study["confirm_folds"])) == (2, 4)
    best = summary["best"]
    assert (best["n"], best["complete"]) == (4, True)
    assert "judged on 4 folds that no choice saw" in summary["headline"]
    assert summary["over_all_folds"]["n"] == 6
    assert 0 < summary["epochs_saved"] < 1
    ran = {fold for candidate, fold in ends(undisturbed) if candidate == best["candidate"]}
    assert ran == {*study["search_folds"], *study["confirm_folds"]}


def test_each_end_is_told_apart(undisturbed: Path) -> None:
    leaderboard = pd.read_csv(undisturbed / "leaderboard.csv").set_index("proposed")
    assert leaderboard.loc[0, "state"] == "failed"
    assert leaderboard.loc[0, "stopped_why"].startswith("diverged on compound=")
    assert set(leaderboard["state"]) <= {"failed", "stopped", "complete"}
    stopped = leaderboard[leaderboard["state"] == "stopped"]
    assert stopped["stopped_why"].str.len().min() > 0
    statuses = {trial["status"] for trial in results(undisturbed)}
    assert {"finished", "diverged"} <= statuses <= {"finished", "diverged", "stopped"}


def test_journal_opens_and_holds_the_candidates(undisturbed: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backend = optuna.storages.journal.JournalFileBackend(str(undisturbed / JOURNAL))
        study = optuna.load_study(study_name="tiny search", storage=optuna.storages.JournalStorage(backend))
    assert len(study.trials) == 4
    assert study.trials[0].state == optuna.trial.TrialState.FAIL
    assert study.best_trial.user_attrs["candidate"] in set(pd.read_csv(undisturbed / "leaderboard.csv")["candidate"])


def test_finished_search_run_again_trains_nothing(undisturbed: Path, search_file: Path) -> None:
    before = times(undisturbed)
    run_here(search_file)
    assert times(undisturbed) == before


def test_killed_search_ends_as_an_undisturbed_one(search_file: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    killed(search_file, out, 4, program=QUICK)
    kept = times(out)
    run_here(search_file, f"out={out}")
    assert kept.items() <= times(out).items()
    assert ends(out) == ends(undisturbed)
    pd.testing.assert_frame_equal(predictions(out), predictions(undisturbed))


def test_search_goes_on_for_more_candidates(search_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "longer"
    run_here(search_file, f"out={out}", "search.candidates=2")
    first = set(ends(out))
    run_here(search_file, f"out={out}", "search.candidates=4")
    assert first <= set(ends(out))
    assert len(pd.read_csv(out / "leaderboard.csv")) == 4


def test_whatever_the_number_of_slots_a_trial_yields_the_same(
    search_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "two"
    # Which candidates ASHA lets live depends on who ends first; without it every one has its first folds.
    run_here(search_file, f"out={out}", "resources.concurrent=2", "search.asha=null", "validation.share=0.15")
    with_two, with_one = predictions(out), predictions(undisturbed)
    both = with_two.merge(with_one, on=[CANDIDATE, *TILE_KEY], suffixes=("", "_one"))
    assert len(both) > 0
    for name in (column for column in with_two.columns if column.startswith("prob_")):
        pd.testing.assert_series_equal(both[name], both[f"{name}_one"], check_names=False)
