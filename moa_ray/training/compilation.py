"""Compile a network once, and begin each trial on it as if it had just been built.

Nothing is traced again for a trial of the same signature: its hyperparameters are assigned to variables, and so is
every weight, optimizer slot and random state. The draws depend on the trial's seed alone.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import keras
import numpy as np

from moa_ray.config.recipe import Recipe
from moa_ray.training import devices, models
from moa_ray.training.layers import Lookup
from moa_ray.training.mc_dropout import Thinning


class Descent(keras.optimizers.SGD):  # type: ignore[misc]
    """Keras' gradient descent with momentum, with the momentum held in a variable."""

    def build(self, variables: list[Any]) -> None:
        """Add the slots and the momentum.

        Parameters
        ----------
        variables : list of keras.Variable
            What is to be trained.
        """
        super().build(variables)
        self.held_momentum = self.add_variable((), name="momentum")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move one variable along its gradient.

        Parameters
        ----------
        gradient : tensor
            Of the loss, in the variable's shape.
        variable : keras.Variable
            Changed in place.
        learning_rate : tensor
            A scalar.
        """
        past = self.momentums[self._get_variable_index(variable)]
        rate, momentum = (keras.ops.cast(value, variable.dtype) for value in (learning_rate, self.held_momentum))
        self.assign(past, past * momentum - keras.ops.cast(gradient, variable.dtype) * rate)
        self.assign_add(variable, past)


class CompiledModel:
    """A compiled network, with all that is compiled of it besides, kept for the trials of one signature.

    Parameters
    ----------
    network : keras.Model
        As `moa_ray.training.models` builds it.
    recipe : Recipe
        A recipe of the signature.

    Attributes
    ----------
    network : keras.Model
        The same, compiled.
    looks_up : bool
        Whether it takes rows of what it holds, instead of pixels.
    epochs : dict
        A linear probe's compiled epochs, by their number of batches; folds differ by few.
    """

    def __init__(self, network: keras.Model, recipe: Recipe) -> None:
        _compile(network, recipe)
        self.network = network
        self.looks_up = any(isinstance(layer, Lookup) for layer in network.layers)
        self.epochs: dict[int, Any] = {}
        self._initial = {variable.path: np.array(variable) for variable in self._with_fixed_start()}

    @cached_property
    def thinning(self) -> Thinning:
        """The network as Monte Carlo dropout samples it, compiled when it is first wanted."""
        return Thinning(self.network)

    def begin(self, recipe: Recipe, backbone: models.Weights | None, rng: np.random.Generator) -> None:
        """Set every variable as if the network had just been built.

        Parameters
        ----------
        recipe : Recipe
            The trial's, of the same signature.
        backbone : list of ndarray, optional
            Pretrained weights of the backbone; by default they are drawn.
        rng : Generator
            Seeds all draws.
        """
        optimizer = self.network.optimizer
        # The head first, so that it begins alike whether the backbone is drawn, loaded or not there.
        for variable in sorted(self._weights(), key=lambda variable: "probabilities" not in variable.path):
            if _is_kernel(variable):
                glorot = keras.initializers.GlorotUniform(seed=int(rng.integers(2**31)))
                variable.assign(glorot(variable.shape, dtype=variable.dtype))
            else:
                variable.assign(self._initial[variable.path])
        if backbone is not None:
            self.network.get_layer("backbone").set_weights(backbone)
        for variable in self._random_states():
            variable.assign(rng.integers(2**31, size=variable.shape).astype("uint32"))
        for variable in optimizer.variables:
            variable.assign(np.zeros(variable.shape) if variable.ndim else self._initial[variable.path])
        models.assign_hyperparameters(self.network, recipe)
        if recipe.weight_decay:
            optimizer.weight_decay.assign(recipe.weight_decay)
        if isinstance(optimizer, Descent):
            optimizer.held_momentum.assign(recipe.momentum)

    def _weights(self) -> list[Any]:
        """The network's weights, without the array that it looks its rows up in."""
        lookups = [layer for layer in self.network.layers if isinstance(layer, Lookup)]
        arrays = {id(variable) for layer in lookups for variable in layer.weights}
        return [variable for variable in self.network.weights if id(variable) not in arrays]

    def _random_states(self) -> list[Any]:
        """States of the seed generators: the variables of the network that are no weights."""
        weights = {id(variable) for variable in self.network.weights}
        return [variable for variable in self.network.variables if id(variable) not in weights]

    def _with_fixed_start(self) -> list[Any]:
        """The variables that begin at the same value in every trial: all but kernels, slots and random states."""
        counters = [variable for variable in self.network.optimizer.variables if not variable.ndim]
        return [variable for variable in self._weights() if not _is_kernel(variable)] + counters


def _compile(network: keras.Model, recipe: Recipe) -> None:
    # XLA makes first steps on a CPU many times slower; TensorFlow there runs without it.
    slow = keras.backend.backend() == "tensorflow" and not devices.has_gpu()
    network.compile(
        optimizer=_optimizer(recipe),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False if slow else "auto",
    )
    network.optimizer.build(network.trainable_variables)
    if recipe.weight_decay:
        network.optimizer.weight_decay = network.optimizer.add_variable((), name="weight_decay")
    # Else the first fit builds loss and metrics from a batch that it draws, and several workers go on with the second.
    n_classes = network.output_shape[-1]
    label, probabilities = keras.ops.zeros((1,), "int32"), keras.ops.full((1, n_classes), 1 / n_classes)
    network.compute_loss(y=label, y_pred=probabilities)
    network.compute_metrics(None, label, probabilities)


def _optimizer(recipe: Recipe) -> keras.optimizers.Optimizer:
    """A recipe's optimizer. Its numbers may be any but zero: the trial's own are assigned."""
    decay = {"weight_decay": 1.0} if recipe.weight_decay else {}
    optimizers: dict[str, Callable[[], Any]] = {
        "sgd": lambda: (
            Descent(1.0, momentum=0.9, name="sgd", **decay) if recipe.momentum else keras.optimizers.SGD(1.0, **decay)
        ),
        "adam": lambda: keras.optimizers.Adam(1.0, **decay),
        "adamw": lambda: keras.optimizers.AdamW(1.0, **{"weight_decay": 0.0, **decay}),
    }
    return optimizers[recipe.optimizer]()


def _is_kernel(variable: Any) -> bool:
    return variable.ndim > 1 and "kernel" in variable.path.rsplit("/", 1)[-1]
