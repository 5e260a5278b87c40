"""Draw the report from the ledger.

    python -m moa_ray.report OUT
    python -m moa_ray.report OUT --predictions FILE [--reference kensert2019]

Makes predictions.parquet, treatments.parquet, leaderboard.csv, summary.json, report.html and figures/ anew. They are
views of the ledger and can be thrown away. With --predictions the report is of a table made elsewhere (see
`moa_ray.given`), and OUT a folder of its own: empty, not there yet, or with an earlier report of this kind.
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

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from moa_ray import (
    command,
    examples,
    figures,
    given,
    metrics,
    page,
    proposals,
    published,
    screening,
    selection,
    spec,
    stores,
)
from moa_ray.ledger import SETTLED, Ledger, Result, write_text
from moa_ray.mirror import Mirror
from moa_ray.page import Content, Failure, FirstLook, Search
from moa_ray.proposals import Proposer
from moa_ray.race import Race, loss
from moa_ray.screening import Look
from moa_ray.spec import Optuna, Sweep
from moa_ray.stores import Place, Uri
from moa_ray.study import versions
from moa_ray.tables import BACKBONE, CANDIDATE, COMPOUND, FIELD_KEY, FOLD, LABEL, TILE_KEY, TREATMENT, labels_of

_EXAMPLES = 6  # tiles shown of each label

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
    sweep, look, results = _first_look(sweep, study, book, results)
    predictions = book.table("predictions", results)
    race = _race(sweep, study, book, results, predictions)
    content = _with_look(_content(study, sweep, book, results, predictions, race), sweep, look)
    content = _beside(content, reference or sweep.reference)
    predictions.to_parquet(out / "predictions.parquet", index=False)
    content.treatments.to_parquet(out / "treatments.parquet", index=False)
    content.leaderboard.to_csv(out / "leaderboard.csv", index=False)
    names = ["report.html", "sweep.yaml", "leaderboard.csv", "summary.json", "treatments.parquet"]
    if content.compared:
        _outcomes(content).to_csv(out / "reference.csv", index=False)
        names.append("reference.csv")
    summary = _summary(content, results)
    write_text(out / "summary.json", json.dumps(summary, indent=1))
    drawn = page.draw(content) | _optuna_figures(sweep, race)
    (out / "figures").mkdir(exist_ok=True)
    saved = {name: figures.save(figure, out / "figures", name) for name, figure in drawn.items()}
    write_text(out / "report.html", page.render(content, drawn))
    return Written(
        headline=page.headline(content),
        summary=summary,
        candidates=_by_candidate(content, predictions, out / "figures", saved) | _looked(content, look),
        files=[out / name for name in names],
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
        leaderboard=(board := metrics.treatments_board(treatments)),
        treatments=treatments,
        history=pd.DataFrame(),
        labels=sorted(labels_of(treatments)),
        channels=(None, None, None),
        warnings=remarks,
        versions=versions(),
        corrected=_corrected(board, treatments, None, 0),
        given=str(file),
    )
    content = _beside(content, reference)
    drawn = page.draw(content)
    tables = {"treatments.parquet": treatments.to_parquet(index=False), "leaderboard.csv": _csv(board)}
    if content.compared:
        tables["reference.csv"] = _csv(_outcomes(content))
    pictures = {name: [path.name for path in figures.paths(Path(), name)] for name in drawn}
    files = [
        "summary.json",
        "report.html",
        *tables,
        *(f"figures/{name}" for pair in pictures.values() for name in pair),
    ]
    out.mkdir(parents=True, exist_ok=True)
    # The summary lists the files, by which a later report knows them for its own: it is first, if this one is killed.
    summary = {"predictions": str(file), "files": files, **_summary(content, [])}
    write_text(out / "summary.json", json.dumps(summary, indent=1))
    for stale in earlier - set(files):
        (out / stale).unlink()
    for name, table in tables.items():
        (out / name).write_bytes(table)
    for name, figure in drawn.items():
        figures.save(figure, out / "figures", name)
    write_text(out / "report.html", page.render(content, drawn))
    return page.headline(content)


def _csv(table: pd.DataFrame) -> bytes:
    return str(table.to_csv(index=False)).encode()


def _content(
    study: Mapping[str, Any],
    sweep: Sweep,
    book: Ledger,
    results: list[Result],
    predictions: pd.DataFrame,
    race: Race | None,
) -> Content:
    how = sweep.aggregate
    columns = [CANDIDATE, FOLD, "status", "epochs", "seconds"]
    trials = pd.DataFrame([dataclasses.asdict(result) for result in results], columns=columns)
    candidates = [proposal.recipe for proposal in book.proposals()] if race else sweep.recipes
    recipes = {recipe.candidate: recipe.as_dict() for recipe in candidates}
    chosen_by = set(study["search_folds"])
    searched = [table[table[FOLD].isin(chosen_by)] if len(table) else table for table in (predictions, trials)]
    board = metrics.leaderboard(searched[0], searched[1], recipes, len(chosen_by), how)
    treatments = metrics.treatments(predictions, how) if len(predictions) else pd.DataFrame(columns=[CANDIDATE])
    search = None
    if race is not None:
        board = _raced(board, race, trials)
        search = _search(study, sweep, race, trials, predictions, board)
        board = _confirmed(board, study["confirm_folds"], predictions, how)
    fields, no_fields = examples.read(study.get("examples"))
    return Content(
        study=study["study"],
        seed=study["seed"],
        command=study["command"],
        leaderboard=board,
        treatments=treatments,
        history=_history(book, results),
        labels=study["labels"],
        channels=study["channels"],
        how=how,
        tiles=_example_tiles(study, recipes, predictions),
        excluded={fold: excluded for fold, excluded in study["folds"].items() if excluded is not None},
        failures=[_failure(result) for result in results if result.status not in ("finished", "stopped")],
        warnings=study["warnings"],
        notes=["The images of this screen are painted, not photographed: it shows the software, not biology."]
        if sweep.is_painted
        else [],
        versions=study["versions"],
        recipes=recipes,
        search=search,
        corrected=_corrected(board, treatments, search, study["seed"]),
        fields=fields,
        no_fields=no_fields,
        n_treatments=study.get("treatments"),
        unscored=pd.DataFrame(study.get("unscored", [])),
    )


# Published results ----------------------------------------------------------------------------------------------------


def _beside(content: Content, reference: str | None) -> Content:
    """The content with the best candidate of each backbone laid beside published results, where these are asked for.

    Of a search the headline's candidate alone, on the treatments that the headline is about: what the others did was
    looked at to choose among them.
    """
    if reference is None or content.best is None:
        return dataclasses.replace(content, reference=reference)
    if content.search and content.search.scores:
        laid = [published.beside(content.judged, content.best[CANDIDATE], content.best[BACKBONE])]
    else:
        scored = content.leaderboard[content.leaderboard["n"] > 0].drop_duplicates(BACKBONE)
        laid = [
            published.beside(content.treatments_of(candidate), candidate, backbone)
            for candidate, backbone in zip(scored[CANDIDATE], scored[BACKBONE], strict=True)
        ]
    return dataclasses.replace(content, reference=reference, compared=laid)


def _outcomes(content: Content) -> pd.DataFrame:
    """One row a candidate and treatment that was compared."""
    named = [one.table.assign(**{CANDIDATE: one.candidate, BACKBONE: one.backbone}) for one in content.compared]
    table = pd.concat(named, ignore_index=True)
    return table[[CANDIDATE, BACKBONE, *(name for name in table if name not in (CANDIDATE, BACKBONE))]]


def _plain_beside(one: published.Beside) -> dict[str, Any]:
    network = one.network and {"k": one.network.k, "n": one.network.n, "accuracy_percent": one.network.accuracy}
    lacking = {"only_here": one.only_here, "only_published": one.only_published, "other_label": one.relabelled}
    return {
        **{CANDIDATE: one.candidate, BACKBONE: one.backbone, "published": network, "compared": one.n},
        **one.counts,
        **{"mcnemar_p": one.p_value if one.n else None, **lacking},
    }


# A search -------------------------------------------------------------------------------------------------------------


def _race(
    sweep: Sweep, study: Mapping[str, Any], book: Ledger, results: list[Result], predictions: pd.DataFrame
) -> Race | None:
    """The race as far as the ledger tells, where the sweep is a search."""
    if not isinstance(sweep.search, Optuna):
        return None
    settled = [result for result in results if result.status in SETTLED]
    measure = loss(sweep.search.objective, sweep.aggregate, predictions)
    return Race.replay(sweep.search, study["search_folds"], study["confirm_folds"], measure, book.proposals(), settled)


def _raced(board: pd.DataFrame, race: Race, trials: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard in the race's order, with what it went by, and why and where each candidate was stopped."""
    rows = [
        {
            CANDIDATE: standing.proposal.recipe.candidate,
            "proposed": standing.proposal.number,
            "state": standing.state,
            "objective_loss": float(np.mean(standing.losses)) if standing.losses else float("nan"),
            "stopped_why": standing.why,
        }
        for standing in race.standings
    ]
    joined = board.merge(pd.DataFrame(rows), on=CANDIDATE, validate="one_to_one")
    totals = trials.groupby(CANDIDATE)[["epochs", "seconds"]].sum()
    joined["epochs_trained"] = joined[CANDIDATE].map(totals["epochs"]).fillna(0).astype(int)
    joined["seconds"] = joined[CANDIDATE].map(totals["seconds"]).fillna(0.0)
    place = {candidate: number for number, candidate in enumerate(race.ranking)}
    joined["_place"] = joined[CANDIDATE].map(place).fillna(len(place))
    order = ["_place", "folds_finished", "objective_loss", CANDIDATE]
    return joined.sort_values(order, ascending=[True, False, True, True], ignore_index=True).drop(columns="_place")


