"""The result in one line, and the sentences that it is made of."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from moa_ray.common.schema import CANDIDATE
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.html_table import percent
from moa_ray.statistics import scores
from moa_ray.statistics.unpredicted import REASON, with_unpredicted


def headline(evidence: Evidence) -> str:
    """Write the result in one line, with everything that it has to be judged by.

    Parameters
    ----------
    evidence : Evidence
        What the report stands on.

    Returns
    -------
    str
        One line.
    """
    best = evidence.best
    if best is None:
        return "No prediction: no trial finished."
    unfinished = "" if best["complete"] else f"UNFINISHED ({reached(evidence, best)}): "
    scored = "".join(f"; {clause}" for clause in (unpredicted(evidence), scorable(evidence)) if clause)
    return (
        f"{unfinished}{best['k']} of {best['n']} {evidence.unit}s right, {percent(best['treatment_accuracy'])} "
        f"({interval(evidence, best)}); {best[CANDIDATE]}; {chosen(evidence)}; {baseline(evidence)}{scored}"
    )


def unpredicted(evidence: Evidence) -> str:
    """Say how many of the treatments that count have no prediction, and why.

    Parameters
    ----------
    evidence : Evidence
        What the report stands on.

    Returns
    -------
    str
        A clause; empty where all were predicted.
    """
    reasons = evidence.judged_unpredicted[REASON].value_counts(sort=False)
    why = ", ".join(f"{count} {reason}" if len(reasons) > 1 else str(reason) for reason, count in reasons.items())
    return f"{reasons.sum()} of these not predicted ({why}), so not right" if len(reasons) else ""


def scorable(evidence: Evidence) -> str:
    """Say how many of the screen's treatments any fold can score.

    Parameters
    ----------
    evidence : Evidence
        What the report stands on.

    Returns
    -------
    str
        Empty where all treatments can be scored, or their number is not known.
    """
    if evidence.n_treatments is None or evidence.unscored.empty:
        return ""
    return f"{evidence.n_treatments - len(evidence.unscored)} of {evidence.n_treatments} treatments can be scored"


def reached(evidence: Evidence, best: Mapping[str, Any]) -> str:
    """Say how far an unfinished candidate came.

    Parameters
    ----------
    evidence : Evidence
        What the report stands on.
    best : mapping of str to Any
        The headline's candidate.

    Returns
    -------
    str
        In folds, or in treatments where the predictions were made elsewhere.
    """
    if evidence.is_external:
        return f"{best['n']} of {best['n_treatments']} treatments"
    return f"{best['folds_finished']} of {best['n_folds']} folds"


def interval(evidence: Evidence, best: Mapping[str, Any]) -> str:
    """Write the intervals of an accuracy.

    Parameters
    ----------
    evidence : Evidence
        What the report stands on.
    best : mapping of str to Any
        Scores of one candidate, of an ensemble with those of its members.

    Returns
    -------
    str
        Wilson's interval and that of the bootstrap, and of an ensemble how many treatments its members have right.
    """
    words = (
        f"95 % Wilson interval {percent(best['wilson_low'])} to {percent(best['wilson_high'])}; 95 % bootstrap over "
        f"{best['compounds']} {evidence.group}s {percent(best['compound_low'])} to {percent(best['compound_high'])}"
    )
    if pd.isna(best.get("seeds")):
        return words
    low, high = (round(best[f"seed_accuracy_{end}"] * best["n"]) for end in ("low", "high"))
    several = "seeds" if "," in best["seeds"] else "seed"
    right = str(low) if low == high else f"{low} to {high}"
    return f"{words}; {several} {best['seeds']}: {right} of {best['n']}"


def baseline(evidence: Evidence) -> str:
    """Say what the majority class alone would get, on the same treatments.

    Parameters
    ----------
    evidence : Evidence
        What the report stands on; it must have a best candidate.

    Returns
    -------
    str
        A clause without a full stop.
    """
    assert evidence.best is not None, "there is no baseline without treatments"
    label, k, n = scores.majority(with_unpredicted(evidence.judged, evidence.judged_unpredicted))
    return f"always saying '{label}', the majority class: {k} of {n}, {percent(k / n)}"


def chosen(evidence: Evidence) -> str:
    """Say what chose the headline's candidate, and whether a choice saw the folds that it is judged on.

    Parameters
    ----------
    evidence : Evidence
        What the report stands on.

    Returns
    -------
    str
        A clause without a full stop.
    """
    if evidence.linear_probe is None or not evidence.linear_probe.dropped:
        return _chosen(evidence)
    names = ", ".join(evidence.linear_probe.dropped)
    if evidence.is_confirmed:
        return f"{_chosen(evidence)}; backbones were dropped by a look at the search folds ({names})"
    seen = f"backbones were dropped by a look at these folds ({names}): optimistic, and nothing corrects it"
    return f"the one recipe that was left; {seen}" if len(evidence.leaderboard) == 1 else f"{_chosen(evidence)}; {seen}"


def _chosen(evidence: Evidence) -> str:
    tried, complete = len(evidence.leaderboard), int(evidence.leaderboard["complete"].sum())
    if evidence.is_external:
        return _chosen_elsewhere(evidence, tried, complete)
    if evidence.search is not None and evidence.is_confirmed:
        return (
            f"the best of {tried} candidates by {evidence.search.settings.objective.replace('_', ' ')} on the search "
            f"folds; judged on {len(evidence.search.confirm_folds)} folds that no choice saw"
        )
    if tried == 1:
        return "one fixed recipe, nothing was chosen"
    if complete == 0:
        return f"none of {tried} recipes finished all folds"
    if complete == 1:
        return f"the only one of {tried} recipes that finished all folds"
    rest = f" ({tried - complete} more did not finish)" if complete < tried else ""
    return f"best of {complete} recipes judged on the same folds{rest}: optimistic, {correction(evidence)}"


def _chosen_elsewhere(evidence: Evidence, tried: int, complete: int) -> str:
    if tried == 1:
        return "one candidate of a table made elsewhere; what chose it is not known"
    if complete < 2:
        return f"{'none' if complete == 0 else 'the only one'} of {tried} candidates given that has all treatments"
    rest = f" ({tried - complete} more lack some)" if complete < tried else ""
    return f"best of {complete} candidates given, on the same treatments{rest}: optimistic, {correction(evidence)}"


def correction(evidence: Evidence) -> str:
    """Say what is left of the accuracy without the luck of the best.

    Parameters
    ----------
    evidence : Evidence
        What the report stands on.

    Returns
    -------
    str
        A clause without a full stop.
    """
    if evidence.corrected is None:
        return "not corrected"
    low, high = percent(evidence.corrected.low), percent(evidence.corrected.high)
    return f"corrected by BBC-CV {percent(evidence.corrected.accuracy)} ({low} to {high})"
