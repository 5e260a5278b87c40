"""Calibration against closed cases and slow loops; a temperature never sees the compound that it is for."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moa_ray.common.schema import CANDIDATE, COMPOUND, CONCENTRATION, LABEL
from moa_ray.reporting.external import read
from moa_ray.statistics import aggregation, calibration, intervals, scores

LABELS = ["X", "Y", "Z"]
PROBABILITIES = [f"prob_{label}" for label in LABELS]

few = settings(max_examples=15, deadline=None)


def table_of(probabilities: np.ndarray, labels: list[str], compounds: list[str]) -> pd.DataFrame:
    keys = {COMPOUND: compounds, CONCENTRATION: np.arange(len(labels)) * 1.0, LABEL: labels}
    return pd.DataFrame(keys).assign(**dict(zip(PROBABILITIES, np.asarray(probabilities).T, strict=True)))


def drawn(n: int, sharper: float, seed: int = 0, compounds: int = 40) -> pd.DataFrame:
    """Labels drawn from the softmax of random logits, and the probabilities of these logits times `sharper`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, 3))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = [LABELS[rng.choice(3, p=row)] for row in true]
    said = np.exp(sharper * logits)
    said /= said.sum(axis=1, keepdims=True)
    return table_of(said, labels, [f"c{number % compounds:02}" for number in range(n)])


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """A few treatments of a few compounds, probabilities in hundredths that need not sum to 1."""
    n = draw(st.integers(2, 8))
    values = draw(arrays(np.int64, (n, 3), elements=st.integers(0, 100))) / 100
    labels = draw(st.lists(st.sampled_from(LABELS), min_size=n, max_size=n))
    compounds = ["a", "b", *draw(st.lists(st.sampled_from("abcd"), min_size=n - 2, max_size=n - 2))]
    return table_of(values, labels, compounds)


# Measuring ------------------------------------------------------------------------------------------------------------


@few
@given(tables())
def test_brier_and_bins_are_what_slow_loops_find(table: pd.DataFrame) -> None:
    squares, bins = [], {}
    for row in aggregation.renormalise(table).to_dict("records"):
        squares.append(sum((row[f"prob_{label}"] - (label == row[LABEL])) ** 2 for label in LABELS))
        said = max(LABELS, key=lambda label: row[f"prob_{label}"])
        confidence = row[f"prob_{said}"]
        bins.setdefault(min(int(confidence * 10), 9), []).append((confidence, said == row[LABEL]))
    assert calibration.brier(table) == pytest.approx(sum(squares) / len(squares))
    found = calibration.reliability(table).to_dict("records")
    assert [row["low"] for row in found] == pytest.approx([place / 10 for place in sorted(bins)])
    for row, place in zip(found, sorted(bins), strict=True):
        confidences, hits = zip(*bins[place], strict=True)
        assert row["n"] == len(hits)
        assert row["confidence"] == pytest.approx(sum(confidences) / len(hits))
        assert (row["accuracy"], row["wilson_low"]) == (
            sum(hits) / len(hits),
            intervals.wilson(sum(hits), len(hits))[0],
        )


@few
@given(tables(), st.integers(0, 9))
def test_intervals_are_of_samples_that_draw_compounds(table: pd.DataFrame, seed: int) -> None:
    names = sorted(set(table[COMPOUND]))
    errors, gaps = [], []
    for places in np.random.default_rng([seed, 3]).integers(0, len(names), (12, len(names))):
        sample = pd.concat([table[table[COMPOUND] == names[place]] for place in places])
        confidence, right = scores.confidences(sample)
        errors.append(scores.calibration_error(sample))
        gaps.append(right.mean() - confidence.mean())
    expected = scores.calibration_error(table)
    low, high = (float(np.clip(2 * expected - np.quantile(errors, q), 0, 1)) for q in (0.975, 0.025))
    found = calibration.measure(table, seed, samples=12)
    assert (found.error, found.error_low, found.error_high) == pytest.approx((expected, low, high), abs=1e-9)
    assert (found.gap_low, found.gap_high) == pytest.approx(tuple(np.quantile(gaps, [0.025, 0.975])), abs=1e-9)


@few
@given(tables(), st.randoms(use_true_random=False))
def test_calibration_does_not_depend_on_row_order(table: pd.DataFrame, order) -> None:
    shuffled = table.iloc[order.sample(range(len(table)), len(table))]
    first, second = calibration.calibrate(table), calibration.calibrate(shuffled)
    assert first.after.log_loss == pytest.approx(second.after.log_loss)
    pd.testing.assert_frame_equal(first.before.bins, second.before.bins)
    assert (first.before.error_low, first.before.brier) == pytest.approx((second.before.error_low, second.before.brier))


