"""Draw the report from the ledger.

    python -m moa_ray.report OUT
    python -m moa_ray.report OUT --predictions FILE [--reference kensert2019]

Makes predictions.parquet, treatments.parquet, leaderboard.csv, summary.json, report.html and figures/ anew, and
treatment_samples.parquet where the sweep draws samples or has seeds. They are views of the ledger and can be thrown
away; of an ensemble they hold the averages of its members. With --predictions the report is of a table made elsewhere
(see `moa_ray.given`), and OUT a folder of its own: empty, not there yet, or with an earlier report of this kind.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from moa_ray import (
    command,
    comparison,
    contents,
    ensembles,
    figures,
    given,
    judgements,
    metrics,
    page,
    plain,
    proposals,
    published,
    spec,
    stores,
    sure,
    unknowns,
)
from moa_ray.conformal import Conformal
from moa_ray.ensembles import Folded
from moa_ray.ledger import Ledger, Result, write_text
from moa_ray.mirror import Mirror
from moa_ray.page import Content
from moa_ray.proposals import Proposer
from moa_ray.race import Race
from moa_ray.screening import Look
from moa_ray.spec import Optuna, Sweep
from moa_ray.stores import Place, Uri
from moa_ray.study import versions
from moa_ray.tables import CANDIDATE, labels_of

_WHERE_ASKED = {"conformal.parquet", "treatment_samples.parquet", "reference.csv"}

Part = tuple[dict[str, float], pd.DataFrame, list[Path]]  # what belongs to a candidate alone


@dataclass(frozen=True)
class Written:
    """What a report says and where it stands, for those who pass it on.

    candidates : for each candidate what makes its scores, its tile predictions and its figures, which takes a second
    finished : whether any trial finished
    """

    headline: str
    summary: Mapping[str, Any]
    candidates: Mapping[str, Callable[[], Part]]
    files: list[Path]
    finished: bool


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = command.parser("report", "Draw the report again from the ledger, or of predictions made elsewhere.")
    arguments.add_argument("out", metavar="OUT", help="the folder or URI that a sweep left, or of a new report")
    arguments.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="CSV or parquet, one row a treatment: compound, concentration, moa (or label), backbone, prob_<label>...",
    )
    arguments.add_argument(
        "--reference", choices=list(published.NAMES), help="lay the treatments beside these published ones"
    )
    return command.run(_report, arguments, words)


def _report(arguments: argparse.Namespace) -> int:
    out = stores.place(arguments.out)
    complete = True
    if arguments.predictions is None:
        with Mirror(out, lambda sentence: print(f"warning: {sentence}", file=sys.stderr)) as mirror:
            headline = write(out, arguments.reference).headline
        complete = mirror.complete
    else:
        if isinstance(out, Uri):
            raise ValueError(f"{out}: a report of --predictions goes to a folder; give one, and copy it to the bucket")
        words = ["python -m moa_ray.report", str(out), "--predictions", str(arguments.predictions)]
        words += ["--reference", arguments.reference] if arguments.reference else []
        headline = write_given(out, arguments.predictions, arguments.reference, " ".join(words))
    print(headline)
    print(f"report: {out / 'report.html'}")
    return command.DONE if complete else command.FAILED


def write(place: Place, reference: str | None = None) -> Written:
    """Write everything that a sweep leaves beside its ledger. Raises ValueError where no sweep was run there.

    place : OUT; where it is a URI, all is written into this machine's copy of it
    reference : published results to lay it beside; by default those that the sweep file asks for
    """
    book = Ledger(place)
    study, out = book.study(), book.out
    sweep = spec.load(out / "sweep.yaml")
    results = list(book.results())
    sweep, look, results = contents.first_look(sweep, study, book, results)
    by_member = book.table("predictions", results)
    folded = ensembles.fold(sweep, results, by_member)
    known = folded.of(unknowns.known)
    race = contents.race(sweep, study, book, known, by_member)
    content = contents.with_look(contents.of_sweep(study, sweep, book, results, known, race), sweep, look)
    content = dataclasses.replace(content, samples=contents.samples(sweep, book, results, folded))
    content = judgements.with_reference(content, reference or sweep.reference)
    unknown = unknowns.unknown(folded.predictions)
    content, measured = _judged(
        content, sweep.conformal, metrics.treatments(unknown, sweep.aggregate) if len(unknown) else unknown
    )
    content = judgements.with_tiles(content, contents.stored_tiles(study, content.recipes, known.predictions))
    folded.predictions.to_parquet(out / "predictions.parquet", index=False)
    tables = _tables(content, measured)
    for stale in _WHERE_ASKED - tables.keys():
        (out / stale).unlink(missing_ok=True)
    for name, table in tables.items():
        (out / name).write_bytes(table)
    summary = plain.summary(content, results)
    write_text(out / "summary.json", json.dumps(summary, indent=1))
    drawn = page.draw(content) | _optuna_figures(sweep, race)
    (out / "figures").mkdir(exist_ok=True)
    saved = {name: figures.save(figure, out / "figures", name) for name, figure in drawn.items()}
    write_text(out / "report.html", page.render(content, drawn, out / "figures"))
    parts = _by_candidate(content, folded.predictions, out / "figures", saved) | _looked(content, look)
    return Written(
        headline=page.headline(content),
        summary=summary,
        candidates=parts | _by_member(study, sweep, results, by_member, folded),
        files=[out / name for name in ("report.html", "sweep.yaml", "summary.json", *tables)],
        finished=content.best is not None,
    )


def write_given(out: Path, file: Path, reference: str | None, said: str) -> str:
    """Write the report of a table of predictions made elsewhere; returns its headline.

    said : the command, for the report
    Raises ValueError where the table is wrong, or where `out` holds anything but an earlier report of this kind.
    """
    earlier = given.earlier_files(out, file)
    treatments, remarks = given.read(file)
    content = page.Content(
        study=file.name,
        seed=0,
        command=said,
        leaderboard=comparison.against_best(board := metrics.treatments_board(treatments), treatments),
        treatments=treatments,
        history=pd.DataFrame(),
        labels=sorted(labels_of(treatments)),
        channels=(None, None, None),
        warnings=remarks,
        versions=versions(),
        corrected=contents.corrected(board, treatments, None, 0),
        given=str(file),
    )
    content, measured = _judged(judgements.with_reference(content, reference), Conformal(), pd.DataFrame())
    drawn = page.draw(content)
    tables = _tables(content, measured)
    pictures = {name: [path.name for path in figures.paths(Path(), name)] for name in drawn}
    files = [
        "summary.json",
        "report.html",
        *tables,
        *(f"figures/{name}" for pair in pictures.values() for name in pair),
    ]
    out.mkdir(parents=True, exist_ok=True)
    # The summary lists the files, by which a later report knows them for its own: it is first, if this one is killed.
    summary = {"predictions": str(file), "files": files, **plain.summary(content, [])}
    write_text(out / "summary.json", json.dumps(summary, indent=1))
    for stale in earlier - set(files):
        (out / stale).unlink()
    for name, table in tables.items():
        (out / name).write_bytes(table)
    for name, figure in drawn.items():
        figures.save(figure, out / "figures", name)
    write_text(out / "report.html", page.render(content, drawn, out / "figures"))
    return page.headline(content)


def _judged(content: Content, settings: Conformal | None, unknown: pd.DataFrame) -> tuple[Content, pd.DataFrame]:
    """The content with what it says of the headline's candidate, and the measures of uncertainty of all candidates.

    unknown : treatments whose label their fold held out whole; may be empty
    """
    content = judgements.with_sure(judgements.with_calibration(content), settings)
    measured = judgements.measured(content, unknown)
    return judgements.with_uncertainty(content, measured), measured


def _tables(content: Content, measured: pd.DataFrame) -> dict[str, bytes]:
    """The tables of a report, by the names of their files."""
    tables = {
        "treatments.parquet": judgements.with_sets(content).to_parquet(index=False),
        "leaderboard.csv": _csv(content.leaderboard),
        "uncertainty.parquet": measured.to_parquet(index=False),
    }
    if content.sure.conformal:
        tables["conformal.parquet"] = sure.as_table(content.sure.conformal).to_parquet(index=False)
    if len(content.samples):
        tables["treatment_samples.parquet"] = content.samples.to_parquet(index=False)
    if content.compared:
        tables["reference.csv"] = _csv(judgements.outcomes(content))
    return tables


def _csv(table: pd.DataFrame) -> bytes:
    return str(table.to_csv(index=False)).encode()


# What belongs to a candidate alone ------------------------------------------------------------------------------------


def _by_candidate(
    content: Content, predictions: pd.DataFrame, folder: Path, saved: Mapping[str, tuple[Path, Path]]
) -> dict[str, Callable[[], Part]]:
    """What makes all that belongs to each candidate alone."""
    rows = content.leaderboard[content.leaderboard["n"] > 0].to_dict("records")
    return {row[CANDIDATE]: partial(_part, content, predictions, folder, saved, row) for row in rows}


def _part(
    content: Content,
    predictions: pd.DataFrame,
    folder: Path,
    saved: Mapping[str, tuple[Path, Path]],
    row: Mapping[str, Any],
) -> Part:
    """A candidate's scores, predictions, its curves and its confusion matrix."""
    candidate = row[CANDIDATE]
    confusion = saved.get(f"confusion-{candidate}")
    if confusion is None:
        counts = metrics.confusion(content.treatments_of(candidate), content.labels)
        confusion = figures.save(figures.confusion(counts), folder, f"confusion-{candidate}")
    curves = figures.accuracy_over_epochs(content.history[content.history[CANDIDATE] == candidate])
    _, curves_png = figures.save(curves, folder, f"accuracy_over_epochs-{candidate}")
    return _numbers(row), predictions[predictions[CANDIDATE] == candidate], [confusion[1], curves_png]


