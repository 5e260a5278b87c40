"""The fingerprint of a tile store: a digest of all that shapes its tiles.

Settings, keys, channels, and each file's name, size and time of change count (in an archive the checksum of the member,
so that a copied archive is the same). Labels and the order of the fields do not, since they shape no tile.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import pandas as pd

from moa_ray.common.schema import FIELD_KEY, WEEK
from moa_ray.config.preparation import Preparation
from moa_ray.screens.screen import Screen
from moa_ray.screens.zarr_images import is_zarr, zarr_version
from moa_ray.tiles.groups import measured_fields

_VERSION = 2  # raise it when the same settings give other tiles than before

_MISSING = "\1"  # in place of a value that is missing; it is no text of a table
# Defaults of the settings of `Normalise` that came later.
_NEWER = {"of": "controls", "statistic": "mean_std"}


def fingerprint(screen: Screen, preparation: Preparation, sizes: Collection[int]) -> str:
    """Return the fingerprint of the tile store of a screen.

    Parameters
    ----------
    screen : Screen
        Its files are looked at, not read.
    preparation : Preparation
        How fields become tiles.
    sizes : collection of int
        Edge lengths of the tiles in pixels; order and repetition do not count.

    Returns
    -------
    str
        SHA-256, hexadecimal.
    """
    return digest(shaping_facts(screen, preparation, sizes))


def digest(facts: Mapping[str, Any]) -> str:
    """Return a digest of facts that does not depend on their order.

    Parameters
    ----------
    facts : mapping
        What `json` can write.

    Returns
    -------
    str
        SHA-256, hexadecimal.
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def shaping_facts(screen: Screen, preparation: Preparation, sizes: Collection[int]) -> dict[str, Any]:
    """Return all that shapes the tiles of a screen, as it stands in fingerprint.json.

    Parameters
    ----------
    screen : Screen
        Its files are looked at, not read.
    preparation : Preparation
        How fields become tiles.
    sizes : collection of int
        Edge lengths of the tiles in pixels.

    Returns
    -------
    dict
        Settings in full; a digest stands for the fields and their files.
    """
    by = [name for name in (WEEK, preparation.normalise.column) if name in screen.fields]
    columns = list(dict.fromkeys([*FIELD_KEY, *by, *screen.path_columns]))
    rows = pd.concat(
        [screen.labelled.assign(role="labelled"), measured_fields(screen, preparation).assign(role="control")]
    )
    fields = hashlib.sha256()
    for row in sorted(rows[["role", *columns]].astype(str).fillna(_MISSING).itertuples(index=False, name=None)):
        fields.update("\0".join(row).encode() + b"\n")
    for line in _file_versions(screen.root, sorted(set(rows[screen.path_columns].to_numpy().ravel()))):
        fields.update(line.encode() + b"\n")
    return {
        "version": _VERSION,
        "preparation": _settings(preparation),
        "sizes": sorted(set(sizes)),
        "channels": list(screen.channels),
        # Only where a file holds more than one: stores made before planes could be chosen stay known.
        **({"planes": [plane and asdict(plane) for plane in screen.used_planes]} if any(screen.used_planes) else {}),
        "files": fields.hexdigest(),
    }


def _settings(preparation: Preparation) -> dict[str, Any]:
    """Return the settings without those that say nothing: stores made before there were such settings stay known."""
    plain = {name: value for name, value in asdict(preparation).items() if value is not None}
    plain["normalise"] = {name: value for name, value in plain["normalise"].items() if _NEWER.get(name) != value}
    return plain


def _file_versions(root: Path, locations: Iterable[str]) -> Iterator[str]:
    """Yield a line a file that changes when its content does, without reading it.

    A file that is not there is marked as missing: whoever reads it names it together with all others.
    """
    archives: dict[str, dict[str, tuple[int, int]]] = {}
    for location in locations:
        name, _, member = location.partition("!")
        if is_zarr(root, location):
            yield f"{location} {zarr_version(root, location)}"
            continue
        if not member:
            try:
                status = (root / name).stat()
                yield f"{location} {status.st_size} {status.st_mtime_ns}"
            except FileNotFoundError:
                yield f"{location} missing"
            continue
        if name not in archives:
            archives[name] = {}
            with suppress(FileNotFoundError, BadZipFile), ZipFile(root / name) as archive:
                archives[name] = {info.filename: (info.file_size, info.CRC) for info in archive.infolist()}
        yield f"{location} {archives[name].get(member, 'missing')}"
