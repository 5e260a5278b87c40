"""The section "How sure": worst first, honest about what it stands on, and made of what no choice saw."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from moa_ray import conformal, figures_conformal, metrics, report, spec, sure
from moa_ray.conformal import Conformal
from moa_ray.ledger import Ledger, Proposal, Result
from moa_ray.spec import Sweep
from moa_ray.tables import BACKBONE, CANDIDATE, COMPOUND, CONCENTRATION, FIELD, FOLD, LABEL, PLATE, TILE, WELL

LABELS = ("Alpha", "Beta & <co>")
COMPOUNDS = {f"{label[0]}{number}": label for label in LABELS for number in range(8)}


def treatments(shares: dict[str, float] | None = None) -> pd.DataFrame:
    """One treatment of each compound; its true label gets a share that differs from all others."""
    own = {name: 0.9 - 0.01 * number for number, name in enumerate(COMPOUNDS)} | (shares or {})
    rows = []
    for name, label in COMPOUNDS.items():
        values = {other: own[name] if other == label else 1 - own[name] for other in LABELS}
        rows.append((name, 1.0, label, *values.values()))
    table = pd.DataFrame(rows, columns=[COMPOUND, CONCENTRATION, LABEL, *(f"prob_{label}" for label in LABELS)])
    return table.assign(**{metrics.PREDICTED: metrics.predicted(table)})


# The lines ------------------------------------------------------------------------------------------------------------


def test_the_worst_treatments_come_first() -> None:
    made = sure.sets(treatments({"A0": 0.05, "B0": 0.5}), Conformal(), 0, "median")
    table = sure.worst(made)
    assert list(table[sure.FLAG]) == sorted(table[sure.FLAG], key=sure.FLAGS.index)
    assert (table[COMPOUND][0], table[sure.FLAG][0]) == ("A0", sure.ANOTHER)
    lines = sure.lines(made)
    assert [line.cells[0] for line in lines] == list(table[COMPOUND])
    assert lines[0].cells[2:4] == ["Alpha", "Beta & <co>"]
    covered = made.treatments.covered(0.1).set_index(treatments()[COMPOUND])
    for name, flag in zip(table[COMPOUND], table[sure.FLAG], strict=True):
        size, holds = covered.loc[name, conformal.SIZE], covered.loc[name, conformal.COVERED]
        expected = {0: sure.NONE, 1: sure.ONE}.get(size, sure.SEVERAL) if holds or not size else sure.ANOTHER
        assert flag == expected


def test_large_sets_are_shortened() -> None:
    names = list("ABCDEF")
    rows = [(f"c{number}", 1.0, names[number % 6], *np.full(6, 1 / 6)) for number in range(12)]
    table = pd.DataFrame(rows, columns=[COMPOUND, CONCENTRATION, LABEL, *(f"prob_{name}" for name in names)])
    assert {line.cells[3] for line in sure.lines(sure.sets(table, Conformal(), 0, "median"))} == {"any of the 6 labels"}
    table = table[table[LABEL] != "F"].assign(prob_F=0.0)
    assert sure.lines(sure.sets(table, Conformal(), 0, "median"))[-1].cells[3] == "A, B, C, D and 1 more"


def test_every_number_of_a_level_is_that_of_its_rows() -> None:
    settings = Conformal((0.01, 0.1, 0.2))
    made = sure.sets(treatments({"A0": 0.05}), settings, 0, "median")
    found = sure.plain(sure.Sure(made))["conformal"]
    assert [(row["level"], row["alpha"]) for row in found["coverage"]] == [
        *(("treatment", 0.1), ("treatment", 0.2), ("compound", 0.1), ("compound", 0.2))
    ]
    table = sure.as_table(made)
    for row in found["coverage"]:
        mine = table[table["level"] == row["level"]]
        held = [label in labels for label, labels in zip(mine[LABEL], mine[f"set_{row['alpha']:g}"], strict=True)]
        sizes = mine[f"size_{row['alpha']:g}"]
        assert (row["k"], row["n"]) == (sum(held), 16)
        assert (row["mean_size"], row["empty"]) == (sizes.mean(), (sizes == 0).mean())
        assert row["guarantee"] == {"cv_plus": pytest.approx(1 - 2 * row["alpha"]), "single_network": None}
        by_label = [one for one in found["by_label"] if (one["level"], one["alpha"]) == (row["level"], row["alpha"])]
        assert sum(one["k"] for one in by_label) == row["k"]
    assert [(row["alpha"], row["calibrating"]) for row in found["unreached"]] == [(0.01, 15), (0.01, 15)]
    assert sure.unreached(made) == [
        "No set at alpha = 0.01 for treatments and compounds: 15 compounds are there to calibrate with, so the "
        "smallest alpha possible is 1 / 16 = 0.0625."
    ]


@pytest.mark.parametrize(
    ("settings", "held_out", "is_optimistic", "is_given", "says"),
    [
        (Conformal(), "compound", False, False, []),
        (Conformal(), "week", False, False, ["week was held out"]),
        (Conformal(), "compound, week", False, False, ["compound, week was held out"]),
        (Conformal(), "compound", True, False, ["chosen among others by these same treatments"]),
        (Conformal(), "", False, True, ["is not known here"]),
        (Conformal(unit="treatment"), "compound", False, False, ["as if they were independent"]),
    ],
)
def test_what_cv_plus_takes_for_granted_is_doubted_where_it_does_not_hold(
    settings: Conformal, held_out: str, is_optimistic: bool, is_given: bool, says: list[str]
) -> None:
    found = sure.doubts(settings, held_out, is_optimistic, is_given)
    assert len(found) == len(says)
    assert all(words in doubt for words, doubt in zip(says, found, strict=True))
    made = sure.sets(treatments(), settings, 0, "median", found)
    promised = {row["guarantee"]["cv_plus"] for row in sure.plain(sure.Sure(made))["conformal"]["coverage"]}
    assert (promised == {None}) == bool(says)


# The figures ----------------------------------------------------------------------------------------------------------


def test_curves_and_marks_say_what_the_sets_do() -> None:
    table = treatments({"A0": 0.05, "B0": 0.5}).rename(columns={"prob_Alpha": "prob_A$ and $"})
    made = sure.sets(table.replace("Alpha", "A$ and $"), Conformal(), 0, "median")
    for name, figure in sure.draw(sure.Sure(made)).items():
        figure.draw_without_rendering()  # a dollar sign begins no formula
        left, right = figure.axes
        for level, one in made.levels.items():
            line = next(line for line in left.lines if line.get_label() == f"{level}s")
            for x, y in list(zip(*line.get_data(), strict=True))[::40]:
                alpha = 1 - x if name == "conformal_coverage" else x
                rows = one.as_table([alpha]).iloc[:, -4:-2]
                held = [label in labels for label, labels in zip(one.table[LABEL], rows.iloc[:, 0], strict=True)]
                assert y == pytest.approx(np.mean(held) if name == "conformal_coverage" else rows.iloc[:, 1].mean())
        assert [text.get_text() for text in right.get_yticklabels()] == ["A$ and $", "Beta & <co>"]
        written = {text.get_text() for text in right.texts}
        mine = made.treatments.covered(0.1)[made.treatments.table[LABEL] == "A$ and $"]
        worth = conformal.coverage(mine)
        assert (f"{worth['k']}/8" if name == "conformal_coverage" else f"{worth['mean_size']:.1f}") in written


def test_a_tile_is_shown_small() -> None:
    (png,) = figures_conformal.thumbnails([np.zeros((200, 300, 3), np.uint8)])
    assert Image.open(io.BytesIO(png)).size == (96, 64)


# The report -----------------------------------------------------------------------------------------------------------


def sweep_of(tmp_path: Path, **more: object) -> Sweep:
    plain = {
        "study": "sure",
        "out": str(tmp_path / "out"),
        "screen": {"name": "synthetic", "root": str(tmp_path / "painted")},
        "recipe": {"backbone": "SmallCNN", "weights": "random", "image_size": 8},
        "search": {"space": {"learning_rate": [0.1, 0.01]}},
    }
    return spec.check({**plain, **more}, "test.yaml")


def begun(sweep: Sweep, search: list[str], confirm: list[str]) -> Ledger:
    book = Ledger(sweep.out)
    plain = {
        **{"study": "sure", "command": "python -m moa_ray.sweep test.yaml", "seed": 0, "tiles": "fingerprint"},
        **{
            "tile_store": str(sweep.out.parent / "tiles"),
            "labels": list(LABELS),
            "channels": ["Actin", "Tubulin", "DAPI"],
        },
        **{"folds": dict.fromkeys([*search, *confirm]), "weights": {}, "warnings": [], "versions": {}},
    }
    book.open(sweep, {**plain, "search_folds": search, "confirm_folds": confirm})
    return book


def trial(recipe: object, row: dict[str, object]) -> Result:
    """A trial that predicted a treatment's one tile."""
    place = {PLATE: "P1", WELL: f"W{row[COMPOUND]}", FIELD: "1", TILE: "0-0", FOLD: f"compound={row[COMPOUND]}"}
    own = {CANDIDATE: recipe.candidate, BACKBONE: recipe.backbone}
    kept = {name: value for name, value in row.items() if name != metrics.PREDICTED}
    predictions = pd.DataFrame([{**place, **kept, **own}])
    return Result(recipe.candidate, place[FOLD], "finished", recipe.as_dict(), epochs=1, predictions=predictions)


