"""The tiles that the trials of a study share, and the settings of a training process."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moa_ray.common.random_streams import rng
from moa_ray.common.schema import LABEL
from moa_ray.config.recipe import Recipe
from moa_ray.screens.folds import Fold
from moa_ray.screens.validation import validation_split
from moa_ray.statistics import aggregation


@dataclass(frozen=True)
class TrialData:
    """Tiles with their metadata and folds, which every trial of a study reads and none changes.

    Attributes
    ----------
    table : DataFrame
        One row per tile with its ``Metadata_*`` columns and ``row``, its index in the arrays.
    classes : tuple of str
        The labels, in the order of the network's outputs.
    folds : mapping of str to Fold
        The folds that can be trained, by name.
    tiles : mapping of int to Path
        For each image size (pixels) the file of the tile store, (n, size, size, 3) uint8.
    seed : int
        The seed of the study.
    validation_share : float or None
        Share of the training wells that are watched instead of trained on; None where none are.
    confirm : frozenset of str
        Folds that nothing is chosen by, so that no training wells are watched there and all are trained on.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    folds: Mapping[str, Fold]
    tiles: Mapping[int, Path]
    seed: int
    validation_share: float | None = None
    confirm: frozenset[str] = frozenset()

    def split(self, fold: str) -> dict[str, NDArray[np.int64]]:
        """Split the tiles of a fold; the same on any machine and in any order.

        Parameters
        ----------
        fold : str
            Name of the fold.

        Returns
        -------
        dict of str to ndarray of int64
            Positions in `table` to train on (``train``), to watch (``validation``) and to predict (``test``).
        """
        parts = self.folds[fold].split(self.table)
        train, validation = parts.train, parts.train[:0]
        if self.validation_share is not None and fold not in self.confirm:
            # The member's seed is left out: all members of an ensemble are watched on the same wells.
            generator = rng(self.seed, fold)
            fitted, watched = validation_split(self.table.iloc[train], self.validation_share, generator)
            train, validation = train[fitted], train[watched]
        return {"train": train, "validation": validation, "test": parts.test}

    def seeds(self, fold: str, member: int | None = None) -> list[int]:
        """Return the seeds from which all random draws of a trial follow.

        Parameters
        ----------
        fold : str
            Name of the fold.
        member : int, optional
            The seed of a member of an ensemble.

        Returns
        -------
        list of int
            The study's seed, a checksum of the fold's name, and the member's seed where there is one.
        """
        return [self.seed, zlib.crc32(fold.encode()), *([] if member is None else [member])]

    def labels(self) -> NDArray[np.int64]:
        """Return the class index of every row of the arrays.

        Returns
        -------
        ndarray of int64
            Indices into `classes`; -1 in rows that hold no tile of the table.
        """
        rows = self.table["row"].to_numpy()
        labels = np.full(rows.max() + 1, -1, dtype=np.int64)
        labels[rows] = pd.Categorical(self.table[LABEL], categories=list(self.classes)).codes
        return labels


# Keys of what a step returns: the epoch that it trained, and with the last one how the trial ended.
EPOCH, OUTCOME = "epoch", "outcome"
PRETRAINED = "pretrained"  # the kind of a message by which a training process asks for weights

# (backbone, weights, image size in pixels) to the arrays of the backbone's weights
Pretrained = Callable[[str, str, int], list[NDArray[Any]]]
# What a training process is sent to start a trial: recipe, fold, and whether a step is the whole trial.
Request = tuple[Recipe, str, bool]


@dataclass(frozen=True)
class WorkerSettings:
    """What a training process works with.

    Attributes
    ----------
    trial_data : TrialData
        The tiles, in files that the process sees.
    features : mapping of tuple to Path
        For each `Recipe.features_key` the file of a frozen backbone's features.
    cpus : int
        Threads that the process uses.
    gpus : float
        Share of a GPU that it has; 0 without one.
    tiles_share : float
        Share of its GPU memory that tiles may take.
    evaluate_every : int or None
        Predict the held-out tiles after each so many epochs, too; None for after the last one alone.
    aggregate : str
        How predictions of tiles become those of treatments then.
    samples : mapping of str to int
        By sampling method, how many samples of the held-out predictions are drawn after the last epoch.
    """

    trial_data: TrialData
    features: Mapping[tuple[Any, ...], Path] = field(default_factory=dict)
    cpus: int = 1
    gpus: float = 0.0
    tiles_share: float = 0.5
    evaluate_every: int | None = None
    aggregate: aggregation.Aggregation = "median"
    samples: Mapping[str, int] = field(default_factory=dict)
