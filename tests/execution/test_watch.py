"""What is said while no node can hold a trial, and when the waiting ends."""

from collections.abc import Callable, Sequence

import pytest

from moa_ray.common.errors import StuckError
from moa_ray.execution.capacity import Capacity, Demand
from moa_ray.execution.watch import Watch

CPU_NODE = {"CPU": 16.0}
GPU_NODE = {"CPU": 8.0, "GPU": 1.0, "accelerator_type:A100": 1.0}
GPU_TRIAL = Demand(8.0, 1.0)


class Course:
    """A sweep of one kind of trial, looked at each ten seconds while what the cluster has changes."""

    def __init__(self, patience: float) -> None:
        self.now, self.nodes, self.messages = 0.0, [CPU_NODE], list[tuple[float, str]]()
        self.watch = Watch(lambda: Capacity(tuple(self.nodes)), self._say, patience, lambda: self.now)

    def _say(self, sentence: str) -> None:
        self.messages.append((self.now, sentence))

    def go(self, seconds: float, idle: bool = True, waiting: Sequence[Demand] = (GPU_TRIAL,)) -> None:
        for _ in range(int(seconds // 10)):
            self.watch.look(waiting, idle)
            self.now += 10


def ends(act: Callable[[], None]) -> str:
    with pytest.raises(StuckError) as error:
        act()
    return str(error.value)


def test_what_is_waited_for_is_said_at_once_and_each_minute_and_the_waiting_ends() -> None:
    course = Course(patience=5)
    text = ends(lambda: course.go(1000))
    assert [when for when, _ in course.messages] == [0, 60, 120, 180, 240]
    assert all(
        "a trial that asks for 8 CPUs, 1 GPU: there is 1 node with 16 CPUs" in sentence
        for _, sentence in course.messages
    )
    assert course.now == 300
    assert "resources.patience" in text
    assert "the ledger is intact" in text


def test_a_node_that_comes_ends_the_waiting_and_the_next_one_begins_anew() -> None:
    course = Course(patience=5)
    course.go(280)
    course.nodes.append(GPU_NODE)
    course.go(1000)
    course.nodes.remove(GPU_NODE)
    ends(lambda: course.go(1000))
    assert course.now == 280 + 1000 + 300


def test_as_long_as_other_trials_run_the_sweep_goes_on() -> None:
    course = Course(patience=5)
    course.go(1000, idle=False)
    assert len(course.messages) == 17
    ends(lambda: course.go(1000))
    assert course.now == 1300


def test_while_another_trial_only_waits_for_its_turn_on_a_busy_node_nothing_is_given_up() -> None:
    course = Course(patience=5)
    course.go(1000, waiting=[GPU_TRIAL, Demand(1.0, 0.0)])
    assert len(course.messages) == 17
    quiet = Course(patience=5)
    quiet.go(1000, waiting=[Demand(1.0, 0.0)])
    assert quiet.messages == []
