"""The report's page: self-contained, safe whatever a compound is called, and made of whatever sections there are."""

import base64
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import jinja2
import pandas as pd
import pytest

from moa_ray.reporting import figures, page
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.sections import SECTIONS, Section
from moa_ray.reporting.write import write_evidence
from reporting.evidence_factory import EVIL, evidence, visible


@pytest.fixture(scope="module")
def html() -> str:
    return page.render(evidence())


def test_the_page_needs_no_network_and_no_script(html: str) -> None:
    assert not re.search(r"<script|<link|<iframe|@import|url\(", html)
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)


def test_names_are_escaped(html: str) -> None:
    assert EVIL not in html
    assert visible(html).count(EVIL) >= 5  # excluded fold, failed trial (thrice), warning, wrong treatment


def test_the_page_has_every_section(html: str) -> None:
    headings = re.findall(r"<h2[^>]*>([^<]*)</h2>", html)
    assert headings == [
        "Leaderboard",
        "Accuracy over epochs",
        "Confusion matrices",
        "Calibration",
        "Treatments that went wrong",
        "Uncertainty",
        "Example images",
        "Folds left out",
        "Failed trials",
        "Warnings about the data",
        "How it was made",
    ]
    assert all(
        word in visible(html) for word in ("python -m moa_ray.sweep a.yaml", "keras 3.15", "Seed 7", "red: Actin")
    )


def test_every_figure_drawn_is_on_the_page_as_it_was_saved(tmp_path: Path) -> None:
    sections = page.sections_of(evidence())
    drawn = page.draw(sections)
    assert set(drawn) == {
        *("leaderboard", "accuracy_over_epochs", "confusion-A-0", "wrong_treatments", "example_tiles"),
        *("calibration", "accuracy_rejection"),
    }
    for name, figure in drawn.items():
        figures.save(figure, tmp_path, name)
    html = page.render(evidence(), sections, drawn, tmp_path)
    assert html.count("<img src=") == len(drawn)
    shown = {base64.b64decode(image) for image in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", html)}
    assert shown == {path.read_bytes() for path in tmp_path.glob("*.svg") if path.stem != "example_tiles"}


@pytest.mark.usefixtures("undrawn")
def test_an_unfinished_result_says_so() -> None:
    unfinished = evidence(candidates=1, finished=2)
    assert "Not finished: 2 of 4 folds." in visible(page.render(unfinished))


@pytest.mark.usefixtures("undrawn")
def test_painted_images_and_labels_held_out_are_said_first() -> None:
    painted = dataclasses.replace(evidence(), is_painted=True)
    assert "The images of this screen are painted, not photographed" in visible(page.render(painted))
    assert "painted" not in visible(page.render(evidence()))


def test_a_sweep_without_predictions_still_has_a_page() -> None:
    nothing = dataclasses.replace(evidence(candidates=1, finished=0), tiles=None)
    text = visible(page.render(nothing))
    assert "No trial finished" in text
    assert "boom" in text
    assert page.draw(page.sections_of(nothing)) == {}


# A section is a module, a template and a place in the tuple -----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Wells(Section):
    """How many treatments there are: a section of a test."""

    template: ClassVar[str] = "wells.html"
    absent: ClassVar[Mapping[str, Any]] = {"wells": None}

    n: int

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        return cls(len(evidence.treatments)) if evidence.study == "wells" else None

    def figures(self) -> dict[str, Any]:
        figure, axes = figures.canvas(1, 1)
        axes.plot([0, self.n])
        return {"wells": figure}

    def tables(self) -> dict[str, pd.DataFrame]:
        return {"wells.csv": pd.DataFrame({"n": [self.n]})}

    def summary(self) -> dict[str, Any]:
        return {"wells": self.n}


@pytest.mark.parametrize("study", ["wells", "other"])
def test_a_section_is_a_class_a_template_and_a_place_in_the_tuple(
    study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = (
        "<h2>Wells of {{ evidence.study }}</h2>{{ section.n }}"
        '{% call figure("wells", "wells") %}A caption.{% endcall %}'
    )
    environment = page._environment()
    loaders = [jinja2.DictLoader({"wells.html": template}), environment.loader]
    environment.loader = jinja2.ChoiceLoader([loader for loader in loaders if loader is not None])
    monkeypatch.setattr(page, "_environment", lambda: environment)
    said = dataclasses.replace(evidence(), study=study)
    written = write_evidence(said, tmp_path, kinds=(SECTIONS[0], Wells, SECTIONS[-1]))
    text = visible((tmp_path / "report.html").read_text())
    is_there = study == "wells"
    assert ("Wells of wells" in text and "A caption." in text) == is_there
    assert written.summary["wells"] == (len(said.treatments) if is_there else None)
    assert (tmp_path / "wells.csv").exists() == (tmp_path / "figures" / "wells.svg").exists() == is_there
    assert text.index("Leaderboard") < text.index("How it was made")
    if is_there:
        assert text.index("Leaderboard") < text.index("Wells of") < text.index("Warnings about the data")


def test_no_two_sections_write_the_same_file_or_the_same_key() -> None:
    sections = page.sections_of(dataclasses.replace(evidence(), reference="kensert2019"))
    tables = [name for section in sections for name in section.tables()]
    drawn = [name for section in sections for name in section.figures()]
    keys = [key for section in sections for key in section.summary()]
    for names in (tables, drawn, keys):
        assert len(names) == len(set(names))
    assert len({kind.template for kind in SECTIONS}) == len(SECTIONS)
    for section in sections:
        assert set(section.absent) <= set(section.summary()) or not section.summary()
