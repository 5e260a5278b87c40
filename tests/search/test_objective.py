"""The loss of a trial: over the treatments of its fold."""

import numpy as np
import pandas as pd
import pytest

from moa_ray.common.schema import BACKBONE, CANDIDATE, COMPOUND, CONCENTRATION, FIELD, FOLD, LABEL, PLATE, TILE, WELL
from moa_ray.search.objective import loss
from moa_ray.statistics import aggregation
from moa_ray.tracking.results import Result


@pytest.mark.parametrize("objective", ["treatment_accuracy", "treatment_log_loss"])
def test_trials_measured_together_are_those_measured_alone(objective: str) -> None:
    rng = np.random.default_rng(0)
    tables = {}
    for candidate in ("m", "n"):
        for fold in ("f", "g"):  # two weeks of the same treatments
            rows = pd.DataFrame({PLATE: fold, WELL: [f"A{number:02}" for number in range(40)], FIELD: "1", TILE: "0"})
            rows = rows.assign(**{COMPOUND: "c", CONCENTRATION: np.arange(40) % 20, LABEL: "x"})
            rows = rows.assign(**{FOLD: fold, CANDIDATE: candidate, BACKBONE: "b"})
            tables[candidate, fold] = rows.assign(prob_x=rng.random(40), prob_y=rng.random(40))
    together = loss(objective, "median", pd.concat(tables.values()))
    alone = loss(objective, "median")
    for key, rows in tables.items():
        assert together(Result(*key, "finished", {})) == alone(Result(*key, "finished", {}, predictions=rows))


@pytest.mark.parametrize(("objective", "expected"), [("treatment_accuracy", 0.5), ("treatment_log_loss", None)])
def test_the_objective_is_over_the_treatments_of_a_fold(objective: str, expected: float | None) -> None:
    rows = pd.DataFrame(
        {
            PLATE: "P",
            WELL: ["A01", "A01", "A02"],
            FIELD: ["1", "2", "1"],
            TILE: "0",
            COMPOUND: "c",
            CONCENTRATION: [1.0, 1.0, 2.0],
            LABEL: "x",
            FOLD: "f",
            CANDIDATE: "n",
            BACKBONE: "b",
            "prob_x": [0.8, 0.6, 0.1],
            "prob_y": [0.2, 0.4, 0.9],
        }
    )
    result = Result("n", "f", "finished", {}, predictions=rows)
    value = loss(objective, "median")(result)
    slow = -np.mean(np.log([0.7, 0.1]))
    assert value == pytest.approx(slow if expected is None else expected)
    assert aggregation.treatments(rows)["predicted"].tolist() == ["x", "y"]
