"""Laplace's approximation against dense grids, inverses and loops."""

import numpy as np
import pytest
from lazy import Lazy
from scipy.special import expit, log_expit, logsumexp, softmax

laplace = Lazy("moa_ray.training.laplace")

RNG = np.random.default_rng(0)
N, FEATURES, CLASSES = 40, 3, 4
ROWS = np.hstack([RNG.normal(size=(N, FEATURES)), np.ones((N, 1))])
COUNTED = RNG.uniform(0.5, 2, N)
PROBABILITIES = softmax(RNG.normal(size=(N, CLASSES)), axis=1)


def slow_hessian(rows, counted, probabilities):
    """A weight is counted class by class within each feature."""
    size = rows.shape[1] * probabilities.shape[1]
    hessian = np.zeros((size, size))
    for row, weight, shares in zip(rows, counted, probabilities, strict=True):
        hessian += weight * np.kron(np.outer(row, row), np.diag(shares) - np.outer(shares, shares))
    return hessian


def covariance(hessian, shape, precision):
    """Of the draws, which are a linear map of the noise."""
    units = np.eye(shape[0] * shape[1]).reshape(-1, *shape)
    columns = np.stack([hessian.scale(unit, precision).ravel() for unit in units], axis=1)
    return columns @ columns.T


# The Hessian


@pytest.mark.parametrize("n", [N, 2])
def test_draws_have_the_inverse_of_hessian_and_prior_for_covariance(n):
    """With two rows most directions have no curvature."""
    arguments = ROWS[:n], COUNTED[:n], PROBABILITIES[:n]
    expected = np.linalg.inv(slow_hessian(*arguments) + 0.7 * np.eye(ROWS.shape[1] * CLASSES))
    drawn = covariance(laplace.full_hessian(*arguments), (ROWS.shape[1], CLASSES), 0.7)
    np.testing.assert_allclose(drawn, expected, atol=1e-9)


@pytest.mark.parametrize("n", [N, 2])
def test_product_is_of_the_features_part_and_the_mean_classes_part(n):
    rows, counted, probabilities = ROWS[:n], COUNTED[:n], PROBABILITIES[:n]
    by_feature = sum(weight * np.outer(row, row) for row, weight in zip(rows, counted, strict=True))
    parts = [np.diag(shares) - np.outer(shares, shares) for shares in probabilities]
    by_class = sum(weight * part for part, weight in zip(parts, counted, strict=True)) / counted.sum()
    hessian = np.kron(by_feature, by_class)
    expected = np.linalg.inv(hessian + 0.7 * np.eye(len(hessian)))
    drawn = covariance(laplace.kronecker_hessian(rows, counted, probabilities), (ROWS.shape[1], CLASSES), 0.7)
    np.testing.assert_allclose(drawn, expected, atol=1e-9)


def test_product_is_the_whole_where_all_rows_have_the_same_probabilities():
    same = np.tile(PROBABILITIES[0], (N, 1))
    shape = (ROWS.shape[1], CLASSES)
    drawn = covariance(laplace.kronecker_hessian(ROWS, COUNTED, same), shape, 0.7)
    np.testing.assert_allclose(drawn, covariance(laplace.full_hessian(ROWS, COUNTED, same), shape, 0.7), atol=1e-9)


def test_full_hessian_is_taken_up_to_a_number_of_weights():
    arguments = ROWS[:, :-1], COUNTED, RNG.normal(size=(FEATURES, CLASSES)), np.zeros(CLASSES)
    weights = (FEATURES + 1) * CLASSES
    assert isinstance(laplace.fit(*arguments, most_full=weights).hessian, laplace.FullHessian)
    assert isinstance(laplace.fit(*arguments, most_full=weights - 1).hessian, laplace.KroneckerHessian)


# Draws


def test_weights_of_a_draw_are_those_of_all_rows():
    posterior = laplace.fit(ROWS[:, :-1], COUNTED, RNG.normal(size=(FEATURES, CLASSES)), np.zeros(CLASSES))
    twice = np.vstack([ROWS[:5, :-1], ROWS[:5, :-1]])
    drawn = posterior.predict(twice, 7, np.random.default_rng(1))
    np.testing.assert_allclose(drawn.sum(axis=2), 1, atol=1e-6)
    np.testing.assert_array_equal(drawn[:, :5], drawn[:, 5:])
    assert (drawn.std(axis=0) > 0).all()
    np.testing.assert_array_equal(drawn, posterior.predict(twice, 7, np.random.default_rng(1)))


# A logistic regression of two parameters, whose posterior a grid gives exactly


X = np.sort(RNG.normal(size=80))
Y = RNG.random(80) < expit(1.5 * X - 0.5)


def log_posterior(slope, offset, precision):
    """Not normalised; the difference of two weights of a precision has half of it."""
    logits = np.multiply.outer(slope, X) + offset[..., None]
    likelihood = log_expit(np.where(Y, logits, -logits)).sum(axis=-1)
    return likelihood - precision / 4 * (slope**2 + offset**2)


def at_its_mode(precision):
    """Kernel and bias of the softmax layer of two classes whose weights are most probable."""

    def loss(parameters):
        return -float(log_posterior(*map(np.asarray, parameters), precision))

    from scipy.optimize import minimize

    slope, offset = minimize(loss, np.zeros(2)).x
    return np.array([[-slope / 2, slope / 2]]), np.array([-offset / 2, offset / 2])


@pytest.fixture(scope="module")
def posterior():
    """Weights and prior that agree: the weights are most probable under a prior that is most likely with them."""
    precision = 1.0
    for _ in range(30):
        fitted = laplace.fit(X[:, None], np.ones(len(X)), *at_its_mode(precision))
        precision = fitted.precision
    return fitted


@pytest.fixture(scope="module")
def grid():
    return np.meshgrid(np.linspace(-1, 5, 151), np.linspace(-4, 3, 151), indexing="ij")


def test_probabilities_and_their_spread_are_those_of_the_exact_posterior(posterior, grid):
    logs = log_posterior(*grid, posterior.precision)
    shares = np.exp(logs - logsumexp(logs))
    points = np.linspace(-2, 2, 9)
    drawn = posterior.predict(points[:, None], 4000, np.random.default_rng(2))[:, :, 1]
    for place, point in enumerate(points):
        exact = expit(grid[0] * point + grid[1])
        mean = (shares * exact).sum()
        deviation = np.sqrt((shares * (exact - mean) ** 2).sum())
        assert drawn[:, place].mean() == pytest.approx(mean, abs=0.02)
        assert drawn[:, place].std() == pytest.approx(deviation, abs=0.01)


def test_prior_is_about_the_most_likely_one(posterior, grid):
    """The grid integrates the likelihood; a prior's own norm is ``precision / (4 pi)``."""

    def evidence(precision):
        return logsumexp(log_posterior(*grid, precision)) + np.log(precision)

    best = max(evidence(precision) for precision in np.geomspace(1e-2, 1e2, 25))
    assert evidence(posterior.precision) > best - 0.05
