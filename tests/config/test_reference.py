"""The schema of a sweep file and the page of its keys: as committed, complete, of one mind with what reads the file."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from moa_ray import sweep as command
from moa_ray.common.errors import InputError
from moa_ray.config import hyperparameters, reference, sweep_file
from moa_ray.config.backbones import BACKBONES
from moa_ray.config.json_schema import json_schema


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(json_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_committed_schema_is_what_the_command_prints(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--schema"])
    assert ended.value.code == 0
    assert (repo / "sweeps" / reference.SCHEMA).read_text(encoding="utf-8") == capsys.readouterr().out


def test_page_of_the_keys_is_what_the_schema_says(repo: Path) -> None:
    page = (repo / "sweeps" / reference.PAGE).read_text(encoding="utf-8")
    assert page == reference.with_keys(page)
    assert page.count(reference.BEGIN) == page.count(reference.END) == 1


def test_command_writes_the_schema_and_the_part_between_the_markers_alone(tmp_path: Path) -> None:
    page = tmp_path / reference.PAGE
    page.write_text(f"before\n{reference.BEGIN}\nyesterday\n{reference.END}\nafter\n", encoding="utf-8")
    reference.main(tmp_path)
    written = page.read_text(encoding="utf-8")
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert "yesterday" not in written
    assert (tmp_path / reference.SCHEMA).read_text(encoding="utf-8") == json_schema()


def test_every_key_of_the_schema_is_described(validator: jsonschema.Draft202012Validator) -> None:
    sections = [validator.schema, *validator.schema["$defs"].values()]
    lacking = [
        f"{section['title']}.{key}"
        for section in sections
        for key, held in section.get("properties", {}).items()
        if "description" not in held and "description" not in referred(validator.schema, held)
    ]
    assert not lacking


def referred(schema: dict[str, Any], held: dict[str, Any]) -> dict[str, Any]:
    return schema["$defs"][held["$ref"].rpartition("/")[2]] if "$ref" in held else {}


def test_every_hyperparameter_stands_in_the_page_with_its_default(repo: Path) -> None:
    page = (repo / "sweeps" / reference.PAGE).read_text(encoding="utf-8")
    recipe = page.partition("### `recipe`\n")[2].partition("### ")[0]
    assert [line.split("`")[1] for line in recipe.splitlines() if line.startswith("| `")] == list(hyperparameters.KEYS)
    assert "| `learning_rate` | number > 0 | `0.001` |" in recipe


def test_every_sweep_file_names_the_schema_and_is_valid(repo: Path, validator: jsonschema.Draft202012Validator) -> None:
    for path in sorted((repo / "sweeps").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        assert text.splitlines()[1] == f"# yaml-language-server: $schema={reference.SCHEMA}"
        validator.validate(yaml.safe_load(text))
        validator.validate(yaml.safe_load(sweep_file.load(path).as_yaml()))  # and what OUT keeps of it


PLAIN: dict[str, Any] = {
    "study": "s",
    "out": "o",
    "screen": {"name": "synthetic", "root": "p"},
    "recipe": {"backbone": "SmallCNN", "weights": "random"},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """A sweep with one value set by its dotted path."""
    plain = copy.deepcopy(PLAIN)
    *parents, key = path.split(".")
    section = plain
    for parent in parents:
        section = section.setdefault(parent, {})
    section[key] = value
    return plain


OPTUNA = {"mode": "optuna", "space": {"learning_rate": {"low": 0.1, "high": 1}}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("recipe.weights", {"ResNet50": "a.h5", "SmallCNN": "random"}),
        ("recipe.augment", {"orientations": 8, "channel_jitter": []}),
        ("recipe.image_size", 96),
        ("search.space", {"learning_rate": 0.1, "epochs": [1, 2], "augment": [{}, {"blur": 0.1}]}),
        (
            "search.space",
            {"weights": [{"SmallCNN": "random"}]} | {"dropout": {"choices": [0.1], "when": {"epochs": [10]}}},
        ),
        ("search", OPTUNA),
        ("search", {**OPTUNA, "asha": None, "race": {"keep": 3}, "first": [{"learning_rate": 0.5}]}),
        ("search", {"mode": "optuna", "space": {"epochs": {"low": 2, "high": 8, "step": 2, "when": {"l2": [0.0]}}}}),
        ("search.screen_with_frozen", True),
        ("search.screen_with_frozen", {"keep": 2}),
        ("folds.hold_out", ["compound", "week"]),
        ("images.field_size", [128, 128]),
        ("resources.by_backbone", {"VGG16": {"gpus": 0.5}}),
        ("conformal", None),
    ],
)
def test_what_is_right_passes_the_schema_and_the_reader(
    path: str, value: Any, validator: jsonschema.Draft202012Validator
) -> None:
    plain = changed(path, value)
    if path.startswith("search.space") and "weights" in value:
        del plain["recipe"]["weights"]
    validator.validate(plain)
    sweep_file.check(plain, "sweep.yaml")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("studdy", "x"),
        ("study", 3),
        ("seed", -1),
        ("seeds", []),
        ("out", None),
        ("screen.name", "bbc021"),
        ("screen.rot", "x"),
        ("screen.painting", {"label": 3}),
        ("screen.painting", {"labels": 7}),
        ("images.normalise", {"by": False}),
        ("images.rows", 0),
        ("recipe.learning_rat", 1),
        ("recipe.learning_rate", 0),
        ("recipe.learning_rate", [0.1]),
        ("recipe.learning_rate", "fast"),
        ("recipe.epochs", 1.5),
        ("recipe.backbone", "ResNet5"),
        ("recipe.weights", {"ResNet5": "a.h5"}),
        ("recipe.weights", {"SmallCNN": 3}),
        ("recipe.optimizer", "sdg"),
        ("recipe.freeze", "some"),
        ("recipe.augment", {"blurr": 1}),
        ("recipe.augment", {"blur": 2}),
        ("recipe.seed", 1),
        ("search.space", {"dropuot": [0]}),
        ("search.space", {"dropout": []}),
        ("search.space", {"dropout": [1]}),
        ("search.space", {"optimizer": ["sgd", "adm"]}),
        ("search.space", {"seed": [1, 2]}),
        ("search.space", {"dropout": {"choices": [0.1], "when": {"optimiser": ["sgd"]}}}),
        ("search.mode", "optune"),
        ("search", {"mode": "optuna"}),
        ("search", {"mode": "optuna", "space": {"learning_rate": {"lwo": 0.1, "high": 1}}}),
        ("search", {"mode": "optuna", "space": {"learning_rate": {"low": 0.1}}}),
        ("search", {"mode": "optuna", "space": {"epochs": {"low": 1.5, "high": 3}}}),
        ("search", {"mode": "optuna", "space": {"optimizer": {"low": 1, "high": 3}}}),
        ("search", {"mode": "optuna", "space": {"image_size": {"low": 32, "high": 64}}}),
        ("search", {**OPTUNA, "first": [{"learning_rat": 0.1}]}),
        ("search", {**OPTUNA, "race": {"first_fold": 3}}),
        ("search", {**OPTUNA, "asha": {"reduction_factor": 1}}),
        ("search.screen_with_frozen", 2),
        ("predict.mc_dropout", 1),
        ("resources.gpus", -1),
        ("resources.custom", {"big": 0}),
        ("resources.by_backbone", {"ResNet5": {"gpus": 1}}),
        ("reference", "kensert"),
        ("conformal", {"alphas": [5]}),
    ],
)
def test_what_is_wrong_passes_neither_the_schema_nor_the_reader(
    path: str, value: Any, validator: jsonschema.Draft202012Validator
) -> None:
    plain = changed(path, value)
    assert not validator.is_valid(plain)
    with pytest.raises(InputError):
        sweep_file.check(plain, "sweep.yaml")


def test_a_backbone_may_be_any_that_is_known(validator: jsonschema.Draft202012Validator) -> None:
    assert validator.schema["$defs"]["BackboneName"]["enum"] == list(BACKBONES)


def test_reading_a_sweep_file_loads_no_numbers_library() -> None:
    heavy = (
        "ray",
        "mlflow",
        "optuna",
        "keras",
        "tensorflow",
        "matplotlib",
        "pandas",
        "numpy",
        "scipy",
        "sklearn",
        "crepes",
    )
    code = f"import sys, moa_ray.config.sweep_file; assert not set(sys.modules) & {{*{heavy}, 'cv2', 'PIL', 'pyarrow'}}"
    subprocess.run([sys.executable, "-c", code], check=True)
