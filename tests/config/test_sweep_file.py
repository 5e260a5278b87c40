"""The sweep file: what it means, and what it says when it is wrong."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from moa_ray.common.errors import InputError
from moa_ray.config import sweep_file
from moa_ray.config.conformal import ConformalSettings
from moa_ray.config.recipe import Augmentation
from moa_ray.config.screen_rows import Condition
from moa_ray.config.screens import TableSettings
from moa_ray.config.sweep_file import Sweep
from moa_ray.reporting.references import REFERENCES


def plain() -> dict[str, Any]:
    return {
        "study": "test",
        "out": "runs/test",
        "screen": {"name": "synthetic", "root": "painted", "painting": {"labels": 3}},
        "recipe": {"backbone": "SmallCNN", "weights": "random", "augment": {"blur": 0.1}},
        "search": {"space": {"learning_rate": [0.1, 0.01]}},
    }


def check(*overrides: str) -> Sweep:
    return sweep_file.check(plain(), "sweep.yaml", overrides)


def test_grid_is_every_combination_in_the_order_of_the_file() -> None:
    recipes = check("search.space.epochs=[1, 2]").grid_recipes
    assert [(recipe.learning_rate, recipe.epochs) for recipe in recipes] == [(0.1, 1), (0.1, 2), (0.01, 1), (0.01, 2)]


def test_equal_combinations_are_one_recipe() -> None:
    assert len(check("search.space.learning_rate=[0.1, 0.1, 1.0e-1]").grid_recipes) == 1


def test_native_size_is_the_backbones_own() -> None:
    sweep = check("search.space.backbone=[ResNet50, InceptionV3]", "recipe={weights: random}")
    assert {(recipe.backbone, recipe.image_size) for recipe in sweep.grid_recipes} == {
        ("ResNet50", 224),
        ("InceptionV3", 299),
    }


def test_value_by_backbone_goes_with_its_backbone() -> None:
    overrides = ("recipe={weights: {ResNet50: a.h5, VGG16: b.h5}}", "search.space.backbone=[ResNet50, VGG16]")
    assert {(r.backbone, r.weights) for r in check(*overrides).grid_recipes} == {
        ("ResNet50", "a.h5"),
        ("VGG16", "b.h5"),
    }
    with pytest.raises(InputError, match=r"recipe\.weights: given by backbone, but not for Xception"):
        check("recipe={weights: {ResNet50: a.h5}}", "search.space.backbone=[Xception]")


def test_float_that_yaml_reads_as_text_is_a_float() -> None:
    assert yaml.safe_load("1e-5") == "1e-5"
    assert check("search.space.learning_rate=[1e-5]").grid_recipes[0].learning_rate == 1e-5
    assert check("recipe.weight_decay=1e-6").grid_recipes[0].weight_decay == 1e-6


def test_written_out_sweep_gives_the_same_recipes_with_every_default() -> None:
    sweep = check()
    again = sweep_file.check(yaml.safe_load(sweep.as_yaml()), "sweep.yaml")
    assert again.grid_recipes == sweep.grid_recipes
    assert again == sweep_file.check(yaml.safe_load(again.as_yaml()), "sweep.yaml")
    written = yaml.safe_load(sweep.as_yaml())
    assert written["recipe"]["augment"] == {
        "orientations": True,
        "channel_jitter": list(Augmentation().channel_jitter),
        "blur": 0.1,
        "noise": 0.5,
        "noise_variance": 50.0,
    }
    assert written["images"]["normalise"] == {
        **{"by": "plate", "min_control_fields": 4},
        **{"of": "controls", "statistic": "mean_std"},
    }


def test_augmentation_by_backbone_is_written_out_as_it_was_given() -> None:
    sweep = check("recipe={backbone: SmallCNN, weights: random, augment: {SmallCNN: {blur: 0.1}}}")
    again = sweep_file.check(yaml.safe_load(sweep.as_yaml()), "sweep.yaml")
    assert again.grid_recipes == sweep.grid_recipes
    assert again.grid_recipes[0].augment.blur == 0.1


def test_tiles_lie_beside_out_unless_a_folder_is_named() -> None:
    assert check("out=a/b").tile_folder == Path("a/tiles")
    assert check("tiles=c").tile_folder == Path("c")


def test_override_makes_sections_and_replaces_values() -> None:
    sweep = check("resources.cpus=2", "tracking={uri: 'http://127.0.0.1:5000'}", "screen.painting.labels=4")
    assert sweep.resources.cpus == 2
    assert sweep.tracking.uri == "http://127.0.0.1:5000"
    assert sweep.screen.painting.labels == 4  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("studdy=x", "unknown key 'studdy'; did you mean 'study'?"),
        ("screen.rot=x", "screen: unknown key 'rot'; did you mean 'root'?"),
        ("screen.painting.label=3", "screen.painting: unknown key 'label'; did you mean 'labels'?"),
        ("images.normalise.bye=week", "images.normalise: unknown key 'bye'; did you mean 'by'?"),
        ("images.range=tile", "images: unknown key 'range'; did you mean 'range_over'?"),
        (
            "recipe.learning_rat=1",
            "recipe: unknown hyperparameter 'learning_rat'; did you mean 'learning_rate'?",
        ),
        ("recipe.augment.blurr=1", "recipe.augment: unknown key 'blurr'; did you mean 'blur'?"),
        (
            "search.space.dropuot=[0]",
            "search.space: unknown hyperparameter 'dropuot'; did you mean 'dropout'?",
        ),
        (
            "recipe.backbone=ResNet5",
            "recipe.backbone: unknown backbone 'ResNet5'; did you mean 'ResNet50'?",
        ),
        (
            "images.normalise.by=no",
            "images.normalise.by: must be 'plate', 'week', 'screen', 'none' or a column 'Metadata_...', but got "
            "False; YAML reads yes, no, on and off as true and false: put quotes around a word",
        ),
        (
            "images.normalise.by=plat",
            "images.normalise.by: must be 'plate', 'week', 'screen', 'none' or a column 'Metadata_...', but got "
            "'plat'; did you mean 'plate'?",
        ),
        (
            "recipe.dropout=[0, 0.5]",
            "recipe.dropout: one value must stand here, but got the list [0, 0.5]; put a "
            "list of values to try under search.space",
        ),
        (
            "recipe.learning_rate=0.1",
            "search.space.learning_rate: it is fixed under recipe too; keep one of the two",
        ),
        ("recipe={1: 2}", "recipe.1: a key must be text, but got 1"),
        ("recipe=3", "recipe: must be a mapping of keys, but got 3"),
        ("recipe.weights={VGG16: 3}", "recipe.weights.VGG16: must be a valid string, but got 3"),
        ("recipe.augment={SmallCNN: {blr: 1}}", "recipe.augment.SmallCNN: unknown key 'blr'; did you mean 'blur'?"),
        ("search.space.learning_rate=[1, a]", "search.space.learning_rate.1: must be a valid number, unable to parse"),
        (
            "search.space.dropout={choices: [0], when: {epochs: 3}}",
            "search.space.dropout.when.epochs: must be a valid list, but got 3",
        ),
        ("search.space.learning_rate=[]", "search.space.learning_rate: the list of values to try is empty"),
        ("search.space.learning_rate=[0]", "search.space: learning_rate must be above 0, but got 0.0"),
        (
            "recipe={backbone: SmallCNN, weights: a.h5, freeze: all}",
            "recipe: freeze: all takes a tile's features once, so augment may turn and mirror tiles but must not "
            "change their values: write recipe.augment: {channel_jitter: [], blur: 0, noise: 0}, but got "
            "{'channel_jitter': (1.0, 1.0, 0.75, 1.25), 'blur': 0.5, 'noise': 0.5}",
        ),
        (
            "search.space.freeze=[0.5, all]",
            "search.space: freeze: all needs weights to take features with, but got 'random'",
        ),
        ("recipe.dropout=1", "recipe: dropout must lie in [0, 1), but got 1.0"),
        ("recipe.augment.blur=2", "recipe.augment: blur is a probability in [0, 1], but got 2.0"),
        ("images.rows=0", "images: rows and columns must be at least 1, but got 0 and 2"),
        (
            "resources.gpus=-1",
            "resources.gpus: must be greater than or equal to 0, but got -1 or must be 'auto', but got -1",
        ),
        ("resources.gpus=1.5", "resources.gpus: above 1 it must be a whole number, but got 1.5 or must be"),
        (
            "resources.by_backbone={ResNet5: {gpus: 1}}",
            "resources: by_backbone: unknown backbone 'ResNet5'; did you mean 'ResNet50'?",
        ),
        ("resources.by_backbone.VGG16.gpu=1", "resources.by_backbone.VGG16: unknown key 'gpu'; did you mean 'gpus'?"),
        (
            "resources.custom={GPU: 1}",
            "resources: custom: 'GPU' is no custom resource; cpus and gpus stand beside custom",
        ),
        ("resources.custom={big: 0}", "resources.custom.big: must be greater than 0, but got 0"),
        ("seed=-1", "seed: must be greater than or equal to 0, but got -1"),
        ("search.mode=optune", "search: mode must be 'grid', 'optuna', but got 'optune'"),
        (
            "screen.name=bbc021",
            "screen: name must be 'bbbc021', 'bbbc014', 'table', 'files', 'ome_zarr', 'synthetic', but got 'bbc021'",
        ),
        ("out=null", "out: must be a path or a URI, but got None"),
        ("epochs", "'epochs': an override reads KEY=VALUE, e.g. recipe.epochs=5"),
        ("study.name=x", "'study.name=x': study holds a value, not keys"),
        ("study=[", "'study=[': the value is not YAML"),
    ],
)
def test_wrong_value_is_named_with_its_place_and_rule(override: str, message: str) -> None:
    with pytest.raises(InputError, match=r".") as error:
        check(override)
    assert str(error.value).removeprefix("sweep.yaml: ").startswith(message)
    assert "\n" not in str(error.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(InputError, match="seed") as error:
        check("seed=x", "resources.cpus=0", "images.normalise.by=well")
    assert len(str(error.value).splitlines()) == 3


def test_every_wrong_hyperparameter_is_said_with_what_else_is_wrong() -> None:
    with pytest.raises(InputError) as error:
        check("seed=x", "recipe.epoch=3", "recipe.augment.blur=2", "search.space.optimizer=[sgd, adm]")
    assert [line.split(": ")[1] for line in str(error.value).splitlines()] == [
        "seed",
        "recipe.augment",
        "recipe",
        "search.space.optimizer.1",
    ]


def test_missing_key_is_named() -> None:
    without = plain()
    del without["study"]
    with pytest.raises(InputError, match=r"^sweep\.yaml: study: this key is missing$"):
        sweep_file.check(without, "sweep.yaml")


def test_file_that_is_no_sweep_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    with pytest.raises(InputError, match="no such sweep file"):
        sweep_file.load(path)
    path.write_text("a: [")
    with pytest.raises(InputError, match="not YAML"):
        sweep_file.load(path)
    path.write_text("- a")
    with pytest.raises(InputError, match="a mapping of keys must stand at the top, but got list"):
        sweep_file.load(path)
    path.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(InputError, match="not YAML"):
        sweep_file.load(path)


def test_every_sweep_file_of_the_repository_opens_with_its_command_and_is_valid(repo: Path) -> None:
    files = sorted((repo / "sweeps").glob("*.yaml"))
    assert len(files) >= 3
    for path in files:
        assert path.read_text().startswith(f"# python -m moa_ray.sweep sweeps/{path.name}\n")
        assert sweep_file.load(path).resource_profiles


def test_a_reference_is_asked_for_by_name() -> None:
    assert check().reference is None
    assert check("reference=kensert2019").reference == "kensert2019"
    assert sweep_file.check(yaml.safe_load(check("reference=kensert2019").as_yaml()), "").reference == "kensert2019"
    with pytest.raises(InputError, match=r"sweep\.yaml: reference: must be 'kensert2019', but got 'kensert'"):
        check("reference=kensert")


def test_every_reference_that_a_sweep_file_may_name_is_published() -> None:
    assert set(get_args(get_args(Sweep.model_fields["reference"].annotation)[0])) == set(REFERENCES)


def test_conformal_sets_are_asked_for_by_alpha_and_score() -> None:
    assert check().conformal == ConformalSettings((0.05, 0.1, 0.2), "one_minus_p", True, "compound")
    sweep = check("conformal={alphas: [1e-1, 0.05], score: aps, unit: treatment}")
    assert sweep.conformal == ConformalSettings((0.05, 0.1), "aps", True, "treatment")
    assert sweep_file.check(yaml.safe_load(sweep.as_yaml()), "").conformal == sweep.conformal
    assert check("conformal=null").conformal is None
    with pytest.raises(InputError, match=r"sweep\.yaml: conformal: .*alphas are shares between 0 and 1"):
        check("conformal.alphas=[5]")
    with pytest.raises(InputError, match=r"sweep\.yaml: conformal: unknown key 'alpha'; did you mean 'alphas'"):
        check("conformal.alpha=0.1")


# Samples and seeds


def test_each_recipe_of_a_grid_has_a_member_for_each_seed() -> None:
    sweep = check("seeds=[3, 1]")
    assert [(recipe.learning_rate, recipe.seed) for recipe in sweep.grid_recipes] == [
        (0.1, 3),
        (0.1, 1),
        (0.01, 3),
        (0.01, 1),
    ]
    assert [recipe.ensemble for recipe in sweep.grid_recipes[::2]] == check().grid_recipes


def test_search_proposes_with_the_first_seed() -> None:
    space = check("seeds=[3, 1]", "search={mode: optuna, space: {learning_rate: {low: 0.1, high: 1}}}").space
    assert space.recipe({"learning_rate": 0.5}).seed == 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seeds=[1, 2, 1]"], "seeds: each must stand once"),
        (["seeds=[]"], "seeds: .*at least 1 item"),
        (["recipe.seed=1"], r"recipe\.seed: .*write seeds: \[1, 2, 3\] at the top"),
        (["search.space.seed=[1, 2]"], r"search\.space\.seed: .*write seeds"),
        (["predict.mc_dropout=30"], r"predict\.mc_dropout: SmallCNN with dropout 0 has no dropout layer at work"),
        (["predict.mc_dropout=30", "search.space.dropout=[0.5, 0]"], "SmallCNN with dropout 0 "),
        (["predict.mc_dropout=1", "recipe.dropout=0.5"], r"predict\.mc_dropout: .*greater than or equal to 2"),
        (["predict.laplace=100"], r"predict\.laplace: .* SmallCNN has freeze 0; write recipe\.freeze: all"),
        (["predict.laplace=100", "search.space.freeze=[1.0]"], "SmallCNN has freeze 1;"),
    ],
)
def test_samples_and_seeds_that_can_do_nothing_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(*overrides)


def test_samples_are_taken_where_they_can_be() -> None:
    assert check("predict.mc_dropout=30", "recipe.dropout=0.5").predict.samples == {"mc_dropout": 30}
    assert check("predict.mc_dropout=30", "recipe={backbone: EfficientNetB0}").predict.samples == {"mc_dropout": 30}
    frozen = "recipe={weights: a.h5, freeze: all, augment: {channel_jitter: [], blur: 0, noise: 0}}"
    assert check("predict.laplace=100", frozen).predict.samples == {"laplace": 100}
    with pytest.raises(InputError, match="EfficientNetB0 with dropout 0"):  # the head alone is trained
        check("predict.mc_dropout=30", frozen, "recipe.backbone=EfficientNetB0")
    assert check().predict.samples == {}


def test_repeated_key_is_named_with_file_place_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(f"{yaml.safe_dump(plain())}recipe:\n  epochs: 1\n  epochs: 2\n")
    lines = path.read_text().splitlines()
    with pytest.raises(InputError) as error:
        sweep_file.load(path)
    assert str(error.value).splitlines() == [
        f"{path}: {place}: stands in lines {first} and {second}, but a key may stand once; leave out all but one"
        for place, first, second in (
            ("recipe.epochs", len(lines) - 1, len(lines)),
            ("recipe", lines.index("recipe:") + 1, len(lines) - 2),
        )
    ]


TABLE = ["screen={name: table, root: r, fields: f.csv, columns: {Metadata_Plate: plate}, images: {DNA: path}}"]


def test_rows_of_a_table_are_chosen_by_values_of_any_kind_and_read_again_as_they_were() -> None:
    where = "screen.where={site: [1, '02', null], moa: {not: toxic}, ok: true}"
    sweep = check(*TABLE, where, "screen.control={type: negcon}", "screen.missing=[NA, null, -666]")
    screen = sweep.screen
    assert isinstance(screen, TableSettings)
    assert screen.where == {
        "site": Condition((1, "02", None)),
        "moa": Condition(("toxic",), is_negated=True),
        "ok": Condition((True,)),
    }
    assert screen.control == {"type": Condition(("negcon",))}
    assert screen.missing == ("NA", "null", "-666")
    assert sweep_file.check(yaml.safe_load(sweep.as_yaml()), "sweep.yaml").screen == screen


@pytest.mark.parametrize(("written", "separator"), [("tab", "\t"), ('"\\t"', "\t"), ("semicolon", ";"), ("'|'", "|")])
def test_separator_is_a_word_or_a_character(written: str, separator: str) -> None:
    screen = check(*TABLE, f"screen.separator={written}").screen
    assert isinstance(screen, TableSettings)
    assert screen.separator == separator


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("screen.separator=semicolons", "screen.separator: must be comma, tab, semicolon or one character, but got "),
        ("screen.encoding=latin1x", "screen.encoding: unknown encoding 'latin1x'; did you mean 'latin-1'?"),
        ("screen.encoding=zlib", "screen.encoding: unknown encoding 'zlib'"),
        ("screen.decimal=;", "screen.decimal: must be '.' or ',', but got ';'"),
        (
            "screen.where={moa: {nto: [a]}}",
            "screen.where.moa: a list of values or not: [...], but got 'nto'; did you mean",
        ),
        ("screen.where={moa: []}", "screen.where.moa: at least one value must stand there"),
        ("screen.control={type: [[1]]}", "screen.control: type: a value must be text, a number or null, but got [1]"),
        (
            "screen.aliases={a: [b], c: [b]}",
            "screen.aliases: 'b' is another name of both 'a' and 'c'; keep one of them",
        ),
        ("screen.aliases={a: [b], b: [c]}", "screen.aliases: 'b' is a name of its own and another of 'a'; keep one"),
        (
            "screen.aliases=distinkt",
            "screen.aliases: must be distinct, or a list of other spellings for each name, but got 'distinkt'",
        ),
        ("screen.control_is_clas=true", "screen: unknown key 'control_is_clas'; did you mean 'control_is_class'?"),
    ],
)
def test_rows_that_cannot_be_understood_are_told_by_their_place(override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check(*TABLE, override)
    assert f"sweep.yaml: {message}" in str(caught.value)
