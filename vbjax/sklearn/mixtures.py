"""Mixtures as estimators: `sklearn.mixture`, and the same face for other components."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.base import DensityMixin
from sklearn.utils.metaestimators import available_if

from vbjax import models
from vbjax.inference.result import Fit
from vbjax.models.components.covariance import STRUCTURES
from vbjax.numerics.inputs import read_count
from vbjax.numerics.types import Given, Hyper, Params
from vbjax.sklearn.estimator import (
    Estimator,
    Fitted,
    RandomState,
    draw_key,
    estimator,
    filled,
    read_sample_weight,
)
from vbjax.sklearn.settable import NORMAL, OF_MIXTURES, Settable, normals

_NEXT_TO_NOTHING = 1e-30  # a floor that float32 holds
_OF_POINTS = available_if(lambda mixture: mixture._model.points)


@estimator
class Mixture(DensityMixin, Estimator):
    """Mixture of any component: `_model` says of which.

    Args:
        n_components: k; of Bayesian mixtures an upper bound.
        tol: a fit has converged when a sweep raises the lower bound by at most `tol` per row.
        max_iter: sweeps at most.
        n_init: number of fits, from different starts, of which the best is kept.
        random_state: a seed, a `RandomState`, or None for numpy's own.
        warm_start: whether `fit` starts where the last one ended.
        verbose: whether to show progress.

    Attributes:
        weights_: (k,), of Bayesian mixtures expected.
        converged_, n_iter_: whether the best fit has converged, and in how many sweeps.
        lower_bound_, lower_bounds_: the best fit's log likelihood per row at its end; and at its start and
            after each sweep. Of Bayesian mixtures the evidence lower bound of all rows, exact, in nats.

    >>> from vbjax.sklearn import PoissonMixture
    >>> mixture = PoissonMixture(2, random_state=0).fit([[1.0], [2.0], [30.0], [31.0]])
    >>> sorted(mixture.means_[:, 0].round(1).tolist()), mixture.weights_.round(3).tolist()
    ([1.5, 30.5], [0.5, 0.5])
    """

    n_components: int = field(default=1, kw_only=False)
    tol: float = 1e-3
    max_iter: int = 100
    n_init: int = 1
    random_state: RandomState = None
    warm_start: bool = False
    verbose: int = 0

    _names = dict(
        reg_covar="covariance_floor",
        weight_concentration_prior_type="weight_prior",
        weight_concentration_prior="weight_concentration",
        mean_precision_prior="mean_precision",
        mean_prior="location",
        degrees_of_freedom_prior="degrees_of_freedom",
        covariance_prior="inverse_scale",
    )
    weights_ = Fitted(lambda fit: fit.params.weights.mean)

    def _hyperparameters(self) -> dict[str, Given]:
        own = super()._hyperparameters()
        if own.get("weight_prior") == "dirichlet_distribution":
            own["weight_prior"] = "dirichlet"
        if "weight_prior" in own and own["weight_concentration"] is None:
            own["weight_concentration"] = 1 / self.n_components
        if own.get("covariance_floor") == 0:
            own["covariance_floor"] = _NEXT_TO_NOTHING
        return own

    def _start(self, X: np.ndarray, weights: np.ndarray, key: Array) -> Params:
        """Return parameters to start from; None for seeds."""
        return self.fit_.params if self.warm_start and "fit_" in vars(self) else None

    def fit(self, X: Given, y: Given = None, sample_weight: Given = None) -> Self:
        """Fit the mixture to rows X (n, d); y is ignored."""
        X = self._read(X, reset=True)
        weights = read_sample_weight(sample_weight, X)
        if len(X) < read_count(self.n_components, "n_components"):
            raise ValueError(
                f"X must have at least n_components={self.n_components} rows; got n_samples={len(X)}"
            )
        X, key = filled(X), draw_key(self.random_state)
        with self._translated():
            start = self._start(X, weights, key)
        self._run(
            X,
            weights,
            tol=self.tol,
            max_iter=self.max_iter,
            key=key,
            n_restarts=self.n_init if start is None else 1,
            params=start,
            progress=bool(self.verbose),
        )
        share = weights.sum() if self._model.points else 1
        self.lower_bound_ = float(self.fit_.objective / share)
        self.lower_bounds_ = (self.fit_.trace / share).tolist()
        return self

    def fit_predict(self, X: Given, y: Given = None, sample_weight: Given = None) -> np.ndarray:
        """Fit the mixture, and return the most probable component of every row, (n,)."""
        return self.fit(X, y, sample_weight).predict(X)

    def predict(self, X: Given) -> np.ndarray:
        """Return the most probable component of every row, (n,)."""
        return self.predict_proba(X).argmax(1)

    def predict_proba(self, X: Given) -> np.ndarray:
        """Return the probability of every component for every row, (n, k)."""
        return self._of_rows(lambda fit, x: fit.responsibilities(x), self._read(X))

    def score_samples(self, X: Given) -> np.ndarray:
        """Return the log density of every row, (n,); of Bayesian mixtures the predictive one, exact."""
        return self._of_rows(lambda fit, x: fit.log_predictive(x), self._read(X))

    def score(self, X: Given, y: Given = None) -> float:
        """Return the mean log density of rows."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Draw new rows (n, d), and the components that they are from, (n,)."""
        with self._fitted() as fit:
            n, keys = read_count(n_samples, "n_samples"), jax.random.split(draw_key(self.random_state))
            labels, component = fit.draw_labels(keys[0], n), fit.model.component
            rows = component.draw_rows(fit.params, keys[1], labels, component.read_given(None, n))
            return np.asarray(rows), np.asarray(labels)

    @_OF_POINTS
    def bic(self, X: Given) -> float:
        """Return the Bayesian information criterion at rows X; smaller is better."""
        return self._criterion("bic", X)

    @_OF_POINTS
    def aic(self, X: Given) -> float:
        """Return Akaike's information criterion at rows X; smaller is better."""
        return self._criterion("aic", X)

    def _criterion(self, name: str, X: Given) -> float:
        X = self._read(X)
        with self._fitted() as fit:
            return float(getattr(fit, name)(filled(X), read_sample_weight(None, X)))


