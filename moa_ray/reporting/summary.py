"""A report's numbers in plain values, for scripts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moa_ray.reporting import headline
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.section import Section


def summary(evidence: Evidence, sections: Sequence[Section], kinds: Sequence[type[Section]]) -> dict[str, Any]:
    """Collect the numbers of the headline and of each section.

    Parameters
    ----------
    evidence : Evidence
        What the report stands on.
    sections : sequence of Section
        Those that have something to say.
    kinds : sequence of type
        All sections, which say what stands in place of those that are absent.

    Returns
    -------
    dict of str to Any
        Values that JSON knows.
    """
    numbers: dict[str, Any] = {
        "study": evidence.study,
        "headline": headline.headline(evidence),
        "best": None if evidence.best is None else plain(evidence.best),
        "chosen_by": headline.chosen(evidence),
        "corrected": None if evidence.corrected is None else dataclasses.asdict(evidence.corrected),
    }
    for kind in kinds:
        numbers |= kind.absent
    for section in sections:
        numbers |= section.summary()
    return numbers


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a row into values that JSON knows.

    Parameters
    ----------
    row : mapping of str to Any
        Values of NumPy or Python.

    Returns
    -------
    dict of str to Any
        What is no finite number becomes None.
    """
    return {
        name: None
        if isinstance(value, float) and not np.isfinite(value)
        else getattr(value, "item", lambda v=value: v)()
        for name, value in row.items()
    }
