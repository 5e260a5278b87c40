"""The import table of the design: no module imports one above its layer, and each big dependency has one door."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LAYERS = {
    5: {"sweep", "prepare", "report"},
    4: {
        "study",
        "capacity",
        "cluster",
        "tuning",
        "worker",
        "race",
        "proposals",
        "tracking",
        "runs",
        "figures",
        "figures_conformal",
        "sure",
        "figures_uncertainty",
        "unsure",
        "figures_calibration",
        "page",
        "contents",
        "judgements",
        "plain",
        "given",
        "progress",
    },
    3: {"spec", "ledger", "mirror", "screening", "ensembles", "training"},
    2: {"models", "mc_dropout", "augment", "tiles", "examples"},
    1: {
        "screens",
        "screens.bbbc014",
        "screens.bbbc021",
        "screens.table",
        "screens.synthetic",
        "screens.translocation",
        "copies",
        "downloads",
        "images",
        "folds",
        "conformal",
        "laplace",
        "metrics",
        "intervals",
        "comparison",
        "calibration",
        "published",
        "selection",
        "space",
        "uncertainty",
        "unknowns",
    },
    0: {"sheet", "tables", "recipe", "backbones", "command", "complaints", "process", "stores"},
}
LAYER = {name: layer for layer, names in LAYERS.items() for name in names}
DOORS = {
    "ray": {"cluster", "tuning"},
    "mlflow": {"runs"},
    "optuna": {"proposals"},
    "crepes": {"conformal"},
    "keras": {"models", "mc_dropout", "augment", "training"},
    "tensorflow": set(),
}


def modules(repo: Path) -> Iterator[tuple[str, ast.Module]]:
    package = repo / "moa_ray"
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module imported anywhere in a file, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_a_layer(repo: Path) -> None:
    assert {name for name, _ in modules(repo)} == set(LAYER)


def test_no_module_imports_one_above_it(repo: Path) -> None:
    upwards = [
        (name, other)
        for name, tree in modules(repo)
        for other in (full.removeprefix("moa_ray.") for full in imported(tree) if full.startswith("moa_ray."))
        if LAYER.get(other, 0) > LAYER[name]
    ]
    assert upwards == []


def test_each_big_dependency_has_its_own_files(repo: Path) -> None:
    found = {
        (dependency, name)
        for name, tree in modules(repo)
        for dependency in (full.split(".")[0] for full in imported(tree))
        if dependency in DOORS
    }
    assert found == {(dependency, name) for dependency, names in DOORS.items() for name in names}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("moa_ray.training", ["ray", "optuna", "mlflow"]),
        ("moa_ray.spec", ["keras", "tensorflow", "ray", "mlflow"]),
        ("moa_ray.tracking", ["mlflow"]),
    ],
)
def test_importing_a_module_does_not_load(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
