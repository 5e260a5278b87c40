"""Metrics against the paper's own predictions, slow loops and invariants."""

import math
import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moa_ray.common.schema import (
    BACKBONE,
    CANDIDATE,
    COMPOUND,
    CONCENTRATION,
    FIELD,
    FOLD,
    LABEL,
    PLATE,
    TILE,
    TREATMENT,
    WELL,
)
from moa_ray.statistics import aggregation, intervals, leaderboard
from moa_ray.statistics import scores as statistics_scores
from moa_ray.statistics.scores import accuracy, calibration_error, confusion, log_loss, macro_f1, majority

# Tables are slow to make: fewer examples, and no limit on the time of one.
few = settings(max_examples=40, deadline=None)

LABELS = ["X", "Y", "Z"]
PROBABILITIES = [f"prob_{label}" for label in LABELS]
KEYS = [PLATE, WELL, FIELD, TILE, COMPOUND, CONCENTRATION, LABEL]


def table_of(rows: list[tuple], probabilities: np.ndarray, candidate: str = "c1") -> pd.DataFrame:
    """Tile predictions: rows of (plate, well, field, tile, compound, concentration, label)."""
    table = pd.DataFrame(rows, columns=KEYS).assign(**{CANDIDATE: candidate, BACKBONE: "SmallCNN"})
    table[FOLD] = "compound=" + table[COMPOUND]
    return table.assign(**dict(zip(PROBABILITIES, np.asarray(probabilities).T, strict=True)))


@st.composite
def predictions(draw: st.DrawFn) -> pd.DataFrame:
    """Tiles of a few treatments in one to three wells each, rows in any order."""
    rows = []
    for number in range(draw(st.integers(1, 4))):
        label = draw(st.sampled_from(LABELS))
        for well in range(draw(st.integers(1, 3))):
            tiles = range(draw(st.integers(1, 4)))
            rows += [(f"P{well}", f"W{number}", "1", f"{tile}", f"c{number // 2}", number % 2, label) for tile in tiles]
    values = draw(arrays(np.float64, (len(rows), 3), elements=st.floats(0, 1)))
    order = draw(st.permutations(range(len(rows))))
    return table_of(rows, values).iloc[order]


# From tiles to treatments ---------------------------------------------------------------------------------------------


@few
@given(predictions(), st.sampled_from(["median", "mean"]))
def test_treatments_are_what_a_slow_loop_finds(table: pd.DataFrame, how: str) -> None:
    middle = {"median": statistics.median, "mean": statistics.fmean}[how]
    found = aggregation.treatments(table, how)
    rows = table.to_dict("records")
    assert len(found) == len({(row[COMPOUND], row[CONCENTRATION]) for row in rows})
    for treatment in found.to_dict("records"):
        own = [row for row in rows if all(row[name] == treatment[name] for name in TREATMENT)]
        wells = sorted({(row[PLATE], row[WELL]) for row in own})
        assert (treatment["replicates"], treatment["tiles"]) == (len(wells), len(own))
        for name in PROBABILITIES:
            by_well = [middle([row[name] for row in own if (row[PLATE], row[WELL]) == well]) for well in wells]
            assert math.isclose(treatment[name], middle(by_well), abs_tol=1e-12)
        best = max(PROBABILITIES, key=lambda name: treatment[name])
        assert treatment["predicted"] == best.removeprefix("prob_")


@few
@given(predictions(), st.sampled_from(["median", "mean"]))
def test_treatments_are_exactly_what_pandas_groups(table: pd.DataFrame, how: str) -> None:
    by_well = table.groupby([CANDIDATE, PLATE, WELL, *TREATMENT])[PROBABILITIES].agg(how)
    by_treatment = by_well.groupby([CANDIDATE, *TREATMENT]).agg(how).reset_index()
    found = aggregation.treatments(table, how)
    pd.testing.assert_frame_equal(found[by_treatment.columns], by_treatment, check_exact=True)


