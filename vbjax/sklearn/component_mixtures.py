"""Mixtures of other components than normals, with the face of `sklearn.mixture`."""

from __future__ import annotations

import numpy as np

from vbjax import models
from vbjax.inference.result import Fit
from vbjax.numerics.types import Given, Hyper
from vbjax.sklearn.estimator import Fitted, estimator
from vbjax.sklearn.mixtures import Mixture


def binary(X: np.ndarray, threshold: float | None) -> np.ndarray:
    """Return 1 where numbers are above the threshold and 0 elsewhere; numbers as they are without one."""
    return X if threshold is None else (threshold < X).astype(X.dtype)


@estimator
class BernoulliMixture(Mixture):
    """Mixture of columns of 0 and 1 by EM.

    Args:
        binarize: numbers above it are 1 and others 0, as in `sklearn.naive_bayes.BernoulliNB`; None where all
            are 0 or 1.

    Attributes:
        means_: (k, d), the probabilities of 1.

    Other parameters and attributes: see `Mixture`.
    """

    binarize: float | None = 0.0

    _model = models.BernoulliMixture
    means_ = Fitted(lambda fit: fit.params.components.mean)

    def _read(self, X: Given, *args: Given, **options: Given) -> np.ndarray:
        return binary(super()._read(X, *args, **options), self.binarize)


@estimator
class BayesianBernoulliMixture(Mixture):
    """Mixture of columns of 0 and 1 by variational Bayes.

    Args:
        binarize: see `BernoulliMixture`.
        weight_concentration_prior_type, weight_concentration_prior: see `BayesianGaussianMixture`.

    Attributes:
        means_: (k, d), the expected probabilities of 1.

    Other parameters and attributes: see `Mixture`.
    """

    binarize: float | None = 0.0
    weight_concentration_prior_type: str = "dirichlet_process"
    weight_concentration_prior: Hyper = None

    _model = models.BayesianBernoulliMixture
    means_ = Fitted(lambda fit: fit.params.components.mean)

    def _read(self, X: Given, *args: Given, **options: Given) -> np.ndarray:
        return binary(super()._read(X, *args, **options), self.binarize)


@estimator
class CategoricalMixture(Mixture):
    """Mixture of columns of categories 0 to v - 1 by EM.

    Args:
        n_categories: v, of the column that has most; by default the largest number of X plus one. A category
            beyond it is refused by `predict`.

    Attributes:
        probabilities_: (k, d, v).

    Other parameters and attributes: see `Mixture`.
    """

    n_categories: int | None = None

    _model, _whole, _positive = models.CategoricalMixture, True, True
    probabilities_ = Fitted(lambda fit: fit.params.components.mean)


@estimator
class BayesianCategoricalMixture(Mixture):
    """Mixture of columns of categories 0 to v - 1 by variational Bayes.

    Args:
        n_categories: see `CategoricalMixture`.
        weight_concentration_prior_type, weight_concentration_prior: see `BayesianGaussianMixture`.

    Attributes:
        probabilities_: (k, d, v), expected.

    Other parameters and attributes: see `Mixture`.
    """

    n_categories: int | None = None
    weight_concentration_prior_type: str = "dirichlet_process"
    weight_concentration_prior: Hyper = None

    _model, _whole, _positive = models.BayesianCategoricalMixture, True, True
    probabilities_ = Fitted(lambda fit: fit.params.components.mean)


@estimator
class MultinomialMixture(Mixture):
    """Mixture of rows of counts, whose total is given, by EM; `sample` draws rows of one count.

    Attributes:
        probabilities_: (k, d), each row adding up to one.

    Other parameters and attributes: see `Mixture`.
    """

    _model, _whole, _positive = models.MultinomialMixture, True, True
    probabilities_ = Fitted(lambda fit: fit.params.components.mean)


@estimator
class BayesianMultinomialMixture(Mixture):
    """Mixture of rows of counts, whose total is given, by variational Bayes.

    Args:
        weight_concentration_prior_type, weight_concentration_prior: see `BayesianGaussianMixture`.

    Attributes:
        probabilities_: (k, d), expected, each row adding up to one.

    Other parameters and attributes: see `Mixture`.
    """

    weight_concentration_prior_type: str = "dirichlet_process"
    weight_concentration_prior: Hyper = None

    _model, _whole, _positive = models.BayesianMultinomialMixture, True, True
    probabilities_ = Fitted(lambda fit: fit.params.components.mean)


@estimator
class PoissonMixture(Mixture):
    """Mixture of independent columns of counts by EM.

    Attributes:
        means_: (k, d), the rates.

    Other parameters and attributes: see `Mixture`.
    """

    _model, _whole, _positive = models.PoissonMixture, True, True
    means_ = Fitted(lambda fit: fit.params.components.mean)


@estimator
class BayesianPoissonMixture(Mixture):
    """Mixture of independent columns of counts by variational Bayes.

    Args:
        weight_concentration_prior_type, weight_concentration_prior: see `BayesianGaussianMixture`.

    Attributes:
        means_: (k, d), the expected rates.

    Other parameters and attributes: see `Mixture`.
    """

    weight_concentration_prior_type: str = "dirichlet_process"
    weight_concentration_prior: Hyper = None

    _model, _whole, _positive = models.BayesianPoissonMixture, True, True
    means_ = Fitted(lambda fit: fit.params.components.mean)


def gamma_shapes(fit: Fit) -> np.ndarray:
    """Return the shapes of all laws of a gamma component, (k, d), learned or known."""
    learned, rates = fit.model.component.learn_shape, gamma_rates(fit)
    return fit.params.components.mean.row_shape if learned else 0 * rates + fit.model.component.known_shape


def gamma_rates(fit: Fit) -> np.ndarray:
    """Return the (expected) rates of all laws of a gamma component, (k, d)."""
    mean = fit.params.components.mean
    return mean.rate if fit.model.component.learn_shape else mean


@estimator
class GammaMixture(Mixture):
    """Mixture of independent columns of positive numbers by EM.

    Args:
        learn_shape: whether every component and column has a shape of its own, which is learned.
        known_shape: the shape of all, or where they begin; 1 makes it a mixture of exponentials.

    Attributes:
        shapes_, rates_: (k, d); a column's mean is their ratio.

    Other parameters and attributes: see `Mixture`.
    """

    learn_shape: bool = True
    known_shape: Hyper = 1.0

    _model, _positive = models.GammaMixture, True
    shapes_, rates_ = Fitted(gamma_shapes), Fitted(gamma_rates)


@estimator
class BayesianGammaMixture(Mixture):
    """Mixture of independent columns of positive numbers by variational Bayes.

    Args:
        learn_shape, known_shape: see `GammaMixture`.
        weight_concentration_prior_type, weight_concentration_prior: see `BayesianGaussianMixture`.

    Attributes:
        shapes_, rates_: (k, d), the rates expected.

    Other parameters and attributes: see `Mixture`.
    """

    learn_shape: bool = True
    known_shape: Hyper = 1.0
    weight_concentration_prior_type: str = "dirichlet_process"
    weight_concentration_prior: Hyper = None

    _model, _positive = models.BayesianGammaMixture, True
    shapes_, rates_ = Fitted(gamma_shapes), Fitted(gamma_rates)
