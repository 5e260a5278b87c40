"""The files that clusters are made from: Ray's own schema, one version of everything, and nothing open to a network."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

CLOUDS = ["cluster.yaml", "docker/cluster.gcp.yaml"]
CLUSTERS = [*CLOUDS, "docker/cluster.local.yaml"]
COMPOSE = ["docker/compose.yaml", "docker/compose.gpu.yaml"]
OURS_ALONE = "~/.ray/auth_token"  # on the machine that starts the cluster, not in the repository


def read(path: Path) -> dict[str, Any]:
    plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(plain, dict)
    return plain


def lock(repo: Path) -> dict[str, str]:
    lines = (repo / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def node_types(config: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The head's type and the workers'."""
    types = dict(config["available_node_types"])
    return types.pop(config["head_node_type"]), list(types.values())


@pytest.mark.parametrize("name", CLUSTERS)
def test_ray_accepts_a_cluster_file_and_refuses_it_with_a_misspelt_key(repo: Path, name: str) -> None:
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = read(repo / name)
    validate_config(prepare_config(config))
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout"):
        validate_config(prepare_config(config | {"idle_timeout": 5}))


@pytest.mark.parametrize("name", CLOUDS)
def test_cloud_workers_have_gpus_come_when_wanted_and_go_when_idle(repo: Path, name: str) -> None:
    from ray.autoscaler._private.util import prepare_config

    config = prepare_config(read(repo / name))
    head, workers = node_types(config)
    assert head["resources"] == {"CPU": 0}
    assert config["idle_timeout_minutes"] > 0
    for worker in workers:
        assert worker["min_workers"] == 0
        assert 0 < worker["max_workers"] <= config["max_workers"]
        assert "spot" in str(worker["node_config"]) or "preemptible" in str(worker["node_config"])


def test_nodes_are_set_up_and_started_alike_everywhere(repo: Path) -> None:
    first, *others = [read(repo / name) for name in CLUSTERS]
    for key in ("file_mounts", "rsync_exclude", "setup_commands", "head_start_ray_commands"):
        assert [other[key] for other in others] == [first[key]] * len(others)
    # Machines that are given back need not be left as they were found; one's own do, by a last command.
    start = first["worker_start_ray_commands"]
    assert [other["worker_start_ray_commands"][: len(start)] for other in others] == [start] * len(others)
    longer = [name for name in CLUSTERS if len(read(repo / name)["worker_start_ray_commands"]) > len(start)]
    assert longer == ["docker/cluster.local.yaml"]


def test_what_is_mounted_is_all_that_the_package_is_made_from(repo: Path) -> None:
    mounts = read(repo / "cluster.yaml")["file_mounts"]
    project = tomllib.loads((repo / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ours = {remote.removeprefix("~/moa_ray/"): local for remote, local in mounts.items() if local != OURS_ALONE}
    assert all(remote == local and (repo / local).exists() for remote, local in ours.items())
    assert {"moa_ray", "pyproject.toml", "constraints.txt", project["readme"], *project["license-files"]} <= set(ours)


@pytest.mark.parametrize("name", [*CLUSTERS, "docker/Dockerfile"])
def test_extras_that_a_file_installs_exist(repo: Path, name: str) -> None:
    extras = tomllib.loads((repo / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    asked = re.findall(r"(?:\.\[|echo ,|EXTRAS=)(\w+)", (repo / name).read_text(encoding="utf-8"))
    assert {"cluster", "gpu"} <= set(asked) <= set(extras)


@pytest.mark.parametrize("name", CLUSTERS)
def test_commands_are_whole_in_the_shell(repo: Path, name: str) -> None:
    commands = [line for key, lines in read(repo / name).items() if key.endswith("_commands") for line in lines]
    for command in commands:
        checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, ""), command


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_dashboard_listens_on_the_head_alone_and_ray_asks_for_the_token(repo: Path, name: str) -> None:
    config = read(repo / name)
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert config["file_mounts"][OURS_ALONE] == OURS_ALONE
    assert any("RAY_AUTH_MODE=token" in line for line in config["setup_commands"])


def test_services_listen_on_this_machine_alone_and_keep_privileges_off(repo: Path) -> None:
    services = read(repo / "docker/compose.yaml")["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert {port.split(":")[-1] for port in published} == {"8265", "5000"}
    assert all(port.startswith("127.0.0.1:") for port in published)
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert "privileged" not in service


def test_compose_names_only_volumes_and_services_that_it_has(repo: Path) -> None:
    compose = read(repo / "docker/compose.yaml")
    mounted = [volume.split(":/")[0] for service in compose["services"].values() for volume in service["volumes"]]
    assert {re.sub(r"\$\{\w+:-(\w+)\}", r"\1", volume) for volume in mounted} == set(compose["volumes"])
    for service in compose["services"].values():
        assert set(service.get("depends_on", {})) <= set(compose["services"])
    assert set(read(repo / "docker/compose.gpu.yaml")["services"]) <= set(compose["services"])


@pytest.mark.parametrize("name", [*CLUSTERS, "docker/Dockerfile"])
def test_images_hold_the_versions_of_the_lock(repo: Path, name: str) -> None:
    text = (repo / name).read_text(encoding="utf-8")
    python = re.findall(r"--python-version (\S+)", (repo / "constraints.txt").read_text(encoding="utf-8"))[0]
    rays = re.findall(r"rayproject/ray:(\S+?)-py(\d)(\d+)", text)
    assert {version for version, *_ in rays} <= {lock(repo)["ray"]}
    pythons = {f"{major}.{minor}" for _, major, minor in rays} | set(re.findall(r"python:?(3\.\d+)", text))
    assert pythons == {python}


def test_images_are_built_from_stages_that_the_dockerfile_has(repo: Path) -> None:
    stages = set(re.findall(r"(?m)^FROM \S+ AS (\w+)$", (repo / "docker/Dockerfile").read_text(encoding="utf-8")))
    for name in COMPOSE:
        for service in read(repo / name)["services"].values():
            assert service["build"]["target"] in stages
            assert service["image"] == f"moa_ray:{service['build']['target']}"


def test_docker_is_sent_what_it_copies_and_nothing_else(repo: Path) -> None:
    dockerfile = (repo / "docker/Dockerfile").read_text(encoding="utf-8")
    copied = {source for line in re.findall(r"(?m)^COPY (.+)$", dockerfile) for source in line.split()[:-1]}
    ignored, *kept = [
        line for line in (repo / ".dockerignore").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    assert ignored == "*"
    assert {line.removeprefix("!") for line in kept if line.startswith("!")} == copied
    assert all((repo / source).exists() for source in copied)
