"""Reckon what a trial requests, what a cluster has, and how many trials it can hold.

Nothing here asks Ray; `moa_ray.execution.cluster` does, and hands its answer in as a `Capacity`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

Amounts = Mapping[str, float]  # amount of each resource, by Ray's name for it: CPU, GPU, custom ones

ACCELERATOR = "accelerator_type:"  # how Ray names the kind of a node's GPUs, of which each node has one
_AHEAD = 4  # trials for which an autoscaler is asked at first; from there on it may double what is there
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Demand:
    """The resources that one trial requests.

    Attributes
    ----------
    cpus : float
        CPU cores.
    gpus : float
        GPUs, or a share of one.
    others : tuple of tuple of str, float
        Custom resources and their amounts.
    """

    cpus: float
    gpus: float
    others: tuple[tuple[str, float], ...] = ()

    @property
    def amounts(self) -> dict[str, float]:
        """The amounts by Ray's names, without those that are zero."""
        named = {"CPU": self.cpus, "GPU": self.gpus, **dict(self.others)}
        return {name: amount for name, amount in named.items() if amount}

    def fits(self, free: Amounts) -> bool:
        """Return whether a node can hold the trial.

        Parameters
        ----------
        free : mapping of str to float
            What the node has, by Ray's names.

        Returns
        -------
        bool
            True if it has enough of everything.
        """
        return all(free.get(name, 0.0) >= amount - _ROUNDING for name, amount in self.amounts.items())

    def __str__(self) -> str:
        return as_text(self.amounts)


@dataclass(frozen=True)
class Slots:
    """What each trial gets, and how many trials run at once.

    Attributes
    ----------
    cpus : float
        CPU cores.
    gpus : float
        GPUs, or a share of one.
    concurrent : int or None
        Run at most so many trials at once; None for as many as the cluster holds.
    others : tuple of tuple of str, float
        Custom resources and their amounts.
    by_backbone : mapping of str to Demand
        What trials of some backbones get instead.
    patience : float
        Minutes to wait for a node that can hold a trial.
    """

    cpus: float
    gpus: float
    concurrent: int | None = None
    others: tuple[tuple[str, float], ...] = ()
    by_backbone: Mapping[str, Demand] = field(default_factory=dict)
    patience: float = 30.0

    def of(self, backbone: str) -> Demand:
        """Return what a trial of a backbone gets.

        Parameters
        ----------
        backbone : str
            Name of the backbone.

        Returns
        -------
        Demand
            Its own resources where the sweep file gives it some, else those of all trials.
        """
        return self.by_backbone.get(backbone, Demand(self.cpus, self.gpus, self.others))

    @property
    def demands(self) -> set[Demand]:
        """All demands that a trial may have."""
        return {Demand(self.cpus, self.gpus, self.others), *self.by_backbone.values()}

    def may_begin(self, capacity: "Capacity", begun: Collection[Demand], demand: Demand) -> bool:
        """Return whether one more trial may begin, or wait for a node that an autoscaler adds.

        Parameters
        ----------
        capacity : Capacity
            What the cluster has.
        begun : collection of Demand
            The trials that run or wait.
        demand : Demand
            The further trial.

        Returns
        -------
        bool
            False where `concurrent` trials have begun, and where the cluster has no room.
        """
        return (self.concurrent is None or len(begun) < self.concurrent) and capacity.has_room(begun, demand)


@dataclass(frozen=True)
class NodeType:
    """A type of nodes that an autoscaler may add.

    Attributes
    ----------
    name : str
        The autoscaler's name for it.
    amounts : mapping of str to float
        The resources of each node; empty where they are not known before one is there.
    most : int
        How many there may be.
    """

    name: str
    amounts: Amounts
    most: int

    def may_hold(self, demand: Demand) -> bool:
        """Return whether a node of the type could hold a trial.

        Parameters
        ----------
        demand : Demand
            What the trial requests.

        Returns
        -------
        bool
            True also where the resources of such a node are not known.
        """
        return not self.amounts or demand.fits(self.amounts)


