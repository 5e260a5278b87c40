"""A report's numbers in plain values, for scripts."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from moa_ray import calibration, comparison, page, published, sure
from moa_ray.ledger import Result
from moa_ray.page import Content, FirstLook
from moa_ray.tables import BACKBONE, CANDIDATE


def summary(content: Content, results: list[Result]) -> dict[str, Any]:
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


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Values that JSON knows; what is no number becomes null."""
    return {
        name: None
        if isinstance(value, float) and not np.isfinite(value)
        else getattr(value, "item", lambda v=value: v)()
        for name, value in row.items()
    }


def _plain_beside(one: published.Beside) -> dict[str, Any]:
    network = one.network and {"k": one.network.k, "n": one.network.n, "accuracy_percent": one.network.accuracy}
    lacking = {"only_here": one.only_here, "only_published": one.only_published, "other_label": one.relabelled}
    return {
        **{CANDIDATE: one.candidate, BACKBONE: one.backbone, "published": network, "compared": one.n},
        **one.counts,
        **{"mcnemar_p": one.p_value if one.n else None, **lacking},
    }


def _plain_calibration(found: calibration.Calibration) -> dict[str, Any]:
    named = {"before": found.before, "after": found.after}
    numbers = {when: None if one is None else _plain_quality(one) for when, one in named.items()}
    return {**numbers, "temperatures": dict(found.temperatures)}


def _plain_quality(one: calibration.Quality) -> dict[str, Any]:
    return {**dataclasses.asdict(one), "bins": one.bins.to_dict("records")}


def _plain_look(look: FirstLook) -> dict[str, Any]:
    names = [CANDIDATE, "backbone", "weights", "image_size", *("k", "n", "treatment_accuracy", "log_loss", "complete")]
    rows = [_plain({name: row[name] for name in names}) for row in look.board.to_dict("records")]
    return {"looks": rows, "keep": look.keep, "dropped": list(look.dropped), "not_looked_at": list(look.unseen)}
