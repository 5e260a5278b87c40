"""Deep ensembles: the members of a recipe, which differ by their seed alone, as one candidate.

To the ledger and to MLflow every member is a candidate of its own. A report folds them at its door: a tile's
probabilities are the average of the members', over the folds that all of them finished.
Source: Lakshminarayanan, Pritzel and Blundell 2017, "Simple and scalable predictive uncertainty estimation".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from moa_ray import metrics
from moa_ray.ledger import Result
from moa_ray.recipe import Recipe
from moa_ray.spec import Grid, Sweep
from moa_ray.tables import CANDIDATE, FOLD, LABEL, SEED, TILE_KEY, probability_columns

SPREAD = ("seeds", "seed_accuracy_low", "seed_accuracy_high")


@dataclass(frozen=True)
class Member:
    """Whose member a candidate is: the name of its ensemble, and the seed by which it differs."""

    ensemble: str
    seed: int


@dataclass(frozen=True)
class Folded:
    """A sweep's trials with an ensemble in place of its members; without seeds they are as they were.

    results : one an ensemble and fold, without tables; a fold that not all members have come to is left out
    predictions : the averages, of the folds that all members finished; may be empty
    first : results of the first member of each ensemble, which a search chose by, under the ensemble's name
    members : predictions of all members on the same folds, under the ensemble's name, with the seed; may be empty
    names : by a member's own name
    """

    results: list[Result]
    predictions: pd.DataFrame
    first: list[Result]
    members: pd.DataFrame = field(default_factory=pd.DataFrame)
    names: dict[str, Member] = field(default_factory=dict)

    def of(self, part: Callable[[pd.DataFrame], pd.DataFrame]) -> "Folded":
        """The same with a part of the predictions alone."""
        return replace(self, predictions=part(self.predictions), members=part(self.members))

    def shown(self, candidate: str) -> str:
        """A candidate by the name that a report knows it by."""
        member = self.names.get(candidate)
        return candidate if member is None else f"{member.ensemble}, seed {member.seed}"


def fold(sweep: Sweep, results: Sequence[Result], predictions: pd.DataFrame) -> Folded:
    """The trials of a sweep's own candidates, folded.

    predictions : of these trials; may be empty
    """
    if sweep.seeds is None:
        return Folded(list(results), predictions, list(results))
    recipes = {result.candidate: Recipe.from_dict(result.recipe) for result in results}
    names = {
        candidate: Member(recipe.ensemble.candidate, recipe.seed)
        for candidate, recipe in recipes.items()
        if recipe.seed is not None
    }
    trials: dict[tuple[str, str], list[Result]] = {}
    begun: dict[str, set[int]] = {}
    for result in results:
        member = names[result.candidate]
        trials.setdefault((member.ensemble, result.fold), []).append(result)
        begun.setdefault(member.ensemble, set()).add(member.seed)
    # A search trains its winner alone with all seeds.
    wanted = {name: len(sweep.seeds if isinstance(sweep.search, Grid) else seeds) for name, seeds in begun.items()}
    joined = [one for key, mine in trials.items() if (one := _joined(key[0], mine, wanted[key[0]]))]
    first = [
        replace(result, candidate=names[result.candidate].ensemble)
        for result in results
        if names[result.candidate].seed == sweep.seeds[0]
    ]
    members = _members(predictions, names, {one.key for one in joined if one.status == "finished"})
    return Folded(joined, _averaged(members), first, members, names)


def first_predictions(folded: Folded, predictions: pd.DataFrame, seed: int | None) -> pd.DataFrame:
    """What the first members predicted, by the names of their ensembles; without a seed all that there is."""
    if seed is None or predictions.empty:
        return predictions
    ours = {name: member.ensemble for name, member in folded.names.items() if member.seed == seed}
    mine = predictions[predictions[CANDIDATE].isin(ours)]
    return mine.assign(**{CANDIDATE: mine[CANDIDATE].map(ours)})


def spread(members: pd.DataFrame, how: metrics.How) -> pd.DataFrame:
    """How right members are by themselves: candidate, ``seeds``, and the lowest and highest accuracy by treatment.

    members : their tile predictions under the name of the ensemble, with the seed; may be empty
    """
    if members.empty:
        return pd.DataFrame(columns=[CANDIDATE, *SPREAD])
    tables = [
        metrics.treatments(mine.drop(columns=SEED), how).assign(**{SEED: seed}) for seed, mine in members.groupby(SEED)
    ]
    table = pd.concat(tables, ignore_index=True)
    right = (table[metrics.PREDICTED] == table[LABEL]).astype(float)
    accuracies = right.groupby([table[CANDIDATE], table[SEED]]).mean()
    rows = [
        [candidate, ", ".join(str(seed) for _, seed in mine.index), float(mine.min()), float(mine.max())]
        for candidate, mine in accuracies.groupby(level=0)
    ]
    return pd.DataFrame(rows, columns=[CANDIDATE, *SPREAD])


def _joined(ensemble: str, members: Sequence[Result], wanted: int) -> Result | None:
    """One fold of an ensemble: finished where all its members are; None where some are still to come."""
    failed = [member for member in members if member.status != "finished"]
    if len(members) < wanted and not failed:
        return None
    recipe = Recipe.from_dict(members[0].recipe).ensemble.as_dict()
    return Result(
        candidate=ensemble,
        fold=members[0].fold,
        status=failed[0].status if failed else "finished",
        recipe=recipe,
        attempts=max(member.attempts for member in members),
        epochs=sum(member.epochs for member in members),
        seconds=sum(member.seconds for member in members),
        setup_seconds=sum(member.setup_seconds for member in members),
        error=failed[0].error if failed else None,
    )


def _members(predictions: pd.DataFrame, names: dict[str, Member], finished: set[tuple[str, str]]) -> pd.DataFrame:
    """The predictions of members on the folds that all of an ensemble finished."""
    if predictions.empty:
        return predictions
    ensembles = {name: member.ensemble for name, member in names.items()}
    seeds = {name: member.seed for name, member in names.items()}
    own = predictions[CANDIDATE]
    renamed = predictions.assign(**{CANDIDATE: own.map(ensembles), SEED: own.map(seeds)})
    trials = pd.MultiIndex.from_frame(renamed[[CANDIDATE, FOLD]])
    return renamed[trials.isin(list(finished))].reset_index(drop=True)


def _averaged(members: pd.DataFrame) -> pd.DataFrame:
    """One row an ensemble and tile: the average of its members' probabilities."""
    if members.empty:
        return members.drop(columns=SEED, errors="ignore")
    shares = probability_columns(members)
    tiles = members.groupby([CANDIDATE, FOLD, *TILE_KEY], sort=False)
    number = tiles.ngroup().to_numpy()
    first = members[~tiles.cumcount().astype(bool)].drop(columns=SEED).reset_index(drop=True)
    return first.assign(**members.groupby(number)[shares].mean())
