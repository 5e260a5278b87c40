"""Random streams: no number is used twice, and every generator draws what it drew before it had a name."""

import re
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from moa_ray.common.random_streams import OUTSIDE_EPOCHS, Stream, TrialStream, rng


@pytest.mark.parametrize("streams", [Stream, TrialStream])
def test_no_two_streams_share_a_number(streams: type[Stream] | type[TrialStream]) -> None:
    numbers = [member.value for member in streams.__members__.values()]
    assert len(set(numbers)) == len(numbers)
    assert 0 not in numbers  # NumPy takes a key that ends in zero for the one without it


@pytest.mark.parametrize(
    ("seed", "key", "spelling"),
    [
        (7, (Stream.FOLD_ORDER,), [7, 1]),
        (7, (Stream.BBC_CV,), [7, 2]),
        (7, (Stream.BOOTSTRAP,), [7, 3]),
        (7, (Stream.CALIBRATION,), [7, 4]),
        (7, ("taxol",), [7, crc32(b"taxol")]),
        ([7, 5], (), [7, 5]),
        ([7, 5], (OUTSIDE_EPOCHS,), [7, 5, 0]),
        ([7, 5, 2], (3,), [7, 5, 2, 3]),
        ([7, 5, 2], (3, TrialStream.ORIENTATIONS), [7, 5, 2, 3, 1]),
        ([7, 5], (OUTSIDE_EPOCHS, TrialStream.MC_DROPOUT), [7, 5, 0, 2]),
        ([7, 5], (OUTSIDE_EPOCHS, TrialStream.LAPLACE), [7, 5, 0, 3]),
    ],
)
def test_a_stream_draws_what_its_numbers_drew_before_they_had_names(
    seed: int | list[int], key: tuple[int | str, ...], spelling: list[int]
) -> None:
    np.testing.assert_array_equal(rng(seed, *key).random(5), np.random.default_rng(spelling).random(5))


def test_every_generator_of_the_package_comes_from_the_registry(repo: Path) -> None:
    spelling = re.compile(r"default_rng|RandomState|SeedSequence|np\.random\.(?!Generator)")
    users = {
        path.name for path in (repo / "moa_ray").rglob("*.py") if spelling.search(path.read_text(encoding="utf-8"))
    }
    assert users == {"random_streams.py"}
