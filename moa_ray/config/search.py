"""The section ``search``: which recipes are trained, all of a grid or those that a search proposes."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from moa_ray.config.as_written import AsWritten
from moa_ray.config.hyperparameters import Fixed, Searched
from moa_ray.config.settings import Settings


class LinearProbeSettings(Settings):
    """A linear probe: a head on frozen features of each backbone, before any backbone is fine-tuned.

    In a grid the probe sees the folds that the other recipes are judged on, in a search the search folds alone.
    """

    keep: Annotated[int, Field(ge=1)] | None = None
    """So many backbones go on, those whose heads have the lowest log-loss; null drops none."""


def _true_or_false(plain: Any) -> Any:
    """Read true and false, which say it too."""
    if not isinstance(plain, bool | dict | LinearProbeSettings | None):
        raise ValueError(f"true, false or {{keep: 2}} must stand here, but got {plain!r}")
    return ({} if plain else None) if isinstance(plain, bool) else plain


LinearProbeSwitch = Annotated[
    LinearProbeSettings | None,
    BeforeValidator(_true_or_false, json_schema_input_type=bool | LinearProbeSettings | None),
]


class GridSettings(Settings):
    """Every combination of the space's lists, on every fold."""

    mode: Literal["grid"] = "grid"
    """Says that all combinations are trained."""
    screen_with_frozen: LinearProbeSwitch = None
    """Linear probe of each backbone before any is fine-tuned: true, or `{keep: 2}`; false and null switch it off."""
    space: Annotated[dict[str, Any], AsWritten(Searched)] = Field(default={})
    """Values to try by hyperparameter: one, a list, or choices with a condition."""


class AshaSettings(Settings):
    """Stops a trial early that is worse, at the same epoch, than others of the same fold (Li et al. 2020)."""

    grace_epochs: Annotated[int, Field(ge=1)] = 3
    """No trial is stopped before so many epochs."""
    reduction_factor: Annotated[float, Field(gt=1)] = 2
    """Of the trials seen, the best 1 / reduction_factor go on; they are compared again each time that the epochs have
    grown by this factor."""
    folds: Annotated[int, Field(ge=1)] = 1
    """A candidate may be stopped on its first so many folds. More are more chances to lose a good one: in
    tests/benchmarks/search.py four cost more in regret than they save in epochs."""


class RaceSettings(Settings):
    """Which candidates get more folds."""

    first_folds: Annotated[int, Field(ge=1)] = 4
    """Folds that every candidate gets."""
    reduction_factor: Annotated[float, Field(gt=1)] = 3
    """A rung has so many times the folds of the one before; the best 1 / reduction_factor reach it."""
    keep: Annotated[int, Field(ge=1)] = 2
    """At least so many candidates go on."""


class OptunaSettings(Settings):
    """A search within the space: Optuna proposes candidates, folds race, ASHA stops epochs."""

    mode: Literal["optuna"]
    """Says that candidates are proposed."""
    candidates: Annotated[int, Field(ge=1)] = 40
    """Recipes that are proposed in all."""
    objective: Literal["treatment_log_loss", "treatment_accuracy"] = "treatment_log_loss"
    """Score of the held-out treatments of a fold; a candidate's is the mean over folds."""
    sampler: Literal["tpe", "random", "grid", "cmaes"] = "tpe"
    """Optuna's sampler; `grid` takes each combination of a space without ranges once, in random order."""
    space: Annotated[dict[str, Any], AsWritten(Searched)]
    """Values to try by hyperparameter: one, a list, a range, or either with a condition."""
    first: tuple[Annotated[dict[str, Any], AsWritten(Fixed)], ...] = ()
    """Hyperparameters of recipes to try first; what they leave open is proposed."""
    confirm: Annotated[int, Field(ge=0)] = 0
    """Runners-up that are trained on the folds the search did not see, besides the winner."""
    asha: AshaSettings | None = Field(default_factory=AshaSettings)
    """Early stopping; null switches it off."""
    race: RaceSettings | None = Field(default_factory=RaceSettings)
    """The race through the search folds; null gives every candidate all of them."""
    screen_with_frozen: LinearProbeSwitch = None
    """Linear probe of each backbone before any is fine-tuned: true, or `{keep: 2}`; false and null switch it off."""


def _mode(search: Any) -> Any:
    return search.get("mode", "grid") if isinstance(search, dict) else getattr(search, "mode", None)


AnySearch = Annotated[
    Annotated[GridSettings, Tag("grid")] | Annotated[OptunaSettings, Tag("optuna")], Discriminator(_mode)
]
