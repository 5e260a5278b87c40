"""The registry of random streams: which numbers seed which draws, so that nobody uses a number twice.

A generator is seeded by a key, a sequence of whole numbers. Keys are of three kinds:

- ``(seed, Stream)``: what is drawn once for a sweep or a table;
- ``(seed, name)``: what is drawn for each of several things with a name: a fold, a compound, a plate, a well. The name
  enters as its CRC-32, so that the draws of one do not depend on the others, on any machine, in any order;
- ``(*seeds of a trial, epoch)`` and ``(*seeds of a trial, epoch, TrialStream)``: what a training draws. Epochs count
  from 1, and epoch 0 is everything outside of them.

The numbers are part of every result: one that is changed, or used again, changes what the same sweep gives.
"""

from collections.abc import Sequence
from enum import IntEnum, unique
from zlib import crc32

import numpy as np

OUTSIDE_EPOCHS = 0


@unique
class Stream(IntEnum):
    """What is drawn once for a sweep or a table; the number follows the seed."""

    FOLD_ORDER = 1
    """The order of the search folds, balanced over labels."""
    BBC_CV = 2
    """The compounds of the bootstrap that corrects the best candidate's score."""
    BOOTSTRAP = 3
    """The compounds of a bootstrap interval."""
    CALIBRATION = 4
    """Outcomes that follow the predicted probabilities, the null distribution of the calibration error."""


@unique
class TrialStream(IntEnum):
    """What a training draws; the number follows the trial's seeds and the epoch.

    The initial weights (epoch 0) and the order of the tiles (each epoch) have no number: their keys end with the epoch.
    """

    ORIENTATIONS = 1
    """The orientation of each tile in an epoch of a head on frozen features."""
    MC_DROPOUT = 2
    """The masks of Monte-Carlo dropout."""
    LAPLACE = 3
    """The heads drawn from the Laplace posterior."""


def rng(seed: int | Sequence[int], *key: int | str) -> np.random.Generator:
    """Make the generator of one stream.

    Parameters
    ----------
    seed : int or sequence of int
        Seed of the sweep, or the seeds of a trial.
    *key : int or str
        What follows the seed: a `Stream`, a name, an epoch, an epoch and a `TrialStream`.

    Returns
    -------
    numpy.random.Generator
        The same for the same seed and key, wherever and whenever it is made.
    """
    seeds = seed if isinstance(seed, Sequence) else [seed]
    return np.random.default_rng([*seeds, *(crc32(part.encode()) if isinstance(part, str) else part for part in key)])
