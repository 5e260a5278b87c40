"""Leave-one-compound-out sweeps of ImageNet backbones over microscopy screens, on Ray.

The names listed in ``__all__`` are what people may rely on, beside the commands, the sweep file and the files of OUT.
All other names are internal and may change. Each name is loaded when it is first asked for: ``import moa_ray`` costs
nothing.

A sweep from Python::

    from moa_ray import run_sweep

    result = run_sweep("sweeps/demo.yaml", "recipe.epochs=2")
    result.leaderboard

``moa_ray.report`` is the module of the command of that name, so the function that draws a report is `write_report`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moa_ray.api import SweepResult, run_sweep
    from moa_ray.common.errors import InputError, StuckError
    from moa_ray.config.preparation import Preparation
    from moa_ray.config.recipe import Augmentation, Recipe
    from moa_ray.config.sweep_file import Sweep
    from moa_ray.config.sweep_file import load as load_sweep
    from moa_ray.reporting.write import write as write_report
    from moa_ray.statistics.aggregation import treatments
    from moa_ray.statistics.conformal import conformal_sets
    from moa_ray.statistics.leaderboard import leaderboard
    from moa_ray.statistics.scores import scores
    from moa_ray.study import Study
    from moa_ray.tracking.ledger import Ledger
    from moa_ray.training.data import Data, Split
    from moa_ray.training.trainer import Trainer, fit

__version__ = "0.1.0"

__all__ = [
    "Augmentation",
    "Data",
    "InputError",
    "Ledger",
    "Preparation",
    "Recipe",
    "Split",
    "StuckError",
    "Study",
    "Sweep",
    "SweepResult",
    "Trainer",
    "__version__",
    "conformal_sets",
    "fit",
    "leaderboard",
    "load_sweep",
    "run_sweep",
    "scores",
    "treatments",
    "write_report",
]

# Where each name is, as module:name below the package.
_HOMES = {
    "Augmentation": "config.recipe:Augmentation",
    "Data": "training.data:Data",
    "InputError": "common.errors:InputError",
    "Ledger": "tracking.ledger:Ledger",
    "Preparation": "config.preparation:Preparation",
    "Recipe": "config.recipe:Recipe",
    "Split": "training.data:Split",
    "StuckError": "common.errors:StuckError",
    "Study": "study:Study",
    "Sweep": "config.sweep_file:Sweep",
    "SweepResult": "api:SweepResult",
    "Trainer": "training.trainer:Trainer",
    "conformal_sets": "statistics.conformal:conformal_sets",
    "fit": "training.trainer:fit",
    "leaderboard": "statistics.leaderboard:leaderboard",
    "load_sweep": "config.sweep_file:load",
    "run_sweep": "api:run_sweep",
    "scores": "statistics.scores:scores",
    "treatments": "statistics.aggregation:treatments",
    "write_report": "reporting.write:write",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
