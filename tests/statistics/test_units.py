"""What counts as one: treatments, wells, or compounds; every number counts the same."""

import numpy as np
import pandas as pd
import pytest
from factories import probabilities

from moa_ray.common.schema import BACKBONE, CANDIDATE, COMPOUND, CONCENTRATION, FIELD, FOLD, LABEL, PLATE, TILE, WELL
from moa_ray.statistics import aggregation, comparison, conformal, scores
from moa_ray.statistics.units import UNIT, Unit, unit_key, unit_name, with_unit

LABELS = ["X", "Y"]


def tiles(seed: int = 0) -> pd.DataFrame:
    """Eight compounds of two labels, two doses, two wells each, two tiles a well."""
    rows = [
        ("P", f"{compound}{dose}{well}", "1", tile, f"c{compound}", float(dose), LABELS[compound % 2])
        for compound in range(8)
        for dose in (1, 2)
        for well in "AB"
        for tile in ("0", "1")
    ]
    table = pd.DataFrame(rows, columns=[PLATE, WELL, FIELD, TILE, COMPOUND, CONCENTRATION, LABEL])
    table = table.assign(**{CANDIDATE: "a", BACKBONE: "SmallCNN", FOLD: "compound=" + table[COMPOUND]})
    share = np.random.default_rng(seed).random(len(table))
    return table.assign(**probabilities(np.column_stack([share, 1 - share]), LABELS))


@pytest.mark.parametrize(
    ("unit", "key"), [("treatment", [COMPOUND, CONCENTRATION]), ("well", [WELL]), ("compound", [COMPOUND])]
)
def test_units_are_what_a_slow_loop_finds(unit: Unit, key: list[str]) -> None:
    table = tiles()
    wells = [
        (rows.iloc[0], rows["prob_X"].median(), rows["prob_Y"].median()) for _, rows in table.groupby(WELL, sort=False)
    ]
    expected: dict[tuple[object, ...], list[tuple[float, float, str]]] = {}
    for first, x, y in wells:
        expected.setdefault(tuple(first[key]), []).append((x, y, first[LABEL]))
    right = 0
    for found in expected.values():
        x, y = (float(np.median([well[place] for well in found])) for place in (0, 1))
        right += ("X" if x >= y else "Y") == found[0][2]
    marked = with_unit(table, unit)
    values = scores.scores(marked)
    assert (values["k"], values["n"], values["compounds"]) == (right, len(expected), 8)
    units = aggregation.treatments(marked)
    assert UNIT not in units
    assert not units.duplicated(unit_key(units)).any()
    assert len(comparison.right(units)) == len(expected)
    assert len(conformal.calibrate(units).table) == len(expected)


def test_treatments_need_no_mark() -> None:
    assert UNIT not in with_unit(with_unit(tiles(), "well"), "treatment")


def test_a_well_is_named_by_its_place() -> None:
    assert unit_name({COMPOUND: "taxol"}) == "taxol"
    assert unit_name({COMPOUND: "taxol", PLATE: "P1", WELL: "B02"}) == "taxol (P1 B02)"
    assert unit_name({COMPOUND: "B02", PLATE: "P1", WELL: "B02"}) == "B02"
