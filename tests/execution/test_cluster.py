"""Tiles prepared by the nodes of a cluster: several raylets on this machine, each a node to Ray."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from buckets import Server
from pyarrow import fs
from ray.cluster_utils import Cluster

from moa_ray.common.errors import InputError, StuckError
from moa_ray.common.uri import Uri, place
from moa_ray.config.painting import Painting
from moa_ray.config.preparation import Preparation
from moa_ray.execution import cluster, preparers
from moa_ray.execution.capacity import Demand
from moa_ray.screens import bbbc021, bucket_cache
from moa_ray.screens.painted_bbbc021 import paint
from moa_ray.screens.screen import Screen
from moa_ray.tiles.build import prepare
from moa_ray.tiles.workers import ThreadExecutor

pytestmark = pytest.mark.ray

PATIENCE = 120  # seconds after which what takes seconds is taken for hung
PAINTING = Painting(labels=2, compounds=2, concentrations=1, replicates=2, fields=2, height=64, width=80, cells=5)


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[Cluster]:
    """A head and two more nodes, one core each."""
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        started.add_node(num_cpus=1)
    started.wait_for_nodes()
    yield started
    started.shutdown()


@pytest.fixture
def joined(three_nodes: Cluster) -> Iterator[None]:
    with cluster.connect(three_nodes.address):
        yield


@pytest.fixture
def screen(tmp_path: Path) -> Screen:
    paint(tmp_path / "painted", PAINTING)
    return bbbc021.open_screen(tmp_path / "painted")


def executor(screen: Screen, warnings: list[str] | None = None) -> preparers.ClusterExecutor:
    """For a test that has joined the cluster already."""
    return preparers.ClusterExecutor(lambda: None, screen, ([] if warnings is None else warnings).append)


def node_ids() -> list[str]:
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def where(folder: Path, together: int) -> Callable[[int], str]:
    """Work that says on which node it ran, once it has run on so many nodes at the same time."""

    def work(job: int) -> str:
        node: str = ray.get_runtime_context().get_node_id()
        (folder / node).touch()
        deadline = time.monotonic() + PATIENCE
        while len(list(folder.iterdir())) < together:
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)
        return node

    return work


@pytest.mark.usefixtures("joined")
def test_nodes_make_the_tiles_that_threads_make(screen: Screen, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    warnings: list[str] = []
    alone = prepare(screen, Preparation(), [16, 32], tmp_path / "alone", ThreadExecutor(2), lambda done, total: None)
    spread = prepare(
        screen,
        Preparation(),
        [16, 32],
        tmp_path / "spread",
        executor(screen, warnings),
        lambda *both: seen.append(both),
    )
    assert spread.table.equals(alone.table)
    for size in alone.sizes:
        assert spread.file(size).read_bytes() == alone.file(size).read_bytes()
    assert seen == [(done, len(screen.fields)) for done in range(1, len(screen.fields) + 1)]
    assert warnings == []


@pytest.mark.usefixtures("joined")
def test_a_cluster_that_was_joined_is_not_this_machine_alone() -> None:
    assert not cluster.is_alone()


@pytest.mark.usefixtures("joined")
def test_all_nodes_work_and_results_keep_the_order_of_the_jobs(screen: Screen, tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    folder.mkdir()
    assert set(executor(screen).map(where(folder, together=3), range(12))) == set(node_ids())
    assert list(executor(screen).map(lambda job: job * job, range(12))) == [job * job for job in range(12)]


@pytest.mark.usefixtures("joined")
def test_nodes_read_a_screen_in_its_bucket_and_need_no_copy(s3: Server, screen: Screen, tmp_path: Path) -> None:
    fs.copy_files(str(screen.root), "ours/painted", destination_filesystem=s3.system)
    source = place(s3.uri("ours/painted") + "&anonymous=true")
    assert isinstance(source, Uri)
    copy = replace(screen, root=bucket_cache.fetch(source, lambda progress: None), source=source)
    settings = Preparation(), [16]
    alone = prepare(copy, *settings, tmp_path / "alone", ThreadExecutor(2), lambda done, total: None)
    first = screen.fields["Path_Actin"].iloc[0]
    for image in copy.root.rglob("*.tif"):
        if image != copy.root / first:
            image.unlink()
    spread = prepare(copy, *settings, tmp_path / "spread", executor(copy), lambda done, total: None)
    assert spread.file(16).read_bytes() == alone.file(16).read_bytes()


@pytest.mark.usefixtures("joined")
def test_only_so_many_fields_are_in_flight(screen: Screen) -> None:
    drawn: list[int] = []

    def jobs() -> Iterator[int]:
        for job in range(30):
            drawn.append(job)
            yield job

    for taken, _ in enumerate(executor(screen).map(lambda job: job, jobs())):
        assert len(drawn) - taken <= 6


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize("role", ["labelled", "controls"])
def test_all_fields_that_no_node_can_read_are_named_together(screen: Screen, tmp_path: Path, role: str) -> None:
    broken = list(getattr(screen, role)["Path_Actin"].iloc[1::3])
    for location in broken:
        (screen.root / location).write_bytes(b"no image")
    with pytest.raises(ValueError, match=f"{len(broken)} fields cannot be prepared") as caught:
        prepare(screen, Preparation(), [32], tmp_path / "store", executor(screen), lambda done, total: None)
    assert type(caught.value) is InputError
    assert all(f"{location}: unreadable" in str(caught.value) for location in broken)


@pytest.mark.usefixtures("joined")
def test_nodes_that_fail_a_probe_are_left_out() -> None:
    wrong, broken, right = node_ids()

    def probe() -> bool:
        node = ray.get_runtime_context().get_node_id()
        if node == broken:
            raise OSError("stale file handle")
        return bool(node == right)

    assert preparers.passing([wrong, broken, right], probe) == [right]
    assert preparers.passing(node_ids(), lambda: True) == [wrong, broken, right]


@pytest.mark.usefixtures("joined")
def test_a_node_that_does_not_see_the_screen_gets_no_field_and_is_counted(
    screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = next(node for node in node_ids() if node != ray.get_runtime_context().get_node_id())
    monkeypatch.setattr(
        "moa_ray.execution.preparers._sees", lambda file, size: ray.get_runtime_context().get_node_id() != blind
    )
    warnings: list[str] = []
    folder = tmp_path / "seen"
    folder.mkdir()
    workers = executor(screen, warnings)
    assert set(workers.map(where(folder, together=2), range(12))) == set(node_ids()) - {blind}
    list(workers.map(lambda job: job, range(3)))
    (warning,) = warnings  # said once
    assert warning.startswith(f"1 of 3 nodes do not see {screen.root.resolve()}")


@pytest.mark.usefixtures("joined")
def test_threads_of_this_process_work_where_no_other_node_sees_the_screen(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ray.get_runtime_context().get_node_id()
    monkeypatch.setattr(
        "moa_ray.execution.preparers._sees", lambda file, size: ray.get_runtime_context().get_node_id() == own
    )
    warnings: list[str] = []
    assert set(executor(screen, warnings).map(lambda job: os.getpid(), range(4))) == {os.getpid()}
    assert warnings[0].startswith("2 of 3 nodes")


def test_a_file_of_another_size_is_not_the_screens(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    file.write_bytes(b"1234")
    assert preparers._sees(file, 4)
    assert not preparers._sees(file, 5)
    assert not preparers._sees(tmp_path / "elsewhere" / "a.tif", 4)


@pytest.mark.usefixtures("joined")
def test_jobs_of_a_node_that_is_lost_run_again_elsewhere(three_nodes: Cluster, screen: Screen, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    begun.mkdir()
    victim = three_nodes.add_node(num_cpus=1)
    three_nodes.wait_for_nodes()

    def work(job: int) -> str:
        node: str = ray.get_runtime_context().get_node_id()
        (begun / node).touch()
        while not go.exists():
            time.sleep(0.01)
        return node

    def lose() -> None:
        deadline = time.monotonic() + PATIENCE
        while not (begun / victim.node_id).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        three_nodes.remove_node(victim, allow_graceful=False)
        go.touch()

    killer = threading.Thread(target=lose)
    killer.start()
    nodes = list(executor(screen).map(work, range(12)))
    killer.join()
    assert (begun / victim.node_id).exists()
    assert len(nodes) == 12
    assert victim.node_id not in nodes


@pytest.mark.usefixtures("joined")
def test_a_node_that_joins_later_gets_fields(
    three_nodes: Cluster, screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moa_ray.execution.preparers._GLANCE", 0)
    (tmp_path / "seen").mkdir()
    on_all_four, late = where(tmp_path / "seen", together=4), list[Any]()

    def jobs() -> Iterator[int]:
        yield from range(6)
        late.append(three_nodes.add_node(num_cpus=1))
        three_nodes.wait_for_nodes()
        yield from range(6, 18)

    nodes = set(executor(screen).map(lambda job: on_all_four(job) if job >= 6 else "", jobs()))
    three_nodes.remove_node(late[0])
    assert late[0].node_id in nodes


@pytest.mark.usefixtures("joined")
def test_when_all_nodes_that_see_the_screen_are_lost_that_is_said(
    three_nodes: Cluster, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moa_ray.execution.preparers._GLANCE", 1)
    seeing = three_nodes.add_node(num_cpus=1)
    three_nodes.wait_for_nodes()
    node = seeing.node_id
    monkeypatch.setattr(
        "moa_ray.execution.preparers._sees", lambda file, size: ray.get_runtime_context().get_node_id() == node
    )
    fields = executor(screen, []).map(lambda job: job, iter(range(1000)))
    next(fields)
    three_nodes.remove_node(seeing, allow_graceful=False)
    with pytest.raises(StuckError, match=r"every node that sees .* is lost"):
        list(fields)


def test_what_ray_up_was_told_says_what_may_be_added() -> None:
    from ray.autoscaler._private.util import prepare_config

    told = {
        "cluster_name": "test",
        "max_workers": 5,
        "provider": {"type": "aws", "region": "eu-north-1"},
        "auth": {"ssh_user": "ubuntu"},
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 4}, "node_config": {}},
            "gpu": {"resources": {"CPU": 8, "GPU": 1}, "node_config": {}, "max_workers": 4},
            "cpu": {"resources": {"CPU": 32}, "node_config": {}},
        },
    }
    have = cluster.scaled([{"CPU": 4.0}, {"CPU": 8.0, "GPU": 1.0}], prepare_config(told))
    assert {kind.name: kind.most for kind in have.addable} == {"gpu": 4, "cpu": 5}
    assert have.room == 4
    config = {
        "cluster_name": "test",
        "provider": {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2", "10.0.0.3"]},
        "auth": {"ssh_user": "ubuntu"},
    }
    machines = cluster.scaled([{"CPU": 4.0}] * 2, prepare_config(config))
    assert machines.may_fit(Demand(1.0, 1.0))  # the third may have a GPU
    assert not cluster.scaled([{"CPU": 4.0}] * 3, prepare_config(config)).may_fit(Demand(1.0, 1.0))


def test_this_machine_alone_starts_no_ray(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = ray.is_initialized()
    with preparers.field_executor(None, screen, pytest.fail) as workers:
        assert workers is None
        assert ray.is_initialized() == before


def test_a_whole_store_joins_no_cluster(screen: Screen, tmp_path: Path) -> None:
    whole = prepare(screen, Preparation(), [32], tmp_path, ThreadExecutor(2), lambda done, total: None)
    with preparers.field_executor("127.0.0.1:1", screen, pytest.fail) as workers:
        assert workers is not None
        assert prepare(screen, Preparation(), [32], tmp_path, workers, lambda done, total: None).path == whole.path


@pytest.mark.slow
def test_the_command_prepares_on_a_cluster_and_counts_its_fields(three_nodes: Cluster, tmp_path: Path) -> None:
    plain = {
        "study": "tiny",
        "seed": 3,
        "out": str(tmp_path / "out"),
        "tiles": str(tmp_path / "tiles"),
        "screen": {
            "name": "synthetic",
            "root": str(tmp_path / "painted"),
            "painting": {"labels": 2, "compounds": 2, "concentrations": 1, "replicates": 2, "height": 96, "width": 96},
        },
        "recipe": {"backbone": "SmallCNN", "weights": "random", "image_size": 32, "epochs": 2, "batch_size": 8},
    }
    sweep = tmp_path / "tiny.yaml"
    sweep.write_text(yaml.safe_dump(plain))
    command = [sys.executable, "-m", "moa_ray.prepare", str(sweep), "--address", three_nodes.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "32 of 32 fields" in done.stdout
    assert "tiles of 32 px" in done.stdout
    assert "warning" not in done.stdout
