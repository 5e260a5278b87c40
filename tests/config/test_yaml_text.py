"""YAML that says one thing twice is refused; all else is what `yaml.safe_load` reads."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from moa_ray.common.errors import InputError
from moa_ray.config.yaml_text import read_yaml

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
documents = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner), max_leaves=8
)


@given(documents)
def test_document_without_repeated_keys_is_what_safe_load_reads(document: object) -> None:
    text = yaml.safe_dump(document)
    assert read_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "a: stands in lines 1 and 3, but a key may stand once; leave out all but one"),
        ("a: 1\n'a': 1\n", "a: stands in lines 1 and 2"),
        ("s:\n  a:\n    k: 1\n    l: 2\n    k: 1\n", "s.a.k: stands in lines 3 and 5"),
        ("s: {k: 1, k: 2}\n", "s.k: stands 2 times in line 1"),
        ("- x\n- {k: 1,\n   k: 2,\n   k: 3}\n", "1.k: stands in lines 2, 3 and 4"),
        ("a: 1\n? a\n: 2\n", "a: stands in lines 1 and 2"),
        ("{1: a, 0x1: b}", "1: stands 2 times in line 1"),
        ("on: 1\non: 2\n", "on: stands in lines 1 and 2"),
    ],
)
def test_repeated_key_is_named_with_its_lines(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        read_yaml(text)
    assert str(error.value).startswith(message)


def test_every_repeated_key_has_a_line_of_its_own() -> None:
    with pytest.raises(InputError) as error:
        read_yaml("a: {k: 1, k: 1}\nb: {k: 1}\na: 2\n")
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == ["a.k", "a"]


def test_merged_key_may_be_replaced_and_shared_nodes_are_no_repetition() -> None:
    text = "base: &base {k: 1, l: 2}\nmore: {<<: *base, k: 3}\nagain: *base\n"
    assert read_yaml(text) == yaml.safe_load(text) == {
        "base": {"k": 1, "l": 2},
        "more": {"k": 3, "l": 2},
        "again": {"k": 1, "l": 2},
    }  # fmt: skip


def test_mapping_that_holds_itself_is_read() -> None:
    document = read_yaml("&all\nme: *all\n")
    assert isinstance(document, dict)
    assert document["me"] is document


@pytest.mark.parametrize("word", ["on", "Off", "yes", "NO", "true", "False"])
def test_key_that_is_a_word_for_true_or_false_stays_a_word_and_a_value_does_not(word: str) -> None:
    assert read_yaml(f"{{{word}: {word}}}") == {word: yaml.safe_load(word)}


@pytest.mark.parametrize("text", ["!!python/name:os.system : 1", "a: !!python/object/apply:os.system ['true']", "a: ["])
def test_what_safe_load_refuses_is_refused(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        read_yaml(text)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_empty_document_is_none(text: str) -> None:
    assert read_yaml(text) is None