def _search(
    study: Mapping[str, Any],
    sweep: Sweep,
    race: Race,
    trials: pd.DataFrame,
    predictions: pd.DataFrame,
    board: pd.DataFrame,
) -> Search:
    assert isinstance(sweep.search, Optuna)
    folds = [*study["search_folds"], *study["confirm_folds"]]
    names = [standing.proposal.recipe.candidate for standing in race.standings]
    states = trials.pivot(index=CANDIDATE, columns=FOLD, values="status").reindex(index=names, columns=folds)
    full = sum(standing.proposal.recipe.epochs for standing in race.standings) * len(study["search_folds"])
    searched = trials.loc[trials[FOLD].isin(study["search_folds"]), "epochs"].sum()
    scores: dict[str, Any] = {}
    over_all: dict[str, Any] = {}
    if race.ranking and study["confirm_folds"]:
        mine = predictions[predictions[CANDIDATE] == race.ranking[0]]
        seen = mine[mine[FOLD].isin(study["confirm_folds"])]
        finished, wanted = seen[FOLD].nunique(), len(study["confirm_folds"])
        if finished:
            counts = {"folds_finished": finished, "n_folds": wanted, "folds_failed": wanted - finished}
            scores = {**metrics.scores(seen, sweep.aggregate), **counts, "complete": finished == wanted}
            over_all = metrics.scores(mine, sweep.aggregate)
    rules = sweep.search.race
    rule = (
        f"Every candidate gets the same first {rules.first_folds} folds; the best 1 in {rules.reduction_factor:g} over "
        f"equal folds, and at least {rules.keep}, go on to {rules.reduction_factor:g} times as many. From "
        f"{selection.FEWEST_TESTED} folds on, those that a paired Wilcoxon test finds worse than the best do not."
        if rules
        else "Every candidate gets all search folds."
    )
    return Search(
        states=states,
        confirm=study["confirm_folds"],
        scores=scores,
        over_all=over_all,
        saved=1 - float(searched) / full if full else 0.0,
        objective=sweep.search.objective.replace("_", " "),
        rule=rule,
    )


