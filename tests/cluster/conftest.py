"""The hosts that the tests of clusters share."""

from collections.abc import Iterator

import pytest

from .hosts import Hosts, lacking, made


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """A desk, and a head and two workers that it reaches over ssh; nothing else runs there at first."""
    reason = lacking()
    if reason:
        pytest.skip(f"hosts on this machine: {reason}")
    with made(tmp_path_factory.mktemp("hosts")) as running:
        yield running
