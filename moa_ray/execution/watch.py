"""Report what a sweep waits for, and end a waiting that is in vain."""

import time
from collections.abc import Callable, Iterable

from moa_ray.common.errors import StuckError
from moa_ray.execution.capacity import Capacity, Demand

_LOOK_EVERY, _SAY_EVERY = 2.0, 60.0  # seconds between looks at the nodes, and between messages


class Watch:
    """Report every minute what a sweep waits for where no node can hold a trial, and end the waiting at last.

    Parameters
    ----------
    capacity : callable
        Returns what the cluster has now.
    say : callable
        Called with a sentence for the user.
    patience : float
        Minutes to wait while nothing runs.
    clock : callable
        Returns seconds.
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
        self._next = self._next_message = float("-inf")
        self._idle_since: float | None = None

    def look(self, demands: Iterable[Demand], idle: bool) -> None:
        """Look whether the trials that are to run could.

        Parameters
        ----------
        demands : iterable of Demand
            What the trials request that wait, or may be asked for.
        idle : bool
            Whether no trial runs.

        Raises
        ------
        StuckError
            If nothing has run for longer than the patience, and no node can hold any of them.
        """
        now = self._clock()
        if now < self._next:
            return
        self._next = now + _LOOK_EVERY
        available = self.capacity()
        wanted = dict.fromkeys(demands)
        lacking = [demand for demand in wanted if not available.fits(demand)]
        if not idle or len(lacking) < len(wanted) or not wanted:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        if not lacking:
            return
        sentence = (
            f"no node can hold a trial that asks for {' or '.join(map(str, lacking))}: there is {available or 'none'}"
        )
        if self._idle_since is not None and now - self._idle_since >= self._patience:
            raise StuckError(
                f"{sentence}; waited {self._patience / 60:g} minutes (resources.patience); the ledger is intact: the "
                "same command goes on from here once there is such a node"
            )
        if now >= self._next_message:
            self._next_message = now + _SAY_EVERY
            self._say(f"waiting: {sentence}")
