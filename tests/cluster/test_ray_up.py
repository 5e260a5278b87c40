"""Sweeps on a cluster that `ray up docker/cluster.local.yaml` made over ssh: nodes are lost and won back, the head too.

The tests are one story and run in order: each finds the cluster as the one before it left it.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from commands import predictions, results, times

from .hosts import HOME, REPOSITORY, VISIBLE, Host, Hosts, Running, until

# Settings by which nodes are lost and won back in seconds, where Ray's own take minutes.
QUICK = {
    "RAY_health_check_initial_delay_ms": 1000,
    "RAY_health_check_period_ms": 1000,
    "RAY_health_check_timeout_ms": 2000,
    "RAY_health_check_failure_threshold": 3,
    "RAY_gcs_rpc_server_reconnect_timeout_s": 20,
    "AUTOSCALER_HEARTBEAT_TIMEOUT_S": 10,
    "AUTOSCALER_UPDATE_INTERVAL_S": 1,
}
TRAINING, NODE = "moa_ray.execution.session", "raylet/raylet"  # words of their commands
DASHBOARD = "--address http://127.0.0.1:8265"
SWEEP: dict[str, Any] = {
    "study": "cluster",
    "seed": 3,
    "tiles": "tiles",
    "screen": {
        "name": "synthetic",
        "root": "painted",
        "painting": {"labels": 2, "compounds": 2, "concentrations": 1, "replicates": 2, "height": 96, "width": 96},
    },
    "recipe": {"backbone": "SmallCNN", "weights": "random", "image_size": 32, "epochs": 12, "batch_size": 8},
    "search": {"space": {"learning_rate": [0.003, 0.002, 0.001, 0.0005]}},
    "resources": {"cpus": 1, "gpus": 1, "concurrent": 2, "retries": 5},
}
TRIALS = 16
# What a sweep makes, relative to where it runs.
MADE = ("painted", "tiles", "runs")


def cluster_file(hosts: Hosts) -> dict[str, Any]:
    """The file of the repository, filled in: hosts that have an environment, and of which the workers claim a GPU."""
    plain: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker" / "cluster.local.yaml").read_text())
    head, *workers = hosts.others
    plain["provider"] |= {"head_ip": head.address, "worker_ips": [worker.address for worker in workers]}
    plain["auth"] = {"ssh_user": "root", "ssh_private_key": "/etc/ssh/key"}
    # In place of the environment's own installation of moa_ray, the one that was copied here is run.
    settings = " ".join(f"{name}={value}" for name, value in QUICK.items())
    plain["setup_commands"][0] = f"echo 'export PYTHONPATH=$HOME/moa_ray {settings}' >> ~/.bashrc"
    for key, gpus in (("head_start_ray_commands", 0), ("worker_start_ray_commands", 1)):
        claims = f"--num-cpus=1 --num-gpus={gpus}"
        plain[key] = [command.replace("ray start ", f"ray start {claims} ") for command in plain[key]]
    return plain


@pytest.fixture(scope="module")
def desk(hosts: Hosts) -> Host:
    """The desk with a clone of the repository, the environment, the cluster file and the cluster's secret."""
    desk = hosts.desk
    for path in ("moa_ray", "sweeps", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        (desk.home / "moa_ray" / path).symlink_to(REPOSITORY / path)
    variables = f"PATH={HOME}/moa_ray/.venv/bin:$PATH PYTHONPATH={HOME}/moa_ray"
    (desk.home / ".bashrc").write_text(f"export {variables} RAY_AUTH_MODE=token RAY_UP_enable_autoscaler_v2=0\n")
    (desk.home / "moa_ray" / "cluster.yaml").write_text(yaml.safe_dump(cluster_file(hosts)))
    desk.run("ray get-auth-token --generate")
    return desk


@pytest.fixture(scope="module")
def cluster(hosts: Hosts, desk: Host) -> Hosts:
    """Hosts that are a cluster, with the sweep file at the desk and on the head."""
    for host in (desk, hosts["head"]):
        (host.home / "moa_ray" / "cluster-sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    desk.run("ray up -y cluster.yaml")
    return hosts


@pytest.fixture(scope="module")
def undisturbed(cluster: Hosts, desk: Host) -> pd.DataFrame:
    """The predictions of the same sweep where it ran on one host alone."""
    desk.run("python -m moa_ray.sweep cluster-sweep.yaml out=runs/alone resources.gpus=0")
    return predictions(desk.home / "moa_ray" / "runs" / "alone")


def submit(head: Host, name: str, folder: str) -> Running:
    """A job that sweeps into a folder; the command shows its output and ends with it."""
    sweep = f"python -m moa_ray.sweep cluster-sweep.yaml out=runs/{folder}"
    return head.start(f"ray job submit {DASHBOARD} --submission-id {name} -- {sweep}")


def out(hosts: Hosts, folder: str) -> Path:
    return hosts["head"].home / "moa_ray" / "runs" / folder


def training(host: Host) -> set[int]:
    return {process.pid for process in host.running(TRAINING)}


def lost_nodes(head: Host) -> int:
    """How many nodes Ray has given up."""
    return head.run("ray list nodes --filter state=DEAD --format json").count('"node_id"')


def assert_equal(folder: Path, undisturbed: pd.DataFrame) -> None:
    """Each trial was done once, with the predictions that it has where nothing is disturbed."""
    assert [result["status"] for result in results(folder)] == ["finished"] * TRIALS
    pd.testing.assert_frame_equal(predictions(folder), undisturbed, atol=1e-6)


def test_sweep_outlives_lost_nodes_uses_them_again_and_equals_one_of_a_single_host(
    cluster: Hosts, undisturbed: pd.DataFrame
) -> None:
    head, cut, killed = cluster.others
    folder = out(cluster, "disturbed")
    job = submit(head, "disturbed", "disturbed")
    until(lambda: training(cut) and training(killed) and len(results(folder)) >= 3, "both workers train", job)
    before, finished = training(cut) | training(killed), times(folder)
    cluster.cut(cut)
    killed.running(NODE)[0].kill()
    until(lambda: lost_nodes(head) >= 2, "Ray gives both nodes up", job)
    cluster.mend(cut)
    until(lambda: training(killed) - before, "the one whose raylet was killed trains again", job)
    until(lambda: training(cut) - before, "the one that was cut off trains again", job)
    job.end()
    assert max(result["attempts"] for result in results(folder)) > 1
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert_equal(folder, undisturbed)


def test_workers_have_the_tiles_and_nothing_else_of_a_sweep(cluster: Hosts) -> None:
    head, *workers = cluster.others
    (tiles,) = (head.home / "moa_ray" / "tiles").glob("*/tiles-32.npy")
    for worker in workers:
        (copy,) = (worker.folder / "tmp").glob("moa_ray-*/*/tiles-32.npy")
        assert copy.read_bytes() == tiles.read_bytes()
        assert [name for name in MADE if (worker.home / "moa_ray" / name).exists()] == []


def test_stopped_job_leaves_its_ledger_intact(cluster: Hosts) -> None:
    head, folder = cluster["head"], out(cluster, "broken-off")
    job = submit(head, "first", "broken-off")
    until(lambda: len(results(folder)) >= 2, "two trials have ended", job)
    head.run(f"ray job stop {DASHBOARD} first")
    assert "the ledger is intact" in job.end()
    assert 2 <= len(results(folder)) < TRIALS
    assert list(folder.glob("ledger/.writing-*")) == []


def test_same_command_goes_on_from_a_stopped_job_and_from_a_lost_head(
    cluster: Hosts, desk: Host, undisturbed: pd.DataFrame
) -> None:
    head, folder = cluster["head"], out(cluster, "broken-off")
    stopped = times(folder)
    enough = len(results(folder)) + 1
    job = submit(head, "second", "broken-off")
    until(lambda: len(results(folder)) >= enough, "more trials have ended", job)
    head.crash()
    crashed = times(folder)
    assert {path: crashed[path] for path in stopped} == stopped
    assert len(results(folder)) < TRIALS
    cluster.boot(head)
    desk.run("ray up -y cluster.yaml")
    submit(head, "third", "broken-off").end()
    assert {path: path.stat().st_mtime_ns for path in crashed} == crashed
    assert_equal(folder, undisturbed)


def test_ray_down_leaves_no_process_and_no_copies(cluster: Hosts, desk: Host) -> None:
    desk.run("ray down -y cluster.yaml")
    until(lambda: not any(host.processes for host in cluster.others), "nothing runs on the hosts")
    # But for Ray's own logs, by which one can look into what happened.
    mounted = {path.relative_to("/tmp").parts[0] for path in VISIBLE if path.is_relative_to("/tmp")}
    for worker in cluster.others[1:]:
        assert {path.name for path in (worker.folder / "tmp").iterdir()} - mounted == {"ray"}
