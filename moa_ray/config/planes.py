"""Which plane of an image file is meant, where the file holds more than one."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from moa_ray.config.settings import Name, Settings

Projection = Literal["max", "mean"]
Number = Annotated[int, Field(ge=0, strict=True)]
NumberOrProjection = Number | Projection


@dataclass(frozen=True)
class Plane:
    """One plane of grey levels among those of an image file. Numbers count from 0; None is what a file has one of.

    Attributes
    ----------
    channel : int, str or None
        Number of the channel or of the sample, or the channel's name in the file's OME metadata; ``grey`` is that of an
        image of colours whose red, green and blue are the same.
    z : int, {"max", "mean"} or None
        Number of the plane in depth, or what is taken over all of them.
    time : int, {"max", "mean"} or None
        Number of the point in time, or what is taken over all of them.
    series : int or None
        Number of the image, where a file holds several.
    """

    channel: int | str | None = None
    z: int | Projection | None = None
    time: int | Projection | None = None
    series: int | None = None


class ProjectSettings(Settings):
    """What is taken along the axes of a stack."""

    z: NumberOrProjection | None = None
    """Number of the plane in depth, from 0, or `max` or `mean` over all."""
    time: NumberOrProjection | None = None
    """Number of the point in time, from 0, or `max` or `mean` over all."""


def _form_of_project(written: Any) -> str:
    return "axes" if isinstance(written, dict | ProjectSettings) else "word"


def _form_of_path(written: Any) -> str:
    return "columns" if isinstance(written, list | tuple) else "column"


def _two_columns(written: Any) -> Any:
    if len(written) != 2:
        raise ValueError(f"two columns, of folders and of file names, make a path, but got {list(written)!r}")
    return written


TwoColumns = Annotated[tuple[Name, Name], BeforeValidator(_two_columns)]
PathColumns = Annotated[
    Annotated[Name, Tag("column")] | Annotated[TwoColumns, Tag("columns")], Discriminator(_form_of_path)
]


class PlaneSettings(Settings):
    """Which plane of its files a channel is."""

    advice: ClassVar[dict[str, str]] = {
        "z": "a plane of a stack is project: {z: 3}; its projections are project: max and project: mean",
        "t": "a point in time is time: 0",
    }

    channel: Number | Name | None = None
    """Number of the file's channel or sample, from 0, or its name in the OME metadata; `grey` is a file of colours of
    which red, green and blue are the same, which is checked."""
    project: (
        Annotated[
            Annotated[Projection, Tag("word")] | Annotated[ProjectSettings, Tag("axes")],
            Discriminator(_form_of_project),
        ]
        | None
    ) = None
    """What is taken of a stack in depth: `max` or `mean` over its planes, or one of them: `{z: 3}`, from 0."""
    time: NumberOrProjection | None = None
    """Which point in time is taken, from 0, or `max` or `mean` over all."""
    series: Number | None = None
    """Number of the image, from 0, where a file holds several (series)."""

    @model_validator(mode="after")
    def _says_time_once(self) -> "PlaneSettings":
        if isinstance(self.project, ProjectSettings) and self.project.time is not None and self.time is not None:
            raise ValueError("time and project.time say the same; leave out one of them")
        return self

    @property
    def plane(self) -> Plane | None:
        """What the sweep file says of the plane; None where it says nothing."""
        of_axes = self.project if isinstance(self.project, ProjectSettings) else None
        z = of_axes.z if of_axes else self.project
        time = of_axes.time if of_axes and of_axes.time is not None else self.time
        plane = Plane(self.channel, z, time, self.series)  # type: ignore[arg-type]
        return None if plane == Plane() else plane


class ImageSettings(PlaneSettings):
    """A channel whose images are planes of larger files."""

    path: PathColumns
    """Column of image paths, or those of folders and of file names: `[folder, file]`."""


def _form_of_source(written: Any) -> str:
    return "plane" if isinstance(written, dict | ImageSettings) else _form_of_path(written)


ImageSource = Annotated[
    Annotated[str, Tag("column")] | Annotated[TwoColumns, Tag("columns")] | Annotated[ImageSettings, Tag("plane")],
    Discriminator(_form_of_source),
]


def _form_of_zarr(written: Any) -> str:
    return "plane" if isinstance(written, dict | PlaneSettings) else "channel"


ZarrSource = Annotated[
    Annotated[Number | Name, Tag("channel")] | Annotated[PlaneSettings, Tag("plane")],
    Discriminator(_form_of_zarr),
]
