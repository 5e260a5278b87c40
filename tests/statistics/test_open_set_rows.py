"""Rows of the open set: no score counts them, and they are aggregated apart."""

import math

import numpy as np
import pandas as pd

from moa_ray.common import open_set
from moa_ray.common.schema import (
    BACKBONE,
    CANDIDATE,
    COMPOUND,
    CONCENTRATION,
    FIELD,
    FOLD,
    LABEL,
    METHOD,
    OPEN_SET,
    PLATE,
    SAMPLE,
    TILE,
    WELL,
)
from moa_ray.statistics import aggregation, leaderboard, scores

LABELS = {"a": "A", "b": "B", "c": "C"}


def tiles(fold: str, compounds: str, right: float = 0.8) -> pd.DataFrame:
    """Two tiles of each compound, each with so much probability on its label."""
    rows = [
        {
            **{PLATE: "P", WELL: compound, FIELD: "1", TILE: str(tile), COMPOUND: compound, CONCENTRATION: 1.0},
            **{LABEL: LABELS[compound], CANDIDATE: "m", BACKBONE: "SmallCNN", FOLD: fold},
            **{f"prob_{label}": right if label == LABELS[compound] else (1 - right) / 2 for label in "ABC"},
        }
        for compound in compounds
        for tile in range(2)
    ]
    return pd.DataFrame(rows)


# Each compound is known to one fold, and unknown to the one that held out its label.
PREDICTIONS = pd.concat([tiles("label=A", "ab"), tiles("label=B", "bc"), tiles("label=C", "ca")], ignore_index=True)


def test_a_treatment_known_to_one_fold_and_unknown_to_another_is_aggregated_apart() -> None:
    counted, held_out = (aggregation.treatments(PREDICTIONS, held_out=held_out) for held_out in (False, True))
    assert counted[[COMPOUND, FOLD, OPEN_SET]].values.tolist() == [
        ["a", "label=C", False],
        ["b", "label=A", False],
        ["c", "label=B", False],
    ]
    assert held_out[[COMPOUND, FOLD, OPEN_SET]].values.tolist() == [
        ["a", "label=A", True],
        ["b", "label=B", True],
        ["c", "label=C", True],
    ]
    pd.testing.assert_frame_equal(counted, aggregation.treatments(open_set.closed_set(PREDICTIONS)))


def test_scores_and_leaderboard_count_the_closed_set_alone() -> None:
    wrong = PREDICTIONS.copy()
    columns = ["prob_A", "prob_B", "prob_C"]
    wrong.loc[open_set.marks(wrong), columns] = np.roll(wrong.loc[open_set.marks(wrong), columns], 1, axis=1)
    assert scores.scores(wrong) == scores.scores(open_set.closed_set(PREDICTIONS))
    trials = pd.DataFrame({CANDIDATE: "m", FOLD: PREDICTIONS[FOLD].unique(), "status": "finished"})
    trials = trials.assign(epochs=1, seconds=1.0)
    board = leaderboard.leaderboard(wrong, trials, {"m": {"backbone": "SmallCNN", "weights": "random"}}, 3)
    assert (board["k"].iloc[0], board["n"].iloc[0]) == (3, 3)
    assert aggregation.wells(wrong)[aggregation.TILES].tolist() == [2, 2, 2]


def test_where_no_row_counts_nothing_is_scored() -> None:
    held_out = scores.scores(tiles("label=A", "a"))
    assert (held_out["k"], held_out["n"], held_out["compounds"]) == (0, 0, 0)
    assert math.isnan(held_out["treatment_accuracy"])
    assert list(held_out) == list(scores.SCORES)
    assert aggregation.treatments(tiles("label=A", "a"), apart=True).empty


def test_samples_have_a_row_for_a_treatment_as_known_and_as_unknown() -> None:
    samples = pd.concat([PREDICTIONS.assign(**{METHOD: "laplace", SAMPLE: draw}) for draw in range(2)])
    table = aggregation.sampled(samples)
    assert table.groupby([COMPOUND, OPEN_SET])[SAMPLE].apply(list).tolist() == [[0, 1]] * 6