@pytest.mark.slow
@few
@given(predictions(), st.randoms(use_true_random=False))
def test_row_order_does_not_matter(table: pd.DataFrame, order) -> None:
    shuffled = table.iloc[order.sample(range(len(table)), len(table))]
    pd.testing.assert_frame_equal(aggregation.treatments(table), aggregation.treatments(shuffled))
    pd.testing.assert_frame_equal(aggregation.wells(table, "mean"), aggregation.wells(shuffled, "mean"))
    before, after = statistics_scores.scores(table), statistics_scores.scores(shuffled)
    assert before == pytest.approx(after)


def test_missing_replicate_leaves_the_median_unchanged() -> None:
    rows = [(f"P{well}", "W", "1", "1", "c", 1.0, "X") for well in range(2)]
    found = aggregation.treatments(table_of(rows, [[0.8, 0.1, 0.1], [0.6, 0.2, 0.2]]))
    assert found.loc[0, "prob_X"] == pytest.approx(0.7)
    assert found.loc[0, "replicates"] == 2


def test_a_well_with_many_tiles_counts_once() -> None:
    rows = [("P1", "W", "1", str(tile), "c", 1.0, "X") for tile in range(9)]
    rows += [(f"P{well}", "W", "1", "0", "c", 1.0, "X") for well in (2, 3)]
    found = aggregation.treatments(table_of(rows, [[0.0, 1.0, 0.0]] * 9 + [[1.0, 0.0, 0.0]] * 2))
    assert found.loc[0, "predicted"] == "X"


def test_medians_are_not_renormalised_until_asked() -> None:
    rows = [("P1", "W", "1", str(tile), "c", 1.0, "X") for tile in range(3)]
    found = aggregation.treatments(table_of(rows, np.eye(3)))
    assert found[PROBABILITIES].to_numpy().tolist() == [[0, 0, 0]]
    assert aggregation.renormalise(found)[PROBABILITIES].to_numpy().tolist() == [[1 / 3] * 3]


def test_a_treatment_of_several_folds_names_them_all() -> None:
    rows = [(f"P{week}", "W", "1", "1", "c", 1.0, "X") for week in (2, 1)]
    table = table_of(rows, np.full((2, 3), 0.3)).assign(fold=["week=2", "week=1"])
    assert aggregation.treatments(table).loc[0, FOLD] == "week=1; week=2"


