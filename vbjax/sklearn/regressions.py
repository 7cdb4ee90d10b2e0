"""Regressions as estimators: regressors of `sklearn.linear_model`, and classifiers of two classes."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from vbjax import models
from vbjax.inference.result import Fit
from vbjax.numerics.compilation import jit
from vbjax.numerics.record import Record
from vbjax.numerics.types import Given, Hyper, Params, Tree
from vbjax.sklearn.estimator import Estimator, Fitted, estimator, filled, read_sample_weight

_KEY = 0  # they start at their prior: nothing is drawn


@estimator
class Regression(RegressorMixin, Estimator):
    """Linear regression: `_model` says of which kind.

    Args:
        fit_intercept: whether there is an intercept.
        tol: a fit has converged when a sweep raises the objective by at most `tol` per row.
        max_iter: sweeps at most.

    Attributes:
        coef_, intercept_: (d,) and a number, expected.
        alpha_: the expected precision of the noise.
        converged_, n_iter_: whether the fit has converged, and in how many sweeps.

    >>> from vbjax.sklearn import LinearRegression
    >>> line = LinearRegression().fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
    >>> print(f"{line.coef_[0]:.2f} {line.intercept_:.2f}")
    2.00 1.00
    """

    fit_intercept: bool = True
    tol: float = 1e-6
    max_iter: int = 1000

    _names = dict(
        alpha_1="concentration",
        alpha_2="rate",
        lambda_1="relevance_concentration",
        lambda_2="relevance_rate",
    )
    coef_ = Fitted(lambda fit: fit.coefficients())
    intercept_ = Fitted(lambda fit: fit.intercept())
    alpha_ = Fitted(lambda fit: fit.model.response.noise(_means(fit.params)))

    def fit(self, X: Given, y: Given, sample_weight: Given = None) -> Self:
        """Fit the weights to rows X (n, d) and their y (n,)."""
        X, y = self._read(X, y, reset=True, y_numeric=True)
        weights = read_sample_weight(sample_weight, X)
        data = filled(X), filled(y)
        self._run(data, weights, tol=self.tol, max_iter=self.max_iter, key=jax.random.key(_KEY))
        return self

    def predict(self, X: Given, return_std: bool = False) -> Any:
        """Return the expected y of rows, (n,), and if asked for the deviation of y about it."""
        X = self._read(X)
        mean = self._of_rows(lambda fit, x: fit.predict(x), X)
        if not return_std:
            return mean
        return mean, self._of_rows(lambda fit, x: _deviation(fit.model, fit.params, x), X)


def _means(params: Params) -> Record:
    return Record({name: state.mean for name, state in params.items()})


@jit
def _deviation(model: Tree, params: Params, x: Array) -> Array:
    return jnp.sqrt(model.predictive(params, x).variance)


def _covariance(fit: Fit) -> Array:
    """Return the covariance of the columns' weights, (d, d)."""
    covariance = fit.model.response.weights(Record(w=fit.params.w.covariance))
    return covariance[fit.model.fit_intercept :, fit.model.fit_intercept :]


@estimator
class LinearRegression(Regression):
    """Least squares, as `sklearn.linear_model.LinearRegression` for one y; with the precision of the noise.

    Parameters and attributes: see `Regression`.
    """

    _model = models.LinearRegression


@estimator
class BayesianLinearRegression(Regression):
    """Linear regression with a conjugate prior, exact; `sklearn.linear_model.BayesianRidge` is its like.

    It differs from that in that the prior of the weights is given, w | tau ~ N(0, (tau B0)^-1), and not
    learned; y is then Student-t, and `predict(X, return_std=True)` gives its deviation.

    Args:
        mean_precision: B0, (p, p), with the intercept first; by default diagonal, a thousandth of a row of
            data.
        alpha_1, alpha_2: the noise's precision ~ Gamma(alpha_1, alpha_2); alpha_2 is by default a thousandth
            of the variance of y.

    Attributes:
        sigma_: (d, d), the covariance of the weights.

    Other parameters and attributes: see `Regression`.
    """

    mean_precision: Hyper = None
    alpha_1: Hyper = 1e-3
    alpha_2: Hyper = None

    _model = models.BayesianLinearRegression
    sigma_ = Fitted(_covariance)


