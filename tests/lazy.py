"""Modules that take seconds to import, for test files that need them only once a test runs: collecting stays quick."""

import importlib
from types import ModuleType
from typing import Any


class Lazy:
    """Stands for a module, which is imported when something of it is first asked for."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    @property
    def _module(self) -> ModuleType:
        return importlib.import_module(self._name)

    @property
    def __dict__(self) -> dict[str, Any]:  # pytest's monkeypatch looks here for what it is to put back
        return vars(self._module)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith(("__", "_mock", "_pytest", "pytest_")):  # pytest asks so what it is while it collects
            raise AttributeError(attribute)
        return getattr(self._module, attribute)

    def __setattr__(self, attribute: str, value: Any) -> None:
        setattr(self._module, attribute, value)

    def __delattr__(self, attribute: str) -> None:
        delattr(self._module, attribute)