ONE = table_of([("P", "W", "1", "1", "c", 1.0, "X")], np.array([[0.5, 0.25, 0.25]]))


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (pd.concat([ONE, ONE]), "1 rows repeat a key"),
        (pd.concat([ONE, ONE.assign(**{TILE: "2", LABEL: "Y"})]), "carry two labels.*X, Y"),
        (ONE.assign(**{LABEL: "V"}), "no column prob_V for the true label 'V'"),
        (ONE.assign(**{LABEL: None}), "Metadata_Label is missing in 1 of 1"),
        (ONE.assign(prob_X=np.nan), "1 of 1 rows lack a probability"),
        (ONE.drop(columns=WELL), "column Metadata_Well is missing"),
    ],
)
def test_a_wrong_table_is_an_error(table: pd.DataFrame, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        aggregation.treatments(table)


def test_an_unknown_way_to_aggregate_is_an_error() -> None:
    with pytest.raises(ValueError, match="'median' or 'mean', but got 'mode'"):
        aggregation.treatments(ONE, "mode")


@pytest.mark.slow
@few
@given(predictions(), predictions())
def test_folds_kept_apart_are_each_fold_by_itself(one: pd.DataFrame, other: pd.DataFrame) -> None:
    folds = [one.assign(fold="a"), other.assign(**{FOLD: "b", TILE: "other" + other[TILE]})]
    together = aggregation.treatments(pd.concat(folds), apart=True)
    for fold in folds:
        alone = aggregation.treatments(fold)
        own = together[together[FOLD] == fold[FOLD].iloc[0]].reset_index(drop=True)
        pd.testing.assert_frame_equal(own[alone.columns], alone, check_exact=True)


# How right they are ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper(shared: Path) -> pd.DataFrame:
    """The paper's treatment probabilities, each treatment as one tile of one well."""
    table = pd.read_csv(shared / "data" / "kensert2019" / "predictions.csv")
    names = {"compound": COMPOUND, "concentration": CONCENTRATION, "moa": LABEL}
    well = table.groupby("backbone").cumcount().astype(str)
    place = {PLATE: "P", WELL: well, FIELD: "1", TILE: "1", CANDIDATE: table["backbone"]}
    return table.rename(columns=names).assign(fold="compound=" + table["compound"], **place)


@pytest.mark.parametrize(("backbone", "right"), [("ResNet50", 100), ("InceptionV3", 100), ("InceptionResNetV2", 98)])
def test_accuracy_is_the_paper_s(paper: pd.DataFrame, backbone: str, right: int) -> None:
    found = statistics_scores.scores(paper[paper[BACKBONE] == backbone])
    assert (found["k"], found["n"]) == (right, 103)
    assert found["treatment_accuracy"] == right / 103


@few
@given(predictions())
def test_scores_are_what_slow_loops_find(table: pd.DataFrame) -> None:
    found = aggregation.treatments(table)
    rows = found.to_dict("records")
    for row in rows:
        total = sum(row[name] for name in PROBABILITIES)
        row |= {name: row[name] / total if total > 0 else 1 / 3 for name in PROBABILITIES}
    right = [row["predicted"] == row[LABEL] for row in rows]
    assert accuracy(found) == pytest.approx(sum(right) / len(rows))
    tiny = np.finfo(float).eps
    losses = [-math.log(min(max(row[f"prob_{row[LABEL]}"], tiny), 1 - tiny)) for row in rows]
    assert log_loss(found) == pytest.approx(sum(losses) / len(losses), abs=1e-9)
    bins: dict[int, list[tuple[bool, float]]] = {}
    for row, is_right in zip(rows, right, strict=True):
        confidence = max(row[name] for name in PROBABILITIES)
        bins.setdefault(min(int(confidence * 10), 9), []).append((is_right, confidence))
    gaps = [abs(sum(r for r, _ in rest) - sum(c for _, c in rest)) for rest in bins.values()]
    assert calibration_error(found) == pytest.approx(sum(gaps) / len(rows), abs=1e-9)


@few
@given(predictions())
def test_log_loss_is_scikit_learns(table: pd.DataFrame) -> None:
    found = aggregation.treatments(table)
    even = aggregation.renormalise(found)[PROBABILITIES].to_numpy()
    # Not to the last digit: NumPy's logarithms differ by one between processors.
    expected = sklearn.metrics.log_loss(found[LABEL], even, labels=LABELS)
    assert log_loss(found) == pytest.approx(expected, rel=1e-12)


@few
@given(predictions())
def test_macro_f1_and_confusion_are_what_slow_loops_find(table: pd.DataFrame) -> None:
    found = aggregation.treatments(table)
    pairs = list(zip(found[LABEL], found["predicted"], strict=True))
    counts = confusion(found, LABELS)
    assert all(counts.loc[true, taken] == pairs.count((true, taken)) for true in LABELS for taken in LABELS)
    scores = []
    for label in {label for pair in pairs for label in pair}:
        hits = pairs.count((label, label))
        either = sum(true == label for true, _ in pairs) + sum(taken == label for _, taken in pairs)
        scores.append(2 * hits / either)
    assert macro_f1(found) == pytest.approx(sum(scores) / len(scores))


@few
@given(st.integers(1, 300), st.data())
def test_wilson_is_the_textbook_formula(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    z = statistics.NormalDist().inv_cdf(0.975)
    middle, spread = k / n + z**2 / (2 * n), z * math.sqrt(k / n * (1 - k / n) / n + z**2 / (4 * n**2))
    low, high = ((middle + sign * spread) / (1 + z**2 / n) for sign in (-1, 1))
    assert intervals.wilson(k, n) == pytest.approx((max(low, 0), min(high, 1)), abs=1e-9)


def test_nothing_is_known_of_no_treatments() -> None:
    assert intervals.wilson(0, 0) == (0.0, 1.0)


def test_majority_is_the_most_frequent_label(paper: pd.DataFrame) -> None:
    found = aggregation.treatments(paper[paper[BACKBONE] == "ResNet50"])
    assert majority(found) == ("Microtubule destabilizers", 14, 103)


def test_scores_of_two_candidates_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="predictions of one candidate, but got 2"):
        statistics_scores.scores(pd.concat([ONE, ONE.assign(candidate="c2")]))


# Candidates beside each other -----------------------------------------------------------------------------------------

RECIPES = {
    "good": {"backbone": "A", "weights": "random", "epochs": 3, "augment": {"blur": 0.5, "channel_jitter": [1.0]}},
    "bad": {"backbone": "A", "weights": "random", "epochs": 3, "augment": {"blur": 0.0, "channel_jitter": [1.0]}},
    "unfinished": {"backbone": "B", "weights": "random", "epochs": 3, "augment": {"blur": 0.5, "channel_jitter": []}},
    "failed": {"backbone": "B", "weights": "random", "epochs": 3, "augment": {"blur": 0.1, "channel_jitter": [1.0]}},
}


def study() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two folds: `good` has both right, `bad` one; `unfinished` has one fold, right; `failed` has none."""
    rows = [("P", "W1", "1", "1", "c1", 1.0, "X"), ("P", "W2", "1", "1", "c2", 1.0, "Y")]
    right, wrong = [[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]], [[0.9, 0.1, 0.0], [0.9, 0.1, 0.0]]
    tables = [
        table_of(rows, right, "good"),
        table_of(rows, wrong, "bad"),
        table_of(rows, right, "unfinished").iloc[:1],
    ]
    outcomes = {"good": "ff", "bad": "ff", "unfinished": "fc", "failed": "cc"}
    status = {"f": "finished", "c": "crashed"}
    trials = [
        (candidate, f"compound=c{number + 1}", status[letter], 3 if letter == "f" else 1, 2.0)
        for candidate, letters in outcomes.items()
        for number, letter in enumerate(letters)
    ]
    return pd.concat(tables), pd.DataFrame(trials, columns=[CANDIDATE, FOLD, "status", "epochs", "seconds"])


def test_an_unfinished_score_never_competes() -> None:
    board = leaderboard.leaderboard(*study(), RECIPES, n_folds=2)
    assert board[CANDIDATE].tolist() == ["good", "bad", "unfinished", "failed"]
    assert board["complete"].tolist() == [True, True, False, False]
    assert board["treatment_accuracy"].tolist()[:3] == [1.0, 0.5, 1.0]
    assert board["folds_finished"].tolist() == [2, 2, 1, 0]
    assert board["folds_failed"].tolist() == [0, 0, 1, 2]
    assert board["epochs_trained"].tolist() == [6, 6, 4, 2]
    assert board["n"].tolist() == [2, 2, 1, 0]


def test_leaderboard_shows_the_hyperparameters_that_differ() -> None:
    board = leaderboard.leaderboard(*study(), RECIPES, n_folds=2)
    assert board.columns[:5].tolist() == [CANDIDATE, "backbone", "weights", "augment.blur", "augment.channel_jitter"]
    assert leaderboard.hyperparameters(board) == ["augment.blur", "augment.channel_jitter"]


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_leaderboard_does_not_depend_on_row_order(order) -> None:
    tables = [table.iloc[order.sample(range(len(table)), len(table))] for table in study()]
    pd.testing.assert_frame_equal(
        leaderboard.leaderboard(*tables, RECIPES, n_folds=2), leaderboard.leaderboard(*study(), RECIPES, n_folds=2)
    )


def test_leaderboard_of_nothing_lists_the_candidates() -> None:
    board = leaderboard.leaderboard(pd.DataFrame(), study()[1].iloc[:0], RECIPES, n_folds=2)
    assert sorted(board[CANDIDATE]) == sorted(RECIPES)
    assert not board["complete"].any()
    assert board["treatment_accuracy"].isna().all()


def test_predictions_without_a_recipe_are_refused() -> None:
    predicted, trials = study()
    with pytest.raises(ValueError, match="candidates without a recipe: bad"):
        leaderboard.leaderboard(predicted, trials, {name: r for name, r in RECIPES.items() if name != "bad"}, n_folds=2)
