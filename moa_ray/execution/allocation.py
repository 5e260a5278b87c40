"""Decide what each trial gets: ``auto`` is filled in by what the cluster has, and what can never run is refused."""

from collections.abc import Collection, Iterable

from moa_ray.config.resources import Resources
from moa_ray.execution.capacity import ACCELERATOR, Amounts, Capacity, Demand, Slots

_LITTLE = 0.001  # the amount of an accelerator type that a trial requests; Ray's own accelerator_type requests as much


def share_out(resources: Resources, backbones: Collection[str], capacity: Capacity) -> Slots:
    """Return what each trial gets, with ``auto`` filled in by what the cluster has.

    Parameters
    ----------
    resources : Resources
        What the sweep file asks for. ``gpus: auto`` is one GPU where any node has or may have one.
    backbones : collection of str
        The backbones of the sweep.
    capacity : Capacity
        What the cluster has and may get.

    Returns
    -------
    Slots
        The resources of each trial, and how many may run at once.
    """
    default = _demand(resources, capacity)
    by_backbone = {
        backbone: _demand(resources.model_copy(update=own.model_dump(exclude_none=True)), capacity)
        for backbone, own in resources.by_backbone.items()
        if backbone in backbones
    }
    if by_backbone and by_backbone.keys() >= set(backbones):  # no trial requests the default
        default = next(iter(by_backbone.values()))
    return Slots(default.cpus, default.gpus, resources.concurrent, default.others, by_backbone, resources.patience)


def _demand(resources: Resources, capacity: Capacity) -> Demand:
    machines = [*capacity.nodes, *(kind.amounts for kind in capacity.addable)]
    gpus = float(any(node.get("GPU") for node in machines)) if resources.gpus == "auto" else resources.gpus
    others = dict(resources.custom)
    if resources.accelerator_type is not None:
        others[ACCELERATOR + resources.accelerator_type] = _LITTLE
    without_cpus = Demand(0.0, gpus, tuple(sorted(others.items())))
    # Nodes that are there count first; those that may come count only where none of the others would do.
    fitting = [node for node in capacity.nodes if without_cpus.fits(node)]
    fitting = fitting or [node for node in machines if without_cpus.fits(node)]
    cpus = _cpus(gpus, fitting) if resources.cpus == "auto" else resources.cpus
    return Demand(float(cpus), gpus, without_cpus.others)


def _cpus(gpus: float, nodes: Collection[Amounts]) -> int:
    """Share a node's CPUs out among its GPUs; without GPUs give a trial few, since small steps scale badly."""
    if gpus:
        shares = [int(node.get("CPU", 0.0) * gpus / node["GPU"]) for node in nodes]
        return max(1, min(shares, default=1))
    return max(1, int(max((node.get("CPU", 0.0) for node in nodes), default=0.0)) // 8)


def refusal(slots: Slots, backbones: Iterable[str], capacity: Capacity) -> str | None:
    """Return why a sweep cannot begin, if no node could ever hold the trials of some backbone.

    Parameters
    ----------
    slots : Slots
        What each trial gets.
    backbones : iterable of str
        The backbones of the sweep.
    capacity : Capacity
        What the cluster has and may get.

    Returns
    -------
    str or None
        A message for the user; None where trials of every backbone have a place.
    """
    for backbone in backbones:
        demand = slots.of(backbone)
        if not capacity.may_fit(demand):
            key = f"resources.by_backbone.{backbone}" if backbone in slots.by_backbone else "resources"
            return (
                f"{key}: each trial of {backbone} asks for {demand}, which no node has and none can be expected to "
                f"have: there is {capacity}; ask for less (gpus, cpus, custom, accelerator_type), add a node that has "
                "it, or name another cluster with --address"
            )
    return None
