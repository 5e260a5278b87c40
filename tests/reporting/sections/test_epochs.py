"""Curves over epochs are means over folds, and show how folds spread."""

import numpy as np
import pandas as pd
import pytest

from moa_ray.reporting.sections.epochs import accuracy_over_epochs, held_out_over_epochs


def history(validation: float | None = 0.5) -> pd.DataFrame:
    """Two folds of two candidates that share backbone and weights, and one other candidate."""
    rows = [
        (candidate, backbone, "imagenet", fold, epoch, 0.1 * epoch + (0.1 if fold == "f1" else 0), validation)
        for candidate, backbone in (("c1", "A"), ("c2", "A"), ("c3", "B"))
        for fold in ("f1", "f2")
        for epoch in (1, 2, 3)
    ]
    columns = ["candidate", "backbone", "weights", "fold", "epoch", "accuracy", "validation_accuracy"]
    return pd.DataFrame(rows, columns=columns)


def test_curves_are_means_over_folds_training_dashed() -> None:
    axes = accuracy_over_epochs(history()).axes[0]
    curves = {line.get_linestyle(): line.get_ydata() for line in axes.lines}
    assert len(axes.lines) == 4  # two curves of training and two of validation: candidates of one backbone are one
    np.testing.assert_allclose(curves["--"], [0.15, 0.25, 0.35])
    np.testing.assert_allclose(curves["-"], [0.5, 0.5, 0.5])


def test_without_validation_training_alone_is_drawn_with_its_spread() -> None:
    axes = accuracy_over_epochs(history(validation=None)).axes[0]
    drawn = [line for line in axes.lines if len(line.get_xdata())]
    assert {line.get_linestyle() for line in drawn} == {"--"}
    assert axes.collections[-1].get_paths()[0].get_extents().height == pytest.approx(0.3, abs=0.01)
    assert "validation wells" not in [text.get_text() for text in axes.get_legend().get_texts()]


def test_held_out_curves_are_means_over_folds_with_their_standard_error_and_random_weights_are_dashed() -> None:
    rows = history().assign(held_out_accuracy=lambda table: table["accuracy"], held_out_tile_accuracy=0.5)
    rows.loc[rows["epoch"] == 2, ["held_out_accuracy", "held_out_tile_accuracy"]] = None  # not evaluated
    random = rows[rows["candidate"] == "c3"].assign(weights="random", candidate="c4")
    figure = held_out_over_epochs(pd.concat([rows, random]))
    by_treatment, by_tile = figure.axes
    assert [line.get_linestyle() for line in by_treatment.lines] == ["-", "-", "--"]  # A, B, B with random weights
    for line in by_treatment.lines:
        np.testing.assert_array_equal(line.get_xdata(), [1, 3])
        np.testing.assert_allclose(line.get_ydata(), [0.15, 0.35])
    # Two folds that differ by 0.1: a standard deviation of 0.1 / sqrt(2), a standard error of 0.05 to each side.
    assert by_treatment.collections[0].get_paths()[0].get_extents().height == pytest.approx(0.3, abs=1e-6)
    np.testing.assert_allclose(by_tile.lines[0].get_ydata(), [0.5, 0.5])
    assert by_treatment.lines[1].get_color() == by_treatment.lines[2].get_color() != by_treatment.lines[0].get_color()
