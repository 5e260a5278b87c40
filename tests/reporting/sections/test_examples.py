"""Example fields and tiles are stretched so that they can be compared, and say how."""

import dataclasses

import numpy as np
import pytest

from moa_ray.reporting import figures, page
from moa_ray.reporting.sections.examples import example_fields, example_tiles
from moa_ray.screens.example_fields import ExampleField, Pair
from reporting.evidence_factory import evidence, texts, visible


def field(compound: str, plane: np.ndarray) -> ExampleField:
    """A field of two equal channels, shown at half its size."""
    height, width = plane.shape
    return ExampleField(compound, 0.3, "P, B02, field 1", [plane.astype(np.float32)] * 2, (2 * width, 2 * height))


def test_both_fields_of_a_pair_are_stretched_alike() -> None:
    treated, control = (np.random.default_rng(seed).integers(0, 900 * seed, (6, 8)) for seed in (1, 2))
    pair = Pair("X", field("x", treated), field("DMSO", control))
    figure = example_fields([pair], ("Actin", None, "DAPI"))
    low, high = np.percentile(np.concatenate([treated.ravel(), control.ravel()]), figures.STRETCH)
    shown = [axes.images[0].get_array() for axes in figure.axes]
    for picture, plane in zip(shown, (treated, control), strict=True):
        np.testing.assert_allclose(picture[..., 0], np.clip((plane - low) / (high - low), 0, 1), atol=1e-6)
        assert not picture[..., 1].any()
    assert f"Actin {low:.0f}–{high:.0f}\nDAPI {low:.0f}–{high:.0f}" in texts(figure)
    assert {"X\nx, 0.3 µmol/L\nP, B02, field 1", "DMSO\nP, B02, field 1"} <= set(texts(figure))


@pytest.mark.usefixtures("undrawn")
def test_the_captions_name_the_channels_and_sizes_that_are_there() -> None:
    pair = Pair("X", field("x", np.eye(6, 8)), None)
    shown = dataclasses.replace(evidence(), channels=("Actin", None, "DAPI"), fields=[pair])
    text = visible(page.render(shown))
    assert "the first untreated field of the same plate. red: Actin, blue: DAPI. Raw grey levels" in text
    assert "16 x 12 pixels" in text
    tiles = text[text.index("Tiles, as the networks see them") :]
    assert tiles.removeprefix("Tiles, as the networks see them ").startswith("red: Actin, blue: DAPI. Each channel")
    assert "1st to its 99.8th percentile" in tiles


def test_a_label_on_a_plate_without_controls_says_so() -> None:
    figure = example_fields([Pair("X", field("x", np.eye(4)), None)], ("Actin", "DAPI", None))
    assert "no untreated field\non its plate" in texts(figure)


def test_channels_are_stretched_between_percentiles_of_all_tiles() -> None:
    tiles = np.random.default_rng(0).integers(20, 120, (4, 16, 16, 3)).astype(np.uint8)
    shown = example_tiles({"X": list(tiles[:2]), "Y": list(tiles[2:])}).axes[0].images[0].get_array()
    low, high = (np.percentile(tiles[..., 0], share) for share in figures.STRETCH)
    np.testing.assert_allclose(shown[..., 0], np.clip((tiles[0, ..., 0] - low) / (high - low), 0, 1))


@pytest.mark.usefixtures("undrawn")
def test_what_is_not_shown_of_the_fields_is_said() -> None:
    nothing = dataclasses.replace(evidence(), tiles=None, no_fields="No example fields: not at hand.")
    assert "No example fields: not at hand." in visible(page.render(nothing))
