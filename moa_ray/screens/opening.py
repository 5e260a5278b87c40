"""Which of the readers opens the screen that a sweep file names."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from moa_ray.common.uri import Uri
from moa_ray.config.screens import (
    Bbbc014Settings,
    Bbbc021Settings,
    FilesSettings,
    OmeZarrSettings,
    SyntheticSettings,
    TableSettings,
)
from moa_ray.config.sweep_file import Sweep
from moa_ray.screens import bbbc014, bbbc021, file_names, ome_zarr, painted, painted_bbbc014, painted_bbbc021, table
from moa_ray.screens.root_folder import LinkedFolder
from moa_ray.screens.screen import Screen

_SMALL = 64  # pixels, the least that is painted


def is_painted(sweep: Sweep, root: Path) -> bool:
    """Tell whether the painted screen that a sweep file names is there already.

    Parameters
    ----------
    sweep : Sweep
        A sweep of painted images.
    root : Path
        The screen's folder on this machine.

    Returns
    -------
    bool

    Raises
    ------
    InputError
        If the root holds another painting, or other files.
    """
    painting = getattr(sweep.screen, "painting", None)
    assert painting is not None, "a screen of photographs"
    return painted.is_painted(root, painting)


def open_screen(sweep: Sweep, root: Path, paint: bool = True, names: Sequence[str] | None = None) -> Screen:
    """Open the screen that a sweep file names; a painted one is painted first, where it is not there yet.

    Parameters
    ----------
    sweep : Sweep
        Its section ``screen``.
    root : Path
        The screen's folder on this machine: where the sweep file names a bucket, the copy of what is in it.
    paint : bool
        Whether a painted screen that is not there yet is painted at the root. Otherwise its fields are those of as
        small a painting in a temporary folder.
    names : sequence of str, optional
        The files below the root, where a bucket has them and this machine does not; by default those that are there.

    Returns
    -------
    Screen
        With all problems of its data.

    Raises
    ------
    InputError
        If a table is missing or cannot be understood.
    """
    if not paint and sweep.is_painted and not is_painted(sweep, root):
        return _as_it_would_be_painted(sweep, root)
    settings = sweep.screen
    source = settings.root if isinstance(settings.root, Uri) else None
    if not isinstance(settings, SyntheticSettings) and settings.follow_links:
        root = LinkedFolder(root)
    if isinstance(settings, TableSettings):
        screen = table.open_screen(root, settings, sweep.images)
    elif isinstance(settings, OmeZarrSettings):
        screen = ome_zarr.open_screen(root, settings, sweep.images)
    elif isinstance(settings, FilesSettings):
        screen = file_names.open_screen(root, settings, sweep.images, names)
    elif isinstance(settings, Bbbc021Settings):
        screen = bbbc021.open_screen(root, settings.channels, settings.aliases, names)
    elif isinstance(settings, Bbbc014Settings):
        if settings.painting is not None:
            painted_bbbc014.paint(root, settings.painting)
        screen = bbbc014.open_screen(root, settings.channels, names)
    else:
        painted_bbbc021.paint(root, settings.painting)
        screen = replace(bbbc021.open_screen(root, settings.channels), name="synthetic")
    return replace(screen, source=source)


def _as_it_would_be_painted(sweep: Sweep, root: Path) -> Screen:
    """Open a painting of the same fields whose images are small, and forget where it was."""
    painting = replace(sweep.screen.painting, height=_SMALL, width=_SMALL, cells=1)  # type: ignore[union-attr, type-var]
    small = sweep.model_copy(update={"screen": sweep.screen.model_copy(update={"painting": painting})})
    with TemporaryDirectory(prefix="moa_ray-") as folder:
        screen = open_screen(small, Path(folder, "painted"))
    return replace(screen, root=root)
