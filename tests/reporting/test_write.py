"""The report is a view of the ledger: made from it alone, again and again."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moa_ray import contents, ensembles, report, spec
from moa_ray.ledger import Ledger, Proposal, Result
from moa_ray.recipe import Recipe
from moa_ray.spec import Sweep
from moa_ray.study import Study
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
from moa_ray.tiles import TileStore

LABELS = ("Alpha", "Beta & <co>")
COMPOUNDS = {"a1": "Alpha", "a2": "Alpha", "b1": "Beta & <co>", "b2": "Beta & <co>"}


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    plain = {
        "study": "reported",
        "out": str(tmp_path / "out"),
        "screen": {"name": "synthetic", "root": str(tmp_path / "painted")},
        "recipe": {"backbone": "SmallCNN", "weights": "random"},
        "search": {"space": {"learning_rate": [0.1, 0.01]}},
    }
    return spec.check(plain, "test.yaml")


@pytest.fixture
def book(sweep: Sweep) -> Ledger:
    """The ledger of a study with two candidates and four folds, nothing trained yet."""
    book = Ledger(sweep.out)
    book.open(
        sweep,
        {
            "study": sweep.study,
            "command": "python -m moa_ray.sweep test.yaml",
            "seed": 0,
            "tiles": "fingerprint",
            "tile_store": str(sweep.out / "nowhere"),
            "labels": list(LABELS),
            "channels": ["Actin", "Tubulin", "DAPI"],
            "folds": {**{f"compound={name}": None for name in COMPOUNDS}, "compound=x": "no training field left"},
            "weights": {},
            "search_folds": [f"compound={name}" for name in COMPOUNDS],
            "confirm_folds": [],
            "warnings": ["2 plates have no control wells"],
            "versions": {"python": "3.11"},
        },
    )
    return book


def finished(sweep: Sweep, candidate: int, compound: str, predicted: str) -> Result:
    """A trial that took all wells of a compound for one label."""
    return trial_of(sweep.recipes[candidate], compound, predicted)


def trial_of(recipe: Recipe, compound: str, predicted: str) -> Result:
    """The same of any recipe."""
    rows = pd.DataFrame(
        {
            PLATE: ["P1", "P1", "P2"],
            WELL: f"B{list(COMPOUNDS).index(compound) + 2:02}",
            FIELD: ["1", "2", "1"],
            TILE: "0-0",
            COMPOUND: compound,
            CONCENTRATION: 1.0,
            LABEL: COMPOUNDS[compound],
            FOLD: f"compound={compound}",
            CANDIDATE: recipe.candidate,
            BACKBONE: recipe.backbone,
            **{probability_column(label): 0.8 if label == predicted else 0.2 for label in LABELS},
        }
    )
    history = pd.DataFrame({"epoch": [1, 2], "loss": [1.0, 0.5], "accuracy": [0.5, 0.8], "learning_rate": 0.1})
    history = history.assign(validation_loss=np.nan, validation_accuracy=np.nan, seconds=1.0, images_per_second=10.0)
    fold = f"compound={compound}"
    return Result(
        recipe.candidate,
        fold,
        "finished",
        recipe.as_dict(),
        epochs=2,
        seconds=2.0,
        history=history,
        predictions=rows,
    )


def test_headline_and_leaderboard_count_treatments(sweep: Sweep, book: Ledger) -> None:
    for compound, label in COMPOUNDS.items():
        book.write(finished(sweep, 0, compound, label))
        book.write(finished(sweep, 1, compound, "Alpha"))
    written = report.write(sweep.out)
    assert written.finished
    assert "4 of 4 treatments right" in written.headline
    board = pd.read_csv(sweep.out / "leaderboard.csv")
    assert board[["k", "n"]].to_numpy().tolist() == [[4, 4], [2, 4]]
    summary = json.loads((sweep.out / "summary.json").read_text())
    assert summary["best"]["k"] == 4
    assert summary["trials"] == {"finished": 8}
    assert len(pd.read_parquet(sweep.out / "predictions.parquet")) == 8 * 3
    assert len(pd.read_parquet(sweep.out / "treatments.parquet")) == 8


def test_figures_of_single_candidates_are_drawn_when_asked_for(sweep: Sweep, book: Ledger) -> None:
    for compound, label in COMPOUNDS.items():
        book.write(finished(sweep, 0, compound, label))
        book.write(finished(sweep, 1, compound, "Alpha"))
    written = report.write(sweep.out)
    assert not list((sweep.out / "figures").glob("accuracy_over_epochs-*"))
    assert list(written.candidates) == [recipe.candidate for recipe in sweep.recipes]
    for candidate, make in written.candidates.items():
        numbers, predictions, files = make()
        assert numbers["n"] == 4
        assert set(predictions[CANDIDATE]) == {candidate}
        assert [path.name for path in files] == [f"confusion-{candidate}.png", f"accuracy_over_epochs-{candidate}.png"]
        assert all(path.exists() for path in files)


def test_candidate_without_all_folds_never_leads(sweep: Sweep, book: Ledger) -> None:
    for compound in COMPOUNDS:
        book.write(finished(sweep, 1, compound, "Alpha"))
    book.write(finished(sweep, 0, "a1", "Alpha"))
    written = report.write(sweep.out)
    assert sweep.recipes[1].candidate in written.headline
    assert "2 of 4 treatments right" in written.headline


def test_page_needs_no_network_and_escapes_names(sweep: Sweep, book: Ledger) -> None:
    for compound in COMPOUNDS:
        book.write(finished(sweep, 0, compound, "Alpha"))
    report.write(sweep.out)
    html = (sweep.out / "report.html").read_text()
    assert "Beta & <co>" not in html
    assert "Beta &amp; &lt;co&gt;" in html
    assert "<script" not in html
    assert 'src="http' not in html
    for words in ("2 plates have no control wells", "no training field left", "painted"):
        assert words in html


def test_failed_trials_stand_in_the_report_with_their_error(sweep: Sweep, book: Ledger) -> None:
    recipe = sweep.recipes[0]
    book.write(Result(recipe.candidate, "compound=a1", "diverged", recipe.as_dict(), error="the loss became NaN"))
    written = report.write(sweep.out)
    assert not written.finished
    assert "the loss became NaN" in (sweep.out / "report.html").read_text()
    assert json.loads((sweep.out / "summary.json").read_text())["best"] is None


def test_drawing_again_gives_the_same_files(sweep: Sweep, book: Ledger) -> None:
    for compound in COMPOUNDS:
        book.write(finished(sweep, 0, compound, "Alpha"))
    report.write(sweep.out)
    names = [
        path for path in sweep.out.rglob("*") if path.is_file() and path.suffix in (".csv", ".json", ".svg", ".html")
    ]
    before = {path: path.read_bytes() for path in names}
    assert report.main([str(sweep.out)]) == 0
    assert {path: path.read_bytes() for path in names} == before


def test_folder_without_a_sweep_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path)]) == 2
    assert f"{tmp_path}: no sweep was run here" in capsys.readouterr().err


SEARCH = {
    "mode": "optuna",
    "candidates": 3,
    "space": {"learning_rate": [0.1, 0.01, 0.001]},
    "race": {"first_folds": 1, "keep": 1},
}


def searched(
    tmp_path: Path, search_folds: list[str], confirm_folds: list[str], seeds: list[int] | None = None
) -> tuple[Sweep, Ledger]:
    """A ledger of three candidates: right everywhere, wrong on the second search fold, stopped."""
    plain = {
        "study": "searched",
        "seeds": seeds,
        "out": str(tmp_path / "out"),
        "screen": {"name": "synthetic", "root": str(tmp_path / "painted")},
        "recipe": {"backbone": "SmallCNN", "weights": "random", "image_size": 32},
        "search": SEARCH,
    }
    sweep = spec.check(plain, "test.yaml")
    book = Ledger(sweep.out)
    names = {"search_folds": search_folds, "confirm_folds": confirm_folds}
    book.open(sweep, {**_STUDY, "folds": dict.fromkeys([*search_folds, *confirm_folds]), **names})
    for number, rate in enumerate(SEARCH["space"]["learning_rate"]):
        recipe = sweep.space.recipe({"learning_rate": rate})
        book.propose(Proposal(number, recipe, {"learning_rate": rate}))
    return sweep, book


_STUDY = {
    "study": "searched",
    "command": "python -m moa_ray.sweep test.yaml",
    "seed": 0,
    "tiles": "fingerprint",
    "tile_store": "nowhere",
    "labels": list(LABELS),
    "channels": ["Actin", "Tubulin", "DAPI"],
    "weights": {},
    "warnings": [],
    "versions": {},
}


def ended(book: Ledger, number: int, compound: str, right: bool, status: str = "finished") -> None:
    recipe = book.proposals()[number].recipe
    label = COMPOUNDS[compound]
    other = next(name for name in LABELS if name != label)
    made = trial_of(recipe, compound, label if right else other)
    if status != "finished":
        made = dataclasses.replace(made, status=status, predictions=None, epochs=1)  # type: ignore[arg-type]
    book.write(made)


def study_folds(book: Ledger) -> list[str]:
    return list(book.study()["search_folds"])


@pytest.mark.parametrize("confirm", [True, False])
def test_a_search_is_reported_on_the_folds_that_no_choice_saw(tmp_path: Path, confirm: bool) -> None:
    folds = [f"compound={name}" for name in ("a1", "b1", "a2", "b2")]
    sweep, book = searched(tmp_path, folds[:2] if confirm else folds, folds[2:] if confirm else [])
    for compound in ("a1", "b1", "a2", "b2"):
        ended(book, 0, compound, right=compound != "b2")
    ended(book, 1, "a1", right=True)
    ended(book, 1, "b1", right=False)
    ended(book, 2, "a1", right=True, status="stopped")
    written = report.write(sweep.out)
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
    assert summary["epochs_saved"] == pytest.approx(1 - spent / (3 * 10 * len(study_folds(book))))
    assert (sweep.out / "figures" / "race.svg").exists()


def test_a_search_where_nothing_finished_still_reports(tmp_path: Path) -> None:
    sweep, book = searched(tmp_path, ["compound=a1"], ["compound=b1"])
    ended(book, 0, "a1", right=True, status="diverged")
    written = report.write(sweep.out)
    assert not written.finished
    assert "No prediction" in written.headline


def test_grid_of_several_recipes_is_corrected_for_choosing(sweep: Sweep, book: Ledger) -> None:
    for compound in COMPOUNDS:
        book.write(finished(sweep, 0, compound, COMPOUNDS[compound]))
        book.write(finished(sweep, 1, compound, "Alpha"))
    written = report.write(sweep.out)
    assert "optimistic, corrected by BBC-CV" in written.headline
    corrected = json.loads((sweep.out / "summary.json").read_text())["corrected"]
    assert 0.5 <= corrected["accuracy"] <= 1
    html = (sweep.out / "report.html").read_text()
    assert "<h2>Calibration</h2>" in html
    assert "95 % bootstrap over 4 compounds" in html


def test_treatments_of_folds_left_out_are_counted_and_named(sweep: Sweep, book: Ledger) -> None:
    for compound, label in COMPOUNDS.items():
        book.write(finished(sweep, 0, compound, label))
    reason = "no training field is left for label 'Gamma'"
    lost = [{COMPOUND: "x", CONCENTRATION: 0.3, LABEL: "Gamma", FOLD: "compound=x", "reason": reason}]
    book.open(sweep, {**book.study(), "treatments": 5, "unscored": lost})
    written = report.write(sweep.out)
    assert "4 of 5 treatments can be scored" in written.headline
    html = (sweep.out / "report.html").read_text()
    assert "4 of 5 treatments can be scored" in html
    assert "no training field is left for label &#39;Gamma&#39;" in html
    summary = json.loads((sweep.out / "summary.json").read_text())
    assert (summary["treatments"], summary["treatments_not_scored"]) == (5, lost)


@pytest.mark.parametrize("asked", ["in the sweep file", "by the command"])
def test_a_sweep_is_laid_beside_published_results_where_that_is_asked_for(
    sweep: Sweep, book: Ledger, asked: str
) -> None:
    for compound, label in COMPOUNDS.items():
        book.write(finished(sweep, 0, compound, label))
        book.write(finished(sweep, 1, compound, "Alpha"))
    assert report.main([str(sweep.out)]) == 0
    assert not (sweep.out / "reference.csv").exists()
    if asked == "in the sweep file":
        book.open(sweep.model_copy(update={"reference": "kensert2019"}), book.study())
        assert report.main([str(sweep.out)]) == 0
    else:
        assert report.main([str(sweep.out), "--reference", "kensert2019"]) == 0
    summary = json.loads((sweep.out / "summary.json").read_text())
    (beside,) = summary["beside_reference"]  # the best candidate of the one backbone
    assert (beside["candidate"], beside["published"], beside["only_here"]) == (sweep.recipes[0].candidate, None, 4)
    assert "Side by side: Kensert et al. 2019" in (sweep.out / "report.html").read_text()
    assert (sweep.out / "reference.csv").exists()


def test_a_search_is_laid_beside_on_the_folds_that_no_choice_saw(tmp_path: Path) -> None:
    folds = [f"compound={name}" for name in ("a1", "b1", "a2", "b2")]
    sweep, book = searched(tmp_path, folds[:2], folds[2:])
    for compound in ("a1", "b1", "a2", "b2"):
        ended(book, 0, compound, right=True)
    ended(book, 1, "a1", right=False)
    report.write(sweep.out, "kensert2019")
    (beside,) = json.loads((sweep.out / "summary.json").read_text())["beside_reference"]
    assert beside["only_here"] == 2


# Ensembles and samples


def test_ensemble_is_one_candidate_with_its_members_spread_on_every_number(sweep: Sweep, book: Ledger) -> None:
    """One member takes all for Alpha; the average is as sure of the true label as the two that know it."""
    made = sweep.model_copy(update={"seeds": (1, 2, 3)})
    book.open(made, book.study())
    for number in range(6):
        for compound, label in COMPOUNDS.items():
            book.write(finished(made, number, compound, "Alpha" if number in (1, 3, 4, 5) else label))
    written = report.write(sweep.out)
    names = [made.recipes[number].ensemble.candidate for number in (0, 3)]
    board = pd.read_csv(sweep.out / "leaderboard.csv")
    assert list(board[CANDIDATE]) == names
    assert board[["k", "n", "epochs_trained", "seconds"]].to_numpy().tolist() == [[4, 4, 24, 24], [2, 4, 24, 24]]
    assert board[["seeds", "seed_accuracy_low", "seed_accuracy_high"]].to_numpy().tolist() == [
        ["1, 2, 3", 0.5, 1.0],
        ["1, 2, 3", 0.5, 0.5],
    ]
    assert "; seeds 1, 2, 3: 2 to 4 of 4)" in written.headline
    html = (sweep.out / "report.html").read_text()
    assert "seeds 1, 2, 3: 2 to 4 of 4" in html
    assert "1, 2, 3: 50.0 % to 100.0 %" in html
    best = json.loads((sweep.out / "summary.json").read_text())["best"]
    assert (best["seeds"], best["seed_accuracy_low"], best["seed_accuracy_high"]) == ("1, 2, 3", 0.5, 1.0)
    samples = pd.read_parquet(sweep.out / "treatment_samples.parquet")
    assert set(samples["method"]) == {"ensemble"}
    mine = samples[samples[CANDIDATE] == names[0]]
    assert mine.groupby("sample")["predicted"].apply(lambda said: (said == "Alpha").sum()).to_dict() == {
        1: 2,
        2: 4,
        3: 2,
    }
    parts = {name: make() for name, make in written.candidates.items()}
    assert parts.keys() == {*names, *(recipe.candidate for recipe in made.recipes)}
    assert parts[made.recipes[1].candidate][0]["treatment_accuracy"] == 0.5
    assert set(parts[made.recipes[1].candidate][1][CANDIDATE]) == {made.recipes[1].candidate}


def test_samples_of_the_first_member_become_treatments_one_by_one(sweep: Sweep, book: Ledger) -> None:
    made = sweep.model_copy(update={"seeds": (5, 2), "predict": spec.Predict(mc_dropout=2)})
    for number in (0, 1):
        for compound, label in COMPOUNDS.items():
            trial = finished(made, number, compound, label)
            assert trial.predictions is not None
            drawn = [trial.predictions.assign(method="mc_dropout", sample=sample) for sample in (0, 1)]
            column = probability_column(label)
            drawn[1] = drawn[1].assign(**{column: [0.1 + number, 0.4 + number, 0.3 + number]})
            book.write(dataclasses.replace(trial, samples=pd.concat(drawn)))
    results = list(book.results())
    folded = ensembles.fold(made, results, book.table("predictions", results))
    found = contents.samples(made, book, results, folded)
    assert set(found[CANDIDATE]) == {made.recipes[0].ensemble.candidate}
    assert found["method"].value_counts().to_dict() == {"mc_dropout": 8, "ensemble": 8}
    ours = found[found["method"] == "mc_dropout"]
    shares = [row[probability_column(row[LABEL])] for row in ours.to_dict("records")]
    # Over the two tiles of one well, then over the two wells.
    assert shares == pytest.approx([0.8] * 4 + [np.median([np.median([0.1, 0.4]), 0.3])] * 4)


def test_winner_of_a_search_is_judged_as_an_ensemble_and_chosen_by_its_first_member(tmp_path: Path) -> None:
    folds = [f"compound={name}" for name in ("a1", "b1", "a2", "b2")]
    sweep, book = searched(tmp_path, folds[:2], folds[2:], seeds=[4, 9])
    for compound in ("a1", "b1", "a2", "b2"):
        ended(book, 0, compound, right=True)
        book.write(trial_of(dataclasses.replace(book.proposals()[0].recipe, seed=9), compound, "Alpha"))
    ended(book, 1, "a1", right=True)
    ended(book, 1, "b1", right=False)
    written = report.write(sweep.out)
    assert "; seeds 4, 9: 1 to 2 of 2)" in written.headline
    assert "judged on 2 folds that no choice saw" in written.headline
    board = pd.read_csv(sweep.out / "leaderboard.csv", dtype={"seeds": str})
    assert list(board["seeds"][:2]) == ["4, 9", "4"]
    assert list(board["epochs_trained"]) == [16, 4, 0]
    summary = json.loads((sweep.out / "summary.json").read_text())
    assert summary["over_all_folds"]["seeds"] == "4, 9"
    assert summary["epochs_saved"] == pytest.approx(1 - (4 + 4) / (3 * 10 * 2))  # of the race alone


def begun(root: Path, tmp_path: Path) -> tuple[spec.Sweep, Study]:
    """A sweep of real tables that leaves out compound and week, with its report before any trial."""
    plain = {
        "study": "begun",
        "out": str(tmp_path / "out"),
        "screen": {"name": "bbbc021", "root": str(root)},
        "folds": {"hold_out": ["compound", "week"]},
        "recipe": {"backbone": "SmallCNN", "weights": "random", "image_size": 32},
    }
    sweep = spec.check(plain, "test.yaml")
    study = Study.open(sweep)
    store = TileStore(tmp_path, "mark", (32,), pd.DataFrame(), ())
    Ledger(sweep.out).open(sweep, study.record(store, "command"))
    report.write(sweep.out)
    return sweep, study


def test_the_study_says_which_fields_to_show_and_which_treatments_are_lost(shared: Path, tmp_path: Path) -> None:
    sweep, study = begun(shared / "data" / "bbbc021_cells", tmp_path)
    assert (sweep.out / "figures" / "example_fields.png").exists()
    html = (sweep.out / "report.html").read_text()
    assert "68 x 68 pixels" in html
    summary = json.loads((sweep.out / "summary.json").read_text())
    lost = summary["treatments_not_scored"]
    assert f"{103 - len(lost)} of {summary['treatments']} treatments can be scored" in study.describe()
    assert {"bryostatin", "simvastatin"} <= {row[COMPOUND] for row in lost}
    assert all(row[COMPOUND] in html and row["reason"] for row in lost)


def test_without_their_week_92_of_103_official_treatments_can_be_scored(shared: Path, tmp_path: Path) -> None:
    sweep, _ = begun(shared / "data" / "bbbc021_csv", tmp_path)
    html = (sweep.out / "report.html").read_text()
    assert "92 of 103 treatments can be scored. The other 11 lie in folds that cannot be trained" in html
    assert "Fields that cannot be read are not shown: Actin disruptors" in html  # the images are not there
    lost = json.loads((sweep.out / "summary.json").read_text())["treatments_not_scored"]
    assert len(lost) == 11
    for row in lost:
        assert f'<td>{row[COMPOUND]}</td><td class="number">{row[CONCENTRATION]:g}</td><td>{row[LABEL]}</td>' in html
