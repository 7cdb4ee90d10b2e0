"""Factor models as estimators: `sklearn.decomposition.FactorAnalysis`, and its face for PCA by likelihood."""

from __future__ import annotations

from dataclasses import field
from typing import Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags

from vbjax import models
from vbjax.inference.result import Fit
from vbjax.numerics.types import Given
from vbjax.sklearn.estimator import (
    Estimator,
    Fitted,
    RandomState,
    draw_key,
    estimator,
    filled,
    read_sample_weight,
)


def _turn(fit: Fit) -> np.ndarray:
    """Return the rotation of the latents (q, q) after which W' Psi^-1 W is diagonal, the largest first.

    The largest loading of every factor is positive: loadings are then determined.
    """
    loadings = np.asarray(fit.loadings())
    axes = np.linalg.svd(loadings / np.sqrt(np.asarray(fit.noise_variance()))[:, None], full_matrices=False)[
        2
    ]
    turned = loadings @ axes.T
    sign = np.sign(turned[np.abs(turned).argmax(0), np.arange(len(axes))])
    return axes.T * np.where(sign == 0, 1, sign).astype(axes.dtype)


@estimator
class FactorModel(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Factor model: rows N(W z + mean, Psi) with latent z ~ N(0, I); `_model` says of which kind.

    Args:
        n_components: the number of factors q.
        tol: a fit has converged when a sweep raises the objective by at most `tol`, of all rows together.
        max_iter: sweeps at most.
        random_state: a seed, a `RandomState`, or None for numpy's own.
        verbose: whether to show progress.

    Attributes:
        components_: (q, d), W', turned so that W' Psi^-1 W is diagonal, the most informative factor first,
            the largest loading of each positive.
        mean_: (d,).
        noise_variance_: (d,), the diagonal of Psi.
        loglike_: the objective at the start and after each sweep.
        converged_, n_iter_: whether the fit has converged, and in how many sweeps.

    >>> from vbjax.sklearn import PPCA
    >>> X = [[1.0, 2.1], [2.0, 3.9], [3.0, 6.0], [4.0, 8.1], [5.0, 9.9]]
    >>> PPCA(1).fit(X).transform(X).shape
    (5, 1)
    """

    n_components: int | None = field(default=None, kw_only=False)
    tol: float = 1e-2
    max_iter: int = 1000
    random_state: RandomState = 0
    verbose: int = 0

    components_ = Fitted(lambda fit: (fit.loadings() @ _turn(fit)).T)
    mean_ = Fitted(lambda fit: fit.params.mu.mean)
    noise_variance_ = Fitted(lambda fit: fit.noise_variance())
    loglike_ = Fitted(lambda fit: fit.trace)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _hyperparameters(self) -> dict[str, Given]:
        default = max(1, self.n_features_in_ - (not self._model.noise_per_column))
        q = default if self.n_components is None else self.n_components
        return super()._hyperparameters() | dict(n_components=q)

    def fit(self, X: Given, y: Given = None, sample_weight: Given = None) -> Self:
        """Fit the model to rows X (n, d); y is ignored."""
        X = self._read(X, reset=True, ensure_min_samples=2)
        weights = read_sample_weight(sample_weight, X)
        self._run(
            filled(X),
            weights,
            tol=self.tol / weights.sum(),
            max_iter=self.max_iter,
            key=draw_key(self.random_state),
            progress=bool(self.verbose),
        )
        return self

    def transform(self, X: Given) -> np.ndarray:
        """Return the expected factors of every row, (n, q)."""
        return self._of_rows(lambda fit, x: fit.transform(x) @ _turn(fit), self._read(X))

    def inverse_transform(self, X: Given) -> np.ndarray:
        """Return the expected rows (n, d) of given factors (n, q)."""
        return X @ self.components_ + self.mean_

    def get_covariance(self) -> np.ndarray:
        """Return the covariance of a row, (d, d)."""
        return self.components_.T @ self.components_ + np.diag(self.noise_variance_)

    def get_precision(self) -> np.ndarray:
        """Return the inverse of the covariance of a row, (d, d)."""
        return np.linalg.inv(self.get_covariance())

    def score_samples(self, X: Given) -> np.ndarray:
        """Return the log density of every row, (n,)."""
        return self._of_rows(lambda fit, x: fit.log_predictive(x), self._read(X))

    def score(self, X: Given, y: Given = None) -> float:
        """Return the mean log density of rows."""
        return float(self.score_samples(X).mean())

    @property
    def _n_features_out(self) -> int:
        return self.fit_.model.n_components


@estimator
class FactorAnalysis(FactorModel):
    """Factor analysis by EM, as `sklearn.decomposition.FactorAnalysis`.

    It differs in that noise variances keep above a millionth of their column's variance.

    Args:
        n_components: the number of factors; by default that of the columns.

    Other parameters, and attributes: see `FactorModel`.
    """

    _model = models.FactorAnalysis


@estimator
class PPCA(FactorModel):
    """Probabilistic PCA by EM, the model behind `sklearn.decomposition.PCA`'s `score`.

    Rows of `components_` are principal axes, each as long as the deviation along it that is not noise, and
    `transform` gives expected factors of unit variance; those of `PCA` are axes and coordinates in the units
    of the data. Variances are divided by n, there by n - 1.

    Args:
        n_components: the number of axes; by default one less than the columns.

    Other parameters, and attributes: see `FactorModel`.
    """

    _model = models.PPCA


@estimator
class BayesianPCA(FactorModel):
    """Principal components whose number the evidence finds, by variational Bayes.

    Args:
        n_components: the number of axes at most; by default one less than the columns. Rows of `components_`
            that the data do not ask for are next to 0.

    Other parameters, and attributes: see `FactorModel`.
    """

    _model = models.BayesianPCA
