"""What a trial asks for, what a cluster has, and how many trials it can hold.

Nothing here asks Ray; `moa_ray.cluster` does, and hands its answer in as a `Capacity`.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from moa_ray.command import StuckError
from moa_ray.spec import Resources

Amounts = Mapping[str, float]  # of resources by Ray's names for them: CPU, GPU, custom ones

ACCELERATOR = "accelerator_type:"  # how Ray names the kind of a node's GPUs, of which each node has one
_LITTLE = 0.001  # of it, for being on such a node; Ray's own accelerator_type asks for as much
_AHEAD = 4  # trials for which an autoscaler is asked at first; from there on it may double what is there
_ROUNDING = 1e-9

_LOOK_EVERY, _SAY_EVERY = 2.0, 60.0  # seconds


@dataclass(frozen=True)
class Demand:
    """What one trial asks for.

    others : custom resources and amounts
    """

    cpus: float
    gpus: float
    others: tuple[tuple[str, float], ...] = ()

    @property
    def amounts(self) -> dict[str, float]:
        """By Ray's names, those of which nothing is asked left out."""
        named = {"CPU": self.cpus, "GPU": self.gpus, **dict(self.others)}
        return {name: amount for name, amount in named.items() if amount}

    def fits(self, free: Amounts) -> bool:
        """Whether a node with so much could hold it."""
        return all(free.get(name, 0.0) >= amount - _ROUNDING for name, amount in self.amounts.items())

    def __str__(self) -> str:
        return words(self.amounts)


@dataclass(frozen=True)
class Slots:
    """What each trial gets and how many run at once.

    by_backbone : for trials of some backbones something else
    concurrent : at most so many; None for as many as the cluster holds
    patience : minutes to wait for a node that holds a trial
    """

    cpus: float
    gpus: float
    concurrent: int | None = None
    others: tuple[tuple[str, float], ...] = ()
    by_backbone: Mapping[str, Demand] = field(default_factory=dict)
    patience: float = 30.0

    def of(self, backbone: str) -> Demand:
        """What a trial of a backbone asks for."""
        return self.by_backbone.get(backbone, Demand(self.cpus, self.gpus, self.others))

    @property
    def kinds(self) -> set[Demand]:
        """All that trials may ask for."""
        return {Demand(self.cpus, self.gpus, self.others), *self.by_backbone.values()}

    def may_begin(self, capacity: "Capacity", begun: Collection[Demand], one: Demand) -> bool:
        """Whether one more trial may be begun, or a node asked for that holds it, besides those that are begun."""
        return (self.concurrent is None or len(begun) < self.concurrent) and capacity.has_room(begun, one)


@dataclass(frozen=True)
class NodeType:
    """Nodes that an autoscaler may add.

    amounts : of each; empty where it is not known before one is there
    most : so many at most
    """

    name: str
    amounts: Amounts
    most: int

    def may_hold(self, demand: Demand) -> bool:
        """Whether a node of the type could hold a trial."""
        return not self.amounts or demand.fits(self.amounts)


@dataclass(frozen=True)
class Capacity:
    """What the nodes of a cluster have in all, busy or not, and what an autoscaler may add.

    room : nodes that it may still add, of all types together
    """

    nodes: tuple[Amounts, ...]
    types: tuple[NodeType, ...] = ()
    room: int = 0

    @property
    def addable(self) -> list[NodeType]:
        """The types of which a node may still be added."""
        return [kind for kind in self.types if self.room > 0 and kind.most > 0]

    def fits(self, demand: Demand) -> bool:
        """Whether a node that is there could hold a trial."""
        return any(map(demand.fits, self.nodes))

    def may_fit(self, demand: Demand) -> bool:
        """Whether a node could hold a trial that is there or may be added."""
        return self.fits(demand) or any(kind.may_hold(demand) for kind in self.addable)

    def has_room(self, begun: Collection[Demand], one: Demand) -> bool:
        """Whether one more trial finds a place, or may wait for one.

        Trials that wait are what makes an autoscaler add nodes: as many may as there are running, and a few at the
        start, but no more than it may add nodes for. On a cluster that does not grow only a first one waits, for what
        must run some time.
        """
        if not begun:
            return True
        waiting = _without_place([*begun, one], self.nodes)
        if not waiting:
            return True
        if one not in waiting or len(waiting) > max(_AHEAD, len(begun) + 1 - len(waiting)):
            return False
        return not _without_place(waiting, self._additional(len(waiting), one))

    def at_once(self, demand: Demand, most: int) -> int:
        """How many trials may be begun together, at least one."""
        begun: list[Demand] = []
        while len(begun) < most and self.has_room(begun, demand):
            begun.append(demand)
        return max(1, len(begun))

    def _additional(self, count: int, one: Demand) -> list[Amounts]:
        """So many nodes that may be added; one of a type that is not known holds one trial."""
        return [kind.amounts or one.amounts for kind in self.addable for _ in range(min(kind.most, self.room, count))]

    def __str__(self) -> str:
        there = [_times(count, "node") + f" with {text}" for text, count in _counted(map(words, self.nodes))]
        added = [
            f"an autoscaler may add up to {_times(min(kind.most, self.room), 'node')} of type {kind.name} with "
            + (words(kind.amounts) if kind.amounts else "what they turn out to have")
            for kind in self.addable
        ]
        return "; ".join([*there, *added])