def grid(tmp_path: Path, **more: object) -> tuple[Sweep, Ledger]:
    """Two finished candidates, the second one worse."""
    sweep = sweep_of(tmp_path, **more)
    book = begun(sweep, [f"compound={name}" for name in COMPOUNDS], [])
    for recipe, made in zip(sweep.recipes, (treatments(), treatments({"A0": 0.1})), strict=True):
        for row in made.to_dict("records"):
            book.write(trial(recipe, row))
    return sweep, book


def test_sets_of_the_headline_s_candidate_stand_in_their_files(tmp_path: Path) -> None:
    sweep, book = grid(tmp_path)
    written = report.write(sweep.out)
    assert sweep.out / "conformal.parquet" in written.files
    sets = pd.read_parquet(sweep.out / "conformal.parquet")
    assert sets["level"].value_counts().to_dict() == {"treatment": 16, "compound": 16}
    table = pd.read_parquet(sweep.out / "treatments.parquet")
    own = table[table[CANDIDATE] == sweep.recipes[0].candidate].sort_values(COMPOUND, ignore_index=True)
    names = [name for name in sets if name.startswith(("p_", "set_", "size_", "cred", "conf"))]
    assert len(names) == 2 + 2 * 2 + 2  # 1 / 16 is more than 0.05
    expected = sets[sets["level"] == "treatment"].sort_values(COMPOUND, ignore_index=True)
    pd.testing.assert_frame_equal(own[names], expected[names], check_dtype=False)
    assert table.loc[table[CANDIDATE] == sweep.recipes[1].candidate, names].isna().all(axis=None)
    html = (sweep.out / "report.html").read_text()
    assert "No set at alpha = 0.05 for treatments and compounds: 15 compounds are there" in html
    assert "Here this promise does not hold: the candidate was chosen among others" in html
    assert (sweep.out / "figures" / "conformal_coverage.png").exists()
    book.open(sweep.model_copy(update={"conformal": None}), book.study())
    report.write(sweep.out)
    assert not (sweep.out / "conformal.parquet").exists()
    assert "How sure" not in (sweep.out / "report.html").read_text()
    assert json.loads((sweep.out / "summary.json").read_text())["sure"] == {"conformal": None}


