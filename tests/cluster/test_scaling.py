"""Two worker hosts take twice the trials of one at a time.

How many they do an hour is measured by `python -m tests.benchmarks.scaling`, on a machine that does nothing else.
"""

from lazy import Lazy

from .hosts import Hosts

scaling = Lazy("benchmarks.scaling")


def test_two_hosts_take_twice_the_trials_of_one_at_a_time(hosts: Hosts) -> None:
    # Trials so long that the last slot has its process before the others have done them all.
    one, two = scaling.measure(hosts, trials=16, seconds=5)
    assert (one.at_a_time, two.at_a_time) == (scaling.SLOTS, 2 * scaling.SLOTS)
