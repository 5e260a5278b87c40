"""Mistakes, the surest first, in a table and a figure."""

import xml.etree.ElementTree as ElementTree

import pytest

from moa_ray.common.schema import COMPOUND
from moa_ray.reporting import figures, page
from moa_ray.reporting.sections.mistakes import Mistakes, surest_mistakes, wrong_treatments
from reporting.evidence_factory import EVIL, evidence, texts, visible
from reporting.sections.treatments import LABELS, treatments


def test_mistakes_are_listed_with_their_probabilities() -> None:
    section = Mistakes.of(evidence(candidates=2, wrong=1))
    assert section is not None
    assert section.table.rows == [[EVIL, "0.3", "X", "0.200", "Y & Z", "0.800", "1", "1", "2 of 2"]]


@pytest.mark.usefixtures("undrawn")
def test_no_mistakes_is_said() -> None:
    assert "got every treatment right" in visible(page.render(evidence(wrong=0)))


def test_wrong_treatments_show_the_true_label_even_where_it_is_improbable() -> None:
    written = texts(wrong_treatments(treatments(), labels_each=1))
    assert written.count(LABELS[0]) == 4
    assert "0.10 (true)" in written
    assert not any(text.startswith("compound 1,") for text in written)


def test_the_surest_mistakes_come_first() -> None:
    assert surest_mistakes(treatments())[COMPOUND].tolist() == [f"compound {i}" for i in (9, 6, 3, 0)]
    assert len(wrong_treatments(treatments(), most=3).axes) == 4


def test_no_mistake_is_said_in_the_figure() -> None:
    assert "no treatment went wrong" in texts(wrong_treatments(treatments().iloc[1:2]))


def test_a_dollar_in_a_name_begins_no_formula() -> None:
    table = treatments().iloc[:1].assign(**{COMPOUND: r"$\nonsense{$"})
    root = ElementTree.fromstring(figures.svg(wrong_treatments(table)))
    assert root.tag.endswith("svg")
