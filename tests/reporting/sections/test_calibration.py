"""Calibration before and after a temperature, in words, in a table and in a diagram."""

import numpy as np
import pandas as pd
import pytest

from moa_ray.common.schema import COMPOUND, CONCENTRATION, LABEL
from moa_ray.reporting import page
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.sections.calibration import Calibration, reliability
from moa_ray.statistics import calibration
from reporting.evidence_factory import evidence, visible

LABELS = ("X", "Y", "Z")


def section(of: Evidence) -> Calibration:
    result = Calibration.of(of)
    assert result is not None
    return result


@pytest.mark.usefixtures("undrawn")
def test_calibration_stands_before_and_after_a_temperature() -> None:
    shown = section(evidence())
    before, after = shown.result.before, shown.result.after
    assert after is not None
    assert shown.table.headings == ["", "as predicted", "with a temperature"]
    assert [f"{before.brier:.3f}", f"{after.brier:.3f}"] in [row[1:] for row in shown.table.rows]
    text = visible(page.render(evidence()))
    assert (before.gap_low > 0, before.gap_high < 0) == (False, False)
    assert "of the treatments: no further apart than chance allows. A temperature fitted" in text
    assert "Is A-0 right as often as it says?" in text
    low, high = shown.temperatures
    change = "falls" if after.log_loss < before.log_loss else "rises"
    assert f"({low:.2f} to {high:.2f})" in text
    assert f"{change} from {before.log_loss:.3f} to {after.log_loss:.3f}. No predicted label changes." in text
    assert f"It is {100 * before.confidence:.1f} % sure on average and right in 75.0 % of the treatments:" in text
    assert "calibration" in page.draw(page.sections_of(evidence()))


@pytest.mark.usefixtures("undrawn")
def test_one_compound_alone_has_no_other_to_fit_a_temperature_on() -> None:
    alone = Calibration(calibration.calibrate(evidence().judged.iloc[1:2]))
    assert alone.table.headings == ["", "as predicted"]
    assert "There is no other compound to fit a temperature on." in visible(page.render(evidence(), [alone]))


def drawn(compounds: int) -> calibration.Calibration:
    """Calibration of treatments whose labels were drawn from probabilities less sharp than those given."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (120, 3))
    true, sharper = (np.exp(factor * logits) for factor in (1.0, 2.0))
    labels = [LABELS[rng.choice(3, p=row / row.sum())] for row in true]
    names = [f"c{number % compounds:02}" for number in range(len(labels))]
    table = pd.DataFrame({COMPOUND: names, CONCENTRATION: np.arange(len(labels)) * 1.0, LABEL: labels})
    probabilities = sharper / sharper.sum(axis=1, keepdims=True)
    return calibration.calibrate(table.assign(**dict(zip(map("prob_{}".format, LABELS), probabilities.T, strict=True))))


def test_the_diagram_has_a_point_a_bin_before_and_after() -> None:
    result = drawn(compounds=40)
    figure = reliability(result)
    for upper, quality in zip(figure.axes[:2], (result.before, result.after), strict=True):
        points = upper.collections[-1].get_offsets()
        np.testing.assert_array_equal(points, quality.bins[["confidence", "accuracy"]])
    counts = [text.get_text() for text in figure.axes[2].texts]
    assert counts == [str(n) for n in result.before.bins["n"]]


def test_one_compound_alone_is_drawn_as_it_is() -> None:
    result = drawn(compounds=1)
    assert result.after is None
    assert len(reliability(result).axes) == 2
