import dataclasses
import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_ray.config.recipe import NO_AUGMENTATION, Augmentation, Recipe

PROBABILITY = st.floats(0, 1)
AUGMENTATIONS = st.builds(
    Augmentation,
    orientations=st.booleans(),
    channel_jitter=st.lists(st.floats(0, 2), max_size=4).map(tuple),
    blur=PROBABILITY,
    noise=PROBABILITY,
    noise_variance=st.floats(0, 100),
)
RECIPES = st.builds(
    Recipe,
    backbone=st.sampled_from(["SmallCNN", "ResNet50"]),
    image_size=st.one_of(st.just("native"), st.integers(8, 600)),
    epochs=st.integers(1, 50),
    learning_rate=st.floats(1e-8, 1),
    freeze=PROBABILITY,
    augment=AUGMENTATIONS,
)


def test_recipe_without_a_seed_is_named_as_before_recipes_had_one():
    plain = dataclasses.asdict(Recipe())
    del plain["seed"]
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    assert Recipe().candidate == f"ResNet50-{digest[:10]}"
    assert "seed" not in Recipe().as_dict()


def test_members_differ_by_name_and_share_their_ensemble_and_what_is_compiled():
    first, second = (dataclasses.replace(Recipe(), seed=seed) for seed in (1, 2))
    assert first.candidate != second.candidate
    assert first.ensemble == second.ensemble == Recipe()
    assert first.signature == second.signature == Recipe().signature
    assert Recipe.from_dict(first.as_dict()) == first


@settings(max_examples=30, deadline=None)
@given(RECIPES)
def test_a_recipe_survives_json(recipe):
    again = Recipe.from_dict(json.loads(json.dumps(recipe.as_dict())))
    assert again == recipe
    assert again.candidate == recipe.candidate


def test_each_hyperparameter_changes_the_candidates_name():
    base = Recipe()
    others = {
        "backbone": "VGG16",
        "weights": "random",
        "image_size": 96,
        "input_scaling": "none",
        "epochs": 3,
        "batch_size": 8,
        "optimizer": "adam",
        "learning_rate": 0.5,
        "momentum": 0.5,
        "weight_decay": 0.1,
        "schedule": "step",
        "dropout": 0.5,
        "l2": 0.5,
        "class_weights": "none",
        "freeze": 0.5,
        "precision": "float32",
        "augment": NO_AUGMENTATION,
        "seed": 0,
    }
    assert others.keys() == {field.name for field in dataclasses.fields(Recipe)}
    names = {dataclasses.replace(base, **{key: value}).candidate for key, value in others.items()}
    assert len(names | {base.candidate}) == len(others) + 1


def test_a_candidates_name_is_the_same_on_every_machine():
    """Written down once: a change of it orphans every ledger."""
    assert Recipe().candidate == "ResNet50-05a3319497"


def test_numbers_that_are_equal_make_one_candidate():
    assert Recipe(dropout=0).candidate == Recipe(dropout=0.0).candidate
    assert Recipe(augment=Augmentation(blur=1)).candidate == Recipe(augment=Augmentation(blur=1.0)).candidate


def test_a_list_of_factors_is_kept_as_a_tuple():
    assert Augmentation(channel_jitter=[1.0, 2.0]) == Augmentation(channel_jitter=(1.0, 2.0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"weight_decay": -1e-9},
        {"l2": -1},
        {"dropout": 1},
        {"momentum": 1.0},
        {"freeze": 1.01},
        {"image_size": 7},
    ],
)
def test_a_value_out_of_range_is_named_with_its_rule(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"{name}.*but got {value}"):
        Recipe(**wrong)


@pytest.mark.parametrize("wrong", [{"blur": 1.1}, {"noise": -0.1}, {"noise_variance": -1}, {"channel_jitter": (-1.0,)}])
def test_an_augmentation_out_of_range_is_named_with_its_rule(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=rf"{name}.*but got"):
        Augmentation(**wrong)