def _confirmed(
    board: pd.DataFrame, confirm: Sequence[str], predictions: pd.DataFrame, how: metrics.How
) -> pd.DataFrame:
    """The leaderboard with what each candidate that was confirmed reached on those folds alone."""
    seen = predictions[predictions[FOLD].isin(confirm)] if len(predictions) else predictions
    reached: dict[Any, dict[str, Any]] = {}
    for candidate, mine in seen.groupby(CANDIDATE) if len(seen) else ():
        reached[candidate] = {"folds": mine[FOLD].nunique(), **metrics.scores(mine, how)}
    columns = {
        f"confirm_{name}": board[CANDIDATE].map({who: scores[name] for who, scores in reached.items()})
        for name in ("folds", "k", "n", "treatment_accuracy", "log_loss")
    }
    return board.assign(**columns)


def _corrected(
    board: pd.DataFrame, treatments: pd.DataFrame, search: Search | None, seed: int
) -> selection.Corrected | None:
    """The luck of the best taken out, where every candidate finished every fold and nothing else confirms."""
    confirmed = search is not None and bool(search.confirm)
    if confirmed or len(board) < 2 or not board["complete"].all():
        return None
    right = (treatments[metrics.PREDICTED] == treatments[LABEL]).astype(float)
    table = treatments.assign(right=right).pivot(index=TREATMENT, columns=CANDIDATE, values="right")
    if table.index.get_level_values(COMPOUND).nunique() < 2:
        return None
    return selection.bbc_cv(table[list(board[CANDIDATE])], list(table.index.get_level_values(COMPOUND)), seed)


def _optuna_figures(sweep: Sweep, race: Race | None) -> dict[str, Figure]:
    if race is None or not isinstance(sweep.search, Optuna):
        return {}
    return proposals.figures(Proposer(sweep.space, sweep.search, sweep.seed).study(race.standings))


# A first look ---------------------------------------------------------------------------------------------------------


