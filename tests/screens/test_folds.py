"""Folds partition the fields, and nothing of a held-out group is learnt from."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_ray.common.errors import InputError
from moa_ray.common.schema import COMPOUND, CONCENTRATION, FIELD, LABEL, PLATE, TREATMENT, WEEK, WELL, WELL_KEY
from moa_ray.screens.folds import make_folds, unscored
from moa_ray.screens.validation import validation_split

# Tables are slow to make: fewer examples, and no limit on the time of one.
few = settings(max_examples=40, deadline=None)

# BBBC021: the taxol wells that count; the others are plate controls.
TAXOL_PLATES, TAXOL_WELLS = ["Week1_22123", "Week1_22141", "Week1_22161"], ["D03", "D04", "D05"]


def field_table(rows: list[tuple[str, str, int, int]]) -> pd.DataFrame:
    """Fields of (compound, label, week, wells), two fields a well, one plate a week."""
    records = [
        (f"P{week}", f"{compound}-{well}", field, compound, 1.0, label, f"Week{week}")
        for compound, label, week, wells in rows
        for well in range(wells)
        for field in "12"
    ]
    table = pd.DataFrame(records, columns=[PLATE, WELL, FIELD, COMPOUND, CONCENTRATION, LABEL, WEEK])
    return table.drop_duplicates([PLATE, WELL, FIELD], ignore_index=True)


SMALL = field_table([("a", "X", 1, 2), ("b", "X", 2, 2), ("c", "Y", 1, 2), ("d", "Y", 2, 2), ("e", "Y", 1, 1)])


@st.composite
def screens(draw: st.DrawFn) -> pd.DataFrame:
    """Screens of a few compounds, each of one label, in one or more weeks; the rows in any order."""
    count = draw(st.integers(1, 6))
    labels = [draw(st.sampled_from("XYZ")) for _ in range(count)]
    placed = st.tuples(st.integers(0, count - 1), st.integers(1, 3), st.integers(1, 3))
    rows = [(f"c{i}", labels[i], week, wells) for i, week, wells in draw(st.lists(placed, min_size=1, max_size=12))]
    order = draw(st.randoms(use_true_random=False))
    table = field_table(rows)
    return table.iloc[order.sample(range(len(table)), len(table))]


@few
@given(screens(), st.sampled_from(["compound", "week"]))
def test_folds_partition_the_fields(fields: pd.DataFrame, hold_out: str) -> None:
    times_held_out = np.zeros(len(fields), dtype=int)
    for fold in make_folds(fields, hold_out):
        split = fold.split(fields)
        times_held_out[split.test] += 1
        assert sorted([*split.train, *split.test]) == list(range(len(fields)))
    assert (times_held_out == 1).all()


@few
@given(screens(), st.sampled_from(["compound", "week", ("compound", "week"), ("week", "compound")]))
def test_split_is_what_a_slow_loop_finds(fields: pd.DataFrame, hold_out: str | tuple[str, ...]) -> None:
    words = [hold_out] if isinstance(hold_out, str) else list(hold_out)
    columns = [{"compound": COMPOUND, "week": WEEK}[word] for word in words]
    rows = fields.to_dict("records")
    for fold in make_folds(fields, hold_out):
        group = fold.name.split("=")[1]
        held_out = [row for row in rows if row[columns[0]] == group]
        test = [i for i, row in enumerate(rows) if row in held_out]
        train = [i for i, row in enumerate(rows) if all(row[c] != other[c] for c in columns for other in held_out)]
        assert fold.split(fields).test.tolist() == test
        assert fold.split(fields).train.tolist() == train
        trained, wanted = ({rows[i][LABEL] for i in part} for part in (train, test))
        assert (fold.excluded is None) == (wanted <= trained and len(trained) >= 2)


@few
@given(screens(), st.sampled_from(["compound", ("compound", "week")]), st.randoms(use_true_random=False))
def test_folds_do_not_depend_on_row_order(fields: pd.DataFrame, hold_out: str | tuple[str, ...], order) -> None:
    shuffled = fields.iloc[order.sample(range(len(fields)), len(fields))]
    assert make_folds(fields, hold_out) == make_folds(shuffled, hold_out)
    for fold in make_folds(fields, hold_out):
        before, after = fold.split(fields), fold.split(shuffled)
        assert set(fields.index[before.train]) == set(shuffled.index[after.train])
        assert set(fields.index[before.test]) == set(shuffled.index[after.test])


def test_a_fold_is_named_by_the_words_of_the_sweep_file() -> None:
    assert [fold.name for fold in make_folds(SMALL, "week")] == ["week=Week1", "week=Week2"]
    assert make_folds(SMALL, ["compound", "week"])[0].name == "compound,week=a"
    table = SMALL.assign(Metadata_Donor=[float(i % 2) for i in range(len(SMALL))])
    assert [fold.name for fold in make_folds(table, "Donor")] == ["Donor=0", "Donor=1"]
    assert make_folds(table, "Metadata_Donor") == make_folds(table, "Donor")


def test_a_fold_whose_label_is_left_nowhere_says_so() -> None:
    excluded = {fold.name: fold.excluded for fold in make_folds(SMALL[SMALL[COMPOUND] != "b"], "compound")}
    assert "label 'X'" in str(excluded["compound=a"])
    assert excluded["compound=c"] is None


def test_a_fold_with_one_label_to_learn_is_excluded() -> None:
    fields = field_table([("a", "X", 1, 1), ("b", "X", 2, 1)])
    assert all("at least 2 labels" in str(fold.excluded) for fold in make_folds(fields, "compound"))


@pytest.mark.parametrize(
    ("hold_out", "says"),
    [("donor", "no column 'donor'"), ([], "one column or several"), (["week", "Week"], "one column or several")],
)
def test_a_wrong_hold_out_is_named(hold_out: str | list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make_folds(SMALL, hold_out)


def test_a_missing_group_is_an_error() -> None:
    with pytest.raises(InputError, match=r"Metadata_Week is missing in 2 of"):
        make_folds(SMALL.assign(**{WEEK: SMALL[WEEK].where(SMALL[COMPOUND] != "e")}), "week")


@pytest.fixture(scope="module")
def official(shared: Path) -> pd.DataFrame:
    """The labelled fields of BBBC021's own tables."""
    folder = shared / "data" / "bbbc021_csv"
    names = {"Plate_DAPI": PLATE, "Well_DAPI": WELL, "Compound": COMPOUND, "Concentration": CONCENTRATION}
    images = pd.read_csv(folder / "BBBC021_v1_image.csv")
    images = images.rename(columns={f"Image_Metadata_{name}": column for name, column in names.items()})
    moa = pd.read_csv(folder / "BBBC021_v1_moa.csv").set_axis([*TREATMENT, LABEL], axis=1)
    fields = images.merge(moa, on=TREATMENT)
    counts = (fields[COMPOUND] != "taxol") | (fields[PLATE].isin(TAXOL_PLATES) & fields[WELL].isin(TAXOL_WELLS))
    fields = fields[counts & (fields[COMPOUND] != "DMSO")]
    return fields.assign(**{WEEK: fields[PLATE].str.split("_").str[0]})


