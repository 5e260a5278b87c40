"""The headline carries all that a result has to be judged by."""

import dataclasses

import pytest

from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.headline import headline
from moa_ray.statistics import bbc_cv, intervals
from reporting.evidence_factory import EVIL, evidence, searched, visible


def test_the_headline_carries_all_that_it_has_to_be_judged_by() -> None:
    line = headline(evidence())
    low, high = (f"{100 * share:.1f} %" for share in intervals.wilson(3, 4))
    assert "3 of 4 treatments right, 75.0 %" in line
    low_too, high_too = (
        f"{100 * share:.1f} %" for share in intervals.accuracy_interval([0, 1, 1, 1], [EVIL, "c1", "c2", "c3"])
    )
    assert f"95 % Wilson interval {low} to {high}; 95 % bootstrap over 4 compounds {low_too} to {high_too})" in line
    assert "best of 2 recipes judged on the same folds: optimistic, not corrected" in line
    assert "majority class: 2 of 4, 50.0 %" in line


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("judged", "says"),
    [
        (evidence(candidates=1), "one fixed recipe, nothing was chosen"),
        (evidence(candidates=2, finished=2), "the only one of 2 recipes that finished all folds"),
        (evidence(candidates=3, finished=2), "best of 2 recipes judged on the same folds (1 more did not finish)"),
        (
            dataclasses.replace(evidence(), corrected=bbc_cv.Corrected(0.612, 0.4, 0.8, 1000)),
            "optimistic, corrected by BBC-CV 61.2 % (40.0 % to 80.0 %)",
        ),
        (searched(), "the best of 2 candidates by treatment log loss on the search folds; judged on 2 folds that no"),
    ],
)
def test_what_chose_the_headline_is_said(judged: Evidence, says: str) -> None:
    from moa_ray.reporting import page

    assert says in headline(judged)
    assert says in visible(page.render(judged))


def test_an_unfinished_result_says_so() -> None:
    assert headline(evidence(candidates=1, finished=2)).startswith("UNFINISHED (2 of 4 folds): 1 of 2")


def test_a_sweep_without_predictions_has_a_headline() -> None:
    assert headline(evidence(candidates=1, finished=0)) == "No prediction: no trial finished."


def test_wells_of_a_screen_of_one_compound_are_not_called_compounds() -> None:
    judged = evidence()
    line = headline(dataclasses.replace(judged, unit="well", treatments=judged.treatments.assign(Metadata_Plate="P")))
    assert "3 of 4 wells right" in line
    assert "95 % bootstrap over 4 wells" in line
