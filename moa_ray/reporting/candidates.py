"""What belongs to each candidate alone, for those who keep candidates apart."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from moa_ray.common.schema import CANDIDATE, FOLD
from moa_ray.reporting import figures
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.from_ledger import Contents
from moa_ray.reporting.records import ProbeRecord, of_folds, trial_table
from moa_ray.reporting.sections.confusion import matrix_of
from moa_ray.reporting.sections.epochs import accuracy_over_epochs
from moa_ray.statistics import leaderboard as statistics_leaderboard
from moa_ray.statistics import scores, unpredicted

Part = tuple[dict[str, float], pd.DataFrame, list[Path]]  # scores, tile predictions, figures


def parts(
    contents: Contents, evidence: Evidence, folder: Path, saved: Mapping[str, tuple[Path, Path]]
) -> dict[str, Callable[[], Part]]:
    """Prepare what belongs to each candidate, each linear probe, and each member of an ensemble.

    Parameters
    ----------
    contents : Contents
        The ledger.
    evidence : Evidence
        Made of it.
    folder : Path
        Where figures go.
    saved : mapping of str to tuple of Path, Path
        Figures that are there already.

    Returns
    -------
    dict of str to callable
        Each makes scores, tile predictions and figures, which takes a second.
    """
    candidates = _by_candidate(evidence, contents.folded.predictions, folder, saved)
    probes = _by_probe(evidence.linear_probe, set(evidence.leaderboard[CANDIDATE])) if evidence.linear_probe else {}
    return candidates | probes | _by_member(contents)


def _by_candidate(
    evidence: Evidence, predictions: pd.DataFrame, folder: Path, saved: Mapping[str, tuple[Path, Path]]
) -> dict[str, Callable[[], Part]]:
    def part(row: Mapping[str, Any]) -> Part:
        candidate = row[CANDIDATE]
        name = f"confusion-{candidate}"
        _, matrix = saved.get(name) or figures.save(matrix_of(evidence, candidate), folder, name)
        curves = accuracy_over_epochs(evidence.history[evidence.history[CANDIDATE] == candidate])
        _, curves_png = figures.save(curves, folder, f"accuracy_over_epochs-{candidate}")
        return _scores(row), predictions[predictions[CANDIDATE] == candidate], [matrix, curves_png]

    return {row[CANDIDATE]: partial(part, row) for row in _scored(evidence.leaderboard)}


def _by_probe(probe: ProbeRecord, candidates: set[str]) -> dict[str, Callable[[], Part]]:
    """Those that are no candidates besides."""

    def part(row: Mapping[str, Any]) -> Part:
        return _scores(row), probe.predictions[probe.predictions[CANDIDATE] == row[CANDIDATE]], []

    rows = _scored(probe.leaderboard)
    return {row[CANDIDATE]: partial(part, row) for row in rows if row[CANDIDATE] not in candidates}


def _by_member(contents: Contents) -> dict[str, Callable[[], Part]]:
    results, predictions, names = contents.results, contents.predictions, contents.folded.names
    recipes = {result.candidate: result.recipe for result in results if result.candidate in names}
    folds = contents.study["search_folds"]

    def part(member: str) -> Part:
        rows = predictions[predictions[CANDIDATE] == member]
        trials = trial_table([result for result in results if result.candidate == member])
        tiles, trials = (of_folds(table, folds) for table in (rows, trials))
        aggregate = contents.sweep.aggregate
        scored, wanted = unpredicted.scored_of(contents.study), {member: set(trials[FOLD])}
        missing = unpredicted.unpredicted(tiles, scored, wanted, trials)
        leaderboard = statistics_leaderboard.leaderboard(
            tiles, trials, {member: recipes[member]}, len(folds), aggregate, missing
        )
        return _scores(leaderboard.iloc[0].to_dict()), rows, []

    return {member: partial(part, member) for member in recipes if (predictions[CANDIDATE] == member).any()}


def _scored(leaderboard: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = leaderboard[leaderboard["n"] > 0].to_dict("records")
    return rows


def _scores(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(row[name]) for name in (*scores.SCORES, "folds_finished", "folds_failed", "seconds")}
