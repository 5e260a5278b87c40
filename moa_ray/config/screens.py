"""The section ``screen``: which images there are, and what is known of them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from moa_ray.config.file_patterns import read_pattern
from moa_ray.config.joined_tables import JoiningSettings
from moa_ray.config.painting import Painting, Translocation
from moa_ray.config.planes import ImageSettings, ImageSource, Number, Plane, PlaneSettings, ZarrSource
from moa_ray.config.screen_rows import Aliases, ColumnName, RowSettings
from moa_ray.config.settings import LocalFolder, Location, Name, Settings, read_folder

Channels = Annotated[tuple[str | None, ...], Field(min_length=1, max_length=3)]


class LinkSettings(Settings):
    """What the screens that are read from folders share."""

    follow_links: bool = False
    """Whether symbolic links below the root may lead out of it. The root itself may always be one."""


def _folders(written: Any) -> Any:
    return (written,) if isinstance(written, str) else written


class Bbbc021Settings(LinkSettings):
    """A folder in BBBC021's own layout: the two CSV tables and the plates' folders or zip files."""

    name: Literal["bbbc021"]
    """Says that the screen is read as BBBC021."""
    root: Location
    """Folder, or `s3://`, `gs://` or `file:///` URI, of the tables and plates."""
    channels: Channels = ("Actin", "Tubulin", "DAPI")
    """The network's inputs, in order; null is a plane of zeros."""
    aliases: Aliases = None
    """Other spellings of compounds and labels, as of a table: `{taxol: [paclitaxel]}`; `distinct` keeps all apart."""


class Bbbc014Settings(LinkSettings):
    """The plate of BBBC014: two images a well, in folders or in the zip file downloaded."""

    name: Literal["bbbc014"]
    """Says that the screen is read as BBBC014."""
    root: Location
    """Folder or URI of the plate."""
    channels: Channels = (None, "FITC", "DAPI")
    """The network's inputs, in order; null is a plane of zeros."""
    painting: Translocation | None = None
    """A plate of painted cells, made at the root when it is not there yet; null reads the real one."""

    @model_validator(mode="after")
    def _is_painted_here(self) -> "Bbbc014Settings":
        if self.painting is not None:
            read_folder(self.root)
        return self


def _planes(images: Mapping[str, Any]) -> dict[str, Plane]:
    planes = {name: source.plane for name, source in images.items() if isinstance(source, PlaneSettings)}
    return {name: plane for name, plane in planes.items() if plane is not None}


class TableSettings(RowSettings, LinkSettings, JoiningSettings):
    """Any screen that one table of fields describes."""

    name: Literal["table"]
    """Says that the screen is described by a table."""
    root: Location
    """Folder or URI of the table and the images; no path may leave it."""
    fields: Name
    """Text with commas, tabs or semicolons (also packed: `.csv.gz`) or parquet, relative to the root."""
    images: dict[str, ImageSource]
    """Channel name to the file's column of image paths, relative to the root: `{DNA: dna_path}`; where a file holds
    several planes, also which is meant: `{DNA: {path: stack, channel: 0}}`. Two columns are folder and file name:
    `{DNA: [PathName_OrigDNA, FileName_OrigDNA]}`. Absolute paths and `file:` URLs may lead to below the root."""
    strip: Annotated[tuple[Name, ...], BeforeValidator(_folders)] = ()
    """Folder of another machine, or several, that image paths begin with and that stands for the root:
    `D:\\screen`, `\\\\server\\share\\screen`, `/mnt/old/screen`."""
    channels: Channels | None = None
    """The network's inputs, in order, of which null is a plane of zeros; null takes those of `images`."""

    @property
    def planes(self) -> dict[str, Plane]:
        """Which plane of its files each channel is, without the channels whose files hold one."""
        return _planes(self.images)


class OmeZarrSettings(RowSettings, LinkSettings, JoiningSettings):
    """OME-Zarr plates (HCS, version 0.4 or 0.5); tables are joined to their wells and fields."""

    name: Literal["ome_zarr"]
    """Says that the screen is read from OME-Zarr plates."""
    root: Location
    """Folder or URI of a plate, or of a folder of plates. The tables that are joined lie in it, or beside the plate."""
    images: dict[str, ZarrSource]
    """Channel name to the number of the images' channel, from 0, or to its name in the metadata (`omero`): `{DNA: 0}`;
    of stacks also the depth and time: `{DNA: {channel: 0, project: max}}`."""
    channels: Channels | None = None
    """The network's inputs, in order, of which null is a plane of zeros; null takes those of `images`."""
    columns: dict[str, ColumnName] = Field(default={})
    """`Metadata_*` name to a column of the joined tables: `{Metadata_Compound: drug, Metadata_Label: moa}`. Plate, well
    and field are those of the plates' metadata."""

    @property
    def planes(self) -> dict[str, Plane]:
        """Which plane of its images each channel is."""
        sources = self.images.items()
        planes = {
            name: source.plane if isinstance(source, PlaneSettings) else Plane(source) for name, source in sources
        }
        return {name: plane for name, plane in planes.items() if plane is not None}


