"""Confusion matrices, and labels so short that they fit."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from moa_ray.common.schema import LABEL
from moa_ray.reporting import page
from moa_ray.reporting.sections.confusion import abbreviations, confusion
from moa_ray.statistics import scores
from reporting.evidence_factory import evidence, texts
from reporting.sections.treatments import LABELS, treatments


def test_a_confusion_matrix_of_the_best_candidate_of_each_backbone() -> None:
    grid = evidence(candidates=4)
    leaderboard = grid.leaderboard.assign(backbone=["A", "B", "A", "B"])
    drawn = page.draw(page.sections_of(dataclasses.replace(grid, leaderboard=leaderboard)))
    best = list(leaderboard["candidate"][:2])
    assert [name for name in drawn if name.startswith("confusion")] == [f"confusion-{name}" for name in best]


def test_confusion_leaves_zeros_out_and_lists_its_abbreviations() -> None:
    counts = scores.confusion(treatments(), LABELS)
    figure = confusion(counts)
    assert [text.get_text() for text in figure.axes[0].texts] == [
        str(count) for count in counts.to_numpy().flat if count
    ]
    written = texts(figure)
    assert {"MD", "AKI", "Cho", *(f"{label} (4)" for label in LABELS)} <= set(written)
    assert not set(LABELS) & set(written)


def test_a_label_without_treatments_keeps_its_row() -> None:
    table = treatments()
    written = texts(confusion(scores.confusion(table[table[LABEL] == LABELS[1]], LABELS)))
    assert f"{LABELS[0]} (0)" in written


def test_mechanisms_are_abbreviated_by_their_initials() -> None:
    names = ["DNA damage", "Eg5 inhibitors", "Epithelial", "Protein synthesis", "Alpha", "label 10", "label 11"]
    assert list(abbreviations(names).values()) == ["DD", "Eg5I", "Epi", "PS", "Alpha", "L10", "L11"]


def test_labels_of_the_same_initials_take_more_letters() -> None:
    names = ["Microtubule destabilizers", "Microtubule disruptors", "AD", "Actin disruptors"]
    assert list(abbreviations(names).values()) == ["MiDe", "MiDi", "AD", "AcDi"]


@given(st.lists(st.text(alphabet="aAbB5 -é", max_size=9), unique=True, max_size=8))
def test_abbreviations_tell_all_labels_apart(labels: list[str]) -> None:
    short = abbreviations(labels)
    assert list(short) == labels
    assert len(set(short.values())) == len(labels)
