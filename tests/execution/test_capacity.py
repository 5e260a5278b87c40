"""What a cluster can hold, what is asked of an autoscaler, and what is said where no trial can run, without Ray."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_ray.capacity import Capacity, Demand, NodeType, Slots, Watch, refusal, share_out
from moa_ray.command import StuckError
from moa_ray.spec import Resources

CPU_NODE = {"CPU": 16.0, "memory": 1e9, "node:10.0.0.1": 1.0}
GPU_NODE = {"CPU": 8.0, "GPU": 1.0, "accelerator_type:A100": 1.0}
GPU_TRIAL = Demand(8.0, 1.0)
GPU_TYPE = NodeType("gpu", GPU_NODE, 20)


def resources(**given: Any) -> Resources:
    return Resources.model_validate(given)


amounts = st.fixed_dictionaries({"CPU": st.integers(0, 9), "GPU": st.integers(0, 4), "big": st.integers(0, 2)})


@given(nodes=st.lists(amounts, max_size=5), cpus=st.integers(1, 4), gpus=st.integers(0, 2), big=st.integers(0, 1))
def test_as_many_equal_trials_begin_as_the_nodes_hold_one_by_one(
    nodes: list[dict[str, int]], cpus: int, gpus: int, big: int
) -> None:
    held = 0
    for node in nodes:
        left = dict(node)
        while left["CPU"] >= cpus and left["GPU"] >= gpus and left["big"] >= big:
            left = {"CPU": left["CPU"] - cpus, "GPU": left["GPU"] - gpus, "big": left["big"] - big}
            held += 1
    demand = Demand(cpus, gpus, (("big", big),))
    assert Capacity(tuple(nodes)).at_once(demand, 100) == max(1, held)  # one may always wait


def test_what_the_cluster_has_in_all_is_no_place_for_a_trial_that_no_single_node_holds() -> None:
    four = Capacity(({"CPU": 4.0},) * 4)
    assert not four.fits(Demand(8.0, 0.0))
    assert not four.has_room([Demand(4.0, 0.0)], Demand(8.0, 0.0))


def test_four_trials_share_a_gpu_and_a_fifth_finds_no_room() -> None:
    one = Capacity((GPU_NODE,))
    assert one.at_once(Demand(1.0, 0.25), 100) == 4


def test_trials_without_a_gpu_leave_the_nodes_that_have_one_to_those_with() -> None:
    both = Capacity((GPU_NODE, CPU_NODE))
    cpu_trials = [Demand(8.0, 0.0)] * 2
    assert both.has_room(cpu_trials, GPU_TRIAL)
    assert not both.has_room([*cpu_trials, GPU_TRIAL], GPU_TRIAL)
    assert not both.has_room([*cpu_trials, GPU_TRIAL], Demand(1.0, 0.0))


def test_large_trials_that_find_no_node_do_not_keep_small_ones_from_theirs() -> None:
    mixed = Capacity(({"CPU": 4.0}, {"CPU": 4.0, "big": 1.0}))
    big, small = Demand(4.0, 0.0, (("big", 1.0),)), Demand(4.0, 0.0)
    assert not mixed.has_room([big], big)
    assert mixed.has_room([big], small)


@pytest.mark.parametrize(("running", "begun"), [(0, 4), (1, 5), (6, 12), (15, 20), (20, 20)])
def test_some_more_trials_wait_than_run_until_the_autoscaler_has_no_more_to_add(running: int, begun: int) -> None:
    growing = Capacity((CPU_NODE, *[GPU_NODE] * running), (GPU_TYPE,), room=20 - running)
    assert growing.at_once(GPU_TRIAL, 1000) == begun


def test_no_trial_waits_for_nodes_that_do_not_hold_it() -> None:
    growing = Capacity((CPU_NODE,), (NodeType("cpu", CPU_NODE, 5), NodeType("gpu", GPU_NODE, 2)), room=7)
    assert growing.at_once(GPU_TRIAL, 1000) == 2
    assert growing.at_once(Demand(16.0, 1.0), 1000) == 1


def test_concurrent_is_the_most_however_large_the_cluster() -> None:
    large = Capacity((GPU_NODE,) * 9)
    slots = Slots(8, 1, concurrent=2)
    assert slots.may_begin(large, [GPU_TRIAL], GPU_TRIAL)
    assert not slots.may_begin(large, [GPU_TRIAL] * 2, GPU_TRIAL)


# From the sweep file


def test_auto_takes_a_gpu_where_an_autoscaler_may_add_one() -> None:
    assert share_out(resources(), ["ResNet50"], Capacity((CPU_NODE,))).gpus == 0
    growing = Capacity((CPU_NODE,), (GPU_TYPE,), room=3)
    assert share_out(resources(), ["ResNet50"], growing) == Slots(8.0, 1.0)
    full = Capacity((CPU_NODE,), (GPU_TYPE,), room=0)
    assert share_out(resources(), ["ResNet50"], full).gpus == 0


def test_auto_shares_out_the_cpus_of_the_nodes_that_have_the_gpus() -> None:
    head = {"CPU": 64.0}
    found = share_out(resources(gpus=0.25), ["ResNet50"], Capacity((head, GPU_NODE, GPU_NODE)))
    assert found == Slots(2.0, 0.25)
    assert Capacity((head, GPU_NODE, GPU_NODE)).at_once(found.of("ResNet50"), 100) == 8


def test_auto_without_gpus_fits_a_node_of_many() -> None:
    assert share_out(resources(), ["ResNet50"], Capacity((CPU_NODE,) * 10)) == Slots(2.0, 0.0)


def test_a_backbone_gets_its_own_and_else_what_all_get() -> None:
    given = resources(
        gpus=0.5,
        cpus=2,
        accelerator_type="A100",
        by_backbone={"InceptionResNetV2": {"gpus": 1, "custom": {"big": 1}}, "VGG16": {"cpus": 1}},
    )
    slots = share_out(given, ["ResNet50", "InceptionResNetV2"], Capacity(()))
    assert slots.of("ResNet50").amounts == {"CPU": 2, "GPU": 0.5, "accelerator_type:A100": 0.001}
    assert slots.of("InceptionResNetV2").amounts == {"CPU": 2, "GPU": 1, "big": 1, "accelerator_type:A100": 0.001}
    assert slots.kinds == {slots.of("ResNet50"), slots.of("InceptionResNetV2")}  # VGG16 is not trained
    alone = share_out(given, ["InceptionResNetV2"], Capacity(()))
    assert alone.kinds == {alone.of("InceptionResNetV2")}


def test_sweep_file_that_was_written_with_every_default_says_the_same() -> None:
    given = resources(gpus=0.5, by_backbone={"VGG16": {"cpus": 1}})
    again = Resources.model_validate(given.model_dump(mode="json"))
    assert share_out(again, ["VGG16"], Capacity(())) == share_out(given, ["VGG16"], Capacity(()))


def test_refusal_says_who_asks_for_what_and_what_there_is() -> None:
    given = resources(cpus=2, by_backbone={"VGG16": {"gpus": 1, "custom": {"big": 1}}})
    slots = share_out(given, ["VGG16", "ResNet50"], Capacity(()))
    there = Capacity((CPU_NODE, CPU_NODE, GPU_NODE), (NodeType("spot", GPU_NODE, 3),), room=2)
    text = str(refusal(slots, ["VGG16"], there))
    assert text.startswith("resources.by_backbone.VGG16: each trial of VGG16 asks for 2 CPUs, 1 GPU, 1 big")
    assert "2 nodes with 16 CPUs; 1 node with 8 CPUs, 1 GPU, accelerator A100" in text
    assert "may add up to 2 nodes of type spot with 8 CPUs, 1 GPU, accelerator A100" in text
    assert refusal(slots, ["ResNet50"], there) is None  # of this one all trials have a place


def test_nothing_is_refused_while_a_node_of_an_unknown_kind_may_come() -> None:
    slots = share_out(resources(gpus=1), ["VGG16"], Capacity(()))
    unknown = (NodeType("local.cluster.node", {}, 2),)
    assert refusal(slots, ["VGG16"], Capacity((CPU_NODE,), unknown, room=1)) is None
    assert refusal(slots, ["VGG16"], Capacity((CPU_NODE, CPU_NODE), unknown, room=0)) is not None


# While a sweep runs


class Course:
    """A sweep of one kind of trial, looked at each ten seconds while what the cluster has changes."""

    def __init__(self, patience: float) -> None:
        self.now, self.nodes, self.said = 0.0, [CPU_NODE], list[tuple[float, str]]()
        self.watch = Watch(lambda: Capacity(tuple(self.nodes)), self._say, patience, lambda: self.now)

    def _say(self, sentence: str) -> None:
        self.said.append((self.now, sentence))

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
    assert [when for when, _ in course.said] == [0, 60, 120, 180, 240]
    assert all("a trial that asks for 8 CPUs, 1 GPU: there is 1 node with 16 CPUs" in said for _, said in course.said)
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
    assert len(course.said) == 17
    ends(lambda: course.go(1000))
    assert course.now == 1300


def test_while_another_trial_only_waits_for_its_turn_on_a_busy_node_nothing_is_given_up() -> None:
    course = Course(patience=5)
    course.go(1000, waiting=[GPU_TRIAL, Demand(1.0, 0.0)])
    assert len(course.said) == 17
    quiet = Course(patience=5)
    quiet.go(1000, waiting=[Demand(1.0, 0.0)])
    assert quiet.said == []
