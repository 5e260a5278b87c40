"""Whole searches by the command line: what they leave, and that a kill changes nothing."""

import json
import warnings
from pathlib import Path

import optuna
import pandas as pd
import pytest
import yaml
from commands import killed, predictions, results, run, times

from moa_ray.proposals import JOURNAL
from moa_ray.tables import CANDIDATE, TILE_KEY

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def search_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labels, three compounds each: 2 search folds, 4 to confirm; four recipes, the first of which diverges."""
    folder = tmp_path_factory.mktemp("search")
    painting = {"labels": 2, "compounds": 3, "concentrations": 1, "replicates": 2, "height": 96, "width": 96}
    plain = {
        "study": "tiny search",
        "seed": 3,
        "out": str(folder / "out"),
        "tiles": str(folder / "tiles"),
        "screen": {"name": "synthetic", "root": str(folder / "painted"), "painting": painting},
        "recipe": {"backbone": "SmallCNN", "weights": "random", "image_size": 32, "epochs": 3, "batch_size": 8},
        "search": {
            "mode": "optuna",
            "candidates": 4,
            "sampler": "grid",
            "confirm": 1,
            "first": [{"learning_rate": 1.0e30}],
            "space": {"learning_rate": [1.0e30, 0.1, 0.01, 0.001]},
            "asha": {"grace_epochs": 1, "reduction_factor": 2},
            "race": {"first_folds": 1, "reduction_factor": 2, "keep": 2},
        },
        "resources": {"concurrent": 1},
    }
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


def ends(out: Path) -> dict[tuple[str, str], tuple[str, int]]:
    return {(one["candidate"], one["fold"]): (one["status"], one["epochs"]) for one in results(out)}


@pytest.fixture(scope="module")
def undisturbed(search_file: Path) -> Path:
    """OUT of a search that nothing disturbed."""
    run(search_file)
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
    board = pd.read_csv(undisturbed / "leaderboard.csv").set_index("proposed")
    assert board.loc[0, "state"] == "failed"
    assert board.loc[0, "stopped_why"].startswith("diverged on compound=")
    assert set(board["state"]) <= {"failed", "stopped", "complete"}
    stopped = board[board["state"] == "stopped"]
    assert stopped["stopped_why"].str.len().min() > 0
    statuses = {one["status"] for one in results(undisturbed)}
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
    run(search_file)
    assert times(undisturbed) == before


def test_killed_search_ends_as_an_undisturbed_one(search_file: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    killed(search_file, out, 4)
    kept = times(out)
    run(search_file, f"out={out}")
    assert kept.items() <= times(out).items()
    assert ends(out) == ends(undisturbed)
    pd.testing.assert_frame_equal(predictions(out), predictions(undisturbed))


def test_search_goes_on_for_more_candidates(search_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "longer"
    run(search_file, f"out={out}", "search.candidates=2")
    first = set(ends(out))
    run(search_file, f"out={out}", "search.candidates=4")
    assert first <= set(ends(out))
    assert len(pd.read_csv(out / "leaderboard.csv")) == 4


def test_whatever_the_number_of_slots_a_trial_yields_the_same(
    search_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "two"
    # Which candidates ASHA lets live depends on who ends first; without it every one has its first folds.
    run(search_file, f"out={out}", "resources.concurrent=2", "search.asha=null", "validation.share=0.15")
    mine, theirs = predictions(out), predictions(undisturbed)
    key = [CANDIDATE, *TILE_KEY]
    both = mine.merge(theirs, on=key, suffixes=("", "_theirs"))
    assert len(both) > 0
    for name in (column for column in mine.columns if column.startswith("prob_")):
        pd.testing.assert_series_equal(both[name], both[f"{name}_theirs"], check_names=False)
