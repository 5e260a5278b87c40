"""Figures: tables in, matplotlib figures out.

Drawn through matplotlib's objects, so that no figure lives in a global state. Colours are those of Okabe and Ito, which
people with any colour vision tell apart.
"""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from moa_ray import examples, metrics, published
from moa_ray.examples import Pair, Shot
from moa_ray.ledger import file_name
from moa_ray.tables import (
    BACKBONE,
    CANDIDATE,
    COMPOUND,
    CONCENTRATION,
    FOLD,
    LABEL,
    labels_of,
    probability_column,
    require_columns,
)

BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#9AA0A6", "#202124"
CURVES = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = "osD^vPX"
_SHADES = LinearSegmentedColormap.from_list("shades", ["#E3EEF6", BLUE])
_CHANNEL_COLOURS = ("red", "green", "blue")

STRETCH = (1.0, 99.8)  # percentiles of a channel that become black and full colour
_SAVED: dict[Any, Any] = {
    "svg.hashsalt": "moa_ray",
    "svg.fonttype": "path",
}  # the same file for the same figure, on any machine
_WORDS_A_LINE = 3
_WORD = re.compile(r"\w[\w'’-]*")
_SHORT_LABEL = 5  # letters; a label as short as this is its own abbreviation
_SHOWN_EPOCHS = 25  # up to here each epoch gets a marker


# Keeping --------------------------------------------------------------------------------------------------------------


def svg(figure: Figure) -> str:
    """The figure as SVG text; letters are drawn, so that it looks the same without any font."""
    return _bytes(figure, "svg", metadata={"Date": None, "Creator": None}).decode()


def png(figure: Figure, dpi: int = 160) -> bytes:
    """The figure as PNG, `dpi` pixels an inch."""
    return _bytes(figure, "png", dpi=dpi, metadata={"Software": None})


def paths(folder: Path, name: str) -> tuple[Path, Path]:
    """Where `save` puts a figure: a candidate may be called anything, and no name leads out of the folder."""
    file = file_name(name)
    return folder / f"{file}.svg", folder / f"{file}.png"


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write NAME.svg and NAME.png into a folder; returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    to_svg, to_png = paths(folder, name)
    to_svg.write_text(svg(figure), encoding="utf-8")
    to_png.write_bytes(png(figure))
    return to_svg, to_png


def _bytes(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context(_SAVED):
        figure.savefig(buffer, format=kind, facecolor="white", bbox_inches="tight", pad_inches=0.08, **options)
    return buffer.getvalue()


# Training -------------------------------------------------------------------------------------------------------------


def accuracy_over_epochs(history: pd.DataFrame) -> Figure:
    """Accuracy by epoch, mean and one standard deviation over folds; one colour a backbone and weights.

    history : one row an epoch: candidate, backbone, weights, fold, epoch, accuracy, validation_accuracy (or missing)
    Candidates with the same backbone and weights are averaged within each fold first. Training is dashed, validation
    solid; the spread is drawn for validation where there is one, else for training.
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
    """Held-out accuracy by epoch, mean and standard error over folds, by treatment and by tile.

    history : one row an epoch: candidate, backbone, weights, fold, epoch, held_out_accuracy, held_out_tile_accuracy (or
        missing where an epoch was not evaluated)
    One colour a backbone; random weights are dashed. Candidates with the same backbone and weights are averaged within
    each fold first. Source: Kensert et al. 2019, figure 4.
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
        for (_, rows), (colour, marker, drawn) in zip(groups, styles, strict=True):
            _curve(axes, rows, column, colour, marker, "--" if drawn else "-", "error")
        _over_epochs(axes, f"held-out accuracy by {unit}")
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="--" if drawn else "-", label=_curve_name(*group))
        for (group, _), (colour, marker, drawn) in zip(groups, styles, strict=True)
    ]
    all_axes[-1].legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False, fontsize=9)
    return figure


