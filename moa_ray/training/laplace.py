"""Laplace's approximation for a softmax layer on fixed features: how far its weights could lie from where they are.

The posterior over the weights is taken for a Gaussian around the trained ones. Its precision is the generalised
Gauss-Newton Hessian of the loss, full where there are few weights, else as a Kronecker product of a factor for the
features and one for the classes, plus the precision of a Gaussian prior that maximises the marginal likelihood.

References
----------
Ritter, Botev and Barber 2018, "A scalable Laplace approximation for neural networks".
Daxberger et al. 2021, "Laplace Redux".
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

MOST_FULL = 1000  # weights of which the full Hessian is taken: its eigenvectors then take a second at most
_LOG_PRECISION = (-15.0, 15.0)  # natural logarithms between which the prior's precision is looked for


class Hessian(Protocol):
    """A Hessian of the weights by its eigenvectors."""

    @property
    def values(self) -> Array:
        """The eigenvalues; those that are 0 may be left out."""

    def scale(self, noise: Array, precision: float) -> Array:
        """Turn standard normal draws into draws of a Gaussian of mean 0 whose precision is this Hessian plus a prior's.

        Parameters
        ----------
        noise : ndarray of shape (features + 1, classes)
            Standard normal draws.
        precision : float
            Of the prior.

        Returns
        -------
        ndarray of shape (features + 1, classes)
        """


@dataclass(frozen=True)
class FullHessian:
    """A Hessian of all weights together.

    Attributes
    ----------
    values : ndarray of shape (k,)
        Eigenvalues.
    vectors : ndarray of shape (weights, k)
        Eigenvectors; weights are counted class by class within each feature.
    """

    values: Array
    vectors: Array

    def scale(self, noise: Array, precision: float) -> Array:
        """Turn standard normal draws into draws of the posterior's deviations; see `Hessian.scale`.

        Parameters
        ----------
        noise : ndarray of shape (features + 1, classes)
            Standard normal draws.
        precision : float
            Of the prior.

        Returns
        -------
        ndarray of shape (features + 1, classes)
        """
        flat = noise.ravel()
        shrunk = (self.values + precision) ** -0.5 - precision**-0.5
        scaled: Array = flat / math.sqrt(precision) + self.vectors @ (shrunk * (self.vectors.T @ flat))
        return scaled.reshape(noise.shape)


@dataclass(frozen=True)
class KroneckerHessian:
    """The Kronecker product of a factor for the features and one for the classes.

    Attributes
    ----------
    values : ndarray of shape (k, classes)
        Eigenvalues.
    features : ndarray of shape (features + 1, k)
        Eigenvectors of the features' factor.
    classes : ndarray of shape (classes, classes)
        Eigenvectors of the classes' factor.
    """

    values: Array
    features: Array
    classes: Array

    def scale(self, noise: Array, precision: float) -> Array:
        """Turn standard normal draws into draws of the posterior's deviations; see `Hessian.scale`.

        Parameters
        ----------
        noise : ndarray of shape (features + 1, classes)
            Standard normal draws.
        precision : float
            Of the prior.

        Returns
        -------
        ndarray of shape (features + 1, classes)
        """
        shrunk = (self.values + precision) ** -0.5 - precision**-0.5
        turned = self.features.T @ noise @ self.classes
        scaled: Array = noise / math.sqrt(precision) + self.features @ (shrunk * turned) @ self.classes.T
        return scaled


@dataclass(frozen=True)
class Posterior:
    """The Gaussian around the trained weights.

    Attributes
    ----------
    weights : ndarray of shape (features + 1, classes)
        As trained, the biases last.
    precision : float
        Of the prior.
    hessian : Hessian
        Of the loss.
    """

    weights: Array
    precision: float
    hessian: Hessian

    def predict(self, features: NDArray[np.floating], draws: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Predict rows with weights that are drawn from the posterior; those of one draw are the same for all rows.

        Parameters
        ----------
        features : ndarray of shape (rows, features)
            The rows' features.
        draws : int
            How often weights are drawn.
        rng : Generator
            Draws them.

        Returns
        -------
        ndarray of shape (draws, rows, classes), float32
            Probabilities.
        """
        rows = _with_ones(features)
        probabilities = np.empty((draws, len(rows), self.weights.shape[1]), dtype=np.float32)
        for draw in range(draws):
            noise = rng.standard_normal(self.weights.shape)
            weights = self.weights + self.hessian.scale(noise, self.precision)
            probabilities[draw] = softmax(rows @ weights, axis=1)
        return probabilities


