"""Labels of too few compounds: never predicted, counted and named, and nothing held out is learnt from."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moa_ray.common.schema import COMPOUND, CONCENTRATION, FIELD, LABEL, PLATE, TREATMENT, WEEK, WELL
from moa_ray.config import sweep_file
from moa_ray.screens.folds import make_folds, unscored
from moa_ray.screens.rare_labels import rare_labels, rare_treatments
from moa_ray.search.fold_order import search_order

few = settings(max_examples=15, deadline=None)
HOLD_OUT = {
    "compound": [COMPOUND],
    "week": [WEEK],
    "compound, week": [COMPOUND, WEEK],
    "week, compound": [WEEK, COMPOUND],
}


@st.composite
def screens(draw: st.DrawFn) -> pd.DataFrame:
    """Fields of compounds that may have several labels, at doses, in one or more weeks."""
    row = st.tuples(st.integers(0, 6), st.integers(1, 2), st.integers(1, 3))
    labels = draw(
        st.dictionaries(st.tuples(st.integers(0, 6), st.integers(1, 2)), st.sampled_from("VWXYZ"), min_size=14)
    )
    records = [
        (f"P{week}", f"A{place:02}", "1", f"c{compound}", float(dose), labels[compound, dose], f"Week{week}")
        for place, (compound, dose, week) in enumerate(draw(st.lists(row, min_size=4, max_size=24)))
    ]
    return pd.DataFrame(records, columns=[PLATE, WELL, FIELD, COMPOUND, CONCENTRATION, LABEL, WEEK])


def slow_rare(fields: pd.DataFrame, least: int) -> set[str]:
    """Labels of fewer compounds than a number."""
    compounds: dict[str, set[str]] = {}
    for _, row in fields.iterrows():
        compounds.setdefault(row[LABEL], set()).add(row[COMPOUND])
    return {label for label, names in compounds.items() if len(names) < least}


@few
@given(screens(), st.integers(2, 4))
def test_rare_labels_are_those_that_a_slow_loop_finds(fields: pd.DataFrame, least: int) -> None:
    assert set(rare_labels(fields, least)) == slow_rare(fields, least)
    assert rare_labels(fields, None) == {}


@few
@given(screens(), st.integers(2, 4), st.sampled_from(sorted(HOLD_OUT)))
def test_rare_labels_are_trained_on_unless_their_group_is_held_out(fields: pd.DataFrame, least: int, key: str) -> None:
    columns, rare = HOLD_OUT[key], slow_rare(fields, least)
    rows = fields.to_dict("records")
    folds = make_folds(fields, key.split(", "), rare)
    assert {fold.value for fold in folds} == {row[columns[0]] for row in rows if row[LABEL] not in rare}
    for fold in folds:
        group = [row for row in rows if row[columns[0]] == fold.value]
        test = [row for row in group if row[LABEL] not in rare]
        train = [
            row
            for row in rows
            if row not in group and all(row[column] != held[column] for column in columns[1:] for held in test)
        ]
        split = fold.split(fields)
        assert [rows[i] for i in split.test] == test
        assert [rows[i] for i in split.train] == train


@few
@given(screens(), st.integers(2, 3))
def test_rare_labels_are_learnt_and_never_held_out_as_labels(fields: pd.DataFrame, least: int) -> None:
    rare = slow_rare(fields, least)
    assume(fields[LABEL].nunique() > len(rare))
    folds = make_folds(fields, "label", rare)
    assert {fold.value for fold in folds} == set(fields[LABEL]) - rare
    for fold in folds:
        split = fold.split(fields)
        assert not set(fields[LABEL].iloc[split.test]) & rare
        assert not set(fields[COMPOUND].iloc[split.train]) & set(fields[COMPOUND].iloc[split.test])


@few
@given(screens(), st.integers(2, 4), st.sampled_from([*HOLD_OUT, "label"]))
def test_each_treatment_is_scored_or_named_once_with_its_reason(fields: pd.DataFrame, least: int, key: str) -> None:
    # A treatment has one label, as the checks of a screen ask.
    rare = rare_labels(fields, least)
    folds = make_folds(fields, key.split(", "), rare)
    trained = [fold for fold in folds if fold.excluded is None]
    scored = fields.iloc[sorted({row for fold in trained for row in fold.scored(fields)})]
    named = pd.concat([unscored(fields, folds), rare_treatments(fields, rare, least, "train_only")])
    everything = set(fields[TREATMENT].itertuples(index=False, name=None))
    assert set(scored[TREATMENT].itertuples(index=False, name=None)).isdisjoint(
        named[TREATMENT].itertuples(index=False, name=None)
    )
    assert len(named) + scored.groupby(TREATMENT).ngroups == len(everything)
    assert named["reason"].str.len().gt(0).all()


def test_reason_says_how_many_compounds_there_are_and_what_became_of_them() -> None:
    rows = [("a", "X"), ("b", "X"), ("c", "Y"), ("d", "Z"), ("e", "Z"), ("f", "Z")]
    fields = pd.DataFrame(rows, columns=[COMPOUND, LABEL]).assign(**{CONCENTRATION: 1.0})
    table = rare_treatments(fields, rare_labels(fields, 3), 3, "leave_out")
    assert table[[COMPOUND, "reason"]].to_numpy().tolist() == [
        ["a", "its label has 2 compounds, fewer than folds.min_compounds (3): left out"],
        ["b", "its label has 2 compounds, fewer than folds.min_compounds (3): left out"],
        ["c", "its label has 1 compound, fewer than folds.min_compounds (3): left out"],
    ]


def test_search_looks_at_one_fold_of_each_label_that_is_held_out() -> None:
    rows = [("a", "X"), ("b", "X"), ("c", "Y"), ("d", "Y"), ("e", "Z")]
    fields = pd.DataFrame(rows, columns=[COMPOUND, LABEL])
    folds = make_folds(fields, "compound", ["Z"])
    chosen = search_order(folds, fields, "one_per_label", 0)
    assert [fold.excluded for fold in folds] == [None] * 4
    assert sorted(fields.set_index(COMPOUND).loc[[name.split("=")[1] for name in chosen], LABEL]) == ["X", "Y"]


def test_a_label_that_is_never_held_out_is_learnable_beside_held_out_ones() -> None:
    rows = [("a", "X"), ("b", "X"), ("c", "Y"), ("d", "Y"), ("e", "Z")]
    fields = pd.DataFrame(rows, columns=[COMPOUND, LABEL])
    known = [fold.known for fold in make_folds(fields, "label", ["Z"])]
    assert known == [("c",), ("a",)]  # each label keeps a compound to be learnt from
    # Without Z one label would be left to learn, which is none to choose between.
    assert [fold.known for fold in make_folds(fields[fields[LABEL] != "Z"], "label")] == [(), ()]


def test_train_only_without_a_number_is_refused(tmp_path: Path) -> None:
    plain = {"study": "a", "out": str(tmp_path), "screen": {"name": "synthetic", "root": str(tmp_path)}}
    with pytest.raises(ValueError, match=r"^x: folds: below: train_only .* min_compounds, which is null; set it to 2"):
        sweep_file.check(plain, "x", ["folds.below=train_only"])
