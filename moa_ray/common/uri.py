"""Places: folders of this machine, and URIs of folders in object stores.

    s3://BUCKET/FOLDER[?endpoint_override=HOST:PORT&scheme=http&region=REGION&anonymous=true]
    gs://BUCKET/FOLDER[?endpoint_override=HOST:PORT&scheme=http&anonymous=true]
    file:///FOLDER, which is a plain path

A URI holds no credentials, so that none gets into a sweep file, a report or a message. What is at a place is the
business of `moa_ray.common.object_store`; nothing here asks a server.
"""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from moa_ray.common.errors import InputError

_OPTIONS = {
    "s3": ("endpoint_override", "scheme", "region", "anonymous"),
    "gs": ("endpoint_override", "scheme", "anonymous"),
}
_FORMS = "s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, file:///FOLDER or a plain path"


@dataclass(frozen=True)
class Uri:
    """A folder, or a file, in an object store.

    Attributes
    ----------
    scheme : {"s3", "gs"}
        The kind of store.
    path : str
        The bucket and the way in it, without a slash at its end.
    options : tuple of pairs of str
        How the store is reached: name and value, sorted by name.
    """

    scheme: str
    path: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        query = urlencode(self.options, safe=":/")
        return f"{self.scheme}://{self.path}" + (f"?{query}" if query else "")

    def __truediv__(self, name: str) -> "Uri":
        return replace(self, path=f"{self.path}/{name}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    def with_name(self, name: str) -> "Uri":
        """Return the same place but for the last part of its path.

        Parameters
        ----------
        name : str
            The new last part.

        Returns
        -------
        Uri
            A place beside this one.
        """
        return replace(self, path=f"{self.path.rpartition('/')[0]}/{name}")

    @property
    def copy(self) -> Path:
        """The folder in which this machine keeps a copy of what is there, below XDG_CACHE_HOME or ~/.cache."""
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        digest = hashlib.sha256(str(self).encode()).hexdigest()
        return Path(caches, "moa_ray", f"{self.name}-{digest[:12]}")


Place = Path | Uri


def place(text: str) -> Place:
    """Parse a path or a URI of a folder.

    Parameters
    ----------
    text : str
        What stands in a URI is taken as it is, as `aws s3` takes it: ``%20`` is no space.

    Returns
    -------
    Path or Uri
        A path for a plain path and for file://.

    Raises
    ------
    InputError
        If it is no URI of a known kind, or holds credentials (which are not repeated).
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Path(text)
    if scheme == "file":
        return _local(text)
    if scheme not in _OPTIONS:
        raise InputError(f"{scheme}:// is not among the places that are known: {_FORMS}")
    path, _, query = rest.partition("?")
    if set(":@") & set(path.partition("/")[0]):
        # No bucket's name has these. Not shown: what stands there may be a secret.
        raise InputError(
            f"a {scheme}:// URI holds no credentials: put them into the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, "
            "GOOGLE_APPLICATION_CREDENTIALS, ...) or give the machine a role"
        )
    path = path.rstrip("/")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise InputError(f"{scheme}://{path}: a bucket and folders must stand there, none of them empty, . or ..")
    return Uri(scheme, path, _options(scheme, query))


def _local(text: str) -> Path:
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise InputError(f"{text}: a file:// URI names a folder of this machine, as file:///data does; or give a path")
    return Path(unquote(parts.path))


def _options(scheme: str, query: str) -> tuple[tuple[str, str], ...]:
    options = parse_qsl(query, keep_blank_values=True)
    unknown = [name for name, _ in options if name not in _OPTIONS[scheme]]
    if unknown:
        allowed = ", ".join(_OPTIONS[scheme])
        raise InputError(f"{scheme}://...?{unknown[0]}=: of a {scheme}:// URI only {allowed} are known")
    return tuple(sorted(options))


def folder(place: Place) -> Path:
    """Return the folder of this machine that stands for a place.

    Parameters
    ----------
    place : Path or Uri
        A folder here or in an object store.

    Returns
    -------
    Path
        The folder itself, or this machine's copy of it.
    """
    return place.copy if isinstance(place, Uri) else place


def leaves(path: str) -> bool:
    """Return whether a relative path could lead out of the folder that it is relative to.

    Parameters
    ----------
    path : str
        With slashes.

    Returns
    -------
    bool
        Whether it is absolute or climbs, wherever it would end.
    """
    pure = PurePosixPath(path)
    return pure.is_absolute() or ".." in pure.parts