def _over_epochs(axes: Axes, what: str) -> None:
    """Axes of accuracies by epoch."""
    axes.set(xlabel="epoch", ylabel=what, ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
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
    return f"{backbone},\n{_plain(name if len(name) <= 36 else name[:33] + '...')}"


# Treatments -----------------------------------------------------------------------------------------------------------


def confusion(counts: pd.DataFrame) -> Figure:
    """How many treatments of each true label (rows) were taken for each label (columns); zeros are left out.

    counts : as `metrics.confusion` makes it. The shade is the share of the row. Labels are abbreviated as
        `abbreviations` does; their names and numbers of treatments stand beside.
    """
    labels, n = list(counts.index), len(counts)
    short = abbreviations(labels)
    names = [_plain(short[label]) for label in labels]
    totals = counts.sum(axis=1).to_numpy()
    key = [(_plain(short[label]), f"{_plain(label)} ({total})") for label, total in zip(labels, totals, strict=True)]
    beside, letters = room(text for _, text in key) + 0.3, room(names)
    side = max(0.42 * n, 1.2)
    figure = Figure(figsize=(side + letters + 0.9 + beside, max(side, 0.25 * n) + letters + 0.5), layout="constrained")
    axes, listed = figure.subplots(1, 2, width_ratios=[side + letters + 0.6, beside])
    shares = np.divide(counts.to_numpy(), totals[:, None], out=np.zeros((n, n)), where=totals[:, None] > 0)
    axes.imshow(np.ma.masked_equal(shares, 0), cmap=_SHADES, vmin=0, vmax=1, aspect="auto")
    for row, column in np.argwhere(counts.to_numpy() > 0):
        ink = "white" if shares[row, column] > 0.55 else INK
        axes.text(column, row, str(counts.iat[row, column]), ha="center", va="center", color=ink, fontsize=10)
    axes.set_xticks(range(n), names, rotation=90)
    axes.set_yticks(range(n), names)
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#D9D9D9", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    axes.set(xlabel="predicted", ylabel="true")
    for spine in axes.spines.values():
        spine.set_color("#D9D9D9")
    _list_key(listed, key, letters / (beside + letters))
    return figure


def _list_key(axes: Axes, key: Sequence[tuple[str, str]], indent: float) -> None:
    """What the abbreviations stand for, a line each."""
    axes.set(xlim=(0, 1), ylim=(len(key) - 0.5, -0.5))
    axes.set_axis_off()
    for row, (short, name) in enumerate(key):
        axes.text(0, row, short, va="center", fontsize=9, fontweight="bold", color=INK)
        axes.text(indent, row, name, va="center", fontsize=9, color=INK)


def abbreviations(labels: Sequence[str]) -> dict[str, str]:
    """A short name for each label, different for each: MD for Microtubule destabilizers, Epi for Epithelial.

    Of several words the initials, in capitals; a word with a digit stays whole, since it is a name (Eg5 inhibitors:
    Eg5I). Of a single word three letters; up to five letters stay as they are. Where two labels come to the same, both
    take a letter more of each word until they differ.
    """
    letters = dict.fromkeys(labels, 0)
    while True:
        short = {label: _abbreviated(label, more) for label, more in letters.items()}
        known = list(short.values())
        longer = [label for label in labels if known.count(short[label]) > 1 and short[label] != label]
        if not longer:
            return short
        for label in longer:
            letters[label] += 1


def _abbreviated(label: str, more: int) -> str:
    words = _WORD.findall(label)
    if len(label) <= _SHORT_LABEL or not words or more >= len(label):
        return label
    if len(words) == 1:
        return str(words[0][: 3 + more])
    parts: list[str] = [word if any(map(str.isdigit, word)) else word[: 1 + more] for word in words]
    return "".join(part[0].upper() + part[1:] for part in parts)


def accuracies(board: pd.DataFrame, baseline: float | None = None, most: int = 30) -> Figure:
    """Treatment accuracy of the best candidates with Wilson's 95 % intervals; incomplete ones are hollow and say so.

    board : as `metrics.leaderboard` makes it
    baseline : accuracy of the majority class, drawn as a line
    """
    shown = board[board["n"] > 0].head(most)
    names = ["backbone", *(["weights"] if board["weights"].nunique() > 1 else []), *metrics.hyperparameters(board)]
    if board[names].astype(str).duplicated().any():  # candidates that someone else named
        names = [CANDIDATE]
    called = [_named(standing, names) for standing in shown.to_dict("records")]
    lines = [line for name in called for line in name.split("\n")]
    height = (0.3 + 0.17 * -(-len(names) // _WORDS_A_LINE)) * len(shown) + 1.3
    figure, axes = canvas(room(lines) + 5.5, height)
    for row, standing in enumerate(shown.to_dict("records")):
        share, low, high = (standing[name] for name in ("treatment_accuracy", "wilson_low", "wilson_high"))
        colour = BLUE if standing["complete"] else GREY
        fill = colour if standing["complete"] else "white"
        axes.plot([low, high], [row, row], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot(share, row, "o", color=colour, markerfacecolor=fill, markeredgewidth=1.8, markersize=8)
        axes.text(1.02, row, _counted(standing), va="center", fontsize=9, color=INK)
    _accuracies(axes, called, baseline)
    return figure


def first_look(board: pd.DataFrame, dropped: Sequence[str], baseline: float | None = None) -> Figure:
    """Treatment accuracy of heads on frozen features as bars with Wilson's 95 % intervals; what was dropped is grey.

    board : as `metrics.leaderboard` makes it, with image_size
    baseline : accuracy of the majority class, drawn as a line
    """
    shown = board[board["n"] > 0].to_dict("records")
    names = [f"{row[BACKBONE]}, {row['image_size']} px\n{_plain(PurePath(str(row['weights'])).name)}" for row in shown]
    figure, axes = canvas(room(line for name in names for line in name.split("\n")) + 5.5, 0.55 * len(shown) + 1.2)
    for place, row in enumerate(shown):
        share, low, high = (row[name] for name in ("treatment_accuracy", "wilson_low", "wilson_high"))
        axes.barh(place, share, color=GREY if row[BACKBONE] in dropped else BLUE, height=0.55)
        axes.plot([low, high], [place, place], color=INK, linewidth=1.6)
        text = f"{_counted(row)}, log-loss {row['log_loss']:.3f}"
        axes.text(1.02, place, text, va="center", fontsize=9, color=INK)
    _accuracies(axes, names, baseline)
    return figure


def _accuracies(axes: Axes, names: Sequence[str], baseline: float | None) -> None:
    """Axes of accuracies, a named row each, with the majority class's as a line."""
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set(xlim=(0, 1), ylim=(max(len(names), 1) - 0.5, -0.5), xlabel="accuracy by treatment")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="x", color="#E6E6E6")
    if baseline is not None:
        axes.axvline(baseline, color=ORANGE, linestyle=":", linewidth=1.8)
        axes.text(baseline, -0.55, "majority class", color=ORANGE, ha="center", va="bottom", fontsize=9)


def _counted(standing: Mapping[str, Any]) -> str:
    text = f"{standing['k']} of {standing['n']}"
    if standing["complete"]:
        return text
    if "folds_finished" not in standing:
        return f"{text}\nnot all treatments"
    return f"{text}\n{standing['folds_finished']} of {standing['n_folds']} folds"


def _named(standing: Mapping[str, Any], names: Sequence[str]) -> str:
    """A candidate in words, a few hyperparameters a line."""
    words = []
    for name in names:
        value = standing[name]
        text = f"{value:g}" if isinstance(value, float) else _plain(PurePath(str(value)).name)
        words.append(text if name in (CANDIDATE, BACKBONE, "weights") else f"{name} {text}")
    lines = [words[start : start + _WORDS_A_LINE] for start in range(0, len(words), _WORDS_A_LINE)]
    return "\n".join(", ".join(line) for line in lines)


_STATUS_COLOURS = {
    "finished": BLUE,
    "stopped": "#F0C36D",
    "diverged": ORANGE,
    "out_of_memory": "#CC79A7",
    "crashed": INK,
    "not run": "#F1F3F4",
}


def race(states: pd.DataFrame, n_confirm: int) -> Figure:
    """Which trials a search ran, candidates by folds, coloured by how they ended.

    states : one row a candidate, one column a fold: the status of the trial, or missing; the last `n_confirm` columns
        are the folds that confirm
    """
    names = list(_STATUS_COLOURS)
    numbers = states.fillna("not run").map(names.index).to_numpy(dtype=int).reshape(states.shape)
    labels = [_plain(str(fold).partition("=")[2] or str(fold)) for fold in states.columns]
    height = min(0.2 * len(states), 12) + 2.2
    figure, axes = canvas(min(0.24 * states.shape[1] + 3.2, 11), height)
    axes.pcolormesh(
        numbers,
        cmap=ListedColormap(list(_STATUS_COLOURS.values())),
        vmin=-0.5,
        vmax=len(names) - 0.5,
        edgecolors="white",
        linewidth=0.8,
    )
    if n_confirm:
        axes.axvline(states.shape[1] - n_confirm, color=INK, linewidth=2)
    axes.set_xticks(np.arange(len(labels)) + 0.5, labels, rotation=90, fontsize=7)
    every = max(1, -(-len(states) // 20))
    axes.set_yticks(np.arange(0, len(states), every) + 0.5, [str(n) for n in range(0, len(states), every)], fontsize=8)
    axes.set(ylim=(len(states), 0), ylabel="candidate, in the order of proposal")
    axes.tick_params(length=0)
    present = [name for number, name in enumerate(names) if (numbers == number).any()]
    patches = [Patch(facecolor=_STATUS_COLOURS[name], label=name.replace("_", " ")) for name in present]
    axes.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=8)
    return figure


def wrong_treatments(treatments: pd.DataFrame, most: int = 24, labels_each: int = 3) -> Figure:
    """The probabilities of treatments that were taken for another label, the surest mistake first.

    treatments : of one candidate, as `metrics.treatments` makes it
    Each panel has the most probable labels and the true one.
    """
    wrong = surest_mistakes(treatments).head(most)
    columns = min(2, max(1, len(wrong)))
    rows = max(1, -(-len(wrong) // columns))
    names = [*wrong[LABEL], *labels_of(wrong)]
    figure = Figure(figsize=((room(names) + 2.9) * columns, 1.45 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(wrong) :]:
        axes.set_axis_off()
    if wrong.empty:
        grid[0, 0].text(0.5, 0.5, "no treatment went wrong", ha="center", va="center")
    for axes, (_, treatment) in zip(grid.flat, wrong.iterrows(), strict=False):
        _bars(axes, treatment, _panel_labels(treatment, labels_of(wrong), labels_each))
        # Bars are equally thick in every panel, with or without an additional true label.
        axes.set(xlim=(0, 1.2), ylim=(labels_each + 0.6, -0.6))
    return figure


def surest_mistakes(treatments: pd.DataFrame) -> pd.DataFrame:
    """The treatments that went wrong, by falling probability of the predicted label."""
    wrong = treatments[treatments[metrics.PREDICTED] != treatments[LABEL]]
    columns = [probability_column(label) for label in labels_of(wrong)]
    return wrong.loc[wrong[columns].max(axis=1).sort_values(ascending=False, kind="stable").index]


def _panel_labels(treatment: pd.Series, labels: list[str], labels_each: int) -> list[str]:
    ordered = sorted(labels, key=lambda label: -treatment[probability_column(label)])
    shown = ordered[:labels_each]
    return shown if treatment[LABEL] in shown else [*shown, treatment[LABEL]]


def _bars(axes: Axes, treatment: pd.Series, labels: list[str]) -> None:
    values = [float(treatment[probability_column(label)]) for label in labels]
    is_true = [label == treatment[LABEL] for label in labels]
    colours = [
        GREEN if true else ORANGE if label == treatment[metrics.PREDICTED] else GREY
        for label, true in zip(labels, is_true, strict=True)
    ]
    axes.barh(range(len(labels)), values, color=colours, height=0.72)
    for row, value in enumerate(values):
        axes.text(value + 0.015, row, f"{value:.2f}" + (" (true)" if is_true[row] else ""), va="center", fontsize=9)
    axes.set_yticks(range(len(labels)), [_plain(label) for label in labels], fontsize=9)
    for tick, true in zip(axes.get_yticklabels(), is_true, strict=True):
        tick.set_fontweight("bold" if true else "normal")
    dose = f", {treatment[CONCENTRATION]:g} µmol/L" if treatment[CONCENTRATION] else ""
    title = _plain(treatment[COMPOUND]) + dose
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xticks([])
    axes.tick_params(length=0, labelsize=9)
    bare(axes)
    axes.spines["bottom"].set_visible(False)


_OUTCOME_COLOURS = {
    published.BOTH: "#C6DDEE",
    published.ONLY_HERE: GREEN,
    published.ONLY_PUBLISHED: ORANGE,
    published.NEITHER: INK,
}


def side_by_side(compared: Sequence[published.Beside]) -> Figure:
    """Which treatments a candidate and a published network of its backbone got right: a square each, a row a label.

    compared : those with a published network; within a label treatments go by compound and concentration
    """
    labels = sorted({str(label) for one in compared for label in one.table[LABEL]})
    most = max(int(one.table[LABEL].value_counts().max()) for one in compared)
    # The names stand beside the first panel alone.
    figure = Figure(
        figsize=(room(labels) + (0.24 * most + 0.5) * len(compared), 0.26 * len(labels) + 1.3), layout="constrained"
    )
    panels = figure.subplots(1, len(compared), squeeze=False, sharey=True)[0]
    for axes, one in zip(panels, compared, strict=True):
        table = one.table.sort_values([LABEL, COMPOUND, CONCENTRATION])
        place = table.groupby(LABEL).cumcount()
        colours = [_OUTCOME_COLOURS[outcome] for outcome in table[published.OUTCOME]]
        for column, label, colour in zip(place, table[LABEL], colours, strict=True):
            axes.add_patch(Rectangle((column - 0.42, labels.index(label) - 0.42), 0.84, 0.84, color=colour))
        axes.set(xlim=(-0.6, most - 0.4), ylim=(len(labels) - 0.5, -0.5), aspect="equal")
        axes.set_title(f"{_plain(one.backbone)}, {one.n} treatments", fontsize=10, loc="left")
        axes.set_xticks([])
        axes.set_yticks(range(len(labels)), [_plain(label) for label in labels], fontsize=9)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    patches = [Patch(facecolor=colour, label=outcome) for outcome, colour in _OUTCOME_COLOURS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


# Tiles ----------------------------------------------------------------------------------------------------------------


def example_tiles(tiles: Mapping[str, Sequence[NDArray[np.uint8]]]) -> Figure:
    """A row of tiles for each label; the caption is `tiles_caption`.

    tiles : for each label arrays of shape (size, size, 3), 0..255. Each channel is stretched between the percentiles
        `STRETCH` of all tiles shown, so that labels can be compared.
    """
    columns = max((len(row) for row in tiles.values()), default=1)
    figure = Figure(
        figsize=(1.15 * columns + room(tiles), 1.18 * max(1, len(tiles))),
        layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0),
    )
    grid = figure.subplots(max(1, len(tiles)), max(1, columns), squeeze=False)
    low, high = stretch_limits([tile for row in tiles.values() for tile in row])
    for axes in grid.flat:
        axes.set_axis_off()
    for row, (label, shown) in zip(grid, tiles.items(), strict=False):
        row[0].text(-0.08, 0.5, _plain(label), transform=row[0].transAxes, ha="right", va="center", fontsize=10)
        for axes, tile in zip(row, shown, strict=False):
            axes.imshow(np.clip((tile - low) / (high - low), 0, 1))
    return figure


def tiles_caption(channels: Sequence[str | None]) -> str:
    """What the colours of the example tiles are and how they were stretched."""
    return (
        f"{_colours(channels)}. Each channel is stretched from its {STRETCH[0]:g}st to its {STRETCH[1]:g}th percentile "
        "over all tiles shown."
    )


def _colours(channels: Sequence[str | None]) -> str:
    return ", ".join(f"{colour}: {name}" for colour, name in zip(_CHANNEL_COLOURS, channels, strict=False) if name)


def stretch_limits(tiles: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each channel the grey levels at the percentiles `STRETCH` of all tiles given."""
    if not tiles:
        return np.zeros(3), np.ones(3)
    pixels = np.concatenate([tile.reshape(-1, 3) for tile in tiles])
    low, high = np.percentile(pixels, STRETCH, axis=0)
    return low, np.maximum(high, low + 1)


# Fields ---------------------------------------------------------------------------------------------------------------


def example_fields(pairs: Sequence[Pair], channels: Sequence[str | None]) -> Figure:
    """For each label a treated field beside an untreated one of its plate, two labels a row.

    Both fields of a pair are stretched alike, so that they can be compared; under each pair stand the grey levels that
    became black and full colour. The caption is `fields_caption`.
    """
    shots = [shot for pair in pairs for shot in (pair.treated, pair.control) if shot is not None]
    tallest = max(shot.size[1] / shot.size[0] for shot in shots)
    rows, columns = -(-len(pairs) // 2), min(2, len(pairs))
    # A gap between the pairs, so that it is plain which two belong together.
    widths = [1, 1, 0.12, 1, 1][: 3 * columns - 1]
    size = (2.6 * sum(widths), (2.5 * tallest + 1.2) * rows)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.06, wspace=0, hspace=0))
    grid = figure.subplots(rows, len(widths), squeeze=False, width_ratios=widths)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for number, pair in enumerate(pairs):
        levels = examples.limits(pair, STRETCH)
        left, right = grid[number // 2, 3 * (number % 2) :][:2]
        for axes, shot in ((left, pair.treated), (right, pair.control)):
            if shot is None:
                axes.text(0.5, 0.5, "no untreated field\non its plate", ha="center", va="center", fontsize=9)
                continue
            axes.imshow(_coloured(shot, levels, channels))
            axes.set_title("\n".join(_shot_title(pair, shot)), fontsize=8, loc="left")
        left.set_xlabel(_grey_levels(levels, channels), fontsize=7, loc="left")
    return figure


def fields_caption(pairs: Sequence[Pair], channels: Sequence[str | None]) -> str:
    """What the example fields are, what their colours are, and the scale."""
    sizes = sorted({shot.size for pair in pairs for shot in (pair.treated, pair.control) if shot is not None})
    wide = " or ".join(f"{width} x {height}" for width, height in sizes)
    return (
        "Of each label its first field by plate, well and field, and to its right the first untreated field of the "
        f"same plate. {_colours(channels)}. Raw grey levels, each channel stretched linearly from its {STRETCH[0]:g}st "
        f"to its {STRETCH[1]:g}th percentile over the two fields; below each pair the grey levels that are black and "
        f"full colour. Each field is shown whole, {wide} pixels (width x height); a pixel's size in µm is not known."
    )


def _shot_title(pair: Pair, shot: Shot) -> list[str]:
    if shot is pair.control:
        return [_fitting(shot.compound), _fitting(shot.place)]
    return [_fitting(pair.label), _fitting(f"{shot.compound}, {shot.concentration:g} µmol/L"), _fitting(shot.place)]


def _fitting(text: str) -> str:
    """A name that is not wider than a field is shown."""
    return _plain(text if len(text) <= 40 else text[:37] + "...")


def _coloured(shot: Shot, levels: Sequence[tuple[float, float]], channels: Sequence[str | None]) -> NDArray[np.float32]:
    """Red, green and blue, 0..1; black where there is no channel."""
    picture = np.zeros((*shot.planes[0].shape, 3), dtype=np.float32)
    used = [place for place, channel in enumerate(channels) if channel is not None]
    for place, plane, (low, high) in zip(used, shot.planes, levels, strict=True):
        picture[..., place] = np.clip((plane - low) / (high - low), 0, 1)
    return picture


def _grey_levels(levels: Sequence[tuple[float, float]], channels: Sequence[str | None]) -> str:
    used = [channel for channel in channels if channel is not None]
    return "\n".join(f"{_fitting(name)} {low:.0f}–{high:.0f}" for name, (low, high) in zip(used, levels, strict=True))


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches with one pair of axes, which lie behind what is drawn."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_axisbelow(True)
    bare(axes)
    return figure, axes


def bare(axes: Axes) -> None:
    """Axes without a frame on top and to the right."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def room(names: Iterable[str]) -> float:
    """Inches that the longest of some names takes."""
    return 0.1 * max((len(name) for name in names), default=0) + 0.3


def _plain(text: str) -> str:
    """Names as they are: a dollar sign begins no formula."""
    return str(text).replace("$", r"\$")
