"""What tests of plans share: how a trial may end."""

from moa_ray.search.plan import Assignment
from moa_ray.tracking.results import Result, Status

STATUSES: list[Status] = ["finished", "stopped", "diverged", "out_of_memory", "crashed"]


def ended(assignment: Assignment, status: Status = "finished") -> Result:
    """How an attempt ended, after two epochs."""
    return Result(*assignment.key, status, assignment.recipe.as_dict(), assignment.kind, assignment.attempt, epochs=2)