@estimator
class ARDRegression(Regression):
    """Linear regression with automatic relevance determination, as `sklearn.linear_model.ARDRegression`.

    It differs in that it is variational Bayes (the same fixed points), has no threshold at which a weight is
    struck out, and its priors follow the units of the data.

    Args:
        alpha_1, alpha_2: the noise's precision ~ Gamma(alpha_1, alpha_2); alpha_2 is by default 1e-6 times
            the variance of y.
        lambda_1, lambda_2: a weight's precision ~ Gamma(lambda_1, lambda_2); lambda_2 is by default 1e-6 in
            the unit of its square.

    Attributes:
        lambda_: (d,), the expected precisions of the weights.
        sigma_: (d, d), the covariance of the weights.

    Other parameters and attributes: see `Regression`.
    """

    alpha_1: Hyper = 1e-6
    alpha_2: Hyper = None
    lambda_1: Hyper = 1e-6
    lambda_2: Hyper = None

    _model = models.ARDRegression
    lambda_ = Fitted(lambda fit: fit.params.alpha.mean)
    sigma_ = Fitted(_covariance)


# -- classifiers -----------------------------------------------------------------------------------------


@estimator
class Classification(ClassifierMixin, Estimator):
    """Regression of two classes, by variational Bayes; `sklearn.multiclass` makes several of it.

    Args:
        fit_intercept: whether there is an intercept.
        ard: whether the weights' precisions are learned, so that those without use go to 0.
        precision: (d,) or a number, of the weights' prior; by default a tenth of the columns' mean squares.
        intercept_precision: of the intercept's prior.
        tol: a fit has converged when a sweep raises the lower bound by at most `tol` per row.
        max_iter: sweeps at most.

    Attributes:
        classes_: (2,).
        coef_, intercept_: (1, d) and (1,), expected.
        converged_, n_iter_: whether the fit has converged, and in how many sweeps.

    >>> from vbjax.sklearn import LogisticRegression
    >>> X = [[-2.0], [-1.0], [1.0], [2.0]]
    >>> LogisticRegression().fit(X, ["no", "no", "yes", "yes"]).predict(X).tolist()
    ['no', 'no', 'yes', 'yes']
    """

    fit_intercept: bool = True
    ard: bool = False
    precision: Hyper = None
    intercept_precision: Hyper = 0.01
    tol: float = 1e-6
    max_iter: int = 1000

    coef_ = Fitted(lambda fit: fit.coefficients()[None])
    intercept_ = Fitted(lambda fit: fit.intercept()[None])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def fit(self, X: Given, y: Given, sample_weight: Given = None) -> Self:
        """Fit the weights to rows X (n, d) and their classes y (n,), of which there are two."""
        X, y = self._read(X, y, reset=True)
        check_classification_targets(y)
        if (kind := type_of_target(y, input_name="y", raise_unknown=True)) != "binary":
            raise ValueError(f"Only binary classification is supported. The type of the target is {kind}.")
        weights = read_sample_weight(sample_weight, X)
        if len(np.unique(y[weights[: len(y)] > 0])) < 2:
            raise ValueError("y must have two classes among the rows that weigh something; got one class")
        self.classes_, labels = np.unique(y, return_inverse=True)
        data = filled(X), filled(labels)
        self._run(data, weights, tol=self.tol, max_iter=self.max_iter, key=jax.random.key(_KEY))
        return self

    def predict(self, X: Given) -> np.ndarray:
        """Return the more probable class of every row, (n,)."""
        second = self.decision_function(X) > 0
        return self.classes_[second.astype(int)]

    def decision_function(self, X: Given) -> np.ndarray:
        """Return the logarithm of the odds of the second class, (n,), the weights integrated out."""
        no, yes = self.predict_log_proba(X).T
        return yes - no

    def predict_proba(self, X: Given) -> np.ndarray:
        """Return the probabilities of both classes, (n, 2), the weights integrated out."""
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X: Given) -> np.ndarray:
        """Return the logarithms of these probabilities, (n, 2)."""
        return self._of_rows(lambda fit, x: _log_proba(fit.model, fit.params, x), self._read(X))


@jit
def _log_proba(model: Tree, params: Params, x: Array) -> Array:
    labels = model.predictive(params, x)
    return jnp.stack([labels.log_prob(jnp.full_like(x[:, 0], y)) for y in (0, 1)], 1)


@estimator
class LogisticRegression(Classification):
    """Logistic regression of two classes by variational Bayes.

    It differs from `sklearn.linear_model.LogisticRegression` in that weights are distributions: the prior's
    precisions take the place of C, and probabilities have the weights integrated out.

    Parameters and attributes: see `Classification`.
    """

    _model = models.BayesianLogisticRegression


@estimator
class ProbitRegression(Classification):
    """Probit regression of two classes by variational Bayes.

    Parameters and attributes: see `Classification`.
    """

    _model = models.BayesianProbitRegression
