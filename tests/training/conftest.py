"""What the tests of training share."""

import numpy as np
import pytest
from painted import painted


@pytest.fixture(scope="session")
def data():
    return painted()


@pytest.fixture
def pixels():
    """Two tiles of noise."""
    return np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
