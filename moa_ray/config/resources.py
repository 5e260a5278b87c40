"""The section ``resources``: what each trial gets of the machines."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from moa_ray.config import messages
from moa_ray.config.backbones import BACKBONES
from moa_ray.config.settings import Name, Settings


def _whole_above_one(amount: float) -> float:
    """Raise ValueError above 1 for what is no whole number: Ray hands out parts of one thing, or whole things."""
    if amount > 1 and amount != int(amount):
        raise ValueError(f"above 1 it must be a whole number, but got {amount:g}")
    return amount


Gpus = Annotated[float, Field(ge=0), AfterValidator(_whole_above_one)]
Amount = Annotated[float, Field(gt=0), AfterValidator(_whole_above_one)]


class OwnResources(Settings):
    """What the trials of one backbone get in place of what all get; null leaves it."""

    gpus: Gpus | Literal["auto"] | None = None
    """GPUs of a trial."""
    cpus: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    """CPU cores of a trial."""
    custom: dict[str, Amount] | None = None
    """Further resources of Ray's and amounts, as nodes were given them: `{big: 1}`."""
    accelerator_type: Name | None = None
    """The kind of GPU a node must have, by Ray's name for it: `A100`."""

    @model_validator(mode="after")
    def _is_sound(self) -> "OwnResources":
        _require_custom(self.custom or {})
        return self


class Resources(Settings):
    """What each trial gets; `auto`: one GPU where the cluster has any or may add some, else CPUs alone."""

    gpus: Gpus | Literal["auto"] = "auto"
    """GPUs of a trial: a share of one, or whole ones."""
    cpus: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """CPU cores of a trial."""
    custom: dict[str, Amount] = Field(default={})
    """Further resources of Ray's and amounts, as nodes were given them: `{big: 1}`."""
    accelerator_type: Name | None = None
    """The kind of GPU a node must have, by Ray's name for it: `A100`."""
    by_backbone: Annotated[
        dict[str, OwnResources], Field(json_schema_extra={"propertyNames": {"enum": list(BACKBONES)}})
    ] = Field(default={})
    """Backbone to what its trials get in place of that: `{VGG16: {gpus: 1}}`."""
    concurrent: Annotated[int, Field(ge=1)] | None = None
    """Trials at once at most; null means as many as the cluster can hold. Where an autoscaler adds nodes, it is asked
    for some more trials than run: four at first, then for as many again."""
    patience: Annotated[float, Field(ge=0)] = 30.0
    """Minutes to wait where no node can hold a trial but one may come: an autoscaler's, or a lost one."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a trial that crashed is tried again."""
    tiles_on_device: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of a trial's part of its GPU's memory that tiles may take, to be looked up there; where they need more, and
    on CPUs, they stream from the memory map."""

    @model_validator(mode="after")
    def _is_sound(self) -> "Resources":
        _require_custom(self.custom)
        unknown = next((name for name in self.by_backbone if name not in BACKBONES), None)
        if unknown is not None:
            raise ValueError(f"by_backbone: unknown backbone {unknown!r}{messages.nearest(unknown, BACKBONES)}")
        return self


def _require_custom(custom: dict[str, float]) -> None:
    for name in custom:
        if name.lower() in ("cpu", "cpus", "gpu", "gpus") or "memory" in name:
            raise ValueError(f"custom: {name!r} is no custom resource; cpus and gpus stand beside custom")
