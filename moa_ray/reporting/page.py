"""The report's page: sections in, one self-contained HTML file out."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from moa_ray.reporting import figures, headline
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.html_table import decimals, p_value, percent
from moa_ray.reporting.section import Section
from moa_ray.reporting.sections import SECTIONS

_PIXELS = ("example_tiles", "example_fields")  # figures of photographs, which SVG would only make larger
_DPI = 110


def sections_of(evidence: Evidence, kinds: Sequence[type[Section]] = SECTIONS) -> list[Section]:
    """Make the sections that have something to say.

    Parameters
    ----------
    evidence : Evidence
        What the report stands on.
    kinds : sequence of type
        The sections in the page's order.

    Returns
    -------
    list of Section
        In the same order.
    """
    return [section for kind in kinds if (section := kind.of(evidence)) is not None]


def draw(sections: Sequence[Section]) -> dict[str, Figure]:
    """Draw every figure of the page.

    Parameters
    ----------
    sections : sequence of Section
        As `sections_of` makes them.

    Returns
    -------
    dict of str to Figure
        By the names of their files, without ending.
    """
    return {name: figure for section in sections for name, figure in section.figures().items()}


def render(
    evidence: Evidence,
    sections: Sequence[Section] | None = None,
    drawn: Mapping[str, Figure] | None = None,
    saved: Path | None = None,
) -> str:
    """Write the page as HTML, which needs no network and no script, and in which everything is escaped.

    Parameters
    ----------
    evidence : Evidence
        What the report stands on.
    sections : sequence of Section or None
        What is said of it; by default what `sections_of` makes.
    drawn : mapping of str to Figure or None
        The figures where `draw` has made them already.
    saved : Path or None
        The folder that `figures.save` has put them into, so that they are not drawn a second time.

    Returns
    -------
    str
        The page.
    """
    sections = sections_of(evidence) if sections is None else sections
    drawn = draw(sections) if drawn is None else drawn
    best = evidence.best
    return (
        _environment()
        .get_template("page.html")
        .render(
            evidence=evidence,
            best=best,
            headline=headline,
            sections=sections,
            images={name: _image(name, figure, saved) for name, figure in drawn.items()},
        )
    )


def _environment() -> jinja2.Environment:
    # Autoescape: names of compounds, errors and paths are what users and files say.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("moa_ray.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "decimals": decimals, "p_value": p_value}
    return environment


def _image(name: str, figure: Figure, saved: Path | None) -> str:
    """A data URI. An image element keeps each figure's ids to itself, which SVG within the page would mix."""
    if name in _PIXELS:
        return "data:image/png;base64," + base64.b64encode(figures.png(figure, dpi=_DPI)).decode()
    svg = figures.paths(saved, name)[0].read_bytes() if saved else figures.svg(figure).encode()
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
