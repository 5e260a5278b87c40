"""What was dropped: counted by loops over fields and tiles, and named."""

import pandas as pd

from moa_ray.common.schema import COMPOUND, CONCENTRATION, FIELD, FIELD_KEY, PLATE, TILE, TILE_KEY, TREATMENT, WELL
from moa_ray.config.preparation import Preparation
from moa_ray.tiles.dropped import NO_CELLS, REASON, counts, lost, missing_tiles, warnings

FIELDS = pd.DataFrame(
    [
        ("p1", "A01", "1", "toxic", 1.0),
        ("p1", "A01", "2", "toxic", 1.0),
        ("p1", "A02", "1", "toxic", 10.0),
        ("p2", "A01", "1", "toxic", 10.0),
        ("p1", "A03", "1", "mild", 1.0),
        ("p2", "A03", "1", "mild", 1.0),
        ("p2", "A03", "2", "mild", 1.0),
    ],
    columns=[*FIELD_KEY, *TREATMENT],
)
GRID = Preparation(rows=1, columns=2)
# One field of toxic at 1 has a tile; none at 10 has; one field of mild has none.
KEPT = pd.DataFrame(
    [("p1", "A01", "1", "0-0"), ("p1", "A03", "1", "0-0"), ("p1", "A03", "1", "0-1"), ("p2", "A03", "2", "0-1")],
    columns=TILE_KEY,
)


def test_missing_tiles_are_the_rest_of_the_grid() -> None:
    dropped = missing_tiles(KEPT, FIELDS, GRID)
    everything = {(*key, name) for key in FIELDS[FIELD_KEY].to_numpy().tolist() for name in ("0-0", "0-1")}
    kept = {tuple(key) for key in KEPT.to_numpy()}
    assert {tuple(key) for key in dropped[TILE_KEY].to_numpy()} == everything - kept
    assert set(dropped[REASON]) == {NO_CELLS}


def test_counts_are_those_of_a_loop_over_plates_and_compounds() -> None:
    table = counts(KEPT, missing_tiles(KEPT, FIELDS, GRID), FIELDS).set_index([PLATE, COMPOUND])
    kept_fields = {tuple(key) for key in KEPT[FIELD_KEY].to_numpy()}
    kept_wells = {key[:2] for key in kept_fields}
    assert len(table) == 4
    for (plate, compound), row in table.iterrows():
        rows = FIELDS[(FIELDS[PLATE] == plate) & (FIELDS[COMPOUND] == compound)]
        fields = {tuple(key) for key in rows[FIELD_KEY].to_numpy()}
        wells = {key[:2] for key in fields}
        tiles = sum(tuple(key) in fields for key in KEPT[FIELD_KEY].to_numpy())
        assert row.to_dict() == {
            "fields": len(fields),
            "dropped_fields": len(fields - kept_fields),
            "wells": len(wells),
            "dropped_wells": len(wells - kept_wells),
            "tiles": 2 * len(fields),
            "dropped_tiles": 2 * len(fields) - tiles,
        }


def test_a_treatment_is_lost_where_no_field_of_it_has_a_tile_and_every_reason_is_named() -> None:
    dropped = missing_tiles(KEPT, FIELDS, GRID)
    dropped.loc[(dropped[PLATE] == "p2") & (dropped[WELL] == "A01"), REASON] = "out of focus"
    [row] = lost(KEPT, dropped, FIELDS, TREATMENT).to_dict("records")
    assert row == {COMPOUND: "toxic", CONCENTRATION: 10.0, REASON: "no cells; out of focus"}
    assert lost(KEPT, dropped, FIELDS, [COMPOUND]).empty
    fields = lost(KEPT, dropped, FIELDS, FIELD_KEY)
    assert {tuple(key) for key in fields[FIELD_KEY].to_numpy()} == {
        ("p1", "A01", "2"),
        ("p1", "A02", "1"),
        ("p2", "A01", "1"),
        ("p2", "A03", "1"),
    }


def test_warnings_count_fields_and_wells_and_name_treatments() -> None:
    assert warnings(KEPT, missing_tiles(KEPT, FIELDS, GRID), FIELDS) == [
        "4 of 7 fields have no tile (no cells), and 2 of 5 wells none at all: p1 A01 2, p1 A02 1, p2 A01 1, ...",
        "1 of 3 treatments have no tile (no cells) and cannot be predicted: toxic 10",
    ]


def test_nothing_is_said_where_every_field_has_a_tile() -> None:
    table = FIELDS[FIELD_KEY].assign(**{TILE: "0-0", FIELD: FIELDS[FIELD]})
    dropped = missing_tiles(table, FIELDS, GRID)
    assert len(dropped) == len(FIELDS)
    assert warnings(table, dropped, FIELDS) == []
    assert lost(table, dropped, FIELDS, TREATMENT).empty
