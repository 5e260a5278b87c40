"""Executors: bounded work in order, and errors of fields in the place of their results."""

import threading
from collections.abc import Iterator

import pytest

from moa_ray.common.errors import InputError
from moa_ray.tiles.workers import ThreadExecutor


def test_each_thread_holds_one_job_and_few_results_wait_to_be_taken() -> None:
    lock, together = threading.Lock(), threading.Barrier(3)
    held: list[int] = [0]
    drawn: list[int] = []

    def work(job: int) -> int:
        with lock:
            held.append(held[-1] + 1)
        together.wait(timeout=60)  # breaks unless three run at once
        with lock:
            held.append(held[-1] - 1)
        return job

    def jobs() -> Iterator[int]:
        for job in range(30):
            drawn.append(job)
            yield job

    taken = []
    for result in ThreadExecutor(3).map(work, jobs()):
        assert len(drawn) - len(taken) <= 6
        taken.append(result)
    assert taken == list(range(30))
    assert max(held) == 3


def test_an_input_error_takes_the_place_of_its_result_and_any_other_ends_the_work() -> None:
    def work(job: str) -> str:
        if job == "unreadable":
            raise InputError(job)
        return job.upper()

    results = list(ThreadExecutor(2).map(work, ["a", "unreadable", "b"]))
    assert [str(result) for result in results] == ["A", "unreadable", "B"]
    assert isinstance(results[1], InputError)
    with pytest.raises(ZeroDivisionError):
        list(ThreadExecutor(2).map(lambda job: 1 // job, [1, 0, 1]))
    with pytest.raises(ValueError, match="invalid literal"):
        list(ThreadExecutor(2).map(int, ["1", "one"]))
