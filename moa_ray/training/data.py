"""What a training takes and gives: tiles, rows, epochs and predictions. Importing this loads no Keras."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Rows = NDArray[np.int64]
# A backbone's name, its weights as a recipe has them, and the image size in pixels, to the arrays of its weights.
Pretrained = Callable[[str, str, int], list[NDArray[Any]]]


class Diverged(ValueError):  # noqa: N818 - the word of the domain
    """The loss or a probability is no finite number any more.

    Parameters
    ----------
    epoch : int
        The epoch in which it was found, counted from 1.

    Attributes
    ----------
    epoch : int
        The same.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__(f"the loss became NaN or infinite in epoch {epoch}; lower the learning rate")
        self.epoch = epoch


@dataclass(frozen=True)
class Data:
    """The tiles that trials train on and predict.

    Attributes
    ----------
    tiles : mapping of int to ndarray of shape (n, size, size, 3), uint8
        The tiles by image size in pixels; each array may be mapped from a file.
    labels : ndarray of shape (n,), int64
        Index of each tile's class.
    classes : tuple of str
        Names of the classes.
    features : mapping of tuple to ndarray of shape (orientations, n, channels), float32
        For each `Recipe.features_key` the pooled features that a frozen backbone gives for the tiles.
    """

    tiles: Mapping[int, NDArray[np.uint8]]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    features: Mapping[tuple[Any, ...], NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class Split:
    """The rows of the tiles that a trial uses.

    Attributes
    ----------
    train : ndarray of int64
        Rows to train on.
    validation : ndarray of int64
        Rows to watch while training; may be empty.
    test : ndarray of int64
        Rows to predict.
    """

    train: Rows
    validation: Rows
    test: Rows


@dataclass(frozen=True)
class Epoch:
    """The figures of one epoch; accuracies are over tiles.

    Attributes
    ----------
    epoch : int
        Counted from 1.
    loss, accuracy : float
        Of the training tiles, augmented, while the weights changed.
    validation_loss, validation_accuracy : float or None
        Log-loss and accuracy of the validation tiles after the epoch; None where there are none.
    learning_rate : float
        Of this epoch.
    seconds : float
        Of training and validation.
    images_per_second : float
        Training tiles by these seconds.
    """

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class Outcome:
    """What a trial leaves.

    Attributes
    ----------
    history : DataFrame
        One row per epoch, with the columns of `Epoch`.
    predictions : ndarray of shape (len(split.test), n_classes), float32
        Probabilities of the test rows.
    """

    history: pd.DataFrame
    predictions: NDArray[np.float32]


class Training(Protocol):
    """One trial under way, whichever way it is trained."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The sampling methods that say anything of this trial's network."""

    def epochs(self, stop_every: int | None = None) -> Iterator[Epoch]:
        """Train, and yield each epoch as it is over.

        Parameters
        ----------
        stop_every : int, optional
            After each so many epochs, and the last, no further one is trained before it is asked for, so that
            `predict` is of that epoch.

        Yields
        ------
        Epoch

        Raises
        ------
        Diverged
            If the loss is no finite number, after the epochs before were yielded.
        """

    def predict(self, rows: Rows) -> NDArray[np.float32]:
        """Predict tiles with the network as it is.

        Parameters
        ----------
        rows : ndarray of int64
            Rows of the tiles.

        Returns
        -------
        ndarray of shape (len(rows), n_classes), float32
            Probabilities of the classes, each row summing to 1.

        Raises
        ------
        Diverged
            If they are no finite numbers: the loss of the last step cannot tell what that step did to the weights.
        """

    def samples(self, method: str, rows: Rows, draws: int) -> NDArray[np.float32]:
        """Predict tiles several times with networks that are drawn at random, seeded as the trial is.

        Parameters
        ----------
        method : str
            One of `methods`.
        rows : ndarray of int64
            Rows of the tiles.
        draws : int
            How many networks are drawn.

        Returns
        -------
        ndarray of shape (draws, len(rows), n_classes), float32
            Probabilities of the classes.

        Raises
        ------
        Diverged
            If they are no finite numbers.
        """
