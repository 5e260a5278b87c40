"""What the tests of whole sweeps share: the sweeps of a file run in this process, on one Ray, and draw no figures.

That saves each sweep the imports, a start of Ray and most of its report. What only a process of its own shows (exit
status, signals, kills, the drawn report) is tested by the command line, see `tests/commands.py`.
"""

from collections.abc import Iterator

import pytest
from commands import draw_nothing


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """Connect this process to a Ray that all sweeps of the file run on."""
    from moa_ray.execution import cluster

    with cluster.connect(None):
        yield


@pytest.fixture(scope="module", autouse=True)
def undrawn_sweeps() -> Iterator[None]:
    """Make the figures of the sweeps of this process, but don't render them."""
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        yield
