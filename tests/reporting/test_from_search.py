"""A search is reported in the race's order, and judged on folds that no choice saw."""

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from moa_ray.common.schema import CANDIDATE
from moa_ray.reporting.write import write
from reporting.ledgers import ended, searched, trial_of

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.mark.parametrize("confirm", [True, False])
def test_a_search_is_reported_on_the_folds_that_no_choice_saw(tmp_path: Path, confirm: bool) -> None:
    folds = [f"compound={name}" for name in ("a1", "b1", "a2", "b2")]
    sweep, ledger = searched(tmp_path, folds[:2] if confirm else folds, folds[2:] if confirm else [])
    for compound in ("a1", "b1", "a2", "b2"):
        ended(ledger, 0, compound, right=compound != "b2")
    ended(ledger, 1, "a1", right=True)
    ended(ledger, 1, "b1", right=False)
    ended(ledger, 2, "a1", right=True, status="stopped")
    written = write(sweep.out)
    board = pd.read_csv(sweep.out / "leaderboard.csv")
    assert list(board["proposed"]) == [0, 1, 2]
    assert board["stopped_why"][2].startswith("stopped by ASHA on compound=a1")
    assert board["folds_stopped"][2] == 1
    summary = json.loads((sweep.out / "summary.json").read_text())
    if confirm:
        assert "1 of 2 treatments right" in written.headline
        assert "judged on 2 folds that no choice saw" in written.headline
        assert (summary["over_all_folds"]["k"], summary["over_all_folds"]["n"]) == (3, 4)
        assert board["confirm_k"][0] == 1
    else:
        assert "3 of 4 treatments right" in written.headline
        assert "the only one of 3 recipes that finished all folds" in written.headline
        assert summary["over_all_folds"] is None
    # The headline and its calibration are of the same folds; the leaderboard compares on the search folds.
    assert summary["best"]["compounds"] == summary["calibration"]["before"]["n"] == (2 if confirm else 4)
    assert board["compared"].tolist() == ([2, 2, 0] if confirm else [4, 2, 0])
    assert board["against_best"].fillna("").tolist() == ["best", "not distinguishable", ""]
    assert summary["not_distinguishable"] == [board[CANDIDATE][1]]
    spent = (4 + 4 + 1) if confirm else (8 + 4 + 1)
    assert summary["epochs_saved"] == pytest.approx(1 - spent / (3 * 10 * len(ledger.study()["search_folds"])))
    assert (sweep.out / "figures" / "race.svg").exists()


def test_a_search_where_nothing_finished_still_reports(tmp_path: Path) -> None:
    sweep, ledger = searched(tmp_path, ["compound=a1"], ["compound=b1"])
    ended(ledger, 0, "a1", right=True, status="diverged")
    written = write(sweep.out)
    assert not written.finished
    assert "No prediction" in written.headline


def test_a_search_is_laid_beside_on_the_folds_that_no_choice_saw(tmp_path: Path) -> None:
    folds = [f"compound={name}" for name in ("a1", "b1", "a2", "b2")]
    sweep, ledger = searched(tmp_path, folds[:2], folds[2:])
    for compound in ("a1", "b1", "a2", "b2"):
        ended(ledger, 0, compound, right=True)
    ended(ledger, 1, "a1", right=False)
    write(sweep.out, "kensert2019")
    (beside,) = json.loads((sweep.out / "summary.json").read_text())["beside_reference"]
    assert beside["only_here"] == 2


def test_winner_of_a_search_is_judged_as_an_ensemble_and_chosen_by_its_first_member(tmp_path: Path) -> None:
    folds = [f"compound={name}" for name in ("a1", "b1", "a2", "b2")]
    sweep, ledger = searched(tmp_path, folds[:2], folds[2:], seeds=[4, 9])
    for compound in ("a1", "b1", "a2", "b2"):
        ended(ledger, 0, compound, right=True)
        ledger.write(trial_of(dataclasses.replace(ledger.proposals()[0].recipe, seed=9), compound, "Alpha"))
    ended(ledger, 1, "a1", right=True)
    ended(ledger, 1, "b1", right=False)
    written = write(sweep.out)
    assert "; seeds 4, 9: 1 to 2 of 2)" in written.headline
    assert "judged on 2 folds that no choice saw" in written.headline
    board = pd.read_csv(sweep.out / "leaderboard.csv", dtype={"seeds": str})
    assert list(board["seeds"][:2]) == ["4, 9", "4"]
    assert list(board["epochs_trained"]) == [16, 4, 0]
    summary = json.loads((sweep.out / "summary.json").read_text())
    assert summary["over_all_folds"]["seeds"] == "4, 9"
    assert summary["epochs_saved"] == pytest.approx(1 - (4 + 4) / (3 * 10 * 2))  # of the race alone
