"""Keras layers of the networks: input scaling, rows looked up on the device, dropout, and the head.

What a hyperparameter sets is held in a variable of its layer, so that a compiled network takes another trial's number
without being traced again.
"""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


class InputScaling(keras.layers.Layer):  # type: ignore[misc]
    """Scale grey levels of 0..255 as the backbone's own pre-training did.

    Parameters
    ----------
    module : str
        The module of ``keras.applications`` that has the backbone's ``preprocess_input``.
    **kwargs : Any
        Arguments of `keras.layers.Layer`; the dtype is always float32.
    """

    def __init__(self, module: str, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.module = module

    def call(self, images: Any) -> Any:
        """Scale images.

        Parameters
        ----------
        images : tensor of shape (batch, height, width, 3)
            Grey levels in 0..255, float.

        Returns
        -------
        tensor of the same shape
        """
        return getattr(keras.applications, self.module).preprocess_input(images, data_format="channels_last")


class Lookup(keras.layers.Layer):  # type: ignore[misc]
    """Take rows of an array that lies in the memory of the device that computes the network.

    Parameters
    ----------
    array : ndarray of shape (n, ...)
        Tiles or features, a row each; copied to the device.
    **kwargs : Any
        Arguments of `keras.layers.Layer`; the dtype is always float32.
    """

    def __init__(self, array: NDArray[Any], **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.array = self.add_weight(
            array.shape,
            lambda shape, dtype: keras.ops.convert_to_tensor(np.ascontiguousarray(array), dtype=dtype),
            dtype=str(array.dtype),
            trainable=False,
            autocast=False,
            name="array",
        )

    def call(self, rows: Any) -> Any:
        """Take rows.

        Parameters
        ----------
        rows : tensor of shape (batch,), int32
            Indices of the array's first axis.

        Returns
        -------
        tensor of shape (batch, ...)
            In the array's dtype.
        """
        return keras.ops.take(self.array, rows, axis=0)


class Dropout(keras.layers.Layer):  # type: ignore[misc]
    """Drop inputs at random in training, as Keras' layer does, with the rate held in a variable.

    Parameters
    ----------
    rate : float
        Share of the inputs that become 0, in [0, 1).
    **kwargs : Any
        Arguments of `keras.layers.Layer`; the dtype is always float32.
    """

    def __init__(self, rate: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.initial = rate
        self.seed_generator = keras.random.SeedGenerator(seed=0)
        initial = keras.initializers.Constant(rate)
        self.rate = self.add_weight((), initial, trainable=False, autocast=False, name="rate")

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Drop inputs where it is training, and scale the others so that the mean stays.

        Parameters
        ----------
        inputs : tensor
            Of any shape, float32.
        training : bool
            Whether anything is dropped.

        Returns
        -------
        tensor of the same shape
        """
        if not training:
            return inputs
        draws = keras.random.uniform(keras.ops.shape(inputs), seed=self.seed_generator)
        return keras.ops.where(draws < self.rate, 0.0, inputs / (1.0 - self.rate))

    def get_config(self) -> dict[str, Any]:
        """Return what Keras builds the layer again from.

        Returns
        -------
        dict
            Arguments of the constructor.
        """
        return {**super().get_config(), "rate": self.initial}


class Head(keras.layers.Dense):  # type: ignore[misc]
    """A dense layer with an L2 penalty on its kernel, the penalty's factor held in a variable."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Add kernel and bias, and then the factor: a file of weights lists kernel and bias first.

        Parameters
        ----------
        input_shape : tuple of int or None
            Of the features, (batch, features).
        """
        super().build(input_shape)
        self.l2 = self.add_weight((), "zeros", trainable=False, autocast=False, name="l2")

    def save_own_variables(self, store: Any) -> None:
        """Write the variables; Dense saves kernel and bias alone, and wants as many back as it has.

        Parameters
        ----------
        store : mapping
            Keras' store of one layer, written in place.
        """
        super().save_own_variables(store)
        store["l2"] = self.l2

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Compute the probabilities, and in training add the penalty to the losses.

        Parameters
        ----------
        inputs : tensor of shape (batch, features)
            Pooled features.
        training : bool
            Whether the penalty is added.

        Returns
        -------
        tensor of shape (batch, units)
        """
        if training:
            self.add_loss(self.l2 * keras.ops.sum(keras.ops.square(self.kernel)))
        return super().call(inputs, training=training)
