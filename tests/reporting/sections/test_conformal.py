"""The section "How sure": worst first, honest about what it stands on, and sets of what no choice saw."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from moa_ray.common.schema import BACKBONE, CANDIDATE, COMPOUND, CONCENTRATION, FIELD, FOLD, LABEL, PLATE, TILE, WELL
from moa_ray.config import sweep_file
from moa_ray.config.conformal import ConformalSettings
from moa_ray.config.sweep_file import Sweep
from moa_ray.report import main
from moa_ray.reporting import conformal_sets, page
from moa_ray.reporting.conformal_figures import thumbnails
from moa_ray.reporting.conformal_sets import FLAG, FLAGS, NO_LABEL, RULED_OUT, SETTLED, UNDECIDED
from moa_ray.reporting.sections.conformal import Conformal
from moa_ray.reporting.write import write
from moa_ray.statistics import aggregation, conformal
from moa_ray.tracking.ledger import Ledger
from moa_ray.tracking.results import Proposal, Result
from reporting.evidence_factory import evidence, visible, words_of

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
    return table.assign(**{aggregation.PREDICTED: aggregation.predicted(table)})


def section(table: pd.DataFrame) -> Conformal:
    return Conformal(conformal_sets.make(table, ConformalSettings(), 0, "median"))


# The lines ------------------------------------------------------------------------------------------------------------


def test_the_worst_treatments_come_first() -> None:
    sets = conformal_sets.make(treatments({"A0": 0.05, "B0": 0.5}), ConformalSettings(), 0, "median")
    table = sets.worst()
    assert list(table[FLAG]) == sorted(table[FLAG], key=FLAGS.index)
    assert (table[COMPOUND][0], table[FLAG][0]) == ("A0", RULED_OUT)
    lines = Conformal(sets).lines
    assert [line.cells[0] for line in lines] == list(table[COMPOUND])
    assert lines[0].cells[2:4] == ["Alpha", "Beta & <co>"]
    covered = sets.treatments.covered(0.1).set_index(treatments()[COMPOUND])
    for name, flag in zip(table[COMPOUND], table[FLAG], strict=True):
        size, holds = covered.loc[name, conformal.SIZE], covered.loc[name, conformal.COVERED]
        expected = {0: NO_LABEL, 1: SETTLED}.get(size, UNDECIDED) if holds or not size else RULED_OUT
        assert flag == expected


def test_large_sets_are_shortened() -> None:
    names = list("ABCDEF")
    rows = [(f"c{number}", 1.0, names[number % 6], *np.full(6, 1 / 6)) for number in range(12)]
    table = pd.DataFrame(rows, columns=[COMPOUND, CONCENTRATION, LABEL, *(f"prob_{name}" for name in names)])
    assert {line.cells[3] for line in section(table).lines} == {"any of the 6 labels"}
    table = table[table[LABEL] != "F"].assign(prob_F=0.0)
    assert section(table).lines[-1].cells[3] == "A, B, C, D and 1 more"


def test_every_number_of_a_level_is_that_of_its_rows() -> None:
    settings = ConformalSettings((0.01, 0.1, 0.2))
    sets = conformal_sets.make(treatments({"A0": 0.05}), settings, 0, "median")
    numbers = Conformal(sets).summary()["sure"]["conformal"]
    assert [(row["level"], row["alpha"]) for row in numbers["coverage"]] == [
        *(("treatment", 0.1), ("treatment", 0.2), ("compound", 0.1), ("compound", 0.2))
    ]
    table = sets.as_table()
    for row in numbers["coverage"]:
        rows = table[table["level"] == row["level"]]
        held = [label in labels for label, labels in zip(rows[LABEL], rows[f"set_{row['alpha']:g}"], strict=True)]
        sizes = rows[f"size_{row['alpha']:g}"]
        assert (row["k"], row["n"]) == (sum(held), 16)
        assert (row["mean_size"], row["empty"]) == (sizes.mean(), (sizes == 0).mean())
        assert row["guarantee"] == {"cv_plus": pytest.approx(1 - 2 * row["alpha"]), "single_network": None}
        key = (row["level"], row["alpha"])
        by_label = [part for part in numbers["by_label"] if (part["level"], part["alpha"]) == key]
        assert sum(part["k"] for part in by_label) == row["k"]
    assert [(row["alpha"], row["calibrating"]) for row in numbers["unreached"]] == [(0.01, 15), (0.01, 15)]
    says = "No set at alpha = 0.01 for treatments and compounds: 15 compounds are there to calibrate with, so the "
    says += "smallest alpha possible is 1 / 16 = 0.0625."
    assert says in visible(page.render(evidence(), [Conformal(sets)]))


@pytest.mark.parametrize(
    ("settings", "held_out", "is_optimistic", "is_external", "says"),
    [
        (ConformalSettings(), "compound", False, False, []),
        (ConformalSettings(), "week", False, False, ["week was held out"]),
        (ConformalSettings(), "compound, week", False, False, ["compound, week was held out"]),
        (ConformalSettings(), "compound", True, False, ["chosen among others by these same treatments"]),
        (ConformalSettings(), "", False, True, ["is not known here"]),
        (ConformalSettings(unit="treatment"), "compound", False, False, ["as if they were independent"]),
    ],
)
def test_what_cv_plus_takes_for_granted_is_doubted_where_it_does_not_hold(
    settings: ConformalSettings, held_out: str, is_optimistic: bool, is_external: bool, says: list[str]
) -> None:
    doubts = conformal_sets.doubts(settings, held_out, is_optimistic, is_external)
    assert len(doubts) == len(says)
    assert all(words in doubt for words, doubt in zip(says, doubts, strict=True))
    sets = conformal_sets.make(treatments(), settings, 0, "median", doubts)
    promised = {row["guarantee"]["cv_plus"] for row in Conformal(sets).summary()["sure"]["conformal"]["coverage"]}
    assert (promised == {None}) == bool(says)


# The figures ----------------------------------------------------------------------------------------------------------


def test_curves_and_marks_say_what_the_sets_do() -> None:
    table = treatments({"A0": 0.05, "B0": 0.5}).rename(columns={"prob_Alpha": "prob_A$ and $"})
    sets = conformal_sets.make(table.replace("Alpha", "A$ and $"), ConformalSettings(), 0, "median")
    for name, figure in Conformal(sets).figures().items():
        figure.draw_without_rendering()  # a dollar sign begins no formula
        left, right = figure.axes
        for level, calibrated in sets.levels.items():
            line = next(line for line in left.lines if line.get_label() == f"{level}s")
            for x, y in list(zip(*line.get_data(), strict=True))[::40]:
                alpha = 1 - x if name == "conformal_coverage" else x
                rows = calibrated.as_table([alpha]).iloc[:, -4:-2]
                held = [label in labels for label, labels in zip(calibrated.table[LABEL], rows.iloc[:, 0], strict=True)]
                assert y == pytest.approx(np.mean(held) if name == "conformal_coverage" else rows.iloc[:, 1].mean())
        assert [text.get_text() for text in right.get_yticklabels()] == ["A$ and $", "Beta & <co>"]
        written = {text.get_text() for text in right.texts}
        rows = sets.treatments.covered(0.1)[sets.treatments.table[LABEL] == "A$ and $"]
        counts = conformal.coverage(rows)
        assert (f"{counts['k']}/8" if name == "conformal_coverage" else f"{counts['mean_size']:.1f}") in written


def test_a_tile_is_shown_small() -> None:
    (png,) = thumbnails([np.zeros((200, 300, 3), np.uint8)])
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
    return sweep_file.check({**plain, **more}, "test.yaml")


def begun(sweep: Sweep, search: list[str], confirm: list[str]) -> Ledger:
    ledger = Ledger(sweep.out)
    plain = {
        **{"study": "sure", "command": "python -m moa_ray.sweep test.yaml", "seed": 0, "tiles": "fingerprint"},
        **{
            "tile_store": str(sweep.out.parent / "tiles"),
            "labels": list(LABELS),
            "channels": ["Actin", "Tubulin", "DAPI"],
        },
        **{"folds": dict.fromkeys([*search, *confirm]), "weights": {}, "warnings": [], "versions": {}},
    }
    ledger.open(sweep, {**plain, "search_folds": search, "confirm_folds": confirm})
    return ledger


def trial(recipe: object, row: dict[str, object]) -> Result:
    """A trial that predicted a treatment's one tile."""
    place = {PLATE: "P1", WELL: f"W{row[COMPOUND]}", FIELD: "1", TILE: "0-0", FOLD: f"compound={row[COMPOUND]}"}
    own = {CANDIDATE: recipe.candidate, BACKBONE: recipe.backbone}
    kept = {name: value for name, value in row.items() if name != aggregation.PREDICTED}
    predictions = pd.DataFrame([{**place, **kept, **own}])
    return Result(recipe.candidate, place[FOLD], "finished", recipe.as_dict(), epochs=1, predictions=predictions)