def fit(
    features: NDArray[np.floating],
    sample_weights: NDArray[np.floating],
    kernel: NDArray[np.floating],
    bias: NDArray[np.floating],
    most_full: int = MOST_FULL,
) -> Posterior:
    """Approximate the posterior of a softmax layer.

    Parameters
    ----------
    features : ndarray of shape (rows, features)
        Features of the training rows.
    sample_weights : ndarray of shape (rows,)
        How much each row counted in the loss.
    kernel : ndarray of shape (features, classes)
        As trained.
    bias : ndarray of shape (classes,)
        As trained.
    most_full : int
        Number of weights up to which the full Hessian is taken.

    Returns
    -------
    Posterior
    """
    weights = np.vstack([kernel, bias]).astype(np.float64)
    rows, counted = _with_ones(features), np.asarray(sample_weights, dtype=np.float64)
    probabilities = softmax(rows @ weights, axis=1)
    take = full_hessian if weights.size <= most_full else kronecker_hessian
    hessian = take(rows, counted, probabilities)
    return Posterior(weights, prior_precision(hessian.values, weights), hessian)


def full_hessian(rows: Array, sample_weights: Array, probabilities: Array) -> FullHessian:
    """Compute the generalised Gauss-Newton Hessian of the summed cross-entropy, exact for a softmax layer.

    Parameters
    ----------
    rows : ndarray of shape (rows, features)
        Features, ones for the biases included.
    sample_weights : ndarray of shape (rows,)
        How much each row counted in the loss.
    probabilities : ndarray of shape (rows, classes)
        By the trained weights.

    Returns
    -------
    FullHessian
    """
    n_features, n_classes = rows.shape[1], probabilities.shape[1]
    hessian = np.empty((n_features, n_classes, n_features, n_classes))
    for one, other in itertools.product(range(n_classes), repeat=2):
        shared = sample_weights * probabilities[:, one] * ((one == other) - probabilities[:, other])
        hessian[:, one, :, other] = rows.T @ (shared[:, None] * rows)
    return FullHessian(*_above_zero(*eigh(hessian.reshape(n_features * n_classes, -1))))


def kronecker_hessian(rows: Array, sample_weights: Array, probabilities: Array) -> KroneckerHessian:
    """Approximate the same by a Kronecker product, exact where every row has the same probabilities.

    Parameters
    ----------
    rows : ndarray of shape (rows, features)
        Features, ones for the biases included.
    sample_weights : ndarray of shape (rows,)
        How much each row counted in the loss.
    probabilities : ndarray of shape (rows, classes)
        By the trained weights.

    Returns
    -------
    KroneckerHessian
    """
    by_feature, features = _eigen(np.sqrt(sample_weights)[:, None] * rows)
    mean = np.average(probabilities, axis=0, weights=sample_weights)
    shares = sample_weights / sample_weights.sum()
    outer = np.einsum("n,nk,nc->kc", shares, probabilities, probabilities, optimize=True)
    by_class, classes = eigh(np.diag(mean) - outer)
    return KroneckerHessian(np.outer(by_feature, by_class.clip(min=0)), features, classes)


def prior_precision(values: Array, weights: Array) -> float:
    """Find the precision of the Gaussian prior, of mean 0, under which Laplace's marginal likelihood is highest.

    Parameters
    ----------
    values : ndarray
        Eigenvalues of the Hessian; those that are 0 may be left out.
    weights : ndarray
        As trained.

    Returns
    -------
    float
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
