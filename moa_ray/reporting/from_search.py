"""What a ledger tells of a search: the race, its order, and how the winner was confirmed."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from moa_ray.common.open_set import closed_set
from moa_ray.common.schema import CANDIDATE, FOLD
from moa_ray.config.search import OptunaSettings
from moa_ray.config.sweep_file import Sweep
from moa_ray.reporting import ensembles
from moa_ray.reporting.ensembles import Folded
from moa_ray.reporting.records import SearchRecord, of_folds, trial_table
from moa_ray.search.objective import loss
from moa_ray.search.race import Race
from moa_ray.statistics import aggregation
from moa_ray.statistics import scores as statistics_scores
from moa_ray.statistics.unpredicted import scored_of
from moa_ray.tracking.ledger import Ledger
from moa_ray.tracking.results import SETTLED


def race(
    sweep: Sweep, study: Mapping[str, Any], ledger: Ledger, folded: Folded, predictions: pd.DataFrame
) -> Race | None:
    """Replay the race as far as the ledger tells; of ensembles it is their first members'.

    Parameters
    ----------
    sweep : Sweep
        The sweep as it was run.
    study : mapping of str to Any
        What all trials share.
    ledger : Ledger
        The proposals are read from it.
    folded : Folded
        The trials, with an ensemble in place of its members.
    predictions : DataFrame
        One row a tile that a trial predicted, ensembles by their members.

    Returns
    -------
    Race or None
        None where the sweep is no search.
    """
    if not isinstance(sweep.search, OptunaSettings):
        return None
    settled = [result for result in folded.first if result.status in SETTLED]
    first = ensembles.first_predictions(folded, predictions, sweep.space.seeds[0])
    measure = loss(sweep.search.objective, sweep.aggregate, first, scored_of(study), sweep.score.unit)
    proposals = [dataclasses.replace(proposal, recipe=proposal.recipe.ensemble) for proposal in ledger.proposals()]
    return Race.replay(sweep.search, study["search_folds"], study["confirm_folds"], measure, proposals, settled)


def raced(leaderboard: pd.DataFrame, race: Race, trials: pd.DataFrame) -> pd.DataFrame:
    """Put the leaderboard into the race's order.

    Parameters
    ----------
    leaderboard : DataFrame
        As `moa_ray.statistics.leaderboard` makes it.
    race : Race
        Of the same candidates.
    trials : DataFrame
        One row a trial of any fold.

    Returns
    -------
    DataFrame
        With what the race went by, and why and where each candidate was stopped.
    """
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
    joined = leaderboard.merge(pd.DataFrame(rows), on=CANDIDATE, validate="one_to_one")
    totals = trials.groupby(CANDIDATE)[["epochs", "seconds"]].sum()
    joined["epochs_trained"] = joined[CANDIDATE].map(totals["epochs"]).fillna(0).astype(int)
    joined["seconds"] = joined[CANDIDATE].map(totals["seconds"]).fillna(0.0)
    place = {candidate: number for number, candidate in enumerate(race.ranking)}
    joined["_place"] = joined[CANDIDATE].map(place).fillna(len(place))
    order = ["_place", "folds_finished", "objective_loss", CANDIDATE]
    return joined.sort_values(order, ascending=[True, False, True, True], ignore_index=True).drop(columns="_place")


def confirmed(
    leaderboard: pd.DataFrame,
    folds: Sequence[str],
    predictions: pd.DataFrame,
    how: aggregation.Aggregation,
    missing: pd.DataFrame,
) -> pd.DataFrame:
    """Add what each candidate that was confirmed reached on the confirm folds alone.

    Parameters
    ----------
    leaderboard : DataFrame
        As `moa_ray.statistics.leaderboard` makes it.
    folds : sequence of str
        The folds that no choice saw.
    predictions : DataFrame
        One row a tile; may be empty.
    how : {"median", "mean"}
        How tiles are aggregated to treatments.
    missing : DataFrame
        Treatments of these folds without a prediction, as `moa_ray.statistics.unpredicted` lists them.

    Returns
    -------
    DataFrame
        With the columns ``confirm_*``, missing for the other candidates.
    """
    seen = closed_set(of_folds(predictions, folds))
    reached: dict[Any, dict[str, Any]] = {}
    for candidate, rows in seen.groupby(CANDIDATE) if len(seen) else ():
        reached[candidate] = {
            "folds": rows[FOLD].nunique(),
            **statistics_scores.scores(rows, how, _of(missing, candidate)),
        }
    columns = {
        f"confirm_{name}": leaderboard[CANDIDATE].map(
            {candidate: scores[name] for candidate, scores in reached.items()}
        )
        for name in ("folds", "k", "n", "treatment_accuracy", "log_loss")
    }
    return leaderboard.assign(**columns)


def record(sweep: Sweep, study: Mapping[str, Any], race: Race, folded: Folded, missing: pd.DataFrame) -> SearchRecord:
    """Record how the candidates came to be and were judged.

    Parameters
    ----------
    sweep : Sweep
        The sweep as it was run, a search.
    study : mapping of str to Any
        What all trials share.
    race : Race
        As far as the ledger tells.
    folded : Folded
        The trials, with an ensemble in place of its members.
    missing : DataFrame
        Treatments without a prediction, as `moa_ray.statistics.unpredicted` lists them.

    Returns
    -------
    SearchRecord
        For the report.
    """
    assert isinstance(sweep.search, OptunaSettings), "a grid has no race"
    trials = trial_table(folded.first)
    names = [standing.proposal.recipe.candidate for standing in race.standings]
    folds = [*study["search_folds"], *study["confirm_folds"]]
    states = trials.pivot(index=CANDIDATE, columns=FOLD, values="status").reindex(index=names, columns=folds)
    full = sum(standing.proposal.recipe.epochs for standing in race.standings) * len(study["search_folds"])
    searched = trials.loc[trials[FOLD].isin(study["search_folds"]), "epochs"].sum()
    scores, over_all = _winner(race, states, study["confirm_folds"], folded, sweep.aggregate, missing)
    return SearchRecord(
        settings=sweep.search,
        states=states,
        confirm_folds=study["confirm_folds"],
        scores=scores,
        over_all=over_all,
        saved=1 - float(searched) / full if full else 0.0,
        space=sweep.space,
        seed=sweep.seed,
        standings=race.standings,
    )


def _winner(
    race: Race,
    states: pd.DataFrame,
    folds: Sequence[str],
    folded: Folded,
    how: aggregation.Aggregation,
    missing: pd.DataFrame,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The winner's scores on the confirm folds, and on all; both empty where there is nothing of the former."""
    if not (race.ranking and folds):
        return {}, {}
    winner = race.ranking[0]
    rows = folded.predictions[folded.predictions[CANDIDATE] == winner]
    seen = closed_set(rows[rows[FOLD].isin(folds)])
    if seen.empty:
        return {}, {}
    members = folded.members[folded.members[CANDIDATE] == winner] if len(folded.members) else folded.members
    absent = _of(missing, winner)
    finished = int((states.loc[winner, folds] == "finished").sum())
    scores = {
        **_scores(seen, of_folds(members, folds), how, of_folds(absent, folds)),
        **{"folds_finished": finished, "n_folds": len(folds), "folds_failed": len(folds) - finished},
        "complete": finished == len(folds),
    }
    return scores, _scores(rows, members, how, absent)


def _of(missing: pd.DataFrame, candidate: Any) -> pd.DataFrame:
    return missing[missing[CANDIDATE] == candidate]


def _scores(
    predictions: pd.DataFrame, members: pd.DataFrame, how: aggregation.Aggregation, missing: pd.DataFrame
) -> dict[str, Any]:
    """The scores of one candidate, and of an ensemble how its members do by themselves."""
    spread = ensembles.spread(members, how, missing).drop(columns=CANDIDATE).to_dict("records")
    return {**statistics_scores.scores(predictions, how, missing), **(spread[0] if spread else {})}
