"""Figures are saved whole, under safe names, and leave nothing behind; what they show is asked section by section."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from moa_ray.reporting import figures
from moa_ray.reporting.sections.confusion import confusion
from moa_ray.reporting.sections.epochs import accuracy_over_epochs
from moa_ray.reporting.sections.examples import example_fields, example_tiles
from moa_ray.reporting.sections.leaderboard import accuracies
from moa_ray.reporting.sections.mistakes import wrong_treatments
from moa_ray.reporting.sections.published import side_by_side
from moa_ray.screens.example_fields import Pair
from moa_ray.statistics import scores
from reporting.sections.test_epochs import history
from reporting.sections.test_examples import field
from reporting.sections.test_leaderboard import two_candidates
from reporting.sections.test_published import one_of_each
from reporting.sections.treatments import LABELS, treatments


def every_figure() -> Iterator[Figure]:
    """One of each."""
    yield accuracy_over_epochs(history())
    yield confusion(scores.confusion(treatments(), LABELS))
    yield accuracies(two_candidates(), baseline=0.3)
    yield wrong_treatments(treatments())
    yield example_tiles({label: [np.zeros((8, 8, 3), np.uint8)] * 2 for label in LABELS})
    yield side_by_side([one_of_each()])
    pairs = [Pair(label, field("x", np.ones((8, 9))), field("DMSO", np.ones((8, 9)))) for label in LABELS]
    yield example_fields(pairs, ("Actin", "DAPI", None))


@pytest.mark.parametrize("name", ["confusion-../../up", "/etc/a", "a\0b", "x" * 400, "ü/" * 100])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    for path in figures.save(Figure(), tmp_path / "figures", name):
        assert path.parent == tmp_path / "figures"
        assert path.is_file()
    assert figures.paths(tmp_path, name) != figures.paths(tmp_path, name + "/")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("length", [2, 80])
def test_two_labels_with_names_of_any_length_leave_room_to_draw(length: int) -> None:
    names = ["X" * length, "Y" * length]
    table = treatments().replace(dict(zip(LABELS, names, strict=False))).iloc[:2].drop(columns=f"prob_{LABELS[2]}")
    table = table.rename(columns={f"prob_{old}": f"prob_{new}" for old, new in zip(LABELS, names, strict=False)})
    tiles = {name: [np.zeros((8, 8, 3), np.uint8)] for name in names}
    matrix = confusion(scores.confusion(table, names))
    for figure in (matrix, wrong_treatments(table), example_tiles(tiles)):
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
