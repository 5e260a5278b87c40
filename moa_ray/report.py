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

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from moa_ray import (
    calibration,
    command,
    comparison,
    conformal,
    ensembles,
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
    sure,
    uncertainty,
    unknowns,
)
from moa_ray.conformal import CREDIBILITY, Conformal
from moa_ray.ensembles import Folded
from moa_ray.ledger import SETTLED, Ledger, Result, write_text
from moa_ray.mirror import Mirror
from moa_ray.page import Content, Failure, FirstLook, Search
from moa_ray.proposals import Proposer
from moa_ray.race import Race, loss
from moa_ray.screening import Look
from moa_ray.spec import Optuna, Sweep
from moa_ray.stores import Place, Uri
from moa_ray.study import versions
from moa_ray.sure import Sure
from moa_ray.tables import (
    BACKBONE,
    CANDIDATE,
    COMPOUND,
    FIELD_KEY,
    FOLD,
    LABEL,
    METHOD,
    SAMPLE,
    SEED,
    TILE_KEY,
    TREATMENT,
    labels_of,
)
from moa_ray.unsure import Unsure

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
    by_member = book.table("predictions", results)
    folded = ensembles.fold(sweep, results, by_member)
    known = folded.of(unknowns.known)
    race = _race(sweep, study, book, known, by_member)
    content = _with_look(_content(study, sweep, book, results, known, race), sweep, look)
    content = dataclasses.replace(content, samples=_samples(sweep, book, results, folded))
    content = _beside(content, reference or sweep.reference)
    content = _with_tiles(_sure(_calibrated(content), sweep.conformal), study, known.predictions)
    unknown = unknowns.unknown(folded.predictions)
    measured = _measured(content, metrics.treatments(unknown, sweep.aggregate) if len(unknown) else unknown)
    content = _with_uncertainty(content, measured)
    folded.predictions.to_parquet(out / "predictions.parquet", index=False)
    measured.to_parquet(out / "uncertainty.parquet", index=False)
    _with_sets(content).to_parquet(out / "treatments.parquet", index=False)
    content.leaderboard.to_csv(out / "leaderboard.csv", index=False)
    names = ["report.html", "sweep.yaml", "leaderboard.csv", "summary.json", "treatments.parquet"]
    names.append("uncertainty.parquet")
    if content.sure.conformal:
        sure.as_table(content.sure.conformal).to_parquet(out / "conformal.parquet", index=False)
        names.append("conformal.parquet")
    else:
        (out / "conformal.parquet").unlink(missing_ok=True)
    if len(content.samples):
        content.samples.to_parquet(out / "treatment_samples.parquet", index=False)
        names.append("treatment_samples.parquet")
    if content.compared:
        _outcomes(content).to_csv(out / "reference.csv", index=False)
        names.append("reference.csv")
    summary = _summary(content, results)
    write_text(out / "summary.json", json.dumps(summary, indent=1))
    drawn = page.draw(content) | _optuna_figures(sweep, race)
    (out / "figures").mkdir(exist_ok=True)
    saved = {name: figures.save(figure, out / "figures", name) for name, figure in drawn.items()}
    write_text(out / "report.html", page.render(content, drawn))
    parts = _by_candidate(content, folded.predictions, out / "figures", saved) | _looked(content, look)
    return Written(
        headline=page.headline(content),
        summary=summary,
        candidates=parts | _by_member(study, sweep, results, by_member, folded),
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
        leaderboard=comparison.against_best(board := metrics.treatments_board(treatments), treatments),
        treatments=treatments,
        history=pd.DataFrame(),
        labels=sorted(labels_of(treatments)),
        channels=(None, None, None),
        warnings=remarks,
        versions=versions(),
        corrected=_corrected(board, treatments, None, 0),
        given=str(file),
    )
    content = _sure(_calibrated(_beside(content, reference)), Conformal())
    content = _with_uncertainty(content, measured := _measured(content, pd.DataFrame()))
    drawn = page.draw(content)
    tables = {
        "treatments.parquet": _with_sets(content).to_parquet(index=False),
        "leaderboard.csv": _csv(content.leaderboard),
    }
    tables["uncertainty.parquet"] = measured.to_parquet(index=False)
    if content.sure.conformal:
        tables["conformal.parquet"] = sure.as_table(content.sure.conformal).to_parquet(index=False)
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
    folded: Folded,
    race: Race | None,
) -> Content:
    how, predictions = sweep.aggregate, folded.predictions
    trials = _trials(folded.results)
    candidates = [proposal.recipe for proposal in book.proposals()] if race else sweep.recipes
    recipes = {recipe.candidate: recipe.as_dict() for recipe in (one.ensemble for one in candidates)}
    chosen_by = study["search_folds"]
    board = metrics.leaderboard(_of(predictions, chosen_by), _of(trials, chosen_by), recipes, len(chosen_by), how)
    treatments = metrics.treatments(predictions, how) if len(predictions) else pd.DataFrame(columns=[CANDIDATE])
    search = None
    if sweep.seeds is not None:
        spread = ensembles.spread(_of(folded.members, chosen_by), how)
        board = board.merge(spread, on=CANDIDATE, how="left", validate="one_to_one")
    if race is not None:
        board = _raced(board, race, trials)
        search = _search(study, sweep, race, folded)
        board = _confirmed(board, study["confirm_folds"], predictions, how)
    # The leaderboard is of the search folds, and so are its comparisons.
    searched = _of(predictions, chosen_by)
    compared = metrics.treatments(searched, how) if study["confirm_folds"] and len(searched) else treatments
    board = comparison.against_best(board, compared)
    fields, no_fields = examples.read(study.get("examples"))
    return Content(
        study=study["study"],
        seed=study["seed"],
        command=study["command"],
        leaderboard=board,
        treatments=treatments,
        history=_history(book, results, folded),
        labels=study["labels"],
        channels=study["channels"],
        how=how,
        tiles=_example_tiles(study, recipes, predictions),
        excluded={fold: excluded for fold, excluded in study["folds"].items() if excluded is not None},
        failures=[
            _failure(dataclasses.replace(result, candidate=folded.shown(result.candidate)))
            for result in results
            if result.status not in ("finished", "stopped")
        ],
        warnings=study["warnings"],
        notes=_notes(sweep, treatments),
        versions=study["versions"],
        recipes=recipes,
        search=search,
        corrected=_corrected(board, treatments, search, study["seed"]),
        fields=fields,
        no_fields=no_fields,
        n_treatments=study.get("treatments"),
        unscored=pd.DataFrame(study.get("unscored", [])),
    )


