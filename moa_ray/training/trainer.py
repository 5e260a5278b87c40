"""The training core: fit one recipe on one fold. Plain Keras on any backend; it knows neither Ray nor MLflow.

    trainer = Trainer(Data(tiles={96: array}, labels=labels, classes=("A", "B")))
    outcome = fit(trainer, recipe, Split(train, validation, test), seed=[7])

A trainer keeps one compiled model warm: the next trial of the same signature gets new weights and optimizer state, and
nothing is traced again. Whether a recipe fine-tunes a network or trains a head on frozen features is asked here, once;
both ways are a `moa_ray.training.data.Training`.
"""

import gc
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from moa_ray.common.errors import InputError
from moa_ray.common.random_streams import OUTSIDE_EPOCHS, rng
from moa_ray.config.recipe import Recipe
from moa_ray.training import devices
from moa_ray.training import pretrained as training_pretrained
from moa_ray.training.compilation import CompiledModel
from moa_ray.training.data import Data, Outcome, Pretrained, Split, Training
from moa_ray.training.fine_tuning import FineTuning
from moa_ray.training.linear_probe import LinearProbe
from moa_ray.training.models import Weights


def fit(trainer: "Trainer", recipe: Recipe, split: Split, seed: Sequence[int]) -> Outcome:
    """Fit a recipe on a fold from beginning to end.

    Parameters
    ----------
    trainer : Trainer
        Holds the tiles.
    recipe : Recipe
        The hyperparameters.
    split : Split
        Rows to train on, to watch and to predict.
    seed : sequence of int
        All draws of the trial follow from it.

    Returns
    -------
    Outcome
        The history, and the probabilities of the test rows.

    Raises
    ------
    Diverged
        If the loss or a probability is no finite number.
    """
    training = trainer.start(recipe, split, seed)
    history = pd.DataFrame([asdict(epoch) for epoch in training.epochs()])
    return Outcome(history, training.predict(split.test))


class Trainer:
    """Fits recipes, one after the other, keeping the compiled model of the last one.

    Parameters
    ----------
    data : Data
        The tiles of all trials.
    pretrained : callable, optional
        Gives a backbone's weights from its name, its weights as a recipe has them, and the image size in pixels; by
        default `moa_ray.training.pretrained.pretrained`.
    on_device : int, optional
        Bytes of tiles that may lie in the device's memory, where batches are then looked up; else they stream from
        the memory map. By default half of a GPU's memory, and none of a CPU's, for which the map is memory.
    """

    def __init__(
        self, data: Data, pretrained: Pretrained = training_pretrained.pretrained, on_device: int | None = None
    ) -> None:
        self._data = data
        self._pretrained = pretrained
        self._on_device = devices.gpu_memory() // 2 if on_device is None else on_device
        self._backbone: tuple[tuple[str, str, int], Weights] | None = None
        self._signature: tuple[Any, ...] | None = None
        self._compiled: CompiledModel | None = None

    def start(self, recipe: Recipe, split: Split, seed: Sequence[int]) -> Training:
        """Begin a trial, which ends the one before.

        Parameters
        ----------
        recipe : Recipe
            The hyperparameters.
        split : Split
            Rows to train on, to watch and to predict.
        seed : sequence of int
            With the recipe it sets every weight, optimizer and random state.

        Returns
        -------
        Training
            The trial, of which no epoch is trained yet.

        Raises
        ------
        InputError
            If the backbone cannot take images of the recipe's size, or its weights cannot be had.
        """
        kind = LinearProbe if recipe.is_linear_probe else FineTuning
        compiled = self._warm(recipe, kind)
        backbone = self._weights(recipe) if kind.loads_backbone(recipe) else None
        compiled.begin(recipe, backbone, rng(seed, OUTSIDE_EPOCHS))
        return kind(compiled, self._data, recipe, split, seed)

    def save_backbone(self, path: Path) -> None:
        """Write the backbone's weights as the last trial left them: a file that other recipes may name as `weights`.

        Parameters
        ----------
        path : Path
            Ends in .weights.h5.

        Raises
        ------
        InputError
            If no backbone was trained.
        """
        layers = self._compiled.network.layers if self._compiled else []
        backbone = next((layer for layer in layers if layer.name == "backbone"), None)
        if backbone is None:
            raise InputError(f"{path}: no backbone was trained here; fit a recipe whose freeze is not all")
        backbone.save_weights(path)

    def _warm(self, recipe: Recipe, kind: type[FineTuning] | type[LinearProbe]) -> CompiledModel:
        """The compiled model of the last trial where the recipe has its signature, else a new one."""
        if self._compiled is None or recipe.signature != self._signature:
            self._compiled = None
            keras.utils.clear_session()
            gc.collect()
            array = kind.held(recipe, self._data, self._on_device)
            self._compiled = CompiledModel(kind.network(recipe, len(self._data.classes), array), recipe)
            self._signature = recipe.signature
        return self._compiled

    def _weights(self, recipe: Recipe) -> Weights:
        """The backbone's pretrained weights, the last ones kept: reading them builds a network."""
        key = (recipe.backbone, recipe.weights, recipe.input_size)
        if self._backbone is None or self._backbone[0] != key:
            self._backbone = (key, self._pretrained(*key))
        return self._backbone[1]
