"""Writing a report: tables, figures, summary.json and report.html, which are views and can be thrown away.

From a ledger these are predictions.parquet, treatments.parquet, leaderboard.csv, uncertainty.parquet, and where they
apply conformal.parquet, treatment_samples.parquet and reference.csv; of an ensemble they hold the averages of its
members. Of predictions made elsewhere the tables that need no tiles are the same.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from moa_ray.common.files import write_bytes, write_json, write_text
from moa_ray.common.uri import Place
from moa_ray.reporting import external, external_folder, from_ledger, page
from moa_ray.reporting.candidates import Part, parts
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.figures import paths, save
from moa_ray.reporting.from_ledger import Contents
from moa_ray.reporting.headline import headline, reached
from moa_ray.reporting.section import Section
from moa_ray.reporting.sections import SECTIONS
from moa_ray.reporting.summary import summary
from moa_ray.statistics.units import UNIT

_SOMETIMES = {"conformal.parquet", "treatment_samples.parquet", "reference.csv"}  # tables not of every sweep


@dataclass(frozen=True)
class Written:
    """What a report says and where it stands, for those who pass it on.

    Attributes
    ----------
    headline : str
        The result in one line.
    summary : mapping of str to Any
        What summary.json holds.
    files : list of Path
        The page and the tables.
    unfinished : str
        Why the number is not final, a clause; empty where it is.
    figures : mapping of str to tuple of Path, Path
        The SVG and the PNG of each figure.
    candidates : mapping of str to callable
        For each candidate what makes its scores, its tile predictions and its figures, which takes a second; none
        where the predictions were made elsewhere.
    """

    headline: str
    summary: Mapping[str, Any]
    files: list[Path]
    unfinished: str
    figures: Mapping[str, tuple[Path, Path]] = field(default_factory=dict)
    candidates: Mapping[str, Callable[[], Part]] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether every trial of the ranked candidates has settled, and the headline's candidate finished all folds."""
        return not self.unfinished


def write(place: Place, reference: str | None = None) -> Written:
    """Write everything that a sweep leaves beside its ledger.

    Parameters
    ----------
    place : Path or Uri
        OUT; where it is a URI, all is written into this machine's copy of it.
    reference : str or None
        Published results to lay it beside; by default those that the sweep file asks for.

    Returns
    -------
    Written
        With what belongs to each candidate alone.

    Raises
    ------
    InputError
        If no sweep was run there.
    """
    contents = Contents.read(place)
    out, evidence = contents.ledger.out, from_ledger.evidence(contents, reference)
    contents.folded.predictions.drop(columns=UNIT, errors="ignore").to_parquet(out / "predictions.parquet", index=False)
    written = write_evidence(evidence, out, _SOMETIMES)
    return replace(
        written,
        files=[*written.files, out / "sweep.yaml"],
        unfinished=unfinished(evidence, contents.unsettled),
        candidates=parts(contents, evidence, out / "figures", written.figures),
    )


def write_external(out: Path, file: Path, reference: str | None, command: str) -> Written:
    """Write the report of a table of predictions made elsewhere.

    Parameters
    ----------
    out : Path
        A folder: empty, not there yet, or with an earlier report of this kind.
    file : Path
        The table.
    reference : str or None
        Published results to lay it beside.
    command : str
        What made the report, as its page says it.

    Returns
    -------
    Written
        Without candidates.

    Raises
    ------
    InputError
        If the table is wrong, or the folder holds anything but an earlier report of this kind.
    """
    earlier = external_folder.earlier_files(out, file)
    return write_evidence(external.evidence(file, reference, command), out, earlier)


def write_evidence(
    evidence: Evidence, out: Path, earlier: Collection[str] = (), kinds: Sequence[type[Section]] = SECTIONS
) -> Written:
    """Write the tables, figures, summary.json and report.html of some evidence.

    Parameters
    ----------
    evidence : Evidence
        What the report stands on.
    out : Path
        Is made where it is not there.
    earlier : collection of str
        Files of an earlier report, relative to `out`; those that this report does not have are removed.
    kinds : sequence of type
        The sections in the page's order.

    Returns
    -------
    Written
        Without candidates.
    """
    sections = page.sections_of(evidence, kinds)
    tables = {name: _encoded(name, table) for section in sections for name, table in section.tables().items()}
    numbers = summary(evidence, sections, kinds)
    drawn = page.draw(sections)
    files = ["summary.json", "report.html", *tables]
    if evidence.is_external:
        # The summary lists the files, by which a later report knows them for its own: it is first, if this is killed.
        files_drawn = [path.as_posix() for name in drawn for path in paths(Path("figures"), name)]
        numbers = {"predictions": evidence.external, "files": [*files, *files_drawn], **numbers}
        earlier = set(earlier) - set(files_drawn)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "summary.json", numbers)
    for stale in set(earlier) - set(files):
        (out / stale).unlink(missing_ok=True)
    for name, content in tables.items():
        write_bytes(out / name, content)
    (out / "figures").mkdir(exist_ok=True)
    saved = {name: save(figure, out / "figures", name) for name, figure in drawn.items()}
    write_text(out / "report.html", page.render(evidence, sections, drawn, out / "figures"))
    return Written(headline(evidence), numbers, [out / name for name in files], unfinished(evidence, {}), saved)


def unfinished(evidence: Evidence, unsettled: Mapping[str, int]) -> str:
    """Say why a number is not final.

    Parameters
    ----------
    evidence : Evidence
        What the report stands on.
    unsettled : mapping of str to int
        How many trials of ranked candidates did not settle, by how they ended.

    Returns
    -------
    str
        A clause; empty where the number is final.
    """
    if evidence.best is None:
        return "no trial finished"
    if unsettled:
        counts = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in unsettled.items())
        return f"{sum(unsettled.values())} trials of ranked candidates did not settle ({counts})"
    if not evidence.is_external and not evidence.best["complete"]:
        return f"the headline's candidate finished {reached(evidence, evidence.best)}"
    return ""


def _encoded(name: str, table: pd.DataFrame) -> bytes:
    if name.endswith(".csv"):
        return str(table.to_csv(index=False)).encode()
    return bytes(table.to_parquet(index=False))
