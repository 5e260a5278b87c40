"""Whether a sweep may go on in a ledger: what may differ from the start that began it, and what may not.

Trials of two different sweeps are never mixed. Settings that say where, how fast, how long and beside what, not what,
may change between starts. A grid may grow, since its candidates are known by their digests; what was run must still be
asked for. The ensemble of a search may grow, whose candidates are trained with the first seed.
"""

import json
from collections.abc import Mapping, Set
from typing import Any

import yaml
from pydantic import ValidationError

from moa_ray.common.text import flat
from moa_ray.config.search import GridSettings
from moa_ray.config.sweep_file import Sweep

_CHANGEABLE = ("out", "tiles", "resources", "tracking", "evaluate_every", "reference", "conformal")
_EXTENSIBLE = ("search.candidates", "search.confirm")
_SHAPING = ("recipe", "search", "seeds")  # sections that say which candidates there are
_LINEAR_PROBE = "search.screen_with_frozen"
_KEEP = f"{_LINEAR_PROBE}.keep"


def differing_settings(before: str, sweep: Sweep, run: Set[str], has_proposals: bool) -> list[str]:
    """List the settings by which an earlier sweep differs in a way that would mix results.

    Parameters
    ----------
    before : str
        The sweep file as it was run before, YAML.
    sweep : Sweep
        The sweep that is to be run.
    run : set of str
        Candidates that have trials of any kind but linear probes.
    has_proposals : bool
        Whether a search proposed any candidate.

    Returns
    -------
    list of str
        Dotted keys of the sweep file; empty where the trials belong to this sweep as well.
    """
    earlier, now = (flat(yaml.safe_load(written)) for written in (_with_defaults(before), sweep.as_yaml()))
    keys = [key for key in {**earlier, **now} if earlier.get(key) != now.get(key)]
    keys = [key for key in keys if key.split(".")[0] not in _CHANGEABLE and not key.startswith(_LINEAR_PROBE)]
    is_grid = isinstance(sweep.search, GridSettings)
    if is_grid:  # it trains all that it trains, whatever counts as one
        keys = [key for key in keys if not key.startswith("score.")]
    if not is_grid and _is_longer(now.get("seeds"), earlier.get("seeds")):
        keys = [key for key in keys if key != "seeds"]
    recipe_keys = [key for key in keys if key.startswith(_SHAPING) and key not in _EXTENSIBLE]
    differing = [key for key in keys if key not in recipe_keys and key not in _EXTENSIBLE]
    if not is_grid or not run <= {recipe.candidate for recipe in sweep.grid_recipes}:
        differing += recipe_keys
    # A linear probe adds trials and changes none; how many backbones it keeps is settled with the first other trial.
    if earlier.get(_KEEP) != now.get(_KEEP) and (run or has_proposals):
        differing.append(_KEEP)
    return differing


def _with_defaults(before: str) -> str:
    """Fill in the settings that did not exist when a sweep file was written; their defaults do what was done then."""
    try:
        return Sweep.model_validate(yaml.safe_load(before)).as_yaml()
    except ValidationError:  # what was allowed once and is not now: compared as it stands
        return before


def differing_data(before: Mapping[str, Any], study: Mapping[str, Any]) -> list[str]:
    """List what all trials share and is not the same any more.

    Parameters
    ----------
    before : mapping of str to Any
        What ledger/study.json holds.
    study : mapping of str to Any
        What it is to hold, of values fit for JSON.

    Returns
    -------
    list of str
        ``tiles``, ``labels``, and files of weights whose content is another.
    """
    now = json.loads(json.dumps(study))
    differing = [key for key in ("tiles", "labels") if before[key] != now[key]]
    # A candidate may bring its own weights; a file that was used must be the same still.
    files = before["weights"].keys() & now["weights"].keys()
    return differing + [f"weights {name}" for name in files if before["weights"][name] != now["weights"][name]]


def _is_longer(seeds: list[int] | None, before: list[int] | None) -> bool:
    """Whether seeds go on where those before ended."""
    return seeds is not None and before is not None and seeds[: len(before)] == before
