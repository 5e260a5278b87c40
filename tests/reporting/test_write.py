"""The report is a view of the ledger: made from it alone, again and again."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from commands import draw_nothing

from moa_ray import report
from moa_ray.common.schema import CANDIDATE, COMPOUND, CONCENTRATION, FOLD, LABEL, PLATE
from moa_ray.config.sweep_file import Sweep
from moa_ray.reporting.write import Written, write
from moa_ray.tracking.results import Result
from reporting.evidence_factory import words_of
from reporting.ledgers import COMPOUNDS, finished, grid

SCORED = [
    {COMPOUND: name, CONCENTRATION: 1.0, LABEL: label, FOLD: f"compound={name}", "reason": ""}
    for name, label in COMPOUNDS.items()
]
undrawn = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sweep, Written]]:
    """A finished grid with its report: the first candidate has all treatments right, the second takes all for Alpha."""
    sweep, ledger = grid(tmp_path_factory.mktemp("grid"))
    for compound, label in COMPOUNDS.items():
        ledger.write(finished(sweep, 0, compound, label))
        ledger.write(finished(sweep, 1, compound, "Alpha"))
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        yield sweep, write(sweep.out)


def summary_of(sweep: Sweep) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((sweep.out / "summary.json").read_text())
    return summary


def test_headline_and_leaderboard_count_treatments(reported: tuple[Sweep, Written]) -> None:
    sweep, written = reported
    assert written.finished
    assert "4 of 4 treatments right" in written.headline
    leaderboard = pd.read_csv(sweep.out / "leaderboard.csv")
    assert leaderboard[["k", "n"]].to_numpy().tolist() == [[4, 4], [2, 4]]
    summary = summary_of(sweep)
    assert summary["best"]["k"] == 4
    assert summary["trials"] == {"finished": 8}
    assert len(pd.read_parquet(sweep.out / "predictions.parquet")) == 8 * 3
    assert len(pd.read_parquet(sweep.out / "treatments.parquet")) == 8


def test_grid_of_several_recipes_is_corrected_for_choosing(reported: tuple[Sweep, Written]) -> None:
    sweep, written = reported
    assert "optimistic, corrected by BBC-CV" in written.headline
    assert 0.5 <= summary_of(sweep)["corrected"]["accuracy"] <= 1
    page = words_of(sweep.out)
    assert "<h2>Calibration</h2>" in page
    assert "95 % bootstrap over 4 compounds" in page


def test_page_needs_no_network_and_escapes_names(reported: tuple[Sweep, Written]) -> None:
    page = words_of(reported[0].out)
    assert "Beta & <co>" not in page
    assert "Beta &amp; &lt;co&gt;" in page
    assert "<script" not in page
    assert 'src="http' not in page
    for words in ("2 plates have no control wells", "no training field left", "painted"):
        assert words in page


def test_figures_of_single_candidates_are_drawn_when_asked_for(reported: tuple[Sweep, Written]) -> None:
    sweep, written = reported
    assert not list((sweep.out / "figures").glob("accuracy_over_epochs-*"))
    assert list(written.candidates) == [recipe.candidate for recipe in sweep.grid_recipes]
    for candidate, make in written.candidates.items():
        numbers, predictions, files = make()
        assert numbers["n"] == 4
        assert set(predictions[CANDIDATE]) == {candidate}
        assert [path.name for path in files] == [f"confusion-{candidate}.png", f"accuracy_over_epochs-{candidate}.png"]
        assert all(path.exists() for path in files)


@undrawn
def test_candidate_without_all_folds_never_leads(tmp_path: Path) -> None:
    sweep, ledger = grid(tmp_path)
    for compound in COMPOUNDS:
        ledger.write(finished(sweep, 1, compound, "Alpha"))
    ledger.write(finished(sweep, 0, "a1", "Alpha"))
    written = write(sweep.out)
    assert sweep.grid_recipes[1].candidate in written.headline
    assert "2 of 4 treatments right" in written.headline


@undrawn
def test_failed_trials_stand_in_the_report_with_their_error(tmp_path: Path) -> None:
    sweep, ledger = grid(tmp_path)
    recipe = sweep.grid_recipes[0]
    ledger.write(Result(recipe.candidate, "compound=a1", "diverged", recipe.as_dict(), error="the loss became NaN"))
    written = write(sweep.out)
    assert not written.finished
    assert "the loss became NaN" in (sweep.out / "report.html").read_text()
    assert summary_of(sweep)["best"] is None


@undrawn
@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("crashed", "1 trials of ranked candidates did not settle (1 crashed)"),
        ("diverged", "the headline's candidate finished 3 of 4 folds"),
        (None, "1 trials of ranked candidates did not settle (1 not run)"),
    ],
)
def test_a_number_is_final_when_every_ranked_trial_has_settled(tmp_path: Path, status: Any, words: str) -> None:
    sweep, ledger = grid(tmp_path)
    for candidate in (0, 1):
        for compound, label in COMPOUNDS.items():
            ledger.write(finished(sweep, candidate, compound, label))
    assert write(sweep.out).unfinished == ""
    for candidate in (0, 1) if status == "diverged" else (1,):
        recipe = sweep.grid_recipes[candidate]
        trial = Result(recipe.candidate, "compound=b2", status or "crashed", recipe.as_dict(), error="why")
        ledger.write(trial)
        if status is None:
            shutil.rmtree(ledger.folder(*trial.key))
    assert write(sweep.out).unfinished == words


@undrawn
def test_lost_predictions_do_not_raise_the_headline_and_are_named(tmp_path: Path) -> None:
    sweep, ledger = grid(tmp_path, candidates=1, scored=SCORED)
    for compound, label in COMPOUNDS.items():
        ledger.write(finished(sweep, 0, compound, label if compound != "b2" else "Alpha"))
    assert "3 of 4 treatments right" in write(sweep.out).headline
    (ledger.folder(sweep.grid_recipes[0].candidate, "compound=b2") / "predictions.parquet").unlink()
    written = write(sweep.out)
    assert "UNFINISHED (3 of 4 folds): 3 of 4 treatments right" in written.headline
    assert not written.finished
    assert "1 of these not predicted (its fold did not finish), so not right" in written.headline
    assert "predictions.parquet is missing" in words_of(sweep.out)


@undrawn
def test_a_treatment_without_a_tile_counts_as_not_right_and_is_named(tmp_path: Path) -> None:
    dead = {**dict(zip(SCORED[0], ("toxic <1>", 9.0, "Alpha", "compound=a1"), strict=False)), "reason": "no cells"}
    counts = {PLATE: "P1", COMPOUND: "toxic <1>", "fields": 4, "dropped_fields": 4, "wells": 2, "dropped_wells": 2}
    told = {"scored": [*SCORED, dead], "dropped": [{**counts, "tiles": 16, "dropped_tiles": 16}]}
    left_out = [{"reason": "no label", PLATE: "P1", COMPOUND: "", "rows": 358}]
    sweep, ledger = grid(tmp_path, left_out=left_out, **told)
    for compound, label in COMPOUNDS.items():
        ledger.write(finished(sweep, 0, compound, label))
        ledger.write(finished(sweep, 1, compound, "Alpha"))
    written = write(sweep.out)
    assert written.finished
    assert "4 of 5 treatments right, 80.0 %" in written.headline
    assert "1 of these not predicted (no cells), so not right" in written.headline
    assert "always saying 'Alpha', the majority class: 3 of 5" in written.headline
    summary = summary_of(sweep)
    (missing,) = summary["treatments_not_predicted"]
    assert (missing[COMPOUND], missing["reason"]) == ("toxic <1>", "no cells")
    assert summary["dropped"]["dropped_fields"] == 4
    assert summary["dropped"]["by_plate_and_compound"][0][COMPOUND] == "toxic <1>"
    assert summary["rows_left_out"] == left_out
    leaderboard = pd.read_csv(sweep.out / "leaderboard.csv")
    assert leaderboard[["k", "n", "compared"]].to_numpy().tolist() == [[4, 5, 5], [2, 5, 5]]
    treatments = pd.read_parquet(sweep.out / "treatments.parquet")
    assert len(treatments) == 2 * 5
    assert int((treatments["predicted"] == treatments[LABEL]).sum()) == 6
    page = words_of(sweep.out)
    for words in (
        "Not predicted, so not right",
        "16 of 16 tiles were dropped",
        "358 rows: no label",
        "toxic &lt;1&gt;",
    ):
        assert words in page


@undrawn
def test_wells_are_counted_where_the_sweep_file_says_so(tmp_path: Path) -> None:
    sweep, ledger = grid(tmp_path, unit="well")
    for compound, label in COMPOUNDS.items():
        ledger.write(finished(sweep, 0, compound, label))
        ledger.write(finished(sweep, 1, compound, "Alpha"))
    written = write(sweep.out)
    assert "8 of 8 wells right" in written.headline
    assert "95 % bootstrap over 4 compounds" in written.headline
    assert "always saying 'Alpha', the majority class: 4 of 8" in written.headline
    leaderboard = pd.read_csv(sweep.out / "leaderboard.csv")
    assert leaderboard[["k", "n", "compared"]].to_numpy().tolist() == [[8, 8, 8], [4, 8, 8]]
    assert len(pd.read_parquet(sweep.out / "treatments.parquet")) == 2 * 8
    assert "unit" not in pd.read_parquet(sweep.out / "predictions.parquet")
    page = words_of(sweep.out)
    assert "Wells that went wrong" in page
    assert "wells right" in page


def test_drawing_again_gives_the_same_files(tmp_path: Path) -> None:
    sweep, ledger = grid(tmp_path)
    for compound in COMPOUNDS:
        ledger.write(finished(sweep, 0, compound, "Alpha"))
    write(sweep.out)
    names = [
        path for path in sweep.out.rglob("*") if path.is_file() and path.suffix in (".csv", ".json", ".svg", ".html")
    ]
    before = {path: path.read_bytes() for path in names}
    assert report.main([str(sweep.out)]) == 0
    assert {path: path.read_bytes() for path in names} == before


@undrawn
def test_folder_without_a_sweep_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path)]) == 2
    assert f"{tmp_path}: no sweep was run here" in capsys.readouterr().err


@undrawn
def test_treatments_of_folds_left_out_are_counted_and_named(tmp_path: Path) -> None:
    sweep, ledger = grid(tmp_path)
    for compound, label in COMPOUNDS.items():
        ledger.write(finished(sweep, 0, compound, label))
    reason = "no training field is left for label 'Gamma'"
    lost = [{COMPOUND: "x", CONCENTRATION: 0.3, LABEL: "Gamma", FOLD: "compound=x", "reason": reason}]
    ledger.open(sweep, {**ledger.study(), "treatments": 5, "unscored": lost})
    written = write(sweep.out)
    assert "4 of 5 treatments can be scored" in written.headline
    html = (sweep.out / "report.html").read_text()
    assert "4 of 5 treatments can be scored" in html
    assert "no training field is left for label &#39;Gamma&#39;" in html
    summary = summary_of(sweep)
    assert (summary["treatments"], summary["treatments_not_scored"]) == (5, lost)


@undrawn
@pytest.mark.parametrize("asked", ["in the sweep file", "by the command"])
def test_a_sweep_is_laid_beside_published_results_where_that_is_asked_for(tmp_path: Path, asked: str) -> None:
    sweep, ledger = grid(tmp_path)
    for compound, label in COMPOUNDS.items():
        ledger.write(finished(sweep, 0, compound, label))
        ledger.write(finished(sweep, 1, compound, "Alpha"))
    assert report.main([str(sweep.out)]) == 0
    assert not (sweep.out / "reference.csv").exists()
    if asked == "in the sweep file":
        ledger.open(sweep.model_copy(update={"reference": "kensert2019"}), ledger.study())
        assert report.main([str(sweep.out)]) == 0
    else:
        assert report.main([str(sweep.out), "--reference", "kensert2019"]) == 0
    summary = summary_of(sweep)
    (beside,) = summary["beside_reference"]  # the best candidate of the one backbone
    assert (beside["candidate"], beside["published"], beside["only_here"]) == (sweep.grid_recipes[0].candidate, None, 4)
    assert "Side by side: Kensert et al. 2019" in (sweep.out / "report.html").read_text()
    assert (sweep.out / "reference.csv").exists()


@undrawn
def test_ensemble_is_one_candidate_with_its_members_spread_on_every_number(tmp_path: Path) -> None:
    """One member takes all for Alpha; the average is as sure of the true label as the two that know it."""
    sweep, ledger = grid(tmp_path)
    seeded = sweep.model_copy(update={"seeds": (1, 2, 3)})
    ledger.open(seeded, ledger.study())
    for number in range(6):
        for compound, label in COMPOUNDS.items():
            ledger.write(finished(seeded, number, compound, "Alpha" if number in (1, 3, 4, 5) else label))
    written = write(sweep.out)
    names = [seeded.grid_recipes[number].ensemble.candidate for number in (0, 3)]
    leaderboard = pd.read_csv(sweep.out / "leaderboard.csv")
    assert list(leaderboard[CANDIDATE]) == names
    assert leaderboard[["k", "n", "epochs_trained", "seconds"]].to_numpy().tolist() == [[4, 4, 24, 24], [2, 4, 24, 24]]
    assert leaderboard[["seeds", "seed_accuracy_low", "seed_accuracy_high"]].to_numpy().tolist() == [
        ["1, 2, 3", 0.5, 1.0],
        ["1, 2, 3", 0.5, 0.5],
    ]
    assert "; seeds 1, 2, 3: 2 to 4 of 4)" in written.headline
    html = (sweep.out / "report.html").read_text()
    assert "seeds 1, 2, 3: 2 to 4 of 4" in html
    assert "1, 2, 3: 50.0 % to 100.0 %" in html
    best = summary_of(sweep)["best"]
    assert (best["seeds"], best["seed_accuracy_low"], best["seed_accuracy_high"]) == ("1, 2, 3", 0.5, 1.0)
    drawn = pd.read_parquet(sweep.out / "treatment_samples.parquet")
    assert set(drawn["method"]) == {"ensemble"}
    own = drawn[drawn[CANDIDATE] == names[0]]
    assert own.groupby("sample")["predicted"].apply(lambda labels: (labels == "Alpha").sum()).to_dict() == {
        1: 2,
        2: 4,
        3: 2,
    }
    parts = {name: make() for name, make in written.candidates.items()}
    assert parts.keys() == {*names, *(recipe.candidate for recipe in seeded.grid_recipes)}
    assert parts[seeded.grid_recipes[1].candidate][0]["treatment_accuracy"] == 0.5
    assert set(parts[seeded.grid_recipes[1].candidate][1][CANDIDATE]) == {seeded.grid_recipes[1].candidate}