def test_folds_that_chose_the_candidate_calibrate_nothing(tmp_path: Path) -> None:
    search = {"mode": "optuna", "candidates": 1, "space": {"learning_rate": [0.1]}, "race": None}
    sweep = sweep_of(tmp_path, search=search)
    chosen_by = ["A0", "B0"]
    folds = [[f"compound={name}" for name in COMPOUNDS if (name in chosen_by) == seen] for seen in (True, False)]
    book = begun(sweep, *folds)
    recipe = sweep.space.recipe({"learning_rate": 0.1})
    book.propose(Proposal(0, recipe, {"learning_rate": 0.1}))
    for row in treatments().to_dict("records"):
        book.write(trial(recipe, row))
    report.write(sweep.out)
    found = pd.read_parquet(sweep.out / "conformal.parquet")
    unseen = treatments()[~treatments()[COMPOUND].isin(chosen_by)]
    expected = conformal.calibrate(unseen).as_table([0.1])
    assert list(found[COMPOUND]) == [*expected[COMPOUND]] * 2
    for column in ("p_Alpha", "p_Beta & <co>", "size_0.1"):
        assert list(found.loc[found["level"] == "treatment", column]) == list(expected[column])
    assert "Only the folds that no choice saw calibrate" in (sweep.out / "report.html").read_text()
    assert json.loads((sweep.out / "summary.json").read_text())["sure"]["conformal"]["doubts"] == []


def test_each_treatment_has_its_own_tile_and_what_counting_treatments_costs_is_said(tmp_path: Path) -> None:
    sweep, _ = grid(tmp_path, conformal={"unit": "treatment"})
    store = tmp_path / "tiles"
    store.mkdir()
    names = sorted(COMPOUNDS, reverse=True)
    place = {PLATE: "P1", WELL: [f"W{name}" for name in names], FIELD: "1", TILE: "0-0", "row": range(len(names))}
    pd.DataFrame(place).to_parquet(store / "tiles.parquet")
    grey = np.arange(len(names), dtype=np.uint8) * 10
    np.save(store / "tiles-8.npy", np.broadcast_to(grey[:, None, None, None], (len(names), 8, 8, 3)))
    report.write(sweep.out)
    html = (sweep.out / "report.html").read_text()
    shown = re.findall(r'<td><img src="data:image/png;base64,([^"]*)" alt="a tile of it"></td><td>(\w+)</td>', html)
    assert len(shown) == 16
    levels = {name: Image.open(io.BytesIO(base64.b64decode(data))).getpixel((0, 0))[0] for data, name in shown}
    assert sorted(levels, key=lambda name: levels[name]) == sorted(levels, key=names.index)
    assert len(set(levels.values())) >= 14  # the darkest and brightest are cut off
    assert "Every treatment counts as one" in html
    assert "sets are too small for a new compound" in html


def test_too_few_compounds_for_any_set_are_said(tmp_path: Path) -> None:
    made = treatments().head(3)
    made.drop(columns=metrics.PREDICTED).assign(backbone="A").to_csv(tmp_path / "table.csv", index=False)
    assert report.main([str(tmp_path / "out"), "--predictions", str(tmp_path / "table.csv")]) == 0
    html = (tmp_path / "out" / "report.html").read_text()
    assert "There are too few compounds for any set" in html
    assert "the smallest alpha possible is 1 / 3 = 0.333" in html
