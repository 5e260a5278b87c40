"""What a section of the report is."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

import pandas as pd
from matplotlib.figure import Figure

from moa_ray.reporting.evidence import Evidence


class Section(Protocol):
    """One thing that the report says: made from the evidence, shown by one template.

    The template sees the section as ``section``, and besides ``evidence``, ``best`` (the headline's candidate, or None)
    and ``images``, the figures of the page by their names. A section that inherits from this class and leaves out
    `figures`, `tables` or `summary` adds none.

    Attributes
    ----------
    template : str
        The template's path below ``templates/``.
    absent : mapping of str to Any
        What the section's keys of summary.json hold where there is no such section.
    """

    template: ClassVar[str]
    absent: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        """Make the section.

        Parameters
        ----------
        evidence : Evidence
            What the report stands on.

        Returns
        -------
        Section or None
            None where the evidence says nothing of the section's subject.
        """
        ...

    def figures(self) -> dict[str, Figure]:
        """Draw the section's figures.

        Returns
        -------
        dict of str to Figure
            By the names of their files, without ending.
        """
        return {}

    def tables(self) -> dict[str, pd.DataFrame]:
        """Make the section's tables.

        Returns
        -------
        dict of str to DataFrame
            By the names of their files in OUT, which end in ``.csv`` or ``.parquet``.
        """
        return {}

    def summary(self) -> dict[str, Any]:
        """Give the section's part of summary.json.

        Returns
        -------
        dict of str to Any
            The keys of `absent` with plain values.
        """
        return {}
