"""Open set: which rows are of a label that their fold held out whole."""

import pandas as pd

from moa_ray.common import open_set
from moa_ray.common.schema import FOLD, LABEL, OPEN_SET

TABLE = pd.DataFrame({FOLD: ["label=A", "label=A", "label=B"], LABEL: ["A", "B", "B"]})


def test_a_row_is_unknown_where_its_fold_held_out_its_label() -> None:
    assert open_set.marks(TABLE).tolist() == [True, False, True]
    assert open_set.closed_set(TABLE).index.tolist() == [1]
    assert open_set.open_set(TABLE).index.tolist() == [0, 2]
    by_compound = TABLE.assign(**{FOLD: "compound=A"})
    assert open_set.closed_set(by_compound).equals(by_compound)
    assert open_set.closed_set(pd.DataFrame()).empty


def test_the_column_decides_where_a_table_has_it() -> None:
    marked = open_set.with_marks(TABLE)
    assert marked[OPEN_SET].tolist() == [True, False, True]
    assert open_set.with_marks(marked).equals(marked)
    assert open_set.marks(marked.assign(**{OPEN_SET: [False, True, False]})).tolist() == [False, True, False]
    assert open_set.marks(marked.drop(columns=FOLD)).tolist() == [True, False, True]


def test_rows_from_before_there_was_the_column_are_marked_beside_those_that_have_it() -> None:
    joined = pd.concat([TABLE.iloc[:2], open_set.with_marks(TABLE).iloc[2:]])
    assert open_set.with_marks(joined)[OPEN_SET].tolist() == [True, False, True]
    assert open_set.with_marks(joined)[OPEN_SET].dtype == bool
