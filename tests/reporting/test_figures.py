"""Figures show what their tables say; they are looked at by people, so the tests ask what is written and where."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

from moa_ray import figures, metrics, published
from moa_ray.examples import Pair, Shot
from moa_ray.tables import COMPOUND, CONCENTRATION, LABEL

LABELS = ["Microtubule destabilizers", "Aurora kinase inhibitors", "Cholesterol-lowering"]


def texts(figure: Figure) -> list[str]:
    """Everything written in a figure, ticks included."""
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


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


def treatments(n: int = 12) -> pd.DataFrame:
    """Treatments of which every third is taken for the next label."""
    rows = []
    for i in range(n):
        true = i % 3
        taken = (true + 1) % 3 if i % 3 == 0 else true
        probabilities = np.full(3, 0.1)
        probabilities[taken] = 0.5 + i / 100
        rows.append((f"compound {i}", 0.3, LABELS[true], LABELS[taken], *probabilities))
    return pd.DataFrame(rows, columns=[COMPOUND, CONCENTRATION, LABEL, "predicted", *(f"prob_{n}" for n in LABELS)])


def board() -> pd.DataFrame:
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


def shot(compound: str, plane: np.ndarray) -> Shot:
    """A field of two equal channels, shown at half its size."""
    height, width = plane.shape
    return Shot(compound, 0.3, "P, B02, field 1", [plane.astype(np.float32)] * 2, (2 * width, 2 * height))


def beside() -> published.Beside:
    """Four treatments, one of each outcome."""
    rows = [("a", "X", "only here right"), ("b", "Y", "only published right"), ("c", "Y", "both wrong")]
    table = pd.DataFrame([*rows, ("d", "Y", "both right")], columns=[COMPOUND, LABEL, "outcome"])
    return published.Beside("A-1", "ResNet50", published.NETWORKS["ResNet50"], table.assign(**{CONCENTRATION: 1.0}))


def every_figure() -> Iterator[Figure]:
    """One of each."""
    yield figures.accuracy_over_epochs(history())
    yield figures.confusion(metrics.confusion(treatments(), LABELS))
    yield figures.accuracies(board(), baseline=0.3)
    yield figures.wrong_treatments(treatments())
    yield figures.example_tiles({label: [np.zeros((8, 8, 3), np.uint8)] * 2 for label in LABELS})
    yield figures.side_by_side([beside()])
    pairs = [Pair(label, shot("x", np.ones((8, 9))), shot("DMSO", np.ones((8, 9)))) for label in LABELS]
    yield figures.example_fields(pairs, ("Actin", "DAPI", None))


def test_curves_are_means_over_folds_training_dashed() -> None:
    axes = figures.accuracy_over_epochs(history()).axes[0]
    curves = {line.get_linestyle(): line.get_ydata() for line in axes.lines}
    assert len(axes.lines) == 4  # two curves of training and two of validation: candidates of one backbone are one
    np.testing.assert_allclose(curves["--"], [0.15, 0.25, 0.35])
    np.testing.assert_allclose(curves["-"], [0.5, 0.5, 0.5])


def test_without_validation_training_alone_is_drawn_with_its_spread() -> None:
    axes = figures.accuracy_over_epochs(history(validation=None)).axes[0]
    drawn = [line for line in axes.lines if len(line.get_xdata())]
    assert {line.get_linestyle() for line in drawn} == {"--"}
    assert axes.collections[-1].get_paths()[0].get_extents().height == pytest.approx(0.3, abs=0.01)
    assert "validation wells" not in [text.get_text() for text in axes.get_legend().get_texts()]


def test_held_out_curves_are_means_over_folds_with_their_standard_error_and_random_weights_are_dashed() -> None:
    rows = history().assign(held_out_accuracy=lambda table: table["accuracy"], held_out_tile_accuracy=0.5)
    rows.loc[rows["epoch"] == 2, ["held_out_accuracy", "held_out_tile_accuracy"]] = None  # not evaluated
    drawn = rows[rows["candidate"] == "c3"].assign(weights="random", candidate="c4")
    figure = figures.held_out_over_epochs(pd.concat([rows, drawn]))
    by_treatment, by_tile = figure.axes
    assert [line.get_linestyle() for line in by_treatment.lines] == ["-", "-", "--"]  # A, B, B with random weights
    for line in by_treatment.lines:
        np.testing.assert_array_equal(line.get_xdata(), [1, 3])
        np.testing.assert_allclose(line.get_ydata(), [0.15, 0.35])
    # Two folds that differ by 0.1: a standard deviation of 0.1 / sqrt(2), a standard error of 0.05 to each side.
    assert by_treatment.collections[0].get_paths()[0].get_extents().height == pytest.approx(0.3, abs=1e-6)
    np.testing.assert_allclose(by_tile.lines[0].get_ydata(), [0.5, 0.5])
    assert by_treatment.lines[1].get_color() == by_treatment.lines[2].get_color() != by_treatment.lines[0].get_color()


def test_confusion_leaves_zeros_out_and_lists_its_abbreviations() -> None:
    counts = metrics.confusion(treatments(), LABELS)
    figure = figures.confusion(counts)
    assert [text.get_text() for text in figure.axes[0].texts] == [
        str(count) for count in counts.to_numpy().flat if count
    ]
    written = texts(figure)
    assert {"MD", "AKI", "Cho", *(f"{label} (4)" for label in LABELS)} <= set(written)
    assert not set(LABELS) & set(written)


def test_a_label_without_treatments_keeps_its_row() -> None:
    only = treatments()
    written = texts(figures.confusion(metrics.confusion(only[only[LABEL] == LABELS[1]], LABELS)))
    assert f"{LABELS[0]} (0)" in written


def test_mechanisms_are_abbreviated_by_their_initials() -> None:
    names = ["DNA damage", "Eg5 inhibitors", "Epithelial", "Protein synthesis", "Alpha", "label 10", "label 11"]
    assert list(figures.abbreviations(names).values()) == ["DD", "Eg5I", "Epi", "PS", "Alpha", "L10", "L11"]


def test_labels_of_the_same_initials_take_more_letters() -> None:
    names = ["Microtubule destabilizers", "Microtubule disruptors", "AD", "Actin disruptors"]
    assert list(figures.abbreviations(names).values()) == ["MiDe", "MiDi", "AD", "AcDi"]


@given(st.lists(st.text(alphabet="aAbB5 -é", max_size=9), unique=True, max_size=8))
def test_abbreviations_tell_all_labels_apart(labels: list[str]) -> None:
    short = figures.abbreviations(labels)
    assert list(short) == labels
    assert len(set(short.values())) == len(labels)


def test_side_by_side_has_a_square_a_treatment_in_the_colour_of_its_outcome() -> None:
    axes = figures.side_by_side([beside()]).axes[0]
    squares = {(patch.get_x(), patch.get_y()): patch.get_facecolor() for patch in axes.patches}
    assert len(squares) == 4
    assert [label.get_text() for label in axes.get_yticklabels()] == ["X", "Y"]
    expected = {(0, 0): figures.GREEN, (0, 1): figures.ORANGE, (1, 1): figures.INK}
    for (column, row), colour in expected.items():
        assert squares[(column - 0.42, row - 0.42)] == to_rgba(colour)


def test_both_fields_of_a_pair_are_stretched_alike() -> None:
    treated, control = (np.random.default_rng(seed).integers(0, 900 * seed, (6, 8)) for seed in (1, 2))
    pair = Pair("X", shot("x", treated), shot("DMSO", control))
    figure = figures.example_fields([pair], ("Actin", None, "DAPI"))
    low, high = np.percentile(np.concatenate([treated.ravel(), control.ravel()]), figures.STRETCH)
    shown = [axes.images[0].get_array() for axes in figure.axes]
    for picture, plane in zip(shown, (treated, control), strict=True):
        np.testing.assert_allclose(picture[..., 0], np.clip((plane - low) / (high - low), 0, 1), atol=1e-6)
        assert not picture[..., 1].any()
    assert f"Actin {low:.0f}–{high:.0f}\nDAPI {low:.0f}–{high:.0f}" in texts(figure)
    assert {"X\nx, 0.3 µmol/L\nP, B02, field 1", "DMSO\nP, B02, field 1"} <= set(texts(figure))
    caption = figures.fields_caption([pair], ("Actin", None, "DAPI"))
    assert "red: Actin, blue: DAPI." in caption
    assert "16 x 12 pixels" in caption


def test_a_label_on_a_plate_without_controls_says_so() -> None:
    figure = figures.example_fields([Pair("X", shot("x", np.eye(4)), None)], ("Actin", "DAPI", None))
    assert "no untreated field\non its plate" in texts(figure)


@pytest.mark.parametrize("name", ["confusion-../../up", "/etc/a", "a\0b", "x" * 400, "ü/" * 100])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    for path in figures.save(Figure(), tmp_path / "figures", name):
        assert path.parent == tmp_path / "figures"
        assert path.is_file()
    assert figures.paths(tmp_path, name) != figures.paths(tmp_path, name + "/")


def test_incomplete_candidates_are_hollow_and_say_so() -> None:
    figure = figures.accuracies(board())
    hollow = [line.get_markerfacecolor() == "white" for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert hollow == [False, True]
    assert {"8 of 10", "3 of 3\n1 of 4 folds"} <= set(texts(figure))


def test_wrong_treatments_show_the_true_label_even_where_it_is_improbable() -> None:
    written = texts(figures.wrong_treatments(treatments(), labels_each=1))
    assert written.count(LABELS[0]) == 4
    assert "0.10 (true)" in written
    assert not any(text.startswith("compound 1,") for text in written)


def test_the_surest_mistakes_come_first() -> None:
    assert figures.surest_mistakes(treatments())[COMPOUND].tolist() == [f"compound {i}" for i in (9, 6, 3, 0)]
    assert len(figures.wrong_treatments(treatments(), most=3).axes) == 4


def test_no_mistake_is_said() -> None:
    assert "no treatment went wrong" in texts(figures.wrong_treatments(treatments().iloc[1:2]))


def test_a_dollar_in_a_name_begins_no_formula() -> None:
    table = treatments().iloc[:1].assign(**{COMPOUND: r"$\nonsense{$"})
    root = ElementTree.fromstring(figures.svg(figures.wrong_treatments(table)))
    assert root.tag.endswith("svg")


def test_channels_are_stretched_between_percentiles_of_all_tiles() -> None:
    tiles = np.random.default_rng(0).integers(20, 120, (4, 16, 16, 3)).astype(np.uint8)
    shown = figures.example_tiles({"X": list(tiles[:2]), "Y": list(tiles[2:])}).axes[0].images[0].get_array()
    low, high = (np.percentile(tiles[..., 0], share) for share in figures.STRETCH)
    np.testing.assert_allclose(shown[..., 0], np.clip((tiles[0, ..., 0] - low) / (high - low), 0, 1))


def test_the_caption_names_the_channels_that_are_there() -> None:
    caption = figures.tiles_caption(("Actin", None, "DAPI"))
    assert caption.startswith("red: Actin, blue: DAPI.")
    assert "1st to its 99.8th percentile" in caption


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("length", [2, 80])
def test_two_labels_with_names_of_any_length_leave_room_to_draw(length: int) -> None:
    names = ["X" * length, "Y" * length]
    table = treatments().replace(dict(zip(LABELS, names, strict=False))).iloc[:2].drop(columns=f"prob_{LABELS[2]}")
    table = table.rename(columns={f"prob_{old}": f"prob_{new}" for old, new in zip(LABELS, names, strict=False)})
    tiles = {name: [np.zeros((8, 8, 3), np.uint8)] for name in names}
    confusion = figures.confusion(metrics.confusion(table, names))
    for figure in (confusion, figures.wrong_treatments(table), figures.example_tiles(tiles)):
        figure.draw_without_rendering()
        inches = figure.axes[0].get_position().width * figure.get_size_inches()[0]
        assert inches > 0.5


def test_saved_figures_clip_no_text_and_leave_no_global_state(tmp_path: Path) -> None:
    for number, figure in enumerate(every_figure()):
        svg, png = figures.save(figure, tmp_path, f"figure{number}")
        assert ElementTree.parse(svg).getroot().tag.endswith("svg")
        assert png.read_bytes().startswith(b"\x89PNG")
        image = plt.imread(png)[..., :3]
        edges = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert (edges == 1).all(), "something is drawn up to the edge"
    assert plt.get_fignums() == []


def test_the_same_figure_is_the_same_file() -> None:
    first, second = (figures.svg(figures.accuracies(board())) for _ in range(2))
    assert first == second