# -- normal components -----------------------------------------------------------------------------------


def _of_covariances(function: Callable[[np.ndarray], np.ndarray]) -> Fitted:
    """Return the attribute of a function of matrices (k, d, d), in the shape of the covariance type."""

    def read(fit: Fit) -> np.ndarray:
        x = function(np.asarray(fit.covariances()))
        shapes = dict(full=x, tied=x[0], diag=np.diagonal(x, axis1=1, axis2=2), spherical=x[:, 0, 0])
        return shapes[fit.model.component.structure.layout]

    return Fitted(read)


def _precision_roots(covariances: np.ndarray) -> np.ndarray:
    """Return upper triangular matrices U, the precisions being U U'."""
    return np.triu(np.linalg.inv(np.linalg.cholesky(covariances)).swapaxes(1, 2))


@estimator
class GaussianMixture(Mixture):
    """Gaussian mixture by EM, as `sklearn.mixture.GaussianMixture`.

    It differs in `reg_covar`, which is the smallest variance allowed in any direction relative to the
    data's variances, not an addition to all variances; in its starts, k-means++ seeds with the moments of the
    rows that are theirs, so that there is no `init_params`; and in having `sample_weight`.

    Args:
        covariance_type: "full", "tied", "diag" or "spherical"; or another of the fourteen models of
            `vb.components.Gaussian`.
        reg_covar: smallest variance of a component in any direction, relative to the data's.
        weights_init, means_init, precisions_init: where the fit starts, once; what is not given is as by
            default. Precisions are shaped as `precisions_`.

    Attributes:
        means_: (k, d).
        covariances_, precisions_, precisions_cholesky_: (k, d, d) full, (d, d) tied, (k, d) diag, (k,)
            spherical; of the others (k, d, d), (k, d) where they lie along the axes, (k,) of spheres.
            `weights_`, `means_` and `covariances_` may be set, all three in place of a fit.

    Other parameters and attributes: see `Mixture`.

    >>> from vbjax.sklearn import GaussianMixture
    >>> mixture = GaussianMixture(2)
    >>> mixture.weights_, mixture.means_ = [0.5, 0.5], [[0.0], [4.0]]
    >>> mixture.covariances_ = [[[1.0]], [[1.0]]]
    >>> mixture.predict_proba([[2.0]]).round(3).tolist()  # half-way
    [[0.5, 0.5]]
    """

    covariance_type: str = "full"
    reg_covar: float = 1e-6
    weights_init: Given = None
    means_init: Given = None
    precisions_init: Given = None

    _model = models.GaussianMixture
    _settable = Settable(OF_MIXTURES, ("means_", "covariances_"), NORMAL, normals)
    means_ = Fitted(lambda fit: fit.means())
    covariances_ = _of_covariances(lambda x: x)
    precisions_ = _of_covariances(np.linalg.inv)
    precisions_cholesky_ = _of_covariances(_precision_roots)

    def _start(self, X: np.ndarray, weights: np.ndarray, key: Array) -> Params:
        start = super()._start(X, weights, key)
        if start is not None or self.weights_init is self.means_init is self.precisions_init is None:
            return start
        model = self._model(**self._hyperparameters())
        x = model.read(X)
        own = model.resolve(x, jnp.asarray(weights)).init(key, x, jnp.asarray(weights))
        means, covariances = own.components.value
        if self.precisions_init is not None:
            correlated = STRUCTURES[self.covariance_type].correlated
            invert = np.linalg.inv if correlated else np.reciprocal
            covariances = invert(np.asarray(self.precisions_init, X.dtype))
        given = lambda init, default: default if init is None else np.asarray(init, X.dtype)
        return model.params_at(
            given(self.weights_init, own.weights.value), given(self.means_init, means), covariances
        )


