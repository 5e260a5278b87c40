"""The training core: plain Keras, one recipe on one fold.

What people import from here is loaded when it is first asked for, so that importing a module of this wing loads no
Keras that it does not need itself.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moa_ray.training.data import Data, Diverged, Split
    from moa_ray.training.trainer import Trainer, fit

__all__ = ["Data", "Diverged", "Split", "Trainer", "fit"]

_HOMES = {"Data": "data", "Diverged": "data", "Split": "data", "Trainer": "trainer", "fit": "trainer"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
