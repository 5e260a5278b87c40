"""Labels held out whole: which compounds are known beside which label, and what nothing can be learnt of."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_ray.common import open_set
from moa_ray.common.errors import InputError
from moa_ray.common.schema import COMPOUND, CONCENTRATION, FIELD, FOLD, LABEL, PLATE, TREATMENT, WEEK, WELL
from moa_ray.screens.checks import check_hold_out
from moa_ray.screens.folds import Fold, make_folds, unscored
from moa_ray.screens.open_set_folds import ALONE, known_compounds
from moa_ray.search.fold_order import search_order

few = settings(max_examples=25, deadline=None)


def screen(compounds: list[tuple[str, str]]) -> pd.DataFrame:
    """Two wells of two doses for each (compound, label)."""
    rows = [
        ("P", f"{compound}-{label}-{dose}-{well}", "1", compound, dose, label)
        for compound, label in compounds
        for dose in (1.0, 2.0)
        for well in range(2)
    ]
    return pd.DataFrame(rows, columns=[PLATE, WELL, FIELD, COMPOUND, CONCENTRATION, LABEL])


SCREEN = screen(
    [(f"{label}{i}", label) for label, count in (("A", 2), ("B", 4), ("C", 3), ("D", 1)) for i in range(count)]
)


@st.composite
def screens(draw: st.DrawFn) -> pd.DataFrame:
    """Compounds of one label each, or here and there of two, in any order."""
    labels = "VWXYZ"[: draw(st.integers(2, 5))]
    pairs = [(f"c{i}", draw(st.sampled_from(labels))) for i in range(draw(st.integers(2, 14)))]
    if draw(st.booleans()):
        pairs.append((pairs[0][0], draw(st.sampled_from(labels))))
    # The second label of a compound belongs to another dose.
    table = screen(list(dict.fromkeys(pairs)))
    second = table[COMPOUND].eq(pairs[0][0]) & table[LABEL].ne(pairs[0][1])
    table.loc[second, CONCENTRATION] += 10
    order = draw(st.permutations(range(len(table))))
    return table.iloc[order]


def parts(fold: Fold, fields: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """What a fold learns from, its known and its unknown rows."""
    split = fold.split(fields)
    known = fields.iloc[fold.scored(fields)]
    unknown = fields.iloc[np.setdiff1d(split.test, fold.scored(fields))]
    return fields.iloc[split.train], known, unknown


@few
@given(screens())
def test_training_sees_neither_the_label_nor_any_compound_held_out(fields: pd.DataFrame) -> None:
    for fold in make_folds(fields, "label"):
        train, known, unknown = parts(fold, fields)
        assert set(unknown.index) == set(fields.index[fields[LABEL] == fold.value])
        assert fold.value not in set(train[LABEL])
        assert not set(train[COMPOUND]) & (set(known[COMPOUND]) | set(unknown[COMPOUND]))
        assert not set(known[COMPOUND]) & set(unknown[COMPOUND])
        assert set(known[LABEL]) <= set(train[LABEL])


@few
@given(screens())
def test_each_compound_is_known_once_where_its_label_has_another(fields: pd.DataFrame) -> None:
    folds = make_folds(fields, "label")
    times = pd.concat([parts(fold, fields)[1] for fold in folds]).groupby(TREATMENT).size()
    per_treatment = fields.groupby(TREATMENT).size()
    assert (times == per_treatment[times.index]).all()
    carried = fields.groupby(COMPOUND)[LABEL].nunique()
    compounds = fields.groupby(LABEL)[COMPOUND].nunique()
    if carried.max() == 1 and len(compounds) >= 3:
        expected = fields[fields[LABEL].map(compounds) >= 2].groupby(TREATMENT).size()
        assert set(times.index) == set(expected.index)
        assert all(fold.excluded is None for fold in folds)
    lost = unscored(fields, folds)
    scored = {key for fold in folds if fold.excluded is None for key in _treatments(parts(fold, fields)[1])}
    assert _treatments(lost) == _treatments(fields) - scored


def _treatments(table: pd.DataFrame) -> set[tuple[str, float]]:
    return set(table[TREATMENT].itertuples(index=False, name=None))


@few
@given(screens(), st.randoms(use_true_random=False))
def test_who_is_held_out_beside_whom_does_not_depend_on_row_order(fields: pd.DataFrame, order) -> None:
    shuffled = fields.iloc[order.sample(range(len(fields)), len(fields))]
    assert make_folds(fields, "label") == make_folds(shuffled, "label")


def test_known_compounds_are_spread_over_folds_and_labels() -> None:
    fields = screen([(f"{label}{i}", label) for label in "ABCDEFGHIJKL" for i in range(3)])
    placed = known_compounds(fields)
    assert {len(names) for names in placed.values()} == {3}
    assert all(len({name[0] for name in names}) == len(names) for names in placed.values())


def test_a_compound_without_another_of_its_label_is_unknown_alone() -> None:
    folds = make_folds(SCREEN, "label")
    assert [fold.name for fold in folds] == ["label=A", "label=B", "label=C", "label=D"]
    lost = unscored(SCREEN, folds)
    assert set(lost[COMPOUND]) == {"D0"}
    assert set(lost["reason"]) == {ALONE}
    assert [problem.severity for problem in check_hold_out(SCREEN, LABEL)] == ["warning"]
    assert "1 labels have a single compound" in check_hold_out(SCREEN, LABEL)[0].message


def test_labels_of_one_compound_each_are_refused() -> None:
    (problem,) = check_hold_out(screen([("a", "A"), ("b", "B"), ("c", "C")]), LABEL)
    assert problem.severity == "error"
    assert "none can be held out as a known one" in problem.message


def test_two_labels_leave_nothing_to_tell_apart() -> None:
    folds = make_folds(screen([("a", "A"), ("b", "A"), ("c", "B"), ("d", "B")]), "label")
    assert all("at least 2 labels are needed" in str(fold.excluded) for fold in folds)


@pytest.mark.parametrize("hold_out", [["label", "week"], ["compound", "Metadata_Label"]])
def test_a_label_is_held_out_alone(hold_out: list[str]) -> None:
    with pytest.raises(InputError, match=r"folds\.hold_out: label is held out alone, but got"):
        make_folds(SCREEN.assign(**{WEEK: "1"}), hold_out)


def test_a_screens_own_column_of_that_name_holds_out_no_label() -> None:
    fields = SCREEN.assign(Metadata_label=SCREEN[LABEL].str.lower())
    assert make_folds(fields, "label")[0].column == LABEL
    own = make_folds(fields, "Metadata_label")
    assert own[0].name == "Metadata_label=a"
    assert not open_set.holds_out_labels(pd.DataFrame({FOLD: [own[0].name], LABEL: ["a"]}))


def test_a_search_looks_at_no_fold_that_scores_nothing() -> None:
    fields = screen([("a1", "A"), ("a2", "A"), ("b1", "B"), ("c1", "C")])
    folds = make_folds(fields, "label")
    assert {fold.value for fold in folds if fold.known} == {"B", "C"}
    assert set(search_order(folds, fields, "all", 0)) == {"label=B", "label=C"}
