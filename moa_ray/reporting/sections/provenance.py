"""Provenance: what was left out, what failed, what is odd about the data, and how the report was made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import pandas as pd

from moa_ray.common.schema import CANDIDATE, COMPOUND, CONCENTRATION, LABEL
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.html_table import HtmlTable, value_text
from moa_ray.reporting.section import Section


@dataclass(frozen=True)
class Provenance(Section):
    """What the numbers are made of.

    Attributes
    ----------
    evidence : Evidence
        What the report stands on.
    """

    template: ClassVar[str] = "sections/provenance.html"
    most_failures: ClassVar[int] = 50  # all are in the ledger

    evidence: Evidence

    @classmethod
    def of(cls, evidence: Evidence) -> Self:
        return cls(evidence)

    def summary(self) -> dict[str, Any]:
        evidence = self.evidence
        return {
            "trials": dict(evidence.trials),
            "folds_excluded": dict(evidence.excluded),
            "treatments": evidence.n_treatments,
            "treatments_not_scored": evidence.unscored.to_dict("records"),
            "warnings": list(evidence.warnings),
            "versions": dict(evidence.versions),
        }

    @property
    def unscored(self) -> HtmlTable:
        """Every treatment that cannot be scored, with the reason."""
        rows = [
            [row[COMPOUND], f"{row[CONCENTRATION]:g}", row[LABEL], row["reason"]]
            for row in self.evidence.unscored.to_dict("records")
        ]
        return HtmlTable(["compound", "µmol/L", "label", "reason"], rows, [False, True, False, False])

    @property
    def recipe(self) -> HtmlTable:
        """All hyperparameters of the headline's candidate."""
        best = self.evidence.best
        recipe: Mapping[str, Any] = self.evidence.recipes.get(best[CANDIDATE], {}) if best else {}
        values = pd.json_normalize(dict(recipe)).iloc[0].to_dict() if recipe else {}
        rows = [[str(name), value_text(value)] for name, value in values.items()]
        return HtmlTable(["hyperparameter", "value"], rows, [False, False])