@dataclass(frozen=True)
class Capacity:
    """What the nodes of a cluster have in all, busy or not, and what an autoscaler may add.

    Attributes
    ----------
    nodes : tuple of mapping of str to float
        The resources of each node, by Ray's names.
    types : tuple of NodeType
        The node types of the autoscaler.
    room : int
        How many nodes it may still add, of all types together.
    """

    nodes: tuple[Amounts, ...]
    types: tuple[NodeType, ...] = ()
    room: int = 0

    @property
    def addable(self) -> list[NodeType]:
        """The types of which a node may still be added."""
        return [kind for kind in self.types if self.room > 0 and kind.most > 0]

    def fits(self, demand: Demand) -> bool:
        """Return whether a node that is there could hold a trial.

        Parameters
        ----------
        demand : Demand
            What the trial requests.

        Returns
        -------
        bool
            True if some node has enough in all, busy or not.
        """
        return any(map(demand.fits, self.nodes))

    def may_fit(self, demand: Demand) -> bool:
        """Return whether a node that is there or may be added could hold a trial.

        Parameters
        ----------
        demand : Demand
            What the trial requests.

        Returns
        -------
        bool
            True if the trial may ever run.
        """
        return self.fits(demand) or any(kind.may_hold(demand) for kind in self.addable)

    def has_room(self, begun: Collection[Demand], demand: Demand) -> bool:
        """Return whether one more trial finds a place, or may wait for one.

        Trials that wait are what makes an autoscaler add nodes: as many may wait as run, and a few at the start, but no
        more than it may add nodes for. On a cluster that does not grow only a first trial waits, since it must run some
        time.

        Parameters
        ----------
        begun : collection of Demand
            The trials that run or wait.
        demand : Demand
            The further trial.

        Returns
        -------
        bool
            True where it may begin.
        """
        if not begun:
            return True
        waiting = _without_place([*begun, demand], self.nodes)
        if not waiting:
            return True
        if demand not in waiting or len(waiting) > max(_AHEAD, len(begun) + 1 - len(waiting)):
            return False
        return not _without_place(waiting, self._additional(len(waiting), demand))

    def at_once(self, demand: Demand, most: int) -> int:
        """Return how many trials may begin together.

        Parameters
        ----------
        demand : Demand
            What each of them requests.
        most : int
            No more than these are wanted.

        Returns
        -------
        int
            At least 1.
        """
        begun: list[Demand] = []
        while len(begun) < most and self.has_room(begun, demand):
            begun.append(demand)
        return max(1, len(begun))

    def _additional(self, count: int, demand: Demand) -> list[Amounts]:
        """Return as many nodes as may be added; one whose type is not known is taken to hold one trial."""
        return [
            kind.amounts or demand.amounts for kind in self.addable for _ in range(min(kind.most, self.room, count))
        ]

    def __str__(self) -> str:
        nodes = [_times(count, "node") + f" with {text}" for text, count in _counted(map(as_text, self.nodes))]
        addable = [
            f"an autoscaler may add up to {_times(min(kind.most, self.room), 'node')} of type {kind.name} with "
            + (as_text(kind.amounts) if kind.amounts else "what they turn out to have")
            for kind in self.addable
        ]
        return "; ".join([*nodes, *addable])


def _without_place(demands: Iterable[Demand], nodes: Iterable[Amounts]) -> list[Demand]:
    """Return the trials that find no place: the larger first, each put where the least of what it lacks is wasted."""
    free = [dict(node) for node in sorted(nodes, key=_worth)]
    waiting = []
    for demand in sorted(demands, key=lambda demand: _worth(demand.amounts), reverse=True):
        node = next(filter(demand.fits, free), None)
        if node is None:
            waiting.append(demand)
        else:
            node |= {name: node[name] - amount for name, amount in demand.amounts.items()}
    return waiting


def _worth(amounts: Amounts) -> tuple[int, float, float]:
    """Return the key by which nodes are spared: custom resources, then GPUs, then CPUs."""
    custom = [name for name in _requestable(amounts) if name not in ("CPU", "GPU")]
    return len(custom), amounts.get("GPU", 0.0), amounts.get("CPU", 0.0)


def _requestable(amounts: Amounts) -> dict[str, float]:
    """Drop memory and node resources, which no trial requests."""
    requestable = {
        name: amount for name, amount in amounts.items() if "memory" not in name and not name.startswith("node:")
    }
    return {
        name: requestable[name] for name in sorted(requestable, key=lambda name: (name != "CPU", name != "GPU", name))
    }


def as_text(amounts: Amounts) -> str:
    """Return amounts as a list for people, e.g. ``4 CPUs, 1 GPU, 1 big, accelerator A100``.

    Parameters
    ----------
    amounts : mapping of str to float
        Resources by Ray's names.

    Returns
    -------
    str
        CPUs, GPUs, then custom resources; zeros, memory and node names are left out.
    """
    nonzero = {name: amount for name, amount in _requestable(amounts).items() if amount}
    return ", ".join(
        f"accelerator {name.removeprefix(ACCELERATOR)}"
        if name.startswith(ACCELERATOR)
        else (_times(amount, name) if name in ("CPU", "GPU") else f"{amount:g} {name}")
        for name, amount in nonzero.items()
    )


def _times(count: float, what: str) -> str:
    return f"{count:g} {what}" if count <= 1 else f"{count:g} {what}s"


def _counted(texts: Iterable[str]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for text in texts:
        counts[text or "nothing"] = counts.get(text or "nothing", 0) + 1
    return list(counts.items())
