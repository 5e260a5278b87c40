"""The section ``screen``: which images there are, and what is known of them."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from moa_ray.config.painting import Painting, Translocation
from moa_ray.config.planes import ImageSettings, ImageSource, Plane, PlaneSettings, ZarrSource
from moa_ray.config.screen_rows import Aliases, RowSettings
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


class TableSettings(RowSettings, LinkSettings):
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
        planes = {name: source.plane for name, source in self.images.items() if isinstance(source, ImageSettings)}
        return {name: plane for name, plane in planes.items() if plane is not None}


class OmeZarrSettings(RowSettings, LinkSettings):
    """OME-Zarr plates (HCS, version 0.4 or 0.5), and a table that names what is in their wells."""

    name: Literal["ome_zarr"]
    """Says that the screen is read from OME-Zarr plates."""
    root: Location
    """Folder or URI of a plate, or of a folder of plates."""
    fields: Name
    """Text or parquet of a row a well or a field, below the root or beside the plate. It is joined by the columns that
    `columns` maps to `Metadata_Well` and, where it has them, `Metadata_Plate` and `Metadata_Field`."""
    images: dict[str, ZarrSource]
    """Channel name to the number of the images' channel, from 0, or to its name in the metadata (`omero`): `{DNA: 0}`;
    of stacks also the depth and time: `{DNA: {channel: 0, project: max}}`."""
    channels: Channels | None = None
    """The network's inputs, in order, of which null is a plane of zeros; null takes those of `images`."""

    @property
    def planes(self) -> dict[str, Plane]:
        """Which plane of its images each channel is."""
        sources = self.images.items()
        planes = {
            name: source.plane if isinstance(source, PlaneSettings) else Plane(source) for name, source in sources
        }
        return {name: plane for name, plane in planes.items() if plane is not None}


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
    Bbbc021Settings | Bbbc014Settings | TableSettings | OmeZarrSettings | SyntheticSettings, Field(discriminator="name")
]
