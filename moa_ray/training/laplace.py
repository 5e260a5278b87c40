"""Laplace's approximation for a softmax layer on fixed features: how far its weights could lie from where they are.

The posterior over the weights is taken for a Gaussian around the trained ones. Its precision is the generalised
Gauss-Newton Hessian of the loss, whole where there are few weights, else as a Kronecker product of a part for the
features and one for the classes, plus the precision of a Gaussian prior that maximises the marginal likelihood.
Source: Ritter, Botev and Barber 2018; Daxberger et al. 2021, "Laplace Redux".
"""

import itertools
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import minimize_scalar
from scipy.special import softmax

Array = NDArray[np.float64]

MOST_WHOLE = 1000  # weights of which the whole Hessian is taken: its eigenvectors then take a second at most
_LOG_PRECISION = (-15.0, 15.0)  # natural logarithms between which the prior's precision is looked for


class Curvature(Protocol):
    """A Hessian of the weights in its eigenvectors.

    values : its eigenvalues; those that are 0 may be left out
    """

    @property
    def values(self) -> Array: ...

    def scale(self, noise: Array, precision: float) -> Array:
        """Draws of a Gaussian of mean 0 and of this curvature plus a prior's precision, made of standard normal ones.

        noise : (features + 1, classes), as the result
        """


@dataclass(frozen=True)
class Whole:
    """A Hessian of all weights: vectors is (weights, k), weights counted class by class within each feature."""

    values: Array
    vectors: Array

    def scale(self, noise: Array, precision: float) -> Array:
        flat = noise.ravel()
        shrunk = (self.values + precision) ** -0.5 - precision**-0.5
        scaled: Array = flat / math.sqrt(precision) + self.vectors @ (shrunk * (self.vectors.T @ flat))
        return scaled.reshape(noise.shape)


@dataclass(frozen=True)
class Kronecker:
    """The product of a part for the features and one for the classes: values is (k, classes)."""

    values: Array
    features: Array
    classes: Array

    def scale(self, noise: Array, precision: float) -> Array:
        shrunk = (self.values + precision) ** -0.5 - precision**-0.5
        turned = self.features.T @ noise @ self.classes
        scaled: Array = noise / math.sqrt(precision) + self.features @ (shrunk * turned) @ self.classes.T
        return scaled


@dataclass(frozen=True)
class Posterior:
    """The Gaussian around the trained weights.

    weights : (features + 1, classes), the biases last
    precision : of the prior
    """

    weights: Array
    precision: float
    curvature: Curvature

    def predict(self, features: NDArray[np.floating], draws: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Probabilities, (draws, rows, classes); the weights of one draw are those of all rows.

        features : (rows, features)
        """
        rows = _with_ones(features)
        taken = np.empty((draws, len(rows), self.weights.shape[1]), dtype=np.float32)
        for draw in range(draws):
            noise = rng.standard_normal(self.weights.shape)
            taken[draw] = softmax(rows @ (self.weights + self.curvature.scale(noise, self.precision)), axis=1)
        return taken


def fit(
    features: NDArray[np.floating],
    sample_weights: NDArray[np.floating],
    kernel: NDArray[np.floating],
    bias: NDArray[np.floating],
    most_whole: int = MOST_WHOLE,
) -> Posterior:
    """The posterior of a softmax layer.

    features : of the training rows, (rows, features)
    sample_weights : how much each row counted in the loss, (rows,)
    kernel, bias : as trained, (features, classes) and (classes,)
    most_whole : weights up to which the Hessian is taken whole
    """
    weights = np.vstack([kernel, bias]).astype(np.float64)
    rows, counted = _with_ones(features), np.asarray(sample_weights, dtype=np.float64)
    probabilities = softmax(rows @ weights, axis=1)
    hessian = whole if weights.size <= most_whole else kronecker
    curvature = hessian(rows, counted, probabilities)
    return Posterior(weights, prior_precision(curvature.values, weights), curvature)


def whole(rows: Array, counted: Array, probabilities: Array) -> Whole:
    """The generalised Gauss-Newton Hessian of the summed cross-entropy, exact for a softmax layer.

    rows : (rows, features), counted : (rows,), probabilities : (rows, classes)
    """
    n_features, n_classes = rows.shape[1], probabilities.shape[1]
    hessian = np.empty((n_features, n_classes, n_features, n_classes))
    for one, other in itertools.product(range(n_classes), repeat=2):
        shared = counted * probabilities[:, one] * ((one == other) - probabilities[:, other])
        hessian[:, one, :, other] = rows.T @ (shared[:, None] * rows)
    return Whole(*_above_zero(*eigh(hessian.reshape(n_features * n_classes, -1))))


def kronecker(rows: Array, counted: Array, probabilities: Array) -> Kronecker:
    """The same as a product, exact where every row has the same probabilities; see `whole`."""
    by_feature, features = _eigen(np.sqrt(counted)[:, None] * rows)
    mean = np.average(probabilities, axis=0, weights=counted)
    outer = np.einsum("n,nk,nc->kc", counted / counted.sum(), probabilities, probabilities, optimize=True)
    by_class, classes = eigh(np.diag(mean) - outer)
    return Kronecker(np.outer(by_feature, by_class.clip(min=0)), features, classes)


def prior_precision(values: Array, weights: Array) -> float:
    """The precision of the Gaussian prior, of mean 0, under which Laplace's marginal likelihood is highest.

    values : eigenvalues of the Hessian; those that are 0 may be left out
    """

    def loss(log_precision: float) -> float:
        precision = math.exp(log_precision)
        # Of each direction without curvature the prior's part and the posterior's cancel.
        gained = values.size * log_precision - np.log(values + precision).sum()
        return float(precision * np.square(weights).sum() - gained) / 2

    return math.exp(minimize_scalar(loss, bounds=_LOG_PRECISION, method="bounded").x)


def _eigen(rows: Array) -> tuple[Array, Array]:
    """Eigenvalues above 0 of ``rows.T @ rows``, and their vectors as columns."""
    few = len(rows) < rows.shape[1]
    values, vectors = eigh(rows @ rows.T if few else rows.T @ rows)
    values, vectors = _above_zero(values, vectors)
    return values, rows.T @ vectors / np.sqrt(values) if few else vectors


def _above_zero(values: Array, vectors: Array) -> tuple[Array, Array]:
    """The eigenvalues, ascending, that are more than rounding, and their vectors."""
    there = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return values[there], vectors[:, there]


def _with_ones(features: NDArray[np.floating]) -> Array:
    """Features as float64, and a column of ones for the biases."""
    return np.hstack([features.astype(np.float64), np.ones((len(features), 1))])
