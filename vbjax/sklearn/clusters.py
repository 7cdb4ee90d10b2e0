"""k-means as an estimator: `sklearn.cluster.KMeans`, and the minibatches of its `MiniBatchKMeans`."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Self

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils import Tags

from vbjax import models
from vbjax.numerics.inputs import read_count
from vbjax.numerics.record import Record
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


@estimator
class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, Estimator):
    """k-means, as `sklearn.cluster.KMeans`; with `partial_fit` as `MiniBatchKMeans` has it.

    It differs in that a fit has converged when a sweep changes the inertia by at most `tol` of itself, and in
    that a cluster which loses all its rows keeps its centre.

    Args:
        n_clusters: k.
        init: "k-means++", "random" (different rows), centres (k, d), or a function of X, k and
            `random_state` that returns such.
        n_init: number of fits, of which the best is kept; "auto" is 10 from random rows, otherwise 1.
        max_iter, tol: sweeps at most; the relative change of the inertia at which a fit has converged.
        random_state: a seed, a `RandomState`, or None for numpy's own.
        verbose: whether to show progress.

    Attributes:
        cluster_centers_: (k, d).
        labels_: (n,), of the rows of the fit, or of the last minibatch.
        inertia_: the sum of squared distances of these rows from their centres, weighted.
        converged_, n_iter_: whether the best fit has converged, and in how many sweeps.
        n_steps_: minibatches so far, after `partial_fit`.

    >>> from vbjax.sklearn import KMeans
    >>> clusters = KMeans(2, random_state=0).fit([[0.0], [1.0], [10.0], [11.0]])
    >>> sorted(clusters.cluster_centers_[:, 0].tolist()), clusters.inertia_
    ([0.5, 10.5], 1.0)
    """

    n_clusters: int = field(default=8, kw_only=False)
    init: Any = "k-means++"
    n_init: Any = "auto"
    max_iter: int = 300
    tol: float = 1e-4
    random_state: RandomState = None
    verbose: int = 0

    _model, _names = models.KMeans, dict(init="start")
    cluster_centers_ = Fitted(lambda fit: fit.centers())

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _hyperparameters(self) -> dict[str, Given]:
        own = super()._hyperparameters()
        return own if isinstance(self.init, str) else own | dict(start="k-means++")

    def _read_rows(self, X: Given, reset: bool) -> np.ndarray:
        X = self._read(X, reset=reset)
        if len(X) < read_count(self.n_clusters, "n_clusters"):
            raise ValueError(
                f"X must have at least n_clusters={self.n_clusters} rows; got n_samples={len(X)}"
            )
        return X

    def _centers(self, X: np.ndarray) -> Record | None:
        """Return the parameters at given centres, None where there are none."""
        if isinstance(self.init, str):
            return None
        init = self.init(X, self.n_clusters, self.random_state) if callable(self.init) else self.init
        centers = np.asarray(init, X.dtype)
        if centers.shape != (self.n_clusters, X.shape[1]):
            raise ValueError(f"init must have shape {(self.n_clusters, X.shape[1])}; got {centers.shape}")
        with self._translated():
            return models.KMeans(self.n_clusters).params_at(centers)

    def fit(self, X: Given, y: Given = None, sample_weight: Given = None) -> Self:
        """Fit the centres to rows X (n, d); y is ignored."""
        X = self._read_rows(X, True)
        weights = read_sample_weight(sample_weight, X)
        automatic = 10 if isinstance(self.init, str) and self.init == "random" else 1
        start = self._centers(X)
        self._run(
            filled(X),
            weights,
            tol=self.tol,
            max_iter=self.max_iter,
            key=draw_key(self.random_state),
            n_restarts=automatic if self.n_init == "auto" else 1 if start is not None else self.n_init,
            params=start,
            progress=bool(self.verbose),
        )
        self._rows_of_fit, self._rows_so_far, self.n_steps_ = len(X), len(X), 0
        self.labels_, self.inertia_ = self.predict(X), -float(self.fit_.objective)
        return self

    def partial_fit(self, X: Given, y: Given = None) -> Self:
        """Move the centres by a minibatch, each to the mean of all rows that it has been given so far."""
        first = "fit_" not in vars(self)
        X = self._read_rows(X, True) if first else self._read(X)
        if first:
            self._rows_of_fit, self._rows_so_far, self.n_steps_ = len(X), 0, 0
        rates = dict(delay=self._rows_so_far / len(X), forgetting=1.0, total_rows=self._rows_of_fit)
        self._step(iter([X]), self._centers(X) if first else None, key=draw_key(self.random_state), **rates)
        self._rows_so_far += len(X)
        self.n_steps_ += 1
        self.labels_, self.inertia_ = self.predict(X), -self.score(X)
        return self

    def fit_predict(self, X: Given, y: Given = None, sample_weight: Given = None) -> np.ndarray:
        """Fit the centres, and return the nearest one of every row, (n,)."""
        return self.fit(X, y, sample_weight).labels_

    def predict(self, X: Given) -> np.ndarray:
        """Return the nearest centre of every row, (n,)."""
        return self._of_rows(lambda fit, x: fit.predict(x), self._read(X))

    def transform(self, X: Given) -> np.ndarray:
        """Return the distances of rows from all centres, (n, k)."""
        X = self._read(X)
        return cdist(X, self.cluster_centers_).astype(X.dtype)

    def score(self, X: Given, y: Given = None, sample_weight: Given = None) -> float:
        """Return minus the inertia of rows."""
        X = self._read(X)
        with self._fitted() as fit:
            return -float(fit.inertia(filled(X), read_sample_weight(sample_weight, X)))

    @property
    def _n_features_out(self) -> int:
        return len(self.fit_.params.centers.value)