def grid(tmp_path: Path, **more: object) -> tuple[Sweep, Ledger]:
    """Two finished candidates, the second one worse."""
    sweep = sweep_of(tmp_path, **more)
    ledger = begun(sweep, [f"compound={name}" for name in COMPOUNDS], [])
    for recipe, table in zip(sweep.grid_recipes, (treatments(), treatments({"A0": 0.1})), strict=True):
        for row in table.to_dict("records"):
            ledger.write(trial(recipe, row))
    return sweep, ledger


@pytest.mark.usefixtures("undrawn")
def test_sets_of_the_headline_s_candidate_stand_in_their_files(tmp_path: Path) -> None:
    sweep, ledger = grid(tmp_path)
    written = write(sweep.out)
    assert sweep.out / "conformal.parquet" in written.files
    sets = pd.read_parquet(sweep.out / "conformal.parquet")
    assert sets["level"].value_counts().to_dict() == {"treatment": 16, "compound": 16}
    table = pd.read_parquet(sweep.out / "treatments.parquet")
    own = table[table[CANDIDATE] == sweep.grid_recipes[0].candidate].sort_values(COMPOUND, ignore_index=True)
    names = [name for name in sets if name.startswith(("p_", "set_", "size_", "cred", "conf"))]
    assert len(names) == 2 + 2 * 2 + 2  # 1 / 16 is more than 0.05
    expected = sets[sets["level"] == "treatment"].sort_values(COMPOUND, ignore_index=True)
    pd.testing.assert_frame_equal(own[names], expected[names], check_dtype=False)
    assert table.loc[table[CANDIDATE] == sweep.grid_recipes[1].candidate, names].isna().all(axis=None)
    html = words_of(sweep.out)
    assert "No set at alpha = 0.05 for treatments and compounds: 15 compounds are there" in html
    assert "Here this promise does not hold: the candidate was chosen among others" in html
    assert (sweep.out / "figures" / "conformal_coverage.png").exists()
    ledger.open(sweep.model_copy(update={"conformal": None}), ledger.study())
    write(sweep.out)
    assert not (sweep.out / "conformal.parquet").exists()
    assert "How sure" not in words_of(sweep.out)
    assert json.loads((sweep.out / "summary.json").read_text())["sure"] == {"conformal": None}


