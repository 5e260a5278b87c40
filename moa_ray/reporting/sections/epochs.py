"""Accuracy over epochs: of training and validation, and of held-out treatments where these were evaluated."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import ClassVar, Literal, Self

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from moa_ray.common.schema import BACKBONE, CANDIDATE, FOLD, require_columns
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.figures import CURVES, INK, bare, canvas, percent_axis, plain_text
from moa_ray.reporting.section import Section

_MARKERS = "osD^vPX"
_SHOWN_EPOCHS = 25  # up to here each epoch gets a marker


@dataclass(frozen=True)
class Epochs(Section):
    """How accuracy went over the epochs.

    Attributes
    ----------
    history : DataFrame
        One row an epoch of a finished trial.
    """

    template: ClassVar[str] = "sections/epochs.html"

    history: pd.DataFrame

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        return cls(evidence.history) if len(evidence.history) else None

    def figures(self) -> dict[str, Figure]:
        drawn = {"accuracy_over_epochs": accuracy_over_epochs(self.history)}
        if "held_out_accuracy" in self.history:
            drawn["held_out_over_epochs"] = held_out_over_epochs(self.history)
        return drawn


def accuracy_over_epochs(history: pd.DataFrame) -> Figure:
    """Draw accuracy by epoch, mean and one standard deviation over folds; one colour a backbone and weights.

    Candidates with the same backbone and weights are averaged within each fold first. Training is dashed, validation
    solid; the spread is drawn for validation where there is one, else for training.

    Parameters
    ----------
    history : DataFrame
        One row an epoch: candidate, backbone, weights, fold, epoch, accuracy, validation_accuracy (or missing).

    Returns
    -------
    Figure
        One pair of axes.
    """
    columns = [CANDIDATE, BACKBONE, "weights", FOLD, "epoch", "accuracy", "validation_accuracy"]
    require_columns(history, columns, "history")
    figure, axes = canvas(8.4, 4.2)
    groups = list(history.groupby([BACKBONE, "weights"]))
    validated = pd.to_numeric(history["validation_accuracy"]).notna().any()
    for number, (_, rows) in enumerate(groups):
        colour, marker = CURVES[number % len(CURVES)], _MARKERS[(number // len(CURVES)) % len(_MARKERS)]
        watched = _curve(axes, rows, "validation_accuracy", colour, marker, "-", "deviation")
        _curve(axes, rows, "accuracy", colour, marker, "--", "none" if watched else "deviation")
    _name_curves(axes, [_curve_name(backbone, weights) for (backbone, weights), _ in groups], validated)
    _over_epochs(axes, "accuracy by tile")
    return figure


def held_out_over_epochs(history: pd.DataFrame) -> Figure:
    """Draw held-out accuracy by epoch, mean and standard error over folds, by treatment and by tile.

    One colour a backbone; random weights are dashed. Candidates with the same backbone and weights are averaged within
    each fold first.

    Parameters
    ----------
    history : DataFrame
        One row an epoch: candidate, backbone, weights, fold, epoch, held_out_accuracy, held_out_tile_accuracy (or
        missing where an epoch was not evaluated).

    Returns
    -------
    Figure
        Treatments to the left, tiles to the right.

    References
    ----------
    Kensert, Harrison and Spjuth 2019, figure 4.
    """
    columns = [CANDIDATE, BACKBONE, "weights", FOLD, "epoch", "held_out_accuracy", "held_out_tile_accuracy"]
    require_columns(history, columns, "history")
    figure = Figure(figsize=(10.4, 4.0), layout="constrained")
    all_axes = figure.subplots(1, 2)
    backbones = list(dict.fromkeys(history[BACKBONE]))
    groups = list(history.groupby([BACKBONE, "weights"]))
    styles = [
        (CURVES[backbones.index(backbone) % len(CURVES)], _MARKERS[number % len(_MARKERS)], weights == "random")
        for number, ((backbone, weights), _) in enumerate(groups)
    ]
    for axes, column, unit in zip(all_axes, columns[-2:], ("treatment", "tile"), strict=True):
        bare(axes)
        for (_, rows), (colour, marker, is_random) in zip(groups, styles, strict=True):
            _curve(axes, rows, column, colour, marker, "--" if is_random else "-", "error")
        _over_epochs(axes, f"held-out accuracy by {unit}")
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="--" if is_random else "-", label=_curve_name(*group))
        for (group, _), (colour, marker, is_random) in zip(groups, styles, strict=True)
    ]
    all_axes[-1].legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False, fontsize=9)
    return figure


def _over_epochs(axes: Axes, what: str) -> None:
    """Axes of accuracies by epoch."""
    axes.set(xlabel="epoch", ylabel=what, ylim=(0, 1.02))
    percent_axis(axes, "y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="y", color="#E6E6E6")


def _curve(
    axes: Axes,
    rows: pd.DataFrame,
    column: str,
    colour: str,
    marker: str,
    style: str,
    spread: Literal["none", "deviation", "error"],
) -> bool:
    """Draw one mean curve over folds and how they spread, or how sure their mean is; whether there was one to draw."""
    by_fold = rows.assign(value=pd.to_numeric(rows[column])).groupby([FOLD, "epoch"])["value"].mean()
    over_folds = by_fold.dropna().groupby("epoch")
    mean, width = over_folds.mean(), over_folds.std(ddof=0) if spread == "deviation" else over_folds.sem()
    shown = marker if len(mean) <= _SHOWN_EPOCHS else None
    axes.plot(mean.index, mean, color=colour, linestyle=style, marker=shown, markersize=4, linewidth=1.8)
    if spread != "none":
        low, high = (mean - width).clip(0, 1), (mean + width).clip(0, 1)
        axes.fill_between(mean.index, low, high, color=colour, alpha=0.15, linewidth=0)
    return not mean.empty


def _name_curves(axes: Axes, names: Sequence[str], validated: bool) -> None:
    handles = [
        Line2D([], [], color=CURVES[i % len(CURVES)], marker=_MARKERS[(i // len(CURVES)) % len(_MARKERS)], label=name)
        for i, name in enumerate(names)
    ]
    handles.append(Line2D([], [], color=INK, linestyle="--", label="training"))
    if validated:
        handles.append(Line2D([], [], color=INK, linestyle="-", label="validation wells"))
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False, fontsize=9)


def _curve_name(backbone: str, weights: str) -> str:
    name = PurePath(weights).name
    return f"{backbone},\n{plain_text(name if len(name) <= 36 else name[:33] + '...')}"
