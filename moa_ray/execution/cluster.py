"""Connect to Ray, and ask what its nodes have and may get.

What can be told without Ray is in `moa_ray.execution.capacity`, Ray Tune in `moa_ray.execution.tune`.
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import yaml

from moa_ray.common.errors import InputError
from moa_ray.config.resources import Resources
from moa_ray.execution.allocation import refusal, share_out
from moa_ray.execution.capacity import Amounts, Capacity, NodeType, Slots

# Ray reads these when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
_MANY = 1000  # nodes, where it is not known how many may come
_JOINING = 40  # seconds in which the nodes of a cluster that is being started must have joined
_SCALING = Path("~/ray_bootstrap_config.yaml")  # what `ray up` tells the autoscaler, on the head
_ALONE = "moa_ray-alone"  # the namespace of a Ray that no node can join


@contextlib.contextmanager
def connect(address: str | None) -> Iterator[None]:
    """Connect to Ray for the length of a block.

    A process that is connected already (a notebook, a session of tests) keeps its connection: it is used as it is and
    stays open.

    Parameters
    ----------
    address : str or None
        The address of a cluster, e.g. ``auto``. By default the one that the variable RAY_ADDRESS names, else a Ray of
        this machine alone that ends with the block.

    Yields
    ------
    None

    Raises
    ------
    InputError
        If no cluster answers at the address.
    """
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    environment = {
        **{"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"},
        # A process takes of a GPU's memory what it needs, not all: others may share it.
        **{"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
    }
    address = resolve_address(address)
    local = {"include_dashboard": False, "namespace": _ALONE} if address == "local" else {}
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, runtime_env={"env_vars": environment}, **quiet, **local)
    except ConnectionError as error:
        raise InputError(f"--address {address}: no Ray cluster answers there: {error}") from None
    # Ray sets a handler of its own, by which a job that is stopped would end with a status of Ray's.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        ray.shutdown()


def is_alone() -> bool:
    """Return whether Ray is this machine's alone.

    Returns
    -------
    bool
        True where no other node is there or may ever join.
    """
    return bool(ray.get_runtime_context().namespace == _ALONE)


def resolve_address(address: str | None) -> str:
    """Return the address that a command connects to.

    Parameters
    ----------
    address : str or None
        The one that the user gave.

    Returns
    -------
    str
        That one, else the variable RAY_ADDRESS, which Ray sets for submitted jobs, else ``local``.
    """
    return address or os.environ.get("RAY_ADDRESS") or "local"  # Ray sets the variable for submitted jobs


def slots(resources: Resources, backbones: Collection[str], address: str | None) -> Slots:
    """Return what each trial gets of the connected cluster; nodes that are still joining are waited for.

    Parameters
    ----------
    resources : Resources
        What the sweep file asks for.
    backbones : collection of str
        The backbones of the sweep.
    address : str or None
        The address that the user gave.

    Returns
    -------
    Slots
        The resources of each trial, and how many may run at once.

    Raises
    ------
    InputError
        If the trials of some backbone can never have a place: they fit into no node, busy or not, and into none that an
        autoscaler may add.
    """
    deadline = time.monotonic() + (0 if resolve_address(address) == "local" else _JOINING)
    while True:
        have = capacity(address)
        slots = share_out(resources, backbones, have)
        problem = refusal(slots, backbones, have)
        if problem is None:
            return slots
        if time.monotonic() >= deadline:
            raise InputError(problem)
        time.sleep(1)


def capacity(address: str | None = None) -> Capacity:
    """Return what the nodes have now, busy or not, and what an autoscaler may add.

    ``ray up`` leaves its file on the head, where a submitted driver finds it. Elsewhere only a label of the nodes tells
    that there is an autoscaler (on Kubernetes, say), and not what it may add.

    Parameters
    ----------
    address : str, optional
        The address that the user gave.

    Returns
    -------
    Capacity
        The nodes that are alive, and the node types that may come.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    totals = [node["Resources"] for node in nodes]
    if resolve_address(address) == "local":
        return Capacity(tuple(totals))
    try:
        return scaled(totals, yaml.safe_load(_SCALING.expanduser().read_text()))
    except FileNotFoundError:
        is_scaled = any("ray.io/node-group" in node["Labels"] for node in nodes)
        unknown = NodeType("unknown", {}, _MANY)
        return Capacity(tuple(totals), (unknown,) if is_scaled else (), _MANY)


def scaled(nodes: Sequence[Amounts], config: Mapping[str, Any]) -> Capacity:
    """Return the capacity of a cluster with an autoscaler.

    Parameters
    ----------
    nodes : sequence of mapping of str to float
        The resources of each node that is there, the head among them.
    config : mapping of str to Any
        What ``ray up`` was told, with the defaults that it filled in.

    Returns
    -------
    Capacity
        The nodes, and the node types that may still be added.
    """
    types = (
        NodeType(name, kind["resources"], kind["max_workers"]) for name, kind in config["available_node_types"].items()
    )
    workers = len(nodes) - 1  # the head is none
    return Capacity(tuple(nodes), tuple(types), max(0, config["max_workers"] - workers))