def _first_look(
    sweep: Sweep, study: Mapping[str, Any], book: Ledger, results: list[Result]
) -> tuple[Sweep, Look | None, list[Result]]:
    """The sweep without what a first look dropped, that look, and the results of the sweep's own candidates."""
    look = screening.read(sweep, study["search_folds"], book, results)
    kept = sweep if look is None else sweep.without(look.dropped)
    return kept, look, screening.own(kept, book, results)


def _with_look(content: Content, sweep: Sweep, look: Look | None) -> Content:
    if look is None:
        return content
    shown = FirstLook(look.board, look.dropped, look.unseen, sweep.keep, look.majority)
    return dataclasses.replace(content, look=shown, failures=[*content.failures, *map(_failure, look.failures)])


def _looked(content: Content, look: Look | None) -> dict[str, Callable[[], Part]]:
    """What makes all that belongs to each look alone, where it is no candidate besides."""
    if look is None:
        return {}
    rows, own = look.board[look.board["n"] > 0].to_dict("records"), set(content.leaderboard[CANDIDATE])
    return {row[CANDIDATE]: partial(_look_part, look, row) for row in rows if row[CANDIDATE] not in own}


def _look_part(look: Look, row: Mapping[str, Any]) -> Part:
    return _numbers(row), look.of(row[CANDIDATE]), []


def _plain_look(look: FirstLook) -> dict[str, Any]:
    names = [CANDIDATE, "backbone", "weights", "image_size", *("k", "n", "treatment_accuracy", "log_loss", "complete")]
    rows = [_plain({name: row[name] for name in names}) for row in look.board.to_dict("records")]
    return {"looks": rows, "keep": look.keep, "dropped": list(look.dropped), "not_looked_at": list(look.unseen)}


# What is shown --------------------------------------------------------------------------------------------------------


def _failure(result: Result) -> Failure:
    return Failure(result.candidate, result.fold, result.status, result.attempts, result.error or "")


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(row[name]) for name in (*metrics.SCORES, "folds_finished", "folds_failed", "seconds")}


def _history(book: Ledger, results: list[Result]) -> pd.DataFrame:
    """The histories of finished trials under each other, with what they belong to."""
    finished = [result for result in results if result.status == "finished"]
    history = book.table("history", finished)
    for name in ("backbone", "weights") if len(history) else ():
        history[name] = history[CANDIDATE].map({result.candidate: result.recipe[name] for result in finished})
    return history


def _example_tiles(
    study: Mapping[str, Any], recipes: Mapping[str, Mapping[str, Any]], predictions: pd.DataFrame
) -> dict[str, list[NDArray[np.uint8]]]:
    """Tiles of each label, spread over its treatments; none where the tile store is not at hand."""
    store = Path(study["tile_store"])
    sizes = sorted({recipe["image_size"] for recipe in recipes.values()})
    if predictions.empty or not (file := store / f"tiles-{sizes[-1]}.npy").exists():
        return {}
    tiles = np.load(file, mmap_mode="r", allow_pickle=False)
    rows = pd.read_parquet(store / "tiles.parquet")
    known = predictions[[*TILE_KEY, LABEL]].drop_duplicates(TILE_KEY).merge(rows, on=TILE_KEY, validate="one_to_one")
    shown = {}
    for label, mine in known.sort_values([*FIELD_KEY, "Metadata_Tile"]).groupby(LABEL):
        spread = np.unique(np.linspace(0, len(mine) - 1, _EXAMPLES).astype(int))
        shown[str(label)] = [tiles[row] for row in mine["row"].iloc[spread]]
    return shown


def _summary(content: Content, results: list[Result]) -> dict[str, Any]:
    """The headline numbers, for scripts."""
    best = content.best
    counts = pd.Series([result.status for result in results], dtype=object).value_counts()
    return {
        "study": content.study,
        "headline": page.headline(content),
        "best": None if best is None else _plain(best),
        "chosen_by": page.chosen(content),
        "corrected": None if content.corrected is None else dataclasses.asdict(content.corrected),
        "over_all_folds": _plain(content.search.over_all) if content.search and content.search.over_all else None,
        "epochs_saved": content.search.saved if content.search else None,
        "first_look": None if content.look is None else _plain_look(content.look),
        "trials": {str(status): int(count) for status, count in counts.items()},
        "folds_excluded": dict(content.excluded),
        "treatments": content.n_treatments,
        "treatments_not_scored": content.unscored.to_dict("records"),
        "reference": content.reference,
        "beside_reference": [_plain_beside(one) for one in content.compared],
        "warnings": list(content.warnings),
        "versions": dict(content.versions),
    }


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


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Values that JSON knows; what is no number becomes null."""
    return {
        name: None
        if isinstance(value, float) and not np.isfinite(value)
        else getattr(value, "item", lambda v=value: v)()
        for name, value in row.items()
    }


if __name__ == "__main__":
    sys.exit(main())
