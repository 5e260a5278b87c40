"""Linear probes: how far a head on frozen features of each backbone gets, before any backbone is fine-tuned.

`config.recipe.linear_probe_of` is the head's recipe. It is trained on the search folds alone, which in a grid are all.
Its trials lie in the ledger like any other, of a kind of their own; they belong to no candidate of the sweep, and
nothing else sees them. Which backbones are dropped follows from them, and so is the same at every start.

One trial may serve two purposes: a grid may hold the recipe of a probe, or a search propose it. Its trials are in the
ledger already then, as those of a probe, and are the candidate's as well.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from moa_ray.common.schema import BACKBONE, CANDIDATE, FOLD
from moa_ray.config.search import GridSettings
from moa_ray.config.sweep_file import Sweep
from moa_ray.statistics import aggregation, scores, unpredicted
from moa_ray.statistics import leaderboard as statistics_leaderboard
from moa_ray.statistics.units import with_unit
from moa_ray.tracking.ledger import Ledger
from moa_ray.tracking.results import Result, TrialKind

_NOTHING = pd.DataFrame({BACKBONE: [], "n": [], "complete": []})


@dataclass(frozen=True)
class ProbeResults:
    """What the linear probes of a sweep came to.

    Attributes
    ----------
    leaderboard : DataFrame, one row per probe
        As `statistics.leaderboard.leaderboard` makes it, with ``image_size``; lowest log-loss first, incomplete ones
        last.
    dropped : tuple of str
        Backbones that are not fine-tuned, best first.
    unseen : tuple of str
        Backbones that have no probe: with random weights there is nothing to see.
    failures : tuple of Result
        Trials that did not finish.
    majority : float or None
        Share of the treatments that have the most frequent label, 0 to 1; None without predictions.
    predictions : DataFrame, one row per probe and held-out tile
        May be empty.
    """

    leaderboard: pd.DataFrame
    dropped: tuple[str, ...]
    unseen: tuple[str, ...]
    failures: tuple[Result, ...]
    majority: float | None
    predictions: pd.DataFrame


def read(sweep: Sweep, folds: Sequence[str], ledger: Ledger, results: Collection[Result]) -> ProbeResults | None:
    """Read what a sweep's linear probes came to.

    Parameters
    ----------
    sweep : Sweep
        The sweep as its file says it, no backbone dropped.
    folds : sequence of str
        The folds that a probe is trained on.
    ledger : Ledger
        The sweep's ledger.
    results : collection of Result
        All of the ledger, without their tables.

    Returns
    -------
    ProbeResults or None
        None where the sweep asks for no probes.
    """
    if not sweep.search.screen_with_frozen:
        return None
    probes = {recipe.candidate: recipe for recipe in sweep.linear_probes}
    trials = [result for result in results if result.candidate in probes and result.fold in folds]
    predictions = with_unit(ledger.table("predictions", trials), sweep.score.unit)
    recipes = {name: recipe.as_dict() for name, recipe in probes.items()}
    missing = _unpredicted(ledger, trials, predictions, {name: set(folds) for name in probes})
    leaderboard = (
        _leaderboard(recipes, trials, predictions, len(folds), sweep.aggregate, missing) if probes else _NOTHING
    )
    begun = {result.recipe[BACKBONE] for result in results if result.kind is not TrialKind.LINEAR_PROBE}
    begun |= {proposal.recipe.backbone for proposal in ledger.proposals()}
    seen = {recipe.backbone for recipe in probes.values()}
    return ProbeResults(
        leaderboard,
        _dropped(leaderboard, sweep.keep, begun),
        tuple(name for name in sweep.backbones if name not in seen),
        tuple(result for result in trials if result.status != "finished"),
        _majority(predictions, leaderboard, sweep.aggregate, missing) if len(predictions) else None,
        predictions,
    )


def candidate_results(sweep: Sweep, ledger: Ledger, results: Iterable[Result]) -> list[Result]:
    """Select the results of a sweep's own candidates: all but those of linear probes alone.

    Parameters
    ----------
    sweep : Sweep
        The sweep, without the backbones that were dropped.
    ledger : Ledger
        The sweep's ledger, which knows what a search proposed.
    results : iterable of Result
        Of any kind.

    Returns
    -------
    list of Result
        Those that were run as a candidate or a member of an ensemble, and those of a probe whose recipe is a
        candidate's too.
    """
    if isinstance(sweep.search, GridSettings):
        candidates = {recipe.candidate for recipe in sweep.grid_recipes}
    else:
        candidates = {proposal.recipe.candidate for proposal in ledger.proposals()}
    return [result for result in results if result.kind is not TrialKind.LINEAR_PROBE or result.candidate in candidates]


def _unpredicted(
    ledger: Ledger, results: list[Result], predictions: pd.DataFrame, wanted: Mapping[str, Collection[str]]
) -> pd.DataFrame:
    return unpredicted.unpredicted(predictions, unpredicted.scored_of(ledger.study()), wanted, _table(results))


def _table(results: list[Result]) -> pd.DataFrame:
    columns = [CANDIDATE, FOLD, "status", "epochs", "seconds"]
    return pd.DataFrame([[getattr(result, name) for name in columns] for result in results], columns=columns)


def _leaderboard(
    recipes: Mapping[str, Mapping[str, object]],
    results: list[Result],
    predictions: pd.DataFrame,
    folds: int,
    how: aggregation.Aggregation,
    missing: pd.DataFrame,
) -> pd.DataFrame:
    table = statistics_leaderboard.leaderboard(predictions, _table(results), recipes, folds, how, missing)
    table["image_size"] = [recipes[candidate]["image_size"] for candidate in table[CANDIDATE]]
    return table.sort_values(["complete", "log_loss", CANDIDATE], ascending=[False, True, True], ignore_index=True)


def _dropped(leaderboard: pd.DataFrame, keep: int | None, begun: Collection[str]) -> tuple[str, ...]:
    """All backbones but the best; of several weights and sizes its best one counts.

    One whose probe did not finish cannot be compared, and one that is trained already is not given up: both go on.
    """
    if keep is None:
        return ()
    ranked = list(dict.fromkeys(leaderboard.loc[leaderboard["complete"].astype(bool), BACKBONE]))
    return tuple(name for name in ranked[keep:] if name not in begun)


def _majority(
    predictions: pd.DataFrame, leaderboard: pd.DataFrame, how: aggregation.Aggregation, missing: pd.DataFrame
) -> float | None:
    """The share of the most frequent label among the treatments of the best probe; None where it has none."""
    name = leaderboard[CANDIDATE].iloc[0]
    best = aggregation.treatments(predictions[predictions[CANDIDATE] == name], how)
    if best.empty:
        return None
    _, k, n = scores.majority(unpredicted.with_unpredicted(best, missing[missing[CANDIDATE] == name]))
    return k / n
