"""A first look at the backbones of a sweep: how far a head on frozen features of each gets, before any is fine-tuned.

`moa_ray.recipe.first_look` is the head's recipe. It is trained on the search folds alone, which in a grid are all. Its
trials lie in the ledger like any other; they belong to no candidate of the sweep, and nothing else sees them. What is
dropped follows from them, and so is the same at every start.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from moa_ray import metrics, unknowns
from moa_ray.ledger import Ledger, Result
from moa_ray.recipe import is_first_look
from moa_ray.spec import Grid, Sweep
from moa_ray.tables import BACKBONE, CANDIDATE, FOLD

_NOTHING = pd.DataFrame({BACKBONE: [], "n": [], "complete": []})


@dataclass(frozen=True)
class Look:
    """What a first look came to.

    board : one row a look, lowest log-loss first and incomplete ones last, as `metrics.leaderboard` has them, with
        image_size
    dropped : backbones that are not fine-tuned, best first
    unseen : backbones of which nothing was looked at: with random weights there is nothing to see
    failures : looks that did not finish
    majority : share of the treatments that have the most frequent label, beside the looks; None without predictions
    predictions : of all looks, a row a held-out tile
    """

    board: pd.DataFrame
    dropped: tuple[str, ...]
    unseen: tuple[str, ...]
    failures: tuple[Result, ...]
    majority: float | None
    predictions: pd.DataFrame

    def of(self, candidate: str) -> pd.DataFrame:
        """The predictions of one look."""
        return self.predictions[self.predictions[CANDIDATE] == candidate]


def read(sweep: Sweep, folds: Sequence[str], book: Ledger, results: Collection[Result]) -> Look | None:
    """What the ledger tells of a sweep's first look; None where none was asked for.

    folds : that a look is trained on
    results : all of the ledger, without their tables
    """
    if not sweep.search.screen_with_frozen:
        return None
    recipes = {recipe.candidate: recipe.as_dict() for recipe in sweep.looks}
    mine = [result for result in results if result.candidate in recipes and result.fold in folds]
    predictions = unknowns.known(book.table("predictions", mine))
    board = _board(recipes, mine, predictions, len(folds), sweep.aggregate) if recipes else _NOTHING
    begun = {result.recipe[BACKBONE] for result in results if not is_first_look(result.recipe)}
    begun |= {proposal.recipe.backbone for proposal in book.proposals()}
    seen = {plain[BACKBONE] for plain in recipes.values()}
    return Look(
        board,
        _dropped(board, sweep.keep, begun) if recipes else (),
        tuple(dict.fromkeys(recipe.backbone for recipe in sweep.recipes if recipe.backbone not in seen)),
        tuple(result for result in mine if result.status != "finished"),
        _majority(predictions, board, sweep.aggregate) if len(predictions) else None,
        predictions,
    )


def own(sweep: Sweep, book: Ledger, results: Iterable[Result]) -> list[Result]:
    """The results of a sweep's own candidates: all but those that are of its first look alone."""
    if isinstance(sweep.search, Grid):
        candidates = {recipe.candidate for recipe in sweep.recipes}
    else:
        candidates = {proposal.recipe.candidate for proposal in book.proposals()}
    return [result for result in results if result.candidate in candidates or not is_first_look(result.recipe)]


def _board(
    recipes: dict[str, dict[str, object]],
    results: list[Result],
    predictions: pd.DataFrame,
    folds: int,
    how: metrics.How,
) -> pd.DataFrame:
    columns = [CANDIDATE, FOLD, "status", "epochs", "seconds"]
    trials = pd.DataFrame([[getattr(result, name) for name in columns] for result in results], columns=columns)
    board = metrics.leaderboard(predictions, trials, recipes, folds, how)
    board["image_size"] = [recipes[candidate]["image_size"] for candidate in board[CANDIDATE]]
    return board.sort_values(["complete", "log_loss", CANDIDATE], ascending=[False, True, True], ignore_index=True)


def _dropped(board: pd.DataFrame, keep: int | None, begun: Collection[str]) -> tuple[str, ...]:
    """All backbones but the best; of several weights and sizes its best one counts.

    One whose look did not finish cannot be compared, and one that is trained already is not given up: both go on.
    """
    if keep is None:
        return ()
    ranked = list(dict.fromkeys(board.loc[board["complete"], BACKBONE]))
    return tuple(name for name in ranked[keep:] if name not in begun)


def _majority(predictions: pd.DataFrame, board: pd.DataFrame, how: metrics.How) -> float:
    first = predictions[predictions[CANDIDATE] == board[CANDIDATE].iloc[0]]
    _, k, n = metrics.majority(metrics.treatments(first, how))
    return k / n
