"""What a report says, out of a ledger: leaderboard, treatments, histories, samples, tiles to show."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray import comparison, ensembles, examples, metrics, screening, selection, unknowns
from moa_ray.ensembles import Folded
from moa_ray.ledger import SETTLED, Ledger, Result
from moa_ray.page import Content, Failure, FirstLook, Search
from moa_ray.race import Race, loss
from moa_ray.screening import Look
from moa_ray.spec import Optuna, Sweep
from moa_ray.tables import (
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
)

_EXAMPLES = 6  # tiles shown of each label


def of_sweep(
    study: Mapping[str, Any],
    sweep: Sweep,
    book: Ledger,
    results: list[Result],
    folded: Folded,
    race: Race | None,
) -> Content:
    """The content of a sweep's report, before its headline's candidate is judged.

    folded : the trials of the sweep's own candidates; predictions that can be right alone
    race : where a search proposed the candidates
    """
    how, predictions = sweep.aggregate, folded.predictions
    trials = trial_table(folded.results)
    candidates = [proposal.recipe for proposal in book.proposals()] if race else sweep.recipes
    recipes = {recipe.candidate: recipe.as_dict() for recipe in (one.ensemble for one in candidates)}
    chosen_by = study["search_folds"]
    board = metrics.leaderboard(
        of_folds(predictions, chosen_by), of_folds(trials, chosen_by), recipes, len(chosen_by), how
    )
    treatments = metrics.treatments(predictions, how) if len(predictions) else pd.DataFrame(columns=[CANDIDATE])
    search = None
    if sweep.seeds is not None:
        spread = ensembles.spread(of_folds(folded.members, chosen_by), how)
        board = board.merge(spread, on=CANDIDATE, how="left", validate="one_to_one")
    if race is not None:
        board = _raced(board, race, trials)
        search = _search(study, sweep, race, folded)
        board = _confirmed(board, study["confirm_folds"], predictions, how)
    # The leaderboard is of the search folds, and so are its comparisons.
    searched = of_folds(predictions, chosen_by)
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
        corrected=corrected(board, treatments, search, study["seed"]),
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


def trial_table(results: Sequence[Result]) -> pd.DataFrame:
    """One row a trial: what `metrics.leaderboard` takes."""
    columns = [CANDIDATE, FOLD, "status", "epochs", "seconds"]
    return pd.DataFrame([[getattr(result, name) for name in columns] for result in results], columns=columns)


def of_folds(table: pd.DataFrame, folds: Sequence[str]) -> pd.DataFrame:
    """The rows of some folds, of a table that may be empty."""
    return table[table[FOLD].isin(folds)] if len(table) else table


# Ensembles and samples ------------------------------------------------------------------------------------------------


def samples(sweep: Sweep, book: Ledger, results: Sequence[Result], folded: Folded) -> pd.DataFrame:
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


# A search -------------------------------------------------------------------------------------------------------------


def race(
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
    trials, predictions = trial_table(folded.first), folded.predictions
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
            scores = {**_scores(seen, of_folds(own, study["confirm_folds"]), sweep.aggregate), **counts}
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


def corrected(
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


# A first look ---------------------------------------------------------------------------------------------------------


def first_look(
    sweep: Sweep, study: Mapping[str, Any], book: Ledger, results: list[Result]
) -> tuple[Sweep, Look | None, list[Result]]:
    """The sweep without what a first look dropped, that look, and the results of the sweep's own candidates."""
    look = screening.read(sweep, study["search_folds"], book, results)
    kept = sweep if look is None else sweep.without(look.dropped)
    return kept, look, screening.own(kept, book, results)


def with_look(content: Content, sweep: Sweep, look: Look | None) -> Content:
    """The content with the first look, where there was one."""
    if look is None:
        return content
    shown = FirstLook(look.board, look.dropped, look.unseen, sweep.keep, look.majority)
    return dataclasses.replace(content, look=shown, failures=[*content.failures, *map(_failure, look.failures)])


# What is shown --------------------------------------------------------------------------------------------------------


def _failure(result: Result) -> Failure:
    return Failure(result.candidate, result.fold, result.status, result.attempts, result.error or "")


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


@dataclass(frozen=True)
class Stored:
    """The largest tiles of a sweep, memory-mapped, and the tiles that were predicted, in order, with their row."""

    tiles: NDArray[np.uint8]
    rows: pd.DataFrame

    def of_labels(self) -> dict[str, list[NDArray[np.uint8]]]:
        """Tiles of each label, spread over its treatments."""
        shown = {}
        for label, mine in self.rows.groupby(LABEL):
            spread = np.unique(np.linspace(0, len(mine) - 1, _EXAMPLES).astype(int))
            shown[str(label)] = [self.tiles[row] for row in mine["row"].iloc[spread]]
        return shown

    def of_treatments(self, keys: Iterable[tuple[str, float]]) -> dict[tuple[str, float], NDArray[np.uint8]]:
        """The first tile of each of some treatments."""
        first = self.rows.drop_duplicates(TREATMENT).set_index(TREATMENT)["row"]
        return {key: self.tiles[first[key]] for key in keys}


def stored_tiles(
    study: Mapping[str, Any], recipes: Mapping[str, Mapping[str, Any]], predictions: pd.DataFrame
) -> Stored | None:
    """The tiles of a sweep; None where the tile store is not at hand."""
    store = Path(study["tile_store"])
    sizes = sorted({recipe["image_size"] for recipe in recipes.values()})
    if predictions.empty or not (file := store / f"tiles-{sizes[-1]}.npy").exists():
        return None
    rows = pd.read_parquet(store / "tiles.parquet")
    predicted = predictions[[*TILE_KEY, *TREATMENT, LABEL]].drop_duplicates(TILE_KEY)
    known = predicted.merge(rows[[*TILE_KEY, "row"]], on=TILE_KEY, validate="one_to_one")
    return Stored(np.load(file, mmap_mode="r", allow_pickle=False), known.sort_values([*FIELD_KEY, "Metadata_Tile"]))