@estimator
class BayesianGaussianMixture(Mixture):
    """Gaussian mixture by variational Bayes, as `sklearn.mixture.BayesianGaussianMixture`.

    It differs in that the lower bound is the exact evidence lower bound, which may be compared over
    `n_components` and priors, and `score_samples` the exact predictive density; in the priors of the diagonal
    and spherical types (see `vb.components.Gaussian`); in having no `reg_covar`, since the prior keeps
    covariances proper, and no `init_params`; and in having `sample_weight`.

    Args:
        covariance_type: "full", "tied", "diag" or "spherical".
        weight_concentration_prior_type: "dirichlet_process" or "dirichlet_distribution".
        weight_concentration_prior: by default 1 / k.
        mean_precision_prior: rows behind the prior's means; by default 1.
        mean_prior: (d,); by default the data's means.
        degrees_of_freedom_prior: by default d (diag: 1).
        covariance_prior: (d, d), diag (d,), spherical a number; by default the data's sample covariance, its
            diagonal or its trace.

    Attributes:
        means_: (k, d), expected.
        covariances_, precisions_, precisions_cholesky_: at the expected precisions; shaped as those of
            `GaussianMixture`.
        weight_concentration_prior_, mean_precision_prior_, mean_prior_, degrees_of_freedom_prior_,
            covariance_prior_: the parameters of the priors, with what the data have filled in. Those of the
            posteriors are in `fit_.params`.

    Other parameters and attributes: see `Mixture`.
    """

    covariance_type: str = "full"
    weight_concentration_prior_type: str = "dirichlet_process"
    weight_concentration_prior: Hyper = None
    mean_precision_prior: Hyper = None
    mean_prior: Hyper = None
    degrees_of_freedom_prior: Hyper = None
    covariance_prior: Hyper = None

    _model = models.BayesianGaussianMixture
    means_ = Fitted(lambda fit: fit.means())
    covariances_ = _of_covariances(lambda x: x)
    precisions_ = _of_covariances(np.linalg.inv)
    precisions_cholesky_ = _of_covariances(_precision_roots)
    weight_concentration_prior_ = Fitted(lambda fit: fit.model.weights.concentration)
    mean_precision_prior_ = Fitted(lambda fit: fit.model.component.mean_precision)
    mean_prior_ = Fitted(lambda fit: fit.model.component.location)
    degrees_of_freedom_prior_ = Fitted(lambda fit: fit.model.component.degrees_of_freedom)
    covariance_prior_ = Fitted(lambda fit: fit.model.component.inverse_scale)


@estimator
class MixtureOfFactorAnalyzers(Mixture):
    """Mixture of factor analysers by EM: normal components whose covariances come from a few factors.

    For many columns, where the covariances of a `GaussianMixture` have more numbers than the rows can tell.

    Args:
        n_factors: q, the factors of every component.
        noise_type: "diag", "spherical", or another of the names of `vb.components.FactorAnalyzer`.
        noise_floor: the smallest noise variance, relative to its column's.

    Attributes:
        means_: (k, d).
        loadings_: (k, d, q), turned so that L' Psi^-1 L is diagonal, the most informative factor first.
        noise_variances_: (k, d), the diagonals of Psi.
        covariances_: (k, d, d), L L' + Psi.

    Other parameters and attributes: see `Mixture`. `fit_.transform(X)` gives expected factors.

    >>> import numpy as np
    >>> from vbjax.sklearn import MixtureOfFactorAnalyzers
    >>> z = np.linspace(-2, 2, 20)
    >>> X = np.stack([z, 2 * z + 0.1 * np.sin(9 * z), 0.1 * np.cos(7 * z)], 1)  # one factor
    >>> mixture = MixtureOfFactorAnalyzers(1, n_factors=1).fit(X)
    >>> mixture.loadings_.shape, np.abs(mixture.loadings_[0, :2, 0]).round(1).tolist()
    ((1, 3, 1), [1.2, 2.4])
    """

    n_factors: int = 1
    noise_type: str = "diag"
    noise_floor: float = 1e-6

    _model = models.MixtureOfFactorAnalyzers
    means_ = Fitted(lambda fit: fit.means())
    loadings_ = Fitted(lambda fit: fit.loadings())
    noise_variances_ = Fitted(lambda fit: fit.noise_variances())
    covariances_ = Fitted(lambda fit: fit.covariances())