def _notes(sweep: Sweep, treatments: pd.DataFrame) -> list[str]:
    """What a reader has to know first."""
    painted = "The images of this screen are painted, not photographed: it shows the software, not biology."
    lacking = (
        "Labels were held out. Each treatment that counts here was predicted by a network that saw nothing of its "
        "compound, nor of one other label: it had one label fewer to take it for, and fewer compounds to learn from. "
        "How right a network is about a new compound is what hold_out: compound measures."
    )
    lacks = unknowns.holds_out_labels(treatments)
    return [*([painted] if sweep.is_painted else []), *([lacking] if lacks else [])]


def _trials(results: Sequence[Result]) -> pd.DataFrame:
    columns = [CANDIDATE, FOLD, "status", "epochs", "seconds"]
    return pd.DataFrame([[getattr(result, name) for name in columns] for result in results], columns=columns)


def _of(table: pd.DataFrame, folds: Sequence[str]) -> pd.DataFrame:
    """The rows of some folds, of a table that may be empty."""
    return table[table[FOLD].isin(folds)] if len(table) else table


# Ensembles and samples ------------------------------------------------------------------------------------------------


def _samples(sweep: Sweep, book: Ledger, results: Sequence[Result], folded: Folded) -> pd.DataFrame:
    """What each sample of the sweep's candidates said of each treatment; empty where none was drawn.

    Of an ensemble the samples are its first member's, which tell what one network knows, and the members themselves.
    """
    first = {name for name, member in folded.names.items() if member.seed == sweep.space.seeds[0]}
    finished = {one.key for one in folded.results if one.status == "finished"}
    drawn: dict[str, list[Result]] = {}
    for result in results if sweep.predict.samples else ():
        member = folded.names.get(result.candidate)
        name = result.candidate if member is None else member.ensemble
        if (name, result.fold) in finished and (member is None or result.candidate in first):
            drawn.setdefault(name, []).append(result)
    # A candidate at a time: a hundred samples of all tiles of all candidates would be gigabytes.
    tables = [
        _sampled(samples.assign(**{CANDIDATE: name}), sweep.aggregate)
        for name, mine in drawn.items()
        if len(samples := book.table("samples", mine))
    ]
    if len(folded.members):
        members = folded.members.rename(columns={SEED: SAMPLE}).assign(**{METHOD: "ensemble"})
        tables.append(_sampled(members, sweep.aggregate))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _sampled(samples: pd.DataFrame, how: metrics.How) -> pd.DataFrame:
    """Samples by treatment; where labels are held out, a treatment as a known and as an unknown one."""
    parts = [part for part in (unknowns.known(samples), unknowns.unknown(samples)) if len(part)]
    return pd.concat([metrics.sampled(part, how) for part in parts], ignore_index=True)