@pytest.mark.usefixtures("undrawn")
def test_folds_that_chose_the_candidate_calibrate_nothing(tmp_path: Path) -> None:
    search = {"mode": "optuna", "candidates": 1, "space": {"learning_rate": [0.1]}, "race": None}
    sweep = sweep_of(tmp_path, search=search)
    chosen_by = ["A0", "B0"]
    folds = [[f"compound={name}" for name in COMPOUNDS if (name in chosen_by) == seen] for seen in (True, False)]
    ledger = begun(sweep, *folds)
    recipe = sweep.space.recipe({"learning_rate": 0.1})
    ledger.propose(Proposal(0, recipe, {"learning_rate": 0.1}))
    for row in treatments().to_dict("records"):
        ledger.write(trial(recipe, row))
    write(sweep.out)
    table = pd.read_parquet(sweep.out / "conformal.parquet")
    unseen = treatments()[~treatments()[COMPOUND].isin(chosen_by)]
    expected = conformal.calibrate(unseen).as_table([0.1])
    assert list(table[COMPOUND]) == [*expected[COMPOUND]] * 2
    for column in ("p_Alpha", "p_Beta & <co>", "size_0.1"):
        assert list(table.loc[table["level"] == "treatment", column]) == list(expected[column])
    assert "Only the folds that no choice saw calibrate" in words_of(sweep.out)
    assert json.loads((sweep.out / "summary.json").read_text())["sure"]["conformal"]["doubts"] == []


@pytest.mark.usefixtures("undrawn")
def test_each_treatment_has_its_own_tile_and_what_counting_treatments_costs_is_said(tmp_path: Path) -> None:
    sweep, _ = grid(tmp_path, conformal={"unit": "treatment"})
    store = tmp_path / "tiles"
    store.mkdir()
    names = sorted(COMPOUNDS, reverse=True)
    place = {PLATE: "P1", WELL: [f"W{name}" for name in names], FIELD: "1", TILE: "0-0", "row": range(len(names))}
    pd.DataFrame(place).to_parquet(store / "tiles.parquet")
    grey = np.arange(len(names), dtype=np.uint8) * 10
    np.save(store / "tiles-8.npy", np.broadcast_to(grey[:, None, None, None], (len(names), 8, 8, 3)))
    write(sweep.out)
    html = words_of(sweep.out)
    shown = re.findall(r'<td><img src="data:image/png;base64,([^"]*)" alt="a tile of it"></td><td>(\w+)</td>', html)
    assert len(shown) == 16
    levels = {name: Image.open(io.BytesIO(base64.b64decode(data))).getpixel((0, 0))[0] for data, name in shown}
    assert sorted(levels, key=lambda name: levels[name]) == sorted(levels, key=names.index)
    assert len(set(levels.values())) >= 14  # the darkest and brightest are cut off
    assert "Every treatment counts as one" in html
    assert "sets are too small for a new compound" in html


@pytest.mark.usefixtures("undrawn")
def test_too_few_compounds_for_any_set_are_said(tmp_path: Path) -> None:
    rows = treatments().head(3)
    rows.drop(columns=aggregation.PREDICTED).assign(backbone="A").to_csv(tmp_path / "table.csv", index=False)
    assert main([str(tmp_path / "out"), "--predictions", str(tmp_path / "table.csv")]) == 0
    html = words_of(tmp_path / "out")
    assert "There are too few compounds for any set" in html
    assert "the smallest alpha possible is 1 / 3 = 0.333" in html
