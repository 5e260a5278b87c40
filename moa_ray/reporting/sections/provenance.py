"""Provenance: what was left out, what failed, what is odd about the data, and how the report was made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import pandas as pd

from moa_ray.common.schema import CANDIDATE, COMPOUND, CONCENTRATION, LABEL, PLATE
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.html_table import HtmlTable, value_text
from moa_ray.reporting.section import Section
from moa_ray.screens.left_out import left_out_sentences

UNITS = ("fields", "wells", "tiles")
COUNTS = (*UNITS, *(f"dropped_{unit}" for unit in UNITS))


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
    most_dropped: ClassVar[int] = 50  # all are in summary.json

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
            "dropped": self.dropped_totals | {"by_plate_and_compound": evidence.dropped.to_dict("records")},
            "rows_left_out": evidence.left_out.to_dict("records"),
            "warnings": list(evidence.warnings),
            "versions": dict(evidence.versions),
        }

    @property
    def dropped_totals(self) -> dict[str, int]:
        """How many fields, wells and tiles there are, and how many of them were dropped; empty where not known."""
        counts = self.evidence.dropped
        return {name: int(counts[name].sum()) for name in COUNTS if name in counts}

    @property
    def dropped(self) -> HtmlTable:
        """What was dropped of each plate and compound, the most tiles first."""
        counts = self.evidence.dropped
        rows = counts[counts["dropped_tiles"] > 0].sort_values("dropped_tiles", ascending=False, kind="stable")
        cells = [
            [row[PLATE], row[COMPOUND], *(f"{row[f'dropped_{unit}']} of {row[unit]}" for unit in UNITS)]
            for row in rows.head(self.most_dropped).to_dict("records")
        ]
        return HtmlTable(["plate", "compound", *UNITS], cells, [False, False, True, True, True])

    @property
    def left_out(self) -> list[str]:
        """How many rows of the screen's table are not used, a sentence for each reason."""
        return left_out_sentences(self.evidence.left_out) if len(self.evidence.left_out) else []

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
