"""Deep ensembles: the members of a recipe, which differ by their seed alone, as one candidate.

To the ledger and to MLflow every member is a candidate of its own. A report folds them at its door: a tile's
probabilities are the average of the members', over the folds that all of them finished.

References
----------
Lakshminarayanan, Pritzel and Blundell 2017, "Simple and scalable predictive uncertainty estimation".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from moa_ray.common.schema import CANDIDATE, FOLD, LABEL, SEED, TILE_KEY, probability_columns
from moa_ray.config.recipe import Recipe
from moa_ray.config.search import GridSettings
from moa_ray.config.sweep_file import Sweep
from moa_ray.statistics import aggregation
from moa_ray.tracking.results import Result, TrialKind

SPREAD = ("seeds", "seed_accuracy_low", "seed_accuracy_high")


@dataclass(frozen=True)
class Member:
    """A member of an ensemble.

    Attributes
    ----------
    ensemble : str
        Name of the ensemble.
    seed : int
        The seed by which the member differs from the others.
    """

    ensemble: str
    seed: int


@dataclass(frozen=True)
class Folded:
    """A sweep's trials with an ensemble in place of its members; without seeds they are as they were.

    Attributes
    ----------
    results : list of Result
        One an ensemble and fold, without tables; a fold that not all members have come to is left out.
    predictions : DataFrame
        The averages, of the folds that all members finished; may be empty.
    first : list of Result
        Results of the first member of each ensemble, which a search chose by, under the ensemble's name.
    members : DataFrame
        Predictions of all members on the same folds, under the ensemble's name, with the seed; may be empty.
    names : dict of str to Member
        By a member's own name.
    """

    results: list[Result]
    predictions: pd.DataFrame
    first: list[Result]
    members: pd.DataFrame = field(default_factory=pd.DataFrame)
    names: dict[str, Member] = field(default_factory=dict)

    def shown(self, candidate: str) -> str:
        """Give a candidate the name that a report knows it by.

        Parameters
        ----------
        candidate : str
            A candidate's own name in the ledger.

        Returns
        -------
        str
            The ensemble's name and the seed, where it is a member of one.
        """
        member = self.names.get(candidate)
        return candidate if member is None else f"{member.ensemble}, seed {member.seed}"


def fold(sweep: Sweep, results: Sequence[Result], predictions: pd.DataFrame) -> Folded:
    """Put ensembles in place of their members.

    Parameters
    ----------
    sweep : Sweep
        The sweep as it was run.
    results : sequence of Result
        Trials of the sweep's own candidates.
    predictions : DataFrame
        Of these trials; may be empty.

    Returns
    -------
    Folded
        Without seeds the trials as they are.
    """
    if sweep.seeds is None:
        return Folded(list(results), predictions, list(results))
    names = {
        result.candidate: Member(Recipe.from_dict(result.recipe).ensemble.candidate, result.recipe["seed"])
        for result in results
        if result.kind is TrialKind.ENSEMBLE_MEMBER
    }
    trials: dict[tuple[str, str], list[Result]] = {}
    begun: dict[str, set[int]] = {}
    for result in results:
        member = names[result.candidate]
        trials.setdefault((member.ensemble, result.fold), []).append(result)
        begun.setdefault(member.ensemble, set()).add(member.seed)
    # A search trains its winner alone with all seeds.
    wanted = {
        name: len(sweep.seeds if isinstance(sweep.search, GridSettings) else seeds) for name, seeds in begun.items()
    }
    joined = [
        joined_fold
        for (ensemble, _), members in trials.items()
        if (joined_fold := _joined(ensemble, members, wanted[ensemble])) is not None
    ]
    first = [
        replace(result, candidate=names[result.candidate].ensemble)
        for result in results
        if names[result.candidate].seed == sweep.seeds[0]
    ]
    tiles = _members(predictions, names, {result.key for result in joined if result.status == "finished"})
    return Folded(joined, _averaged(tiles), first, tiles, names)


def first_predictions(folded: Folded, predictions: pd.DataFrame, seed: int | None) -> pd.DataFrame:
    """Select what the first members predicted.

    Parameters
    ----------
    folded : Folded
        The trials.
    predictions : DataFrame
        Of all members; may be empty.
    seed : int or None
        The first seed; None where the sweep has none.

    Returns
    -------
    DataFrame
        By the names of the ensembles; without a seed all that there is.
    """
    if seed is None or predictions.empty:
        return predictions
    ensembles = {name: member.ensemble for name, member in folded.names.items() if member.seed == seed}
    rows = predictions[predictions[CANDIDATE].isin(ensembles)]
    return rows.assign(**{CANDIDATE: rows[CANDIDATE].map(ensembles)})


def spread(members: pd.DataFrame, how: aggregation.Aggregation, missing: pd.DataFrame | None = None) -> pd.DataFrame:
    """Score the members of ensembles by themselves.

    Parameters
    ----------
    members : DataFrame
        Their tile predictions under the name of the ensemble, with the seed; may be empty.
    how : {"median", "mean"}
        How tiles are aggregated to treatments.
    missing : DataFrame, optional
        Treatments of ensembles without a prediction, as `moa_ray.statistics.unpredicted` lists them: not right.

    Returns
    -------
    DataFrame
        One row an ensemble: candidate, ``seeds``, and the lowest and highest accuracy by treatment.
    """
    if members.empty:
        return pd.DataFrame(columns=[CANDIDATE, *SPREAD])
    tables = [
        aggregation.treatments(tiles.drop(columns=SEED), how).assign(**{SEED: seed})
        for seed, tiles in members.groupby(SEED)
    ]
    table = pd.concat(tables, ignore_index=True)
    right = (table[aggregation.PREDICTED] == table[LABEL]).astype(float)
    counts = right.groupby([table[CANDIDATE], table[SEED]]).agg(["sum", "size"])
    absent = {} if missing is None else missing.groupby(CANDIDATE).size().to_dict()
    more = counts.index.get_level_values(0).map(lambda name: absent.get(name, 0)).to_numpy()
    accuracies = counts["sum"] / (counts["size"] + more)
    rows = [
        [candidate, ", ".join(str(seed) for _, seed in own.index), float(own.min()), float(own.max())]
        for candidate, own in accuracies.groupby(level=0)
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
    candidates = predictions[CANDIDATE]
    renamed = predictions.assign(**{CANDIDATE: candidates.map(ensembles), SEED: candidates.map(seeds)})
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
