"""The report is a view of the ledger: made from it alone, again and again."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moa_ray import report, spec
from moa_ray.ledger import Ledger, Result
from moa_ray.spec import Sweep
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
    recipe = sweep.recipes[candidate]
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
    return Result(recipe.candidate, fold, "finished", recipe.as_dict(), 1, 2, 2.0, None, history, rows)


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