def _by_member(
    study: Mapping[str, Any], sweep: Sweep, results: Sequence[Result], predictions: pd.DataFrame, folded: Folded
) -> dict[str, Callable[[], Part]]:
    """What makes the scores and predictions of each member of an ensemble, for those who keep them apart."""
    recipes = {result.candidate: result.recipe for result in results if result.candidate in folded.names}
    folds = study["search_folds"]

    def part(member: str) -> Part:
        mine = predictions[predictions[CANDIDATE] == member]
        scored = unknowns.known(mine)
        trials = _trials([result for result in results if result.candidate == member])
        plain = {member: recipes[member]}
        board = metrics.leaderboard(_of(scored, folds), _of(trials, folds), plain, len(folds), sweep.aggregate)
        return _numbers(board.iloc[0].to_dict()), mine, []

    return {member: partial(part, member) for member in recipes if (predictions[CANDIDATE] == member).any()}


# Uncertainty ----------------------------------------------------------------------------------------------------------


def _measured(content: Content, unknown: pd.DataFrame) -> pd.DataFrame:
    """How unsure each candidate and method is of each treatment, known or unknown.

    unknown : treatments whose label their fold held out whole, as `metrics.treatments` makes them; may be empty
    """
    tables = [table for table in (_with_credibility(content), _believed(content, unknown)) if len(table)]
    both = pd.concat(tables, ignore_index=True) if tables else content.treatments
    return uncertainty.measures(both, content.samples)


def _with_credibility(content: Content) -> pd.DataFrame:
    """The treatments with the credibility of the headline's candidate, where there are conformal sets."""
    made = _with_sets(content)
    return made[[name for name in made if name in content.treatments or name == CREDIBILITY]]


def _believed(content: Content, unknown: pd.DataFrame) -> pd.DataFrame:
    """Unknown treatments in the same way, calibrated by the known ones."""
    made = content.sure.conformal
    if unknown.empty or made is None or content.best is None:
        return unknown
    mine = unknown[unknown[CANDIDATE] == content.best[CANDIDATE]]
    return unknown.join(conformal.credibility(mine, made.treatments.table, made.settings, content.seed))


def _with_uncertainty(content: Content, measured: pd.DataFrame) -> Content:
    """The content with how unsure the headline's candidate is, of what the headline is judged by."""
    if content.best is None:
        return content
    folds = content.search.confirm if content.search and content.search.scores else None
    return dataclasses.replace(content, unsure=Unsure.of(measured, content.best[CANDIDATE], folds, content.seed))


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


# How sure -------------------------------------------------------------------------------------------------------------


def _sure(content: Content, settings: Conformal | None) -> Content:
    """The content with sets of labels for the treatments that the headline is about.

    Of a search these are of the folds that no choice saw: the candidate was chosen for low losses on the search folds,
    so its scores there are too good to calibrate with.
    """
    if content.best is None or settings is None:
        return content
    judged, given = content.judged, content.given is not None
    doubts = sure.doubts(settings, page.held_out(content), page.is_optimistic(content), given)
    made = sure.sets(judged, settings, content.seed, content.how, doubts)
    return dataclasses.replace(content, sure=Sure(made))


