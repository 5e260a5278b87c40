"""What each trial gets of a cluster, and what is refused since it can never run."""

from typing import Any

from moa_ray.config.resources import Resources
from moa_ray.execution.allocation import refusal, share_out
from moa_ray.execution.capacity import Capacity, NodeType, Slots

CPU_NODE = {"CPU": 16.0, "memory": 1e9, "node:10.0.0.1": 1.0}
GPU_NODE = {"CPU": 8.0, "GPU": 1.0, "accelerator_type:A100": 1.0}
GPU_TYPE = NodeType("gpu", GPU_NODE, 20)


def resources(**settings: Any) -> Resources:
    return Resources.model_validate(settings)


def test_auto_takes_a_gpu_where_an_autoscaler_may_add_one() -> None:
    assert share_out(resources(), ["ResNet50"], Capacity((CPU_NODE,))).gpus == 0
    growing = Capacity((CPU_NODE,), (GPU_TYPE,), room=3)
    assert share_out(resources(), ["ResNet50"], growing) == Slots(8.0, 1.0)
    full = Capacity((CPU_NODE,), (GPU_TYPE,), room=0)
    assert share_out(resources(), ["ResNet50"], full).gpus == 0


def test_auto_shares_out_the_cpus_of_the_nodes_that_have_the_gpus() -> None:
    head = {"CPU": 64.0}
    slots = share_out(resources(gpus=0.25), ["ResNet50"], Capacity((head, GPU_NODE, GPU_NODE)))
    assert slots == Slots(2.0, 0.25)
    assert Capacity((head, GPU_NODE, GPU_NODE)).at_once(slots.of("ResNet50"), 100) == 8


def test_auto_without_gpus_fits_a_node_of_many() -> None:
    assert share_out(resources(), ["ResNet50"], Capacity((CPU_NODE,) * 10)) == Slots(2.0, 0.0)


def test_a_backbone_gets_its_own_and_else_what_all_get() -> None:
    settings = resources(
        gpus=0.5,
        cpus=2,
        accelerator_type="A100",
        by_backbone={"InceptionResNetV2": {"gpus": 1, "custom": {"big": 1}}, "VGG16": {"cpus": 1}},
    )
    slots = share_out(settings, ["ResNet50", "InceptionResNetV2"], Capacity(()))
    assert slots.of("ResNet50").amounts == {"CPU": 2, "GPU": 0.5, "accelerator_type:A100": 0.001}
    assert slots.of("InceptionResNetV2").amounts == {"CPU": 2, "GPU": 1, "big": 1, "accelerator_type:A100": 0.001}
    assert slots.demands == {slots.of("ResNet50"), slots.of("InceptionResNetV2")}  # VGG16 is not trained
    alone = share_out(settings, ["InceptionResNetV2"], Capacity(()))
    assert alone.demands == {alone.of("InceptionResNetV2")}


def test_sweep_file_that_was_written_with_every_default_says_the_same() -> None:
    settings = resources(gpus=0.5, by_backbone={"VGG16": {"cpus": 1}})
    again = Resources.model_validate(settings.model_dump(mode="json"))
    assert share_out(again, ["VGG16"], Capacity(())) == share_out(settings, ["VGG16"], Capacity(()))


def test_refusal_says_who_asks_for_what_and_what_there_is() -> None:
    settings = resources(cpus=2, by_backbone={"VGG16": {"gpus": 1, "custom": {"big": 1}}})
    slots = share_out(settings, ["VGG16", "ResNet50"], Capacity(()))
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
