"""A cluster whose nodes differ: trials run where their resources are, and where there are none that is said."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
import yaml
from ray import tune
from ray.cluster_utils import Cluster

from moa_ray import sweep
from moa_ray.common.errors import StuckError
from moa_ray.config.recipe import Recipe
from moa_ray.config.resources import Resources
from moa_ray.execution import cluster
from moa_ray.execution import tune as execution_tune
from moa_ray.execution.capacity import Capacity, Demand, Slots
from moa_ray.execution.trial_data import OUTCOME
from moa_ray.execution.watch import Watch
from moa_ray.search.grid import Grid
from moa_ray.search.plan import Assignment
from moa_ray.tracking.results import Result

pytestmark = pytest.mark.ray

FOLDS = ["a", "b", "c"]
MIXED = Resources.model_validate(
    {
        "gpus": 0,
        "cpus": 1,
        "by_backbone": {"VGG16": {"custom": {"big": 1}}, "VGG19": {"gpus": 0.5, "accelerator_type": "A100"}},
    }
)


def where() -> Any:
    """A trainable that says on which node it ran and in which process; made here since workers cannot import tests."""

    class Where(tune.Trainable):  # type: ignore[misc]
        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

        def step(self) -> dict[str, Any]:
            place = pd.DataFrame({"node": [ray.get_runtime_context().get_node_id()], "process": [os.getpid()]})
            outcome = {"status": "finished", "predictions": place, "history": pd.DataFrame(), "epochs": 1}
            return {OUTCOME: {**outcome, "seconds": 0.0, "setup_seconds": 0.0}, "done": True}

    return Where


class Notes:
    """A callback that keeps what has ended."""

    def __init__(self) -> None:
        self.ends: list[Result] = []

    def started(self, assignment: Assignment) -> None:
        """Not kept."""

    def epoch(self, assignment: Assignment, epoch: Mapping[str, Any]) -> None:
        """Not kept."""

    def ended(self, result: Result, final: bool) -> None:
        self.ends.append(result)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A head, a node that is big, and one with a GPU that is only said to be there."""
    mixed = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    mixed.add_node(num_cpus=1, resources={"big": 1})
    mixed.add_node(num_cpus=2, num_gpus=1, resources={"accelerator_type:A100": 1})
    mixed.wait_for_nodes()
    yield mixed
    mixed.shutdown()


@pytest.fixture
def joined(nodes: Cluster) -> Iterator[Cluster]:
    with cluster.connect(nodes.address):
        yield nodes


def run(slots: Slots, backbones: list[str], say: Callable[[str], None] = pytest.fail) -> list[Result]:
    notes = Notes()
    plan = Grid([(Recipe(backbone, "random"), fold) for backbone in backbones for fold in FOLDS], retries=0)
    execution_tune.run(plan, where(), slots, [notes], watch=Watch(cluster.capacity, say, slots.patience))
    return notes.ends


def test_trials_run_on_the_nodes_that_have_what_they_ask_for_and_a_worker_is_kept_for_its_kind(joined: Cluster) -> None:
    backbones = ["VGG16", "VGG19", "SmallCNN"]
    results = run(cluster.slots(MIXED, backbones, joined.address), backbones)
    assert [(result.status, result.error) for result in results] == [("finished", None)] * 9
    has = {node["NodeID"]: node["Resources"] for node in ray.nodes()}
    kinds: dict[int, set[str]] = {}
    for result in results:
        assert result.predictions is not None
        (node,), (process,) = result.predictions["node"], result.predictions["process"]
        kinds.setdefault(process, set()).add(str(result.recipe["backbone"]))
        assert result.recipe["backbone"] != "VGG16" or "big" in has[node]
        assert result.recipe["backbone"] != "VGG19" or "GPU" in has[node]
    assert all(len(kind) == 1 for kind in kinds.values())


def test_a_node_that_joins_in_mid_sweep_takes_what_waited_for_it(joined: Cluster) -> None:
    added: list[Any] = []
    sentences: list[str] = []

    def add(sentence: str) -> None:
        sentences.append(sentence)
        added.append(joined.add_node(num_cpus=1, resources={"late": 1}))

    slots = Slots(1, 0, by_backbone={"VGG16": Demand(1.0, 0.0, (("late", 1.0),))})
    results = run(slots, ["VGG16", "SmallCNN"], add)
    assert len(results) == 6
    (sentence,) = sentences
    assert "no node can hold a trial that asks for 1 CPU, 1 late" in sentence
    joined.remove_node(added[0])


def test_waiting_for_a_node_that_never_comes_ends_the_sweep_with_what_it_waited_for(joined: Cluster) -> None:
    slots = Slots(1, 0, others=(("never", 1.0),), patience=0)
    with pytest.raises(StuckError, match=r"a trial that asks for 1 CPU, 1 never: there is .*1 node with 1 CPU, 1 big"):
        run(slots, ["VGG16"], lambda sentence: None)


def test_what_no_node_has_ends_the_command_before_anything_is_begun(
    nodes: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "_JOINING", 1)
    painting = {"labels": 2, "compounds": 2, "concentrations": 1, "replicates": 2, "height": 96, "width": 96}
    plain = {
        "study": "tiny",
        "out": str(tmp_path / "out"),
        "tiles": str(tmp_path / "tiles"),
        "screen": {"name": "synthetic", "root": str(tmp_path / "painted"), "painting": painting},
        "recipe": {"backbone": "SmallCNN", "weights": "random", "image_size": 32},
        "resources": {"gpus": 4},
    }
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(plain))
    assert sweep.main([str(file), "--address", nodes.address]) == 2
    text = capsys.readouterr().err
    assert text.startswith("resources: each trial of SmallCNN asks for ")
    assert "4 GPUs" in text
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "tiles").glob("*/parts/*"))


def test_a_cluster_whose_nodes_are_still_joining_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = iter([Capacity(({"CPU": 2.0},)), Capacity(({"CPU": 2.0}, {"CPU": 2.0, "GPU": 1.0}))])
    monkeypatch.setattr(cluster, "capacity", lambda address: next(seen))
    assert cluster.slots(Resources(gpus=1), ["VGG16"], "a cluster").gpus == 1
