"""What a cluster can hold, and how many trials may wait for an autoscaler, without Ray."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_ray.execution.capacity import Capacity, Demand, NodeType, Slots

CPU_NODE = {"CPU": 16.0, "memory": 1e9, "node:10.0.0.1": 1.0}
GPU_NODE = {"CPU": 8.0, "GPU": 1.0, "accelerator_type:A100": 1.0}
GPU_TRIAL = Demand(8.0, 1.0)
GPU_TYPE = NodeType("gpu", GPU_NODE, 20)


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
    node = Capacity((GPU_NODE,))
    assert node.at_once(Demand(1.0, 0.25), 100) == 4


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
