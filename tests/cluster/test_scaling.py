"""Two worker hosts do nearly twice the trials of one."""

import pytest
from benchmarks import scaling

from .hosts import Hosts

pytestmark = pytest.mark.cluster


def test_two_hosts_do_nearly_twice_the_trials_an_hour_of_one(hosts: Hosts) -> None:
    one, two = scaling.measure(hosts, scaling.TRIALS)
    print(f"\ntrials an hour: 1 worker host {one:.0f}, 2 worker hosts {two:.0f}, ratio {two / one:.2f}")
    assert two >= 1.9 * one
