"""Spelling: what cannot be seen makes no name of its own, and a difference is shown so that it can be seen."""

import unicodedata

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from moa_ray.common.spelling import clean_text, shown, spelled_alike, spelling_key


@pytest.mark.parametrize(
    "blank", [" ", "\t", "\n", "\u00a0", "\u2009", "\u3000", "\u200b", "\u200d", "\u2060", "\ufeff"]
)
def test_blanks_of_any_kind_are_cut_off_at_the_ends_alone(blank: str) -> None:
    assert clean_text(f"{blank}{blank}brefeldin A{blank}") == "brefeldin A"


def test_accents_are_composed_and_a_text_that_is_clean_stays() -> None:
    assert clean_text("Lo\u0308sung") == "Lösung"
    assert clean_text("(−)-Nutlin 3") == "(−)-Nutlin 3"


@pytest.mark.parametrize(
    "other",
    ["taxol-b", "TAXOL B", "Taxol\u2011B", "Taxol\u2013B", "Taxol\u2212B", "ＴaxolB", "Tax\u00adol\u00a0B", "Taxolb"],
)
def test_case_blanks_hyphens_and_unicode_form_make_no_other_name(other: str) -> None:
    assert spelled_alike(["Taxol B", "x", other]) == [["Taxol B", other]]


@pytest.mark.parametrize(
    ("name", "other"), [("(+)-JQ1", "(-)-JQ1"), ("AZ-A", "AZ-B"), ("c10", "c1"), ("-", "--"), ("-", " ")]
)
def test_other_names_are_kept_apart(name: str, other: str) -> None:
    assert spelling_key(name) != spelling_key(other)


def test_micro_sign_and_greek_mu_are_shown_by_their_numbers() -> None:
    assert shown(["\u00b5-a", "\u03bc-a"]) == ['"\\u00b5-a"', '"\\u03bc-a"']
    assert shown(["β-a", "β\u2011a"]) == ['"β-a"', '"β\\u2011a"']


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=1, max_size=3))
def test_names_as_shown_are_read_by_yaml_as_the_names(names: list[str]) -> None:
    names = [clean_text(name) for name in names]
    names = [name for name in names if name.isprintable()]
    assert [yaml.safe_load(text) for text in shown(names)] == names


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
def test_a_clean_text_is_composed_and_cleaning_it_again_changes_nothing(text: str) -> None:
    cleaned = clean_text(text)
    assert unicodedata.is_normalized("NFC", cleaned)
    assert clean_text(cleaned) == cleaned
