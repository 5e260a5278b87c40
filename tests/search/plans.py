"""What tests of plans share: how a trial may end."""

from moa_ray.search.plan import Assignment
from moa_ray.tracking.results import Result, Status

STATUSES: list[Status] = ["finished", "stopped", "diverged", "out_of_memory", "crashed"]


def ended(assignment: Assignment, status: Status = "finished", recurs: bool = False) -> Result:
    """How an attempt ended, after two epochs."""
    recipe, kind = assignment.recipe.as_dict(), assignment.kind
    return Result(*assignment.key, status, recipe, kind, assignment.attempt, epochs=2, recurs=recurs)
