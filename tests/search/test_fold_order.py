"""Which folds a search looks at, and in which order."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_ray.common.schema import COMPOUND, LABEL, WEEK
from moa_ray.screens.folds import make_folds
from moa_ray.search.fold_order import search_order


def fields(labels: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame({COMPOUND: list(labels), LABEL: list(labels.values())})


SCREEN = fields({"a1": "A", "a2": "A", "a3": "A", "b1": "B", "b2": "B", "c1": "C", "c2": "C", "c3": "C", "c4": "C"})
FOLDS = make_folds(SCREEN, "compound")


@given(st.integers(0, 2**31))
def test_each_labels_turn_comes_before_any_labels_second(seed: int) -> None:
    order = [name.partition("=")[2] for name in search_order(FOLDS, SCREEN, "all", seed)]
    assert sorted(order) == sorted(SCREEN[COMPOUND])
    assert {name[0] for name in order[:3]} == {"a", "b", "c"}
    assert {name[0] for name in order[3:6]} == {"a", "b", "c"}
    assert [name[0] for name in order[8:]] == ["c"]


@given(st.integers(0, 2**31))
def test_one_fold_a_label_is_the_beginning_of_the_order_of_all(seed: int) -> None:
    few, every = (search_order(FOLDS, SCREEN, which, seed) for which in ("one_per_label", "all"))
    assert few == every[:3]


def test_the_order_depends_on_the_seed() -> None:
    assert len({tuple(search_order(FOLDS, SCREEN, "all", seed)) for seed in range(20)}) > 10


def test_folds_with_several_labels_cover_every_label_once() -> None:
    table = pd.DataFrame({WEEK: ["1", "1", "2", "2", "3", "3"], LABEL: ["A", "B", "B", "C", "A", "C"]})
    chosen = search_order(make_folds(table, "week"), table, "one_per_label", 0)
    assert len(chosen) == 2


def test_named_groups_are_taken_and_an_unknown_one_is_named() -> None:
    assert set(search_order(FOLDS, SCREEN, ["a2", "compound=c1"], 0)) == {"compound=a2", "compound=c1"}
    with pytest.raises(ValueError, match=r"folds\.search: no group 'a9' can be held out; there are a1, a2"):
        search_order(FOLDS, SCREEN, ["a9"], 0)