@pytest.mark.parametrize(("hold_out", "treatments"), [("compound", 103), (["compound", "week"], 92)])
def test_treatments_left_by_the_official_tables(official: pd.DataFrame, hold_out, treatments: int) -> None:
    tested = [
        official.iloc[fold.split(official).test] for fold in make_folds(official, hold_out) if fold.excluded is None
    ]
    assert pd.concat(tested).groupby(TREATMENT).ngroups == treatments


def test_every_official_treatment_is_known_once_where_labels_are_held_out(official: pd.DataFrame) -> None:
    folds = make_folds(official, "label")
    known = np.concatenate([fold.scored(official) for fold in folds])
    assert len(folds) == 12
    assert sorted(known) == list(range(len(official)))
    assert unscored(official, folds).empty


def test_eleven_official_treatments_cannot_be_scored_without_their_week(official: pd.DataFrame) -> None:
    lost = unscored(official, make_folds(official, ["compound", "week"]))
    doses = lost.groupby(COMPOUND)[CONCENTRATION].apply(tuple).to_dict()
    assert doses == {
        "mevinolin/lovastatin": (1.5, 5, 15),
        "simvastatin": (2, 6, 20),
        "PD-169316": (3, 10),
        "alsterpaullone": (1, 3),
        "bryostatin": (0.3,),
    }
    assert set(lost[LABEL]) == {"Cholesterol-lowering", "Kinase inhibitors"}
    for _, row in lost.iterrows():
        assert row["fold"] == f"compound,week={row[COMPOUND]}"
        assert f"no training field is left for label {row[LABEL]!r}" in row["reason"]
    assert unscored(official, make_folds(official, "compound")).empty


def test_a_treatment_is_scored_where_one_of_its_folds_can_be_trained() -> None:
    rows = [("a", "X", 1, 1), ("a", "X", 2, 1), ("b", "Y", 1, 1), ("c", "Z", 2, 1), ("d", "X", 3, 1), ("e", "Y", 3, 1)]
    folds = make_folds(field_table(rows), "week")
    assert [fold.excluded is None for fold in folds] == [True, False, True]
    assert list(unscored(field_table(rows), folds)[COMPOUND]) == ["c"]


# Validation -----------------------------------------------------------------------------------------------------------


@few
@given(screens(), st.floats(0.05, 0.95), st.integers(0, 5))
def test_validation_takes_whole_wells_and_leaves_every_label_one(fields: pd.DataFrame, share: float, seed: int) -> None:
    fit, watched = validation_split(fields, share, np.random.default_rng(seed))
    assert sorted([*fit, *watched]) == list(range(len(fields)))
    fitted, seen = fields.iloc[fit], fields.iloc[watched]
    assert not set(map(tuple, fitted[WELL_KEY].to_numpy())) & set(map(tuple, seen[WELL_KEY].to_numpy()))
    assert set(fitted[LABEL]) == set(fields[LABEL])
    assert seen.groupby(WELL_KEY).ngroups <= max(1, round(share * fields.groupby(WELL_KEY).ngroups))


@few
@given(screens(), st.integers(0, 5), st.randoms(use_true_random=False))
def test_validation_does_not_depend_on_row_order(fields: pd.DataFrame, seed: int, order) -> None:
    shuffled = fields.iloc[order.sample(range(len(fields)), len(fields))]
    before = fields.index[validation_split(fields, 0.3, np.random.default_rng(seed))[1]]
    after = shuffled.index[validation_split(shuffled, 0.3, np.random.default_rng(seed))[1]]
    assert set(before) == set(after)


def test_validation_is_spread_over_treatments(official: pd.DataFrame) -> None:
    _, watched = validation_split(official, 0.3, np.random.default_rng(0))
    wells = official.iloc[watched].drop_duplicates(WELL_KEY)
    assert len(wells) == round(0.3 * 302)
    assert wells.groupby(TREATMENT).size().max() == 1


def test_validation_share_must_be_a_share() -> None:
    with pytest.raises(InputError, match="above 0 and below 1, but got 1"):
        validation_split(SMALL, 1, np.random.default_rng(0))
