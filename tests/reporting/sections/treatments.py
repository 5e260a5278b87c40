"""Treatments of one candidate for figures to draw."""

import numpy as np
import pandas as pd

from moa_ray.common.schema import COMPOUND, CONCENTRATION, LABEL

LABELS = ["Microtubule destabilizers", "Aurora kinase inhibitors", "Cholesterol-lowering"]


def treatments(n: int = 12) -> pd.DataFrame:
    """Treatments of which every third is taken for the next label."""
    rows = []
    for i in range(n):
        true = i % 3
        taken = (true + 1) % 3 if i % 3 == 0 else true
        probabilities = np.full(3, 0.1)
        probabilities[taken] = 0.5 + i / 100
        rows.append((f"compound {i}", 0.3, LABELS[true], LABELS[taken], *probabilities))
    return pd.DataFrame(rows, columns=[COMPOUND, CONCENTRATION, LABEL, "predicted", *(f"prob_{n}" for n in LABELS)])