def test_probabilities_from_which_labels_are_drawn_are_calibrated() -> None:
    found = calibration.measure(drawn(4000, 1.0))
    assert found.gap_low < 0 < found.gap_high
    assert found.error < 0.03
    sharper = calibration.measure(drawn(4000, 3.0))
    assert sharper.gap_high < 0
    assert sharper.error_low > 0.1


def test_a_calibrated_network_shows_the_error_of_chance() -> None:
    tables = [drawn(60, 1.0, seed) for seed in range(40)]
    found = [calibration.measure(table, samples=200) for table in tables]
    errors, chances = np.array([(one.error, one.chance) for one in found]).T
    assert abs(np.mean(errors - chances)) < 4 * np.std(errors - chances) / math.sqrt(len(tables))
    assert chances.min() > 0.02
    assert calibration.measure(drawn(4000, 1.0), samples=200).chance < 0.02


def test_a_network_that_is_always_sure_and_right_is_calibrated() -> None:
    found = calibration.measure(table_of(np.eye(3), LABELS, ["a", "b", "c"]))
    assert (found.error, found.brier, found.gap_high) == (0, 0, 0)
    assert found.log_loss == pytest.approx(0, abs=1e-12)


# Temperature scaling --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_the_factor_that_logits_were_multiplied_by_is_found_again(factor: float) -> None:
    assert calibration.temperature(drawn(6000, factor)) == pytest.approx(factor, rel=0.05)


@few
@given(tables())
def test_no_temperature_of_a_grid_is_more_likely(table: pd.DataFrame) -> None:
    best = scores.log_loss(calibration.scale(table, calibration.temperature(table)))
    for temperature in np.geomspace(0.05, 20, 15):
        assert best <= scores.log_loss(calibration.scale(table, temperature)) + 1e-6


@pytest.mark.parametrize(("labels", "bound"), [(["X", "X"], 0.05), (["Y", "Z"], 20.0)])
def test_all_right_asks_for_the_lowest_temperature_and_all_wrong_for_the_highest(
    labels: list[str], bound: float
) -> None:
    """A search within bounds comes near to them and never reaches them."""
    table = table_of(np.array([[0.8, 0.1, 0.1], [0.6, 0.2, 0.2]]), labels, ["a", "b"])
    assert calibration.temperature(table) == pytest.approx(bound, rel=1e-12)


def test_a_temperature_never_sees_the_compound_that_it_is_for() -> None:
    table = drawn(60, 2.0, compounds=6)
    before = calibration.temperatures(table)
    mine = table[COMPOUND] == "c03"
    changed = table.copy()
    changed.loc[mine, PROBABILITIES] = [0.98, 0.01, 0.01]
    changed.loc[mine, LABEL] = "Z"
    after = calibration.temperatures(changed)
    assert after["c03"] == before["c03"]
    assert all(after[name] != before[name] for name in before if name != "c03")


@few
@given(tables(), st.floats(0.05, 20))
def test_a_temperature_changes_no_predicted_label(table: pd.DataFrame, temperature: float) -> None:
    assert aggregation.predicted(calibration.scale(table, temperature)).equals(aggregation.predicted(table))


def test_a_probability_of_zero_for_the_true_label_has_a_finite_loss() -> None:
    table = table_of([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.2, 0.7, 0.1]], ["Y", "X", "Y"], ["a", "b", "c"])
    found = calibration.calibrate(table)
    assert math.isfinite(found.before.log_loss)
    assert math.isfinite(found.after.log_loss)
    assert all(1 / 20 <= temperature <= 20 for temperature in found.temperatures.values())


def test_the_paper_s_networks_are_less_sure_than_they_are_right(shared: Path) -> None:
    table, _ = read(shared / "data" / "kensert2019" / "predictions.csv")
    for _, mine in table.groupby(CANDIDATE):
        found = calibration.calibrate(mine)
        assert found.before.gap_low > 0
        assert max(found.temperatures.values()) < 1
        assert found.after.error < found.before.error
        assert found.after.brier < found.before.brier
        assert scores.log_loss(calibration.scale(mine, calibration.temperature(mine))) < found.before.log_loss
        # What no other compound prepares for: a treatment of its own, surely wrong.
        assert min(found.temperatures, key=lambda name: found.temperatures[name]) == "colchicine"
        assert found.after.log_loss > found.before.log_loss
