"""The leaderboard: who leads, who cannot be told from the best, and the figure of both."""

import pandas as pd
import pytest

from moa_ray.reporting import figures, page
from moa_ray.reporting.sections.leaderboard import Leaderboard, accuracies
from reporting.evidence_factory import evidence, texts, visible


def two_candidates() -> pd.DataFrame:
    """A complete candidate and one that is not."""
    return pd.DataFrame(
        {
            "candidate": ["A-1", "B-2"],
            "backbone": ["A", "B"],
            "weights": ["imagenet", "../weights/own.h5"],
            "learning_rate": [0.001, 0.01],
            "complete": [True, False],
            "folds_finished": [4, 1],
            "n_folds": [4, 4],
            "k": [8, 3],
            "n": [10, 3],
            "treatment_accuracy": [0.8, 1.0],
            "wilson_low": [0.49, 0.44],
            "wilson_high": [0.94, 1.0],
        }
    )


@pytest.mark.usefixtures("undrawn")
def test_a_leaderboard_says_who_cannot_be_told_from_the_best() -> None:
    three = evidence(candidates=3, finished=2)
    table = Leaderboard(three).table
    shown = [dict(zip(table.headings, row, strict=True)) for row in table.rows]
    assert [row["against the best"] for row in shown] == ["best", "not distinguishable", "not distinguishable"]
    assert [row["fewer right"] for row in shown] == ["–", "0 of 4", "0 of 2"]
    assert [row["permutation p"] for row in shown] == ["–", "1.000", "1.000"]
    assert "it cannot go below 0.25 here" in visible(page.render(three))  # 2 candidates, 4 compounds
    assert "against the best" not in Leaderboard(evidence(candidates=1)).table.headings


def test_incomplete_candidates_are_hollow_and_say_so() -> None:
    figure = accuracies(two_candidates())
    hollow = [line.get_markerfacecolor() == "white" for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert hollow == [False, True]
    assert {"8 of 10", "3 of 3\n1 of 4 folds"} <= set(texts(figure))


def test_the_same_figure_is_the_same_file() -> None:
    first, second = (figures.svg(accuracies(two_candidates())) for _ in range(2))
    assert first == second
