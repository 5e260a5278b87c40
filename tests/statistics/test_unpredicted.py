"""A treatment without a prediction counts as not right, in every number alike."""

from collections.abc import Collection

import numpy as np
import pandas as pd
import pytest
from factories import probabilities
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from moa_ray.common.schema import BACKBONE, CANDIDATE, COMPOUND, CONCENTRATION, FIELD, FOLD, LABEL, PLATE, TILE, WELL
from moa_ray.search.objective import loss
from moa_ray.statistics import aggregation, comparison, scores
from moa_ray.statistics.leaderboard import leaderboard
from moa_ray.statistics.unpredicted import (
    NOT_FINISHED,
    REASON,
    no_unpredicted,
    of_no_tile,
    scored_of,
    unpredicted,
    with_unpredicted,
)
from moa_ray.tracking.results import Result

LABELS = ["X", "Y"]
TRUE = {f"c{number}": LABELS[number % 2] for number in range(6)}
FOLDS = [f"compound={name}" for name in TRUE]


def scored(dead: Collection[str] = ()) -> pd.DataFrame:
    """Six compounds of two labels, a dose and a fold each; of the dead ones no tile is left."""
    rows = [
        {
            **{COMPOUND: name, CONCENTRATION: 1.0, LABEL: label, FOLD: f"compound={name}"},
            REASON: "no cells" if name in dead else "",
        }
        for name, label in TRUE.items()
    ]
    return scored_of({"scored": rows})


def predictions(right: dict[str, bool]) -> pd.DataFrame:
    """A tile of each compound."""
    table = pd.DataFrame({COMPOUND: list(right), CONCENTRATION: 1.0, LABEL: [TRUE[name] for name in right]})
    table = table.assign(**{PLATE: "P", WELL: list(right), FIELD: "1", TILE: "0-0", CANDIDATE: "a"})
    table = table.assign(**{BACKBONE: "SmallCNN", FOLD: "compound=" + table[COMPOUND]})
    taken_for_x = [(TRUE[name] == "X") == is_right for name, is_right in right.items()]
    return table.assign(**probabilities([(0.9, 0.1) if x else (0.1, 0.9) for x in taken_for_x], LABELS))


def trials(finished: Collection[str] = FOLDS) -> pd.DataFrame:
    """A trial of every fold."""
    rows = [("a", fold, "finished" if fold in finished else "crashed", 1, 1.0) for fold in FOLDS]
    return pd.DataFrame(rows, columns=[CANDIDATE, FOLD, "status", "epochs", "seconds"])


def test_no_tile_and_a_fold_that_failed_are_told_apart() -> None:
    tiles = predictions({"c1": True, "c2": False, "c3": True, "c4": True})
    table = unpredicted(tiles, scored(["c0"]), {"a": FOLDS}, trials(FOLDS[:5]))
    assert dict(zip(table[COMPOUND], table[REASON], strict=True)) == {"c0": "no cells", "c5": NOT_FINISHED}
    assert list(of_no_tile(table)[COMPOUND]) == ["c0"]


def test_a_ledger_from_before_says_nothing() -> None:
    table = unpredicted(predictions({"c1": True}), scored_of({}), {"a": FOLDS}, trials())
    assert table.empty
    assert list(table) == list(no_unpredicted())


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_every_number_counts_the_same_treatments(data: st.DataObject) -> None:
    dead = set(data.draw(st.lists(st.sampled_from(list(TRUE)), max_size=5)))
    right = {name: data.draw(st.booleans()) for name in TRUE if name not in dead}
    tiles = predictions(right)
    missing = unpredicted(tiles, scored(dead), {"a": FOLDS}, trials())
    k, n = sum(right.values()), len(TRUE)
    board = leaderboard(tiles, trials(), {"a": {"backbone": "SmallCNN", "weights": "random"}}, 6, missing=missing)
    row = board.iloc[0]
    assert (row["k"], row["n"], row["compounds"]) == (k, n, n)
    assert row["treatment_accuracy"] == k / n
    assert row["wilson_low"] == scores.wilson(k, n)[0]
    treatments = aggregation.treatments(tiles)
    matrix = scores.confusion(treatments, LABELS, missing)
    assert matrix.to_numpy().sum() == n
    assert sum(matrix.at[label, label] for label in LABELS) == k
    both = with_unpredicted(treatments, missing)
    assert comparison.right(both)["a"].to_numpy().tolist() == [float(right.get(name, False)) for name in TRUE]
    assert scores.majority(both)[1:] == (3, 6)
    other = {"X": "Y", "Y": "X"}
    taken = ["none" if name in dead else label if right[name] else other[label] for name, label in TRUE.items()]
    labels = sorted({*TRUE.values(), *taken} - {"none"})
    slow = f1_score(list(TRUE.values()), taken, labels=labels, average="macro", zero_division=0)
    assert row["macro_f1"] == pytest.approx(slow)
    assert row["log_loss"] == pytest.approx(scores.log_loss(treatments))


def test_columns_keep_their_types_and_nothing_is_predicted() -> None:
    tiles = predictions({"c1": True})
    treatments = aggregation.treatments(tiles)
    both = with_unpredicted(treatments, unpredicted(tiles, scored(["c0"]).head(2), {"a": FOLDS}, trials()))
    assert both.dtypes.to_dict() == treatments.dtypes.to_dict()
    last = both.iloc[-1]
    assert (last[COMPOUND], last[BACKBONE], last["replicates"], last["tiles"]) == ("c0", "SmallCNN", 0, 0)
    assert pd.isna(last["predicted"])
    assert np.isnan(last["prob_X"])


def test_a_search_counts_what_was_not_predicted_as_not_right() -> None:
    wells = predictions({"c1": True}).assign(**{FOLD: "week=1"})
    table = scored(["c0"]).head(2).assign(**{FOLD: "week=1"})
    result = Result("a", "week=1", "finished", {}, predictions=wells)
    assert loss("treatment_accuracy", "median")(result) == 0
    assert loss("treatment_accuracy", "median", scored=table)(result) == 0.5
    assert loss("treatment_accuracy", "median", wells, table)(result) == 0.5
    assert loss("treatment_log_loss", "median", scored=table)(result) == pytest.approx(-np.log(0.9))


@pytest.mark.parametrize(("objective", "worst"), [("treatment_accuracy", 1.0), ("treatment_log_loss", np.log(2))])
def test_a_fold_without_a_tile_is_worth_the_same_to_every_candidate(objective: str, worst: float) -> None:
    empty = Result("a", FOLDS[0], "finished", {}, predictions=predictions({"c1": True}).iloc[:0])
    for result in (empty, Result("a", FOLDS[0], "finished", {})):
        assert loss(objective, "median", scored=scored(["c0"]))(result) == pytest.approx(worst)