def _by_member(
    study: Mapping[str, Any], sweep: Sweep, results: Sequence[Result], predictions: pd.DataFrame, folded: Folded
) -> dict[str, Callable[[], Part]]:
    """What makes the scores and predictions of each member of an ensemble, for those who keep them apart."""
    recipes = {result.candidate: result.recipe for result in results if result.candidate in folded.names}
    folds = study["search_folds"]

    def part(member: str) -> Part:
        mine = predictions[predictions[CANDIDATE] == member]
        scored = unknowns.known(mine)
        trials = contents.trial_table([result for result in results if result.candidate == member])
        tiles, trials = (contents.of_folds(table, folds) for table in (scored, trials))
        board = metrics.leaderboard(tiles, trials, {member: recipes[member]}, len(folds), sweep.aggregate)
        return _numbers(board.iloc[0].to_dict()), mine, []

    return {member: partial(part, member) for member in recipes if (predictions[CANDIDATE] == member).any()}


def _looked(content: Content, look: Look | None) -> dict[str, Callable[[], Part]]:
    """What makes all that belongs to each look alone, where it is no candidate besides."""
    if look is None:
        return {}
    rows, own = look.board[look.board["n"] > 0].to_dict("records"), set(content.leaderboard[CANDIDATE])
    return {row[CANDIDATE]: partial(_look_part, look, row) for row in rows if row[CANDIDATE] not in own}


def _look_part(look: Look, row: Mapping[str, Any]) -> Part:
    return _numbers(row), look.of(row[CANDIDATE]), []


def _optuna_figures(sweep: Sweep, race: Race | None) -> dict[str, Figure]:
    if race is None or not isinstance(sweep.search, Optuna):
        return {}
    return proposals.figures(Proposer(sweep.space, sweep.search, sweep.seed).study(race.standings))


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(row[name]) for name in (*metrics.SCORES, "folds_finished", "folds_failed", "seconds")}


if __name__ == "__main__":
    sys.exit(main())
