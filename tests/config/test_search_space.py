"""The search space: what may stand in it, and which recipes come out of it."""

import itertools
from typing import Any

import pytest

from moa_ray.common.errors import InputError
from moa_ray.config import sweep_file
from moa_ray.config.recipe import Recipe
from moa_ray.config.search_space import Space

FIXED = {"weights": "random", "backbone": "SmallCNN", "image_size": 32}


def read(**entries: Any) -> Space:
    return Space.read({key: value for key, value in FIXED.items() if key not in entries}, entries)


def test_lists_are_choices_mappings_ranges_and_all_else_one_value() -> None:
    space = read(optimizer=["sgd", "adam"], learning_rate={"low": "1e-5", "high": 0.1, "log": True}, epochs=3)
    values = space.draw(lambda key, entry: getattr(entry, "choices", [0.01])[-1])
    assert values == {"optimizer": "adam", "learning_rate": 0.01, "epochs": 3}
    assert space.recipe(values) == Recipe("SmallCNN", "random", 32, optimizer="adam", learning_rate=0.01, epochs=3)
    assert space.ranged == ["learning_rate"]


def test_conditional_entry_is_drawn_only_where_its_condition_holds() -> None:
    space = read(dropout={"low": 0.1, "high": 0.5, "when": {"optimizer": ["adam", "adamw"]}}, optimizer=["sgd", "adam"])
    picked = {name: {"optimizer": name, "dropout": 0.3} for name in ("sgd", "adam")}
    drawn = {name: space.draw(lambda key, entry, name=name: picked[name][key]) for name in picked}
    assert drawn == {"sgd": {"optimizer": "sgd"}, "adam": {"optimizer": "adam", "dropout": 0.3}}
    assert space.recipe(drawn["sgd"]).dropout == 0


def test_a_fixed_value_stands_where_the_condition_does_not_hold() -> None:
    entry = {"choices": [0.1, 0.2], "when": {"optimizer": ["adam"]}}
    space = Space.read({**FIXED, "dropout": 0.4}, {"optimizer": ["sgd", "adam"], "dropout": entry})
    assert sorted((recipe.optimizer, recipe.dropout) for recipe in space.grid()) == [
        ("adam", 0.1),
        ("adam", 0.2),
        ("sgd", 0.4),
    ]


def test_condition_on_a_fixed_value_or_a_default() -> None:
    assert "l2" in read(l2={"choices": [0.1], "when": {"optimizer": ["sgd"]}}).draw(lambda key, entry: 0.1)
    assert "l2" not in read(l2={"choices": [0.1], "when": {"backbone": ["VGG16"]}}).draw(lambda key, entry: 0.1)


def test_grid_of_a_space_without_conditions_is_the_product() -> None:
    space = read(optimizer=["sgd", "adam"], epochs=[1, 2, 3])
    product = list(itertools.product(["sgd", "adam"], [1, 2, 3]))
    assert [(recipe.optimizer, recipe.epochs) for recipe in space.grid()] == product


def test_representatives_are_all_sizes_and_weights_at_the_largest_batch() -> None:
    weights = {"ResNet50": "a.h5", "InceptionV3": "b.h5"}
    space = Space.read(
        {"weights": weights},
        {
            "backbone": ["ResNet50", "InceptionV3"],
            "batch_size": [8, 32],
            "epochs": {"low": 2, "high": 9},
            "learning_rate": {"low": 0.001, "high": 0.1},
        },
    )
    shapes = [(r.backbone, r.weights, r.image_size, r.batch_size, r.epochs) for r in space.representatives()]
    assert sorted(shapes) == [("InceptionV3", "b.h5", 299, 32, 9), ("ResNet50", "a.h5", 224, 32, 9)]


QUIET = {"channel_jitter": [], "blur": 0, "noise": 0}
FROZEN = {"weights": "a.h5", "backbone": "SmallCNN", "image_size": 32, "augment": QUIET}


def sets(space: Space) -> list[tuple[Any, ...]]:
    return sorted(recipe.features_key for recipe in space.frozen())


def test_frozen_features_are_those_of_every_backbone_size_and_orientation_that_may_be_asked_for() -> None:
    fixed = {"weights": {"VGG16": "v.h5", "Xception": "x.h5"}, "freeze": "all"}
    augment = [{**QUIET, "orientations": count} for count in (1, 8)]
    entries = {"backbone": ["VGG16", "Xception"], "image_size": [96, 128], "augment": augment, "epochs": [1, 2, 3]}
    wanted = itertools.product([("VGG16", "v.h5"), ("Xception", "x.h5")], [96, 128], [1, 8])
    expected = [(*named, size, "backbone", "auto", turns) for named, size, turns in wanted]
    assert sets(Space.read(fixed, entries)) == sorted(expected)


def test_frozen_features_are_asked_for_only_where_all_layers_may_be_frozen() -> None:
    assert sets(Space.read(FROZEN, {"freeze": [0.5, 1.0]})) == []
    assert len(sets(Space.read(FROZEN, {"freeze": [0.5, "all"]}))) == 1


