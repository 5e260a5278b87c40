"""What all tests share: where the repository and the real data are."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import draw_nothing

if TYPE_CHECKING:
    from buckets import Server

REPOSITORY = Path(__file__).resolve().parent.parent

# A shell lets what it starts in the background ignore SIGINT, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Tiers by folder: what all tests of a folder are, besides the marks that they carry themselves.
MARKS_OF_FOLDERS = {"sweeps": ("ray", "slow"), "cluster": ("cluster",)}


@pytest.hookimpl(tryfirst=True)  # before tests are left out by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of some folders, and let files of whole sweeps come first, then those of networks.

    Of several files at a time the last one to end should be short.
    """
    for item in items:
        folder = item.path.relative_to(REPOSITORY / "tests").parts[0]
        for mark in MARKS_OF_FOLDERS.get(folder, ()):
            item.add_marker(mark)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("ray"))
    items.sort(key=lambda item: (-slow[item.path], item.path.parent.name != "training"))


@pytest.fixture(scope="session")
def repo() -> Path:
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights; tests that need it are skipped where it is not there."""
    folder = Path(os.environ.get("MOA_RAY_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data at {folder}; set MOA_RAY_SHARED to the folder that holds data/ and weights/")
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draws of SmallCNN's weights in a file."""
    from moa_ray.training import models

    path = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    models.backbone("SmallCNN", 32).save_weights(path)
    return path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not rendered, which takes most of a report's time."""
    draw_nothing(monkeypatch)


@pytest.fixture(scope="session")
def s3_server() -> "Iterator[Server]":
    """An S3 server of this machine; only tests that ask for it need moto."""
    from buckets import Server

    server = Server()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: "Server", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Server":
    """The same with credentials for it, an empty bucket `ours`, and a cache of this test's own."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    s3_server.system.create_dir("ours")
    s3_server.system.delete_dir_contents("ours")
    return s3_server
