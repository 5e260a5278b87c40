"""Candidates beside published networks, treatment by treatment."""

import dataclasses

import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from moa_ray.common.schema import BACKBONE, CANDIDATE, COMPOUND, CONCENTRATION, LABEL
from moa_ray.reporting import figures, page, published_results
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.sections.published import Published, side_by_side
from reporting.evidence_factory import evidence, visible


def one_of_each() -> published_results.Beside:
    """Four treatments, one of each outcome."""
    rows = [("a", "X", "only here right"), ("b", "Y", "only published right"), ("c", "Y", "both wrong")]
    table = pd.DataFrame([*rows, ("d", "Y", "both right")], columns=[COMPOUND, LABEL, "outcome"])
    network = published_results.networks()["ResNet50"]
    return published_results.Beside("A-1", "ResNet50", network, table.assign(**{CONCENTRATION: 1.0}))


def laid_beside() -> Evidence:
    """A backbone that the paper has, one right treatment less, and one that it has not."""
    paper = published_results.paper_treatments()
    label = paper[LABEL].where(paper[COMPOUND] != "taxol", "Epithelial")
    treatments = paper.assign(predicted=label).iloc[1:]
    grid = evidence()
    leaderboard = grid.leaderboard.assign(**{CANDIDATE: ["R-1", "M-1"], BACKBONE: ["ResNet50", "MobileNet"]})
    parts = [treatments.assign(**{CANDIDATE: name, "fold": "compound=a"}) for name in ("R-1", "M-1")]
    return dataclasses.replace(
        grid, reference="kensert2019", leaderboard=leaderboard, treatments=pd.concat(parts, ignore_index=True)
    )


@pytest.mark.usefixtures("undrawn")
def test_a_candidate_stands_beside_the_published_one() -> None:
    laid = laid_beside()
    section = Published.of(laid)
    assert section is not None
    text = visible(page.render(dataclasses.replace(evidence(), reference="kensert2019"), [section]))
    assert "Side by side: Kensert et al. 2019" in text
    table = section.table
    resnet, mobilenet = (dict(zip(table.headings, row, strict=True)) for row in table.rows)
    assert resnet["published"] == "100 of 103, 97 %"
    assert [resnet[name] for name in ("compared", *published_results.OUTCOMES)] == ["102", "96", "3", "3", "0"]
    assert (resnet["exact McNemar p"], resnet["treatments only published"]) == ("1.000", "1")
    assert (mobilenet["published"], mobilenet["treatments only here"]) == ("none", "102")
    assert len(section.differing.rows) == 6
    assert set(section.figures()) == {"side_by_side"}
    assert "Microsnoop 2023" in text
    by_week = evidence().treatments.assign(fold="compound,week=a")
    for treatments, words in ((by_week, "compound, week"), (by_week.drop(columns="fold"), "not known")):
        shown = visible(page.render(dataclasses.replace(evidence(), treatments=treatments), [section]))
        assert f"Held out here: {words}." in shown
    assert "Side by side" not in visible(page.render(evidence()))


def test_side_by_side_has_a_square_a_treatment_in_the_colour_of_its_outcome() -> None:
    axes = side_by_side([one_of_each()]).axes[0]
    squares = {(patch.get_x(), patch.get_y()): patch.get_facecolor() for patch in axes.patches}
    assert len(squares) == 4
    assert [label.get_text() for label in axes.get_yticklabels()] == ["X", "Y"]
    expected = {(0, 0): figures.GREEN, (0, 1): figures.ORANGE, (1, 1): figures.INK}
    for (column, row), colour in expected.items():
        assert squares[(column - 0.42, row - 0.42)] == to_rgba(colour)