def test_conditions_decide_which_features_may_be_asked_for() -> None:
    rates = {"low": 0.01, "high": 0.1}
    scaling = {"choices": ["none"], "when": {"learning_rate": [0.05]}}  # a value within a range
    space = Space.read({**FROZEN, "freeze": "all"}, {"learning_rate": rates, "input_scaling": scaling})
    assert [key[3] for key in sets(space)] == ["backbone", "none"]
    noisy = {"choices": [{"blur": 0.5}], "when": {"freeze": [0.5]}}
    assert len(sets(Space.read(FROZEN, {"freeze": [0.5, "all"], "augment": noisy}))) == 1


def test_what_no_frozen_recipe_can_be_is_said_before_the_search_comes_to_it() -> None:
    fixed = {key: value for key, value in FROZEN.items() if key != "weights"}
    space = Space.read(fixed, {"freeze": [0.5, "all"], "weights": ["a.h5", "random"]})
    with pytest.raises(InputError, match=r"search\.space: freeze: all needs weights"):
        space.frozen()


def test_representatives_of_frozen_and_of_trained_backbones_are_both_there() -> None:
    space = Space.read(FROZEN, {"freeze": ["all", 0.5], "learning_rate": [0.1, 0.2]})
    assert sorted(str(recipe.freeze) for recipe in space.representatives()) == ["0.5", "all"]


def test_weights_that_depend_on_a_condition_are_represented() -> None:
    weights = {"choices": ["b.h5"], "when": {"optimizer": ["adam"]}}
    space = Space.read(FROZEN, {"optimizer": ["sgd", "adam"], "weights": weights})
    assert sorted(recipe.weights for recipe in space.representatives()) == ["a.h5", "b.h5"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"learning_rate": {"low": 0.1, "high": 0.01}},
            "search.space.learning_rate: low < high must hold, but got low",
        ),
        ({"learning_rate": {"low": 0, "high": 0.1, "log": True}}, "low must be above 0 on a logarithmic scale"),
        ({"learning_rate": {"low": 0.1}}, "search.space.learning_rate.high: this key is missing"),
        (
            {"learning_rate": {"lwo": 0.1, "high": 1}},
            "search.space.learning_rate: unknown key 'lwo'; did you mean 'low'?",
        ),
        ({"learning_rat": [1]}, "search.space: unknown hyperparameter 'learning_rat'; did you mean 'learning_rate'?"),
        ({"epochs": {"low": 1.5, "high": 3}}, "search.space.epochs: whole numbers must stand here, but got [1.5, 3.0]"),
        ({"optimizer": {"low": 1, "high": 3}}, "search.space.optimizer: a list must stand here: it is no number"),
        ({"image_size": {"low": 32, "high": 64}}, "search.space.image_size: a list must stand here: tiles are stored"),
        ({"dropout": {"low": 0.5, "high": 1.5}}, "search.space: dropout must lie in [0, 1), but got 1.5"),
        ({"dropout": []}, "search.space.dropout: the list of values to try is empty"),
        ({"dropout": {"choices": [0.1], "when": {"optimiser": ["sgd"]}}}, "when: unknown hyperparameter 'optimiser'"),
        ({"backbone": ["ResNet5"]}, "unknown backbone 'ResNet5'; did you mean 'ResNet50'?"),
        (
            {
                "dropout": {"choices": [0.1], "when": {"optimizer": ["sgd"]}},
                "l2": {"choices": [0.1], "when": {"dropout": [0.1]}},
            },
            "search.space.l2.when: dropout is itself conditional; name another one",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=r".") as error:
        read(**entries)
    assert message in str(error.value)


def sweep(**search: Any) -> sweep_file.Sweep:
    plain = {
        "study": "s",
        "out": "o",
        "screen": {"name": "synthetic", "root": "p"},
        "recipe": FIXED,
        "search": {"mode": "optuna", "space": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}, **search},
    }
    return sweep_file.check(plain, "s.yaml")


def test_asha_watches_validation_wells_unless_it_is_off() -> None:
    watched = sweep().validation
    assert watched is not None
    assert watched.share == 0.15
    assert sweep(asha=None).validation is None


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"sampler": "grid"}, "search.space.learning_rate: sampler grid takes lists; take tpe, random or cmaes"),
        ({"mode": "grid"}, "search.space.learning_rate: a grid takes lists; for a range set search.mode: optuna"),
        ({"mode": "optune"}, "mode must be 'grid', 'optuna', but got 'optune'"),
        ({"first": [{"learning_rate": 0.1}]}, "search.first.0.learning_rate: must lie in 0.0001 to 0.01, but got 0.1"),
        ({"first": [{"epochs": 3}]}, "search.first.0: 'epochs' is not searched; known are learning_rate"),
        ({"race": {"first_fold": 3}}, "search.race: unknown key 'first_fold'; did you mean 'first_folds'?"),
        ({"asha": {"reduction_factor": 1}}, "search.asha.reduction_factor: must be greater than 1, but got 1"),
    ],
)
def test_a_search_that_cannot_be_is_named(search: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=r".") as error:
        sweep(**search)
    assert message in str(error.value)


def test_a_written_out_search_is_the_same_search() -> None:
    import yaml

    first = sweep(first=[{"learning_rate": 1e-3}], sampler="cmaes")
    assert sweep_file.check(yaml.safe_load(first.as_yaml()), "again.yaml").as_yaml() == first.as_yaml()