def _text(written: Any) -> Any:
    return str(written) if type(written) is int else written


def _check_pattern(written: str) -> str:
    read_pattern(written)
    return written


ChannelText = Annotated[Name, BeforeValidator(_text, json_schema_input_type=Name | int)]


class FileImageSettings(ImageSettings):
    """A channel whose images are planes of larger files that a pattern finds."""

    path: ChannelText
    """The channel in the names of its files; `*` where the pattern has no `{channel}`."""


def _form_of_channel(written: Any) -> str:
    return "plane" if isinstance(written, dict | FileImageSettings) else "channel"


FileImage = Annotated[
    Annotated[ChannelText, Tag("channel")] | Annotated[FileImageSettings, Tag("plane")],
    Discriminator(_form_of_channel),
]


class FilesSettings(RowSettings, LinkSettings, JoiningSettings):
    """Any screen whose files say by their names where they belong; tables are joined to the fields."""

    name: Literal["files"]
    """Says that the fields are known from the names of files."""
    root: Location
    """Folder or URI of the images and tables; nothing outside of it is read."""
    pattern: Annotated[Name, AfterValidator(_check_pattern)]
    """How files are called, from the end of their paths: `"{plate}/r{row}c{col}f{field}p{z}-ch{channel}*.tiff"`. Parts
    are `{row}`, `{col}` or `{well}`, `{field}`, `{channel}`, `{plate}`, `{z}`, `{t}`, any `{Metadata_NAME}`; `*` is any
    text, `{channel:[0-9]}` says what a part may be. Ready ones are `opera_phenix`, `operetta`, `cv8000`, `imagexpress`,
    `micromanager`, `in_cell`."""
    images: Annotated[dict[str, FileImage], Field(min_length=1)]
    """Channel name to the channel in the names of files, `{DNA: 1, ER: 2}`; where a file holds several planes, also
    which is meant: `{DNA: {path: 1, project: max}}`. `*` is every file, where the pattern has no `{channel}`."""
    channels: Channels | None = None
    """The network's inputs, in order, of which null is a plane of zeros; null takes those of `images`."""
    z: Number | None = None
    """The plane in depth, where the names of files tell several."""
    t: Number | None = None
    """The point in time, where the names of files tell several."""
    plate: Name | None = None
    """Name of the plate, where no file's path tells it; null is the name of the root's folder."""
    columns: dict[str, ColumnName] = Field(default={})
    """`Metadata_*` name to a column of the joined tables: `{Metadata_Compound: drug, Metadata_Label: moa}`. What the
    pattern tells has its name already."""

    @property
    def planes(self) -> dict[str, Plane]:
        """Which plane of its files each channel is, without the channels whose files hold one."""
        return _planes(self.images)

    @model_validator(mode="after")
    def _has_what_is_chosen(self) -> "FilesSettings":
        parts = frozenset[str]().union(*(pattern.parts for pattern in read_pattern(self.pattern)))
        for key in ("z", "t"):
            if getattr(self, key) is not None and key not in parts:
                raise ValueError(f"{key}: no part of the pattern is {{{key}}}; leave out one or add the other")
        for channel, image in self.images.items():
            text = image if isinstance(image, str) else image.path
            if (text == "*") == ("channel" in parts):
                rule = "is for a pattern without" if text == "*" else "needs a pattern with"
                raise ValueError(f"images.{channel}: {text!r} {rule} a part {{channel}}, but got {self.pattern!r}")
        return self


class SyntheticSettings(Settings):
    """A screen of painted cells in BBBC021's layout, made at the root when it is not there yet."""

    name: Literal["synthetic"]
    """Says that the screen is painted."""
    root: LocalFolder
    """Folder of this machine."""
    channels: Channels = ("Actin", "Tubulin", "DAPI")
    """The network's inputs, in order; null is a plane of zeros."""
    painting: Painting = Field(default_factory=Painting)
    """What is painted."""


AnyScreen = Annotated[
    Bbbc021Settings | Bbbc014Settings | TableSettings | FilesSettings | OmeZarrSettings | SyntheticSettings,
    Field(discriminator="name"),
]