def _with_sets(content: Content) -> pd.DataFrame:
    """The treatments with their p-values and sets; empty for candidates that are not the headline's."""
    made = content.sure.conformal
    if made is None or content.best is None:
        return content.treatments
    table = made.treatments.as_table(made.reached("treatment")).assign(**{CANDIDATE: content.best[CANDIDATE]})
    key = [CANDIDATE, *TREATMENT]
    own = [name for name in table if name not in content.treatments]
    return content.treatments.merge(table[[*key, *own]], on=key, how="left", validate="one_to_one")


def _with_tiles(content: Content, study: Mapping[str, Any], predictions: pd.DataFrame) -> Content:
    """The content with a tile beside each of the worst treatments, where the tile store is at hand."""
    made = content.sure.conformal
    if made is None or content.best is None:
        return content
    stored = _stored_tiles(study, content.recipes, predictions)
    if stored is None:
        return content
    tiles, rows = stored
    first = rows.drop_duplicates(TREATMENT).set_index(TREATMENT)["row"]
    keys = [tuple(key) for key in sure.worst(made)[TREATMENT].head(sure.MOST_TILES).itertuples(index=False)]
    with_tiles = dataclasses.replace(made, tiles={key: tiles[first[key]] for key in keys})
    return dataclasses.replace(content, sure=dataclasses.replace(content.sure, conformal=with_tiles))


# Calibration ----------------------------------------------------------------------------------------------------------


def _calibrated(content: Content) -> Content:
    """The content with the calibration of the headline's candidate on the treatments that the headline is about."""
    if content.best is None or content.judged.empty:
        return content
    return dataclasses.replace(content, calibration=calibration.calibrate(content.judged))


def _plain_calibration(found: calibration.Calibration) -> dict[str, Any]:
    named = {"before": found.before, "after": found.after}
    numbers = {when: None if one is None else _plain_quality(one) for when, one in named.items()}
    return {**numbers, "temperatures": dict(found.temperatures)}


def _plain_quality(one: calibration.Quality) -> dict[str, Any]:
    return {**dataclasses.asdict(one), "bins": one.bins.to_dict("records")}


# A search -------------------------------------------------------------------------------------------------------------


def _race(
    sweep: Sweep, study: Mapping[str, Any], book: Ledger, folded: Folded, predictions: pd.DataFrame
) -> Race | None:
    """The race as far as the ledger tells, where the sweep is a search: of ensembles it is their first members'."""
    if not isinstance(sweep.search, Optuna):
        return None
    settled = [result for result in folded.first if result.status in SETTLED]
    first = ensembles.first_predictions(folded, predictions, sweep.space.seeds[0])
    measure = loss(sweep.search.objective, sweep.aggregate, first)
    known = [dataclasses.replace(one, recipe=one.recipe.ensemble) for one in book.proposals()]
    return Race.replay(sweep.search, study["search_folds"], study["confirm_folds"], measure, known, settled)


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


def _search(study: Mapping[str, Any], sweep: Sweep, race: Race, folded: Folded) -> Search:
    assert isinstance(sweep.search, Optuna)
    trials, predictions = _trials(folded.first), folded.predictions
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
        wanted = len(study["confirm_folds"])
        finished = int((states.loc[race.ranking[0], study["confirm_folds"]] == "finished").sum())
        if len(seen):
            members = folded.members
            own = members[members[CANDIDATE] == race.ranking[0]] if len(members) else members
            counts = {"folds_finished": finished, "n_folds": wanted, "folds_failed": wanted - finished}
            scores = {**_scores(seen, _of(own, study["confirm_folds"]), sweep.aggregate), **counts}
            scores["complete"] = finished == wanted
            over_all = _scores(mine, own, sweep.aggregate)
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