def _without_place(demands: Iterable[Demand], nodes: Iterable[Amounts]) -> list[Demand]:
    """The trials that find no place on some nodes: the larger first, each where the least that it lacks is wasted."""
    free = [dict(node) for node in sorted(nodes, key=_worth)]
    left = []
    for demand in sorted(demands, key=lambda demand: _worth(demand.amounts), reverse=True):
        node = next(filter(demand.fits, free), None)
        if node is None:
            left.append(demand)
        else:
            node |= {name: node[name] - amount for name, amount in demand.amounts.items()}
    return left


def _worth(amounts: Amounts) -> tuple[int, float, float]:
    """The order in which to spare nodes: custom resources, then GPUs, then CPUs."""
    custom = [name for name in _named(amounts) if name not in ("CPU", "GPU")]
    return len(custom), amounts.get("GPU", 0.0), amounts.get("CPU", 0.0)


def _named(amounts: Amounts) -> dict[str, float]:
    """Those that trials ask for: not memory, nor what Ray adds to name a node."""
    ours = {name: amount for name, amount in amounts.items() if "memory" not in name and not name.startswith("node:")}
    return {name: ours[name] for name in sorted(ours, key=lambda name: (name != "CPU", name != "GPU", name))}


def words(amounts: Amounts) -> str:
    """``4 CPUs, 1 GPU, 1 big, accelerator A100``"""
    named = {name: amount for name, amount in _named(amounts).items() if amount}
    return ", ".join(
        f"accelerator {name.removeprefix(ACCELERATOR)}"
        if name.startswith(ACCELERATOR)
        else (_times(amount, name) if name in ("CPU", "GPU") else f"{amount:g} {name}")
        for name, amount in named.items()
    )


def _times(count: float, what: str) -> str:
    return f"{count:g} {what}" if count <= 1 else f"{count:g} {what}s"


def _counted(texts: Iterable[str]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for text in texts:
        counts[text or "nothing"] = counts.get(text or "nothing", 0) + 1
    return list(counts.items())


# From the sweep file --------------------------------------------------------------------------------------------------


def share_out(resources: Resources, backbones: Collection[str], capacity: Capacity) -> Slots:
    """What each trial gets, ``auto`` filled in by what there is: one GPU where any node has or may have one.

    backbones : those of the sweep
    """
    usual = _demand(resources, capacity)
    own = {
        backbone: _demand(resources.model_copy(update=own.model_dump(exclude_none=True)), capacity)
        for backbone, own in resources.by_backbone.items()
        if backbone in backbones
    }
    if own and own.keys() >= set(backbones):  # no trial asks for the usual
        usual = next(iter(own.values()))
    return Slots(usual.cpus, usual.gpus, resources.concurrent, usual.others, own, resources.patience)


def _demand(resources: Resources, capacity: Capacity) -> Demand:
    machines = [*capacity.nodes, *(kind.amounts for kind in capacity.addable)]
    gpus = float(any(node.get("GPU") for node in machines)) if resources.gpus == "auto" else resources.gpus
    others = dict(resources.custom)
    if resources.accelerator_type is not None:
        others[ACCELERATOR + resources.accelerator_type] = _LITTLE
    asked = Demand(0.0, gpus, tuple(sorted(others.items())))
    # What is there says it best; what may come is asked only where nothing there will do.
    fitting = [node for node in capacity.nodes if asked.fits(node)] or [node for node in machines if asked.fits(node)]
    cpus = _cpus(gpus, fitting) if resources.cpus == "auto" else resources.cpus
    return Demand(float(cpus), gpus, asked.others)


def _cpus(gpus: float, nodes: Collection[Amounts]) -> int:
    """With GPUs a node's CPUs are shared out among them; else few a trial are best, since small steps scale badly."""
    if gpus:
        shares = [int(node.get("CPU", 0.0) * gpus / node["GPU"]) for node in nodes]
        return max(1, min(shares, default=1))
    return max(1, int(max((node.get("CPU", 0.0) for node in nodes), default=0.0)) // 8)


def refusal(slots: Slots, backbones: Iterable[str], capacity: Capacity) -> str | None:
    """Why a sweep cannot be begun: no node could ever hold the trials of some backbone. None where all have a place."""
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


# While a sweep runs ---------------------------------------------------------------------------------------------------


class Watch:
    """Says every minute what a sweep waits for where no node can hold a trial, and ends the waiting at last.

    capacity : what there is now
    say : takes a sentence for the user
    patience : minutes
    """

    def __init__(
        self,
        capacity: Callable[[], Capacity],
        say: Callable[[str], None],
        patience: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.capacity, self._say, self._clock = capacity, say, clock
        self._patience = 60 * patience
        self._next = self._next_word = float("-inf")
        self._idle_since: float | None = None

    def look(self, demands: Iterable[Demand], idle: bool) -> None:
        """Look whether trials that are to run could. Raises StuckError when nothing has run for longer than patience.

        idle : whether none runs
        """
        now = self._clock()
        if now < self._next:
            return
        self._next = now + _LOOK_EVERY
        have = self.capacity()
        wanted = dict.fromkeys(demands)
        lacking = [demand for demand in wanted if not have.fits(demand)]
        if not idle or len(lacking) < len(wanted) or not wanted:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        if not lacking:
            return
        sentence = f"no node can hold a trial that asks for {' or '.join(map(str, lacking))}: there is {have or 'none'}"
        if self._idle_since is not None and now - self._idle_since >= self._patience:
            raise StuckError(
                f"{sentence}; waited {self._patience / 60:g} minutes (resources.patience); the ledger is intact: the "
                "same command goes on from here once there is such a node"
            )
        if now >= self._next_word:
            self._next_word = now + _SAY_EVERY
            self._say(f"waiting: {sentence}")
