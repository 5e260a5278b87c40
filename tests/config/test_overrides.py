"""Overrides: values on the command line, of which none may undo another in silence."""

from typing import Any

import pytest

from moa_ray.common.errors import InputError
from moa_ray.config.overrides import apply_overrides


def applied(*overrides: str) -> dict[str, Any]:
    plain: dict[str, Any] = {"recipe": {"epochs": 1, "dropout": 0}, "out": "a"}
    apply_overrides(plain, overrides)
    return plain


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (("recipe.epochs=5", "recipe.epochs=6"), "recipe.epochs"),
        (("recipe.epochs=5", "out=b", "recipe={dropout: 1}"), "recipe.epochs"),
        (("recipe={epochs: 5, dropout: 1}", "recipe.dropout=0.5"), "recipe.dropout"),
        (("recipe={epochs: 5}", "recipe={dropout: 1}"), "recipe.epochs"),
        (("recipe={epochs: 5}", "recipe=null"), "recipe.epochs"),
    ],
)
def test_override_that_undoes_another_is_refused_with_both(overrides: tuple[str, ...], key: str) -> None:
    with pytest.raises(InputError) as error:
        applied(*overrides)
    assert str(error.value) == f"{overrides[0]!r} and {overrides[-1]!r}: both set {key}; keep one of the two"


@pytest.mark.parametrize(
    ("overrides", "recipe"),
    [
        (("recipe.epochs=5", "recipe.epochs=5"), {"epochs": 5, "dropout": 0}),
        (("recipe={epochs: 5}", "recipe.dropout=0.5"), {"epochs": 5, "dropout": 0.5}),
        (("recipe.epochs=5", "recipe={epochs: 5, dropout: 1}"), {"epochs": 5, "dropout": 1}),
        (("recipe.epochs=5", "recipe.epochs_more=6"), {"epochs": 5, "dropout": 0, "epochs_more": 6}),
    ],
)
def test_overrides_that_agree_are_all_set(overrides: tuple[str, ...], recipe: dict[str, Any]) -> None:
    assert applied(*overrides)["recipe"] == recipe


def test_value_with_a_repeated_key_is_refused() -> None:
    with pytest.raises(InputError, match=r"^'recipe=\{epochs: 1, epochs: 2\}': epochs: stands 2 times in line 1"):
        applied("recipe={epochs: 1, epochs: 2}")
