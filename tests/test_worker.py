"""The process that trains: what it gives back, what it survives, and that it grows no further."""

import pytest

from moa_ray.worker import is_out_of_memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError("no"), True),
        (type("ResourceExhaustedError", (Exception,), {})("OOM when allocating"), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"), True),
        (ValueError("shapes differ"), False),
    ],
)
def test_running_out_of_memory_is_told_from_a_crash(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected
