"""Candidates against the best: only what both were asked, paired by treatment and by compound."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_ray.common.schema import CANDIDATE, COMPOUND, CONCENTRATION, FOLD, LABEL
from moa_ray.reporting.external import read
from moa_ray.statistics import comparison, intervals, leaderboard


def treatments(right: dict[str, str], fold: bool = True) -> pd.DataFrame:
    """Of each candidate a letter a treatment: right (r), wrong (w) or not asked (-); two treatments a compound."""
    rows = [
        (candidate, f"c{place // 2:02}", place % 2, "X", "X" if letter == "r" else "Y", f"f{place // 2:02}")
        for candidate, letters in right.items()
        for place, letter in enumerate(letters)
        if letter != "-"
    ]
    table = pd.DataFrame(rows, columns=[CANDIDATE, COMPOUND, CONCENTRATION, LABEL, "predicted", FOLD])
    return table if fold else table.drop(columns=FOLD)


def board(right: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame([(name, len(letters.replace("-", ""))) for name, letters in right.items()], columns=_BOARD)


_BOARD = [CANDIDATE, "n"]


def against(right: dict[str, str], fold: bool = True) -> pd.DataFrame:
    return comparison.against_best(board(right), treatments(right, fold)).set_index(CANDIDATE)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("rw-", min_size=12, max_size=12), min_size=2, max_size=5), st.booleans())
def test_numbers_are_what_a_slow_loop_finds(letters: list[str], fold: bool) -> None:
    right = {f"k{number}": own for number, own in enumerate(letters)}
    found = against(right, fold)
    scored = [name for name, own in right.items() if set(own) != {"-"}]
    for name in scored[1:]:
        pairs = [(b, o, place // 2) for place, (b, o) in enumerate(zip(right[scored[0]], right[name], strict=True))]
        pairs = [pair for pair in pairs if "-" not in pair[:2]]
        row = found.loc[name]
        assert row["compared"] == len(pairs)
        if not pairs:
            assert row["against_best"] == ""
            assert math.isnan(row["permutation_p"])
            continue
        lead = [(b == "r") - (o == "r") for b, o, _ in pairs]
        assert row["behind"] == sum(lead)
        assert row["mcnemar_p"] == intervals.mcnemar(lead.count(1), lead.count(-1))
        by_compound = [sum(d for d, (_, _, c) in zip(lead, pairs, strict=True) if c == own) for own in range(6)]
        assert row["permutation_p"] == pytest.approx(intervals.sign_flip(np.array(by_compound)))
    for kind in ("mcnemar", "permutation"):
        np.testing.assert_allclose(found[f"{kind}_holm"], intervals.holm(found[f"{kind}_p"]))


def test_a_candidate_that_is_worse_on_many_compounds_is_told_from_the_best() -> None:
    found = against({"best": "r" * 24, "worse": "w" * 20 + "rrrr", "close": "w" + "r" * 23, "none": "-" * 24})
    assert found["against_best"].to_dict() == {
        "best": "best",
        "worse": "worse",
        "close": "not distinguishable",
        "none": "",
    }
    assert found["compared"].to_dict() == {"best": 24, "worse": 24, "close": 24, "none": 0}


def test_many_doses_of_few_compounds_tell_mcnemar_more_than_the_permutation() -> None:
    found = against({"best": "r" * 8, "worse": "w" * 8}).loc["worse"]
    assert found["mcnemar_p"] == pytest.approx(2 / 2**8)
    assert found["permutation_p"] == pytest.approx(comparison.least_p(4, 1)) == pytest.approx(2 / 2**4)
    assert found["against_best"] == "not distinguishable"


def test_a_candidate_better_than_the_first_is_said_to_be() -> None:
    assert against({"first": "w" * 24, "second": "r" * 24}).loc["second", "against_best"] == "better"


def test_treatments_predicted_from_other_folds_are_not_compared() -> None:
    table = treatments({"best": "rrrr", "other": "rrww"})
    table.loc[table.index[-2:], FOLD] = "f01; f02"
    found = comparison.against_best(board({"best": "rrrr", "other": "rrww"}), table)
    assert found["compared"].tolist() == [4, 2]
    assert found["behind"].tolist() == [0, 0]


def test_where_nothing_was_predicted_there_is_nothing_to_compare() -> None:
    found = comparison.against_best(pd.DataFrame({CANDIDATE: ["a"], "n": [0]}), pd.DataFrame(columns=[CANDIDATE]))
    assert found["against_best"].tolist() == [""]
    assert found["compared"].tolist() == [0]


def test_the_paper_s_three_networks_cannot_be_told_apart(shared: Path) -> None:
    table, _ = read(shared / "data" / "kensert2019" / "predictions.csv")
    found = comparison.against_best(leaderboard.treatments_board(table), table).set_index(CANDIDATE)
    assert found.loc["InceptionResNetV2", "behind"] == 2
    assert sorted(found["against_best"]) == ["best", "not distinguishable", "not distinguishable"]
    assert found["mcnemar_holm"].min() == 1.0