def _scores(predictions: pd.DataFrame, members: pd.DataFrame, how: metrics.How) -> dict[str, Any]:
    """The scores of one candidate, and of an ensemble how its members do by themselves."""
    spread = ensembles.spread(members, how).drop(columns=CANDIDATE).to_dict("records")
    return {**metrics.scores(predictions, how), **(spread[0] if spread else {})}


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
    if "seeds" in board and board["seeds"].nunique() > 1:  # the winner alone is an ensemble: not alike, nor compared so
        return None
    table = comparison.right(treatments)
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


def _history(book: Ledger, results: list[Result], folded: Folded) -> pd.DataFrame:
    """The histories of finished trials under each other, with what they belong to; members by their ensemble's name."""
    finished = [result for result in results if result.status == "finished"]
    history = book.table("history", finished)
    for name in ("backbone", "weights") if len(history) else ():
        history[name] = history[CANDIDATE].map({result.candidate: result.recipe[name] for result in finished})
    if folded.names and len(history):
        names = {name: member.ensemble for name, member in folded.names.items()}
        history[CANDIDATE] = history[CANDIDATE].map(names)
    return history


def _example_tiles(
    study: Mapping[str, Any], recipes: Mapping[str, Mapping[str, Any]], predictions: pd.DataFrame
) -> dict[str, list[NDArray[np.uint8]]]:
    """Tiles of each label, spread over its treatments; none where the tile store is not at hand."""
    stored = _stored_tiles(study, recipes, predictions)
    if stored is None:
        return {}
    tiles, rows = stored
    shown = {}
    for label, mine in rows.groupby(LABEL):
        spread = np.unique(np.linspace(0, len(mine) - 1, _EXAMPLES).astype(int))
        shown[str(label)] = [tiles[row] for row in mine["row"].iloc[spread]]
    return shown


def _stored_tiles(
    study: Mapping[str, Any], recipes: Mapping[str, Mapping[str, Any]], predictions: pd.DataFrame
) -> tuple[NDArray[np.uint8], pd.DataFrame] | None:
    """The largest tiles, memory-mapped, and the row of each that was predicted, in order; None where they are gone."""
    store = Path(study["tile_store"])
    sizes = sorted({recipe["image_size"] for recipe in recipes.values()})
    if predictions.empty or not (file := store / f"tiles-{sizes[-1]}.npy").exists():
        return None
    rows = pd.read_parquet(store / "tiles.parquet")
    predicted = predictions[[*TILE_KEY, *TREATMENT, LABEL]].drop_duplicates(TILE_KEY)
    known = predicted.merge(rows[[*TILE_KEY, "row"]], on=TILE_KEY, validate="one_to_one")
    return np.load(file, mmap_mode="r", allow_pickle=False), known.sort_values([*FIELD_KEY, "Metadata_Tile"])


def _summary(content: Content, results: list[Result]) -> dict[str, Any]:
    """The headline numbers, for scripts."""
    best, board = content.best, content.leaderboard
    counts = pd.Series([result.status for result in results], dtype=object).value_counts()
    return {
        "study": content.study,
        "headline": page.headline(content),
        "best": None if best is None else _plain(best),
        "chosen_by": page.chosen(content),
        "corrected": None if content.corrected is None else dataclasses.asdict(content.corrected),
        "not_distinguishable": list(board.loc[board["against_best"] == comparison.ALIKE, CANDIDATE]),
        "calibration": None if content.calibration is None else _plain_calibration(content.calibration),
        "over_all_folds": _plain(content.search.over_all) if content.search and content.search.over_all else None,
        "epochs_saved": content.search.saved if content.search else None,
        "first_look": None if content.look is None else _plain_look(content.look),
        "trials": {str(status): int(count) for status, count in counts.items()},
        "folds_excluded": dict(content.excluded),
        "treatments": content.n_treatments,
        "treatments_not_scored": content.unscored.to_dict("records"),
        "reference": content.reference,
        "beside_reference": [_plain_beside(one) for one in content.compared],
        "sure": sure.plain(content.sure),
        "warnings": list(content.warnings),
        "uncertainty": None if content.unsure is None else content.unsure.plain(),
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
