"""What importing a module loads: each big dependency is loaded where it is used, and nowhere else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from factories import painting

HEAVY = ("keras", "tensorflow", "ray", "mlflow", "optuna", "matplotlib", "sklearn", "crepes", "scipy.stats")


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("moa_ray.training", ["ray", "optuna", "mlflow"]),
        ("moa_ray.config.sweep_file", ["keras", "tensorflow", "ray", "mlflow"]),
        ("moa_ray.tracking.tracker", ["mlflow"]),
    ],
)
def test_importing_a_module_does_not_load(module: str, absent: list[str]) -> None:
    assert loaded(f"import {module}", *absent) == []


def loaded(code: str, *names: str) -> list[str]:
    """Return which of some modules a piece of code loads in a fresh process."""
    code = f"import sys\n{code}\nprint([name for name in {list(names)!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [str(name) for name in ast.literal_eval(done.stdout.splitlines()[-1])]


@pytest.mark.parametrize("command", ["sweep", "prepare", "report"])
def test_help_of_a_command_loads_nothing_heavy(command: str) -> None:
    code = f"from moa_ray.{command} import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert loaded(code, *HEAVY, "pandas", "numpy", "pydantic", "rich") == []


def test_plan_loads_nothing_that_only_running_needs(repo: Path, tmp_path: Path) -> None:
    screen = {"name": "synthetic", "root": str(tmp_path / "painted"), "painting": painting()}
    words = [str(repo / "sweeps" / "demo.yaml"), "--plan", f"screen={screen}"]
    code = f"from moa_ray.sweep import main\nassert main({words!r}) == 0"
    assert loaded(code, *HEAVY) == []


def test_importing_the_package_loads_nothing() -> None:
    assert loaded("import moa_ray", "numpy", "pandas", "keras", "ray") == []


@pytest.mark.slow
def test_every_public_name_is_there_and_the_same_whatever_was_imported_before() -> None:
    """A command's module of the same name would shadow a function that is loaded lazily."""
    code = (
        "import moa_ray, moa_ray.report, moa_ray.sweep, moa_ray.prepare, types\n"
        "for name in moa_ray.__all__: assert not isinstance(getattr(moa_ray, name), types.ModuleType), name\n"
        "assert 15 <= len(moa_ray.__all__) <= 25 and set(moa_ray.__all__) <= set(dir(moa_ray))"
    )
    assert loaded(code) == []
