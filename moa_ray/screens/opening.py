"""Which of the readers opens the screen that a sweep file names."""

from dataclasses import replace
from pathlib import Path

from moa_ray.common.uri import Uri
from moa_ray.config.screens import Bbbc014Settings, Bbbc021Settings, SyntheticSettings, TableSettings
from moa_ray.config.sweep_file import Sweep
from moa_ray.screens import bbbc014, bbbc021, painted_bbbc014, painted_bbbc021, table
from moa_ray.screens.root_folder import LinkedFolder
from moa_ray.screens.screen import Screen


def open_screen(sweep: Sweep, root: Path) -> Screen:
    """Open the screen that a sweep file names; a painted one is painted first, where it is not there yet.

    Parameters
    ----------
    sweep : Sweep
        Its section ``screen``.
    root : Path
        The screen's folder on this machine: where the sweep file names a bucket, the copy of what is in it.

    Returns
    -------
    Screen
        With all problems of its data.

    Raises
    ------
    InputError
        If a table is missing or cannot be understood.
    """
    settings = sweep.screen
    source = settings.root if isinstance(settings.root, Uri) else None
    if not isinstance(settings, SyntheticSettings) and settings.follow_links:
        root = LinkedFolder(root)
    if isinstance(settings, TableSettings):
        screen = table.open_screen(root, settings, sweep.images)
    elif isinstance(settings, Bbbc021Settings):
        screen = bbbc021.open_screen(root, settings.channels, settings.aliases)
    elif isinstance(settings, Bbbc014Settings):
        if settings.painting is not None:
            painted_bbbc014.paint(root, settings.painting)
        screen = bbbc014.open_screen(root, settings.channels)
    else:
        painted_bbbc021.paint(root, settings.painting)
        screen = replace(bbbc021.open_screen(root, settings.channels), name="synthetic")
    return replace(screen, source=source)
