"""A painted screen, and how often its fields are read."""

import shutil
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tile_stores import PAINTING

from moa_ray.config.planes import Plane
from moa_ray.screens import bbbc021, reading
from moa_ray.screens.painted_bbbc021 import paint
from moa_ray.screens.screen import Screen


@pytest.fixture(scope="session")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of the painted screen, which no test may change."""
    root: Path = tmp_path_factory.mktemp("tiles") / "painted"
    paint(root, PAINTING)
    return root


@pytest.fixture
def screen(painted: Path, tmp_path: Path) -> Screen:
    """A copy of the painted screen for one test."""
    return bbbc021.open_screen(shutil.copytree(painted, tmp_path / "painted"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each field was read, by the location of its first channel."""
    counter: Counter[str] = Counter()
    read, lock = reading.read_field, threading.Lock()

    def counting(root: Path, locations: list[str], planes: Sequence[Plane | None]) -> list[NDArray[np.uint16]]:
        with lock:
            counter[locations[0]] += 1
        return read(root, locations, planes)

    for module in ("build", "controls"):
        monkeypatch.setattr(f"moa_ray.tiles.{module}.read_field", counting)
    return counter
