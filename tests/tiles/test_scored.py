"""What each fold is to score, and what of it has no tile."""

import numpy as np
import pandas as pd

from moa_ray.common.schema import COMPOUND, CONCENTRATION, FIELD_KEY, FOLD, LABEL, TILE, TREATMENT
from moa_ray.screens.folds import make_folds
from moa_ray.tiles.dropped import NO_CELLS, REASON
from moa_ray.tiles.scored import scored_treatments


def screen(seed: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Fields of six compounds at two doses on two plates, of which some tiles are dropped."""
    rng = np.random.default_rng(seed)
    rows = [
        (plate, f"{compound}{dose}", field, f"c{compound}", float(dose), f"L{compound % 3}")
        for plate in ("P1", "P2")
        for compound in range(6)
        for dose in (1, 2)
        for field in ("1", "2")
    ]
    fields = pd.DataFrame(rows, columns=[*FIELD_KEY, *TREATMENT, LABEL])
    tiles = fields[FIELD_KEY].merge(pd.DataFrame({TILE: ["0-0", "0-1"]}), how="cross")
    gone = rng.random(len(tiles)) < 0.8
    return fields, tiles[~gone], tiles[gone].assign(**{REASON: NO_CELLS})


def test_each_fold_scores_what_it_holds_out_and_says_what_has_no_tile() -> None:
    seen = set()
    for seed in range(3):
        fields, table, dropped = screen(seed)
        folds = [fold for fold in make_folds(fields, "compound") if fold.excluded is None]
        scored = scored_treatments(fields, folds, table, dropped).set_index([FOLD, *TREATMENT])
        held = set(table[FIELD_KEY].itertuples(index=False, name=None))
        expected: dict[tuple[str, str, float], bool] = {}
        for plate, well, field, compound, dose, _ in fields.itertuples(index=False):
            key = (f"compound={compound}", compound, dose)
            expected[key] = expected.get(key, False) or (plate, well, field) in held
        assert scored[REASON].to_dict() == {key: "" if held else NO_CELLS for key, held in expected.items()}
        seen |= set(expected.values())
    assert seen == {True, False}


def test_of_labels_held_out_whole_the_known_compounds_alone_are_scored() -> None:
    fields, table, dropped = screen(0)
    scored = scored_treatments(fields, make_folds(fields, "label"), table, dropped)
    assert all(fold != f"label={label}" for fold, label in scored[[FOLD, LABEL]].itertuples(index=False))
    assert len(scored) == len(fields.drop_duplicates(TREATMENT))


def test_columns_are_there_without_folds() -> None:
    fields, table, dropped = screen(0)
    assert list(scored_treatments(fields, [], table, dropped)) == [COMPOUND, CONCENTRATION, LABEL, FOLD, REASON]
