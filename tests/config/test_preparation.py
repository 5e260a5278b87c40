"""Settings of preparation check themselves."""

from typing import Any

import pytest

from moa_ray.config.preparation import Normalise, Preparation


@pytest.mark.parametrize(
    "make",
    [
        lambda: Normalise(min_control_fields=0),
        lambda: Preparation(rows=0),
        lambda: Preparation(columns=0),
        lambda: Preparation(empty_share=1.5),
        lambda: Preparation(field_size=1),
        lambda: Preparation(offset=float("inf")),
        lambda: Preparation(field_size=(8, 1)),
    ],
)
def test_settings_check_themselves(make: Any) -> None:
    with pytest.raises(ValueError, match="but got"):
        make()


def test_one_number_is_both_sides_of_a_field() -> None:
    assert Preparation(field_size=64) == Preparation(field_size=(64, 64))


def test_an_offset_of_nothing_is_none() -> None:
    assert Preparation(offset=0) == Preparation()
    assert Preparation(offset=3).offset == 3.0
