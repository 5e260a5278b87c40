"""Frozen features: what a frozen backbone makes of the tiles of a store, kept beside them.

Heads that differ in learning rate, epochs or batch size are trained on the same features, so these are taken once. A
set is known by all that shapes it besides the tiles: the backbone, the content of its weights, the image size, the
scaling of the input, the precision, and how many orientations of each tile are looked at.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moa_ray.common.files import file_lock, replacing, write_json
from moa_ray.config.recipe import Recipe
from moa_ray.tiles.fingerprint import digest

_VERSION = 1  # raise it when the same settings give other features than before
_KEY = ("backbone", "weights", "image_size", "input_scaling", "precision", "orientations")


@dataclass(frozen=True)
class FrozenFeatures:
    """A set of frozen features of the tiles of a store, in each orientation.

    Attributes
    ----------
    path : Path
        An array file of float32, shape (orientations, n, channels); where it is there it is whole.
    facts : mapping
        All that the features depend on besides the tiles.
    """

    path: Path
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, store: Path, recipe: Recipe, weights: str) -> "FrozenFeatures":
        """Return the set that a recipe trains on, whether it is there or not.

        Parameters
        ----------
        store : Path
            The folder of the tile store.
        recipe : Recipe
            One whose backbone is frozen.
        weights : str
            What tells the content of the weights, so that a file that changed is not taken for the one before.

        Returns
        -------
        FrozenFeatures
            The set.
        """
        facts = {"version": _VERSION, **dict(zip(_KEY, recipe.features_key, strict=True)), "weights": weights}
        return cls(store / f"features-{digest(facts)[:16]}.npy", facts)

    def write(
        self,
        tiles: int,
        take: Callable[[], Iterable[tuple[int, NDArray[np.float32]]]],
        progress: Callable[[int, int], None],
    ) -> None:
        """Write the set whole or not at all, and a small JSON file beside it that says what it holds.

        Parameters
        ----------
        tiles : int
            Tiles in the store.
        take : callable
            Yields stretches in any order: the first row, and an array of shape (orientations, rows, channels). It is
            not asked where another process wrote the set meanwhile.
        progress : callable
            Called with the tiles done and the tiles in all.
        """
        with file_lock(self.path.with_suffix(".lock")):
            if self.path.exists():
                return
            shape, left = (0, tiles, 0), tiles
            # A fixed name: what a killed process left, which may be gigabytes, is written over.
            with replacing(self.path, self.path.with_name(f".{self.path.name}")) as file:
                progress(0, tiles)
                for first, stretch in take():
                    if left == tiles:
                        shape = (len(stretch), tiles, stretch.shape[-1])
                        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                        np.lib.format.write_array_header_1_0(file, header)
                        begin = file.tell()
                    for orientation, rows in enumerate(np.ascontiguousarray(stretch, dtype="<f4")):
                        file.seek(begin + 4 * shape[2] * (orientation * tiles + first))
                        file.write(rows.data)
                    left -= stretch.shape[1]
                    progress(tiles - left, tiles)
                assert left == 0, f"{left} of {tiles} tiles without features"
                write_json(self.path.with_suffix(".json"), {**self.facts, "shape": shape})
