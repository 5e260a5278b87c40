"""Which candidate leads, as the board says it."""

import pandas as pd

from moa_ray.sweep import Leader
from moa_ray.tables import BACKBONE, CANDIDATE, COMPOUND, CONCENTRATION, FIELD, FOLD, LABEL, PLATE, TILE, WELL


def trial(candidate: str, fold: str, right: int) -> pd.DataFrame:
    """Predictions of three treatments, so many of them right; those of every fold have the same names."""
    rows = pd.DataFrame({PLATE: fold, WELL: ["A01", "A02", "A03"], FIELD: "1", TILE: "0", COMPOUND: "c"})
    rows = rows.assign(**{CONCENTRATION: [1.0, 2.0, 3.0], LABEL: "x", FOLD: fold, CANDIDATE: candidate, BACKBONE: "b"})
    return rows.assign(prob_x=[0.9 if number < right else 0.1 for number in range(3)], prob_y=0.5)


def test_who_predicted_most_leads_and_of_those_who_has_most_right() -> None:
    leader = Leader("median")
    assert leader.words() == "no result yet"
    leader.add(trial("m", "f", 3))
    leader.add(trial("n", "f", 1))
    assert leader.words() == "leading: m, 3 of 3 treatments right"
    leader.add(trial("n", "g", 1))
    assert leader.words() == "leading: n, 2 of 6 treatments right"


def test_trials_of_an_earlier_start_count_together_as_they_did_one_by_one() -> None:
    trials = [trial("m", "f", 3), trial("n", "f", 1), trial("m", "g", 2)]
    together, single = Leader("median"), Leader("median")
    together.add(pd.concat(trials))
    for one in trials:
        single.add(one)
    assert together.words() == single.words() == "leading: m, 5 of 6 treatments right"
    together.add(pd.DataFrame())
    assert together.words() == single.words()
