"""Which files of a screen in a bucket are needed: its tables, then the images that they name and a network sees."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath

from moa_ray.config.screens import Bbbc014Settings, Bbbc021Settings, FilesSettings, TableSettings
from moa_ray.config.sweep_file import Sweep
from moa_ray.screens import bbbc021
from moa_ray.screens.joined_files import joined_files
from moa_ray.screens.opening import open_screen
from moa_ray.screens.reading import listing
from moa_ray.screens.screen import Screen


class NeededFiles:
    """Tell the files that a sweep needs of its screen, in rounds: first the tables, then the images.

    Parameters
    ----------
    sweep : Sweep
        Its section ``screen`` names the tables.

    Attributes
    ----------
    names : list of str or None
        All files of the bucket, members of archives included, once they are known: what is wrong with files that are
        not fetched is to be told as well.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self.names: list[str] | None = None

    def __call__(self, folder: Path, names: Sequence[str]) -> Iterator[Collection[str]]:
        """Ask for files.

        Parameters
        ----------
        folder : Path
            Where the files come to.
        names : sequence of str
            All files of the bucket.

        Yields
        ------
        collection of str
            The tables, and archives of which only the directory tells what is in them; then the images of the fields
            that are kept. Of OME-Zarr plates, all.
        """
        tables = _tables(self._sweep, names)
        if tables is None:
            yield names
            return
        yield tables
        self.names = [*names, *(location for location in listing(folder) if "!" in location)]
        yield _images(open_screen(self._sweep, folder, names=self.names), names)


def _tables(sweep: Sweep, names: Sequence[str]) -> list[str] | None:
    """Return what must be there before the fields are known; None where that is everything."""
    settings = sweep.screen
    archives = [name for name in names if name.lower().endswith(".zip")]
    if isinstance(settings, TableSettings):
        return [PurePosixPath(settings.fields).as_posix(), *joined_files(settings, names)]
    if isinstance(settings, FilesSettings):
        return [*archives, *joined_files(settings, names)]
    if isinstance(settings, Bbbc021Settings):
        return [*bbbc021.TABLES, *archives]
    return archives if isinstance(settings, Bbbc014Settings) else None


def _images(screen: Screen, names: Sequence[str]) -> list[str]:
    """Return the files of the fields; an image in Zarr is a folder of files."""
    located = screen.fields[screen.path_columns].to_numpy().ravel()
    files = {str(location).partition("!")[0] for location in located}
    folders = {name.rpartition("/")[0] for name in names} & files
    wanted = [name for name in names if name in files]
    if not folders:
        return wanted
    return wanted + [name for name in names if not files.isdisjoint(map(str, PurePosixPath(name).parents))]
