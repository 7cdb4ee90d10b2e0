"""Topics as an estimator: `sklearn.decomposition.LatentDirichletAllocation`."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any, Self, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import sparse
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags

from vbjax import models
from vbjax.core.rows import expectation
from vbjax.data.documents import Bags, Documents
from vbjax.numerics.compilation import jit
from vbjax.numerics.types import Given, Hyper, Params
from vbjax.sklearn.estimator import (
    Estimator,
    Fitted,
    RandomState,
    draw_key,
    estimator,
    program_rows,
    read_sample_weight,
)

_DENSE = 2**16  # cells of a table that may as well be one part


@estimator
class LatentDirichletAllocation(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Latent Dirichlet allocation, as `sklearn.decomposition.LatentDirichletAllocation`.

    It differs in that a fit has converged when a sweep raises the bound by at most `tol` per word, and in
    that `score` and `perplexity` are of the documents alone: the divergence of the topics from their prior,
    which belongs to the documents of the fit, is left out (scikit-learn's issue 20032).

    Args:
        n_components: the number of topics.
        doc_topic_prior, topic_word_prior: concentrations; by default 1 / n_components.
        learning_method: "batch", or "online": `max_iter` passes by minibatches, without a test for
            convergence.
        learning_decay, learning_offset: of "online" and `partial_fit`, whose step t has size
            (t + offset)^-decay.
        batch_size: documents of a minibatch.
        total_samples: documents that those of all calls of `partial_fit` stand for.
        max_iter, tol: sweeps at most; the rise of the bound per word at which a fit has converged.
        random_state: a seed, a `RandomState`, or None for numpy's own.
        verbose: whether to show progress.

    Attributes:
        components_: (k, v), the concentrations of the topics' words.
        exp_dirichlet_component_: (k, v), exp of the expected logarithms of their probabilities.
        bound_: the perplexity of the documents of the fit.
        converged_, n_iter_: whether the fit has converged, and in how many sweeps or minibatches.
        n_batch_iter_: minibatches so far, after `partial_fit`, and one.

    >>> import numpy as np
    >>> from vbjax.sklearn import LatentDirichletAllocation
    >>> counts = np.array([[5, 4, 0, 0], [3, 6, 0, 0], [0, 0, 5, 2]])
    >>> LatentDirichletAllocation(2, random_state=0).fit_transform(counts).round(1).tolist()
    [[0.1, 0.9], [0.1, 0.9], [0.9, 0.1]]
    """

    n_components: int = field(default=10, kw_only=False)
    doc_topic_prior: Hyper = None
    topic_word_prior: Hyper = None
    learning_method: str = "batch"
    learning_decay: float = 0.7
    learning_offset: float = 10.0
    batch_size: int = 128
    total_samples: float = 1e6
    max_iter: int = 100
    tol: float = 1e-4
    random_state: RandomState = None
    verbose: int = 0

    _model, _positive = models.LatentDirichletAllocation, True
    _names = dict(
        n_components="n_topics",
        doc_topic_prior="doc_concentration",
        topic_word_prior="topic_concentration",
        learning_offset="delay",
        learning_decay="forgetting",
        total_samples="total_rows",
    )
    components_ = Fitted(lambda fit: fit.params.topics.concentration)
    exp_dirichlet_component_ = Fitted(lambda fit: jnp.exp(fit.params.topics.expected().log))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _documents(self, X: Given, reset: bool = False) -> tuple[Given, Documents]:
        """Return a table, and its documents."""
        X = self._read(X, reset=reset, accept_sparse="csr")
        return X, documents(X)

    def fit(self, X: Given, y: Given = None, sample_weight: Given = None) -> Self:
        """Fit topics to documents X (n, v), counts of words, dense or sparse; y is ignored."""
        if self.learning_method not in ("batch", "online"):
            raise ValueError(f"learning_method must be 'batch' or 'online'; got {self.learning_method!r}")
        with self._translated():
            X, docs = self._documents(X, reset=True)
        self.n_batch_iter_ = 1
        if self.learning_method == "batch":
            weights = read_sample_weight(sample_weight, X)[: X.shape[0]]
            self._run(
                docs,
                np.pad(weights, (0, docs.n_rows - len(weights))),
                tol=self.tol,
                max_iter=self.max_iter,
                key=draw_key(self.random_state),
                progress=bool(self.verbose),
            )
        else:
            if sample_weight is not None:
                raise ValueError("sample_weight must be None with learning_method='online'")
            self.__dict__.pop("fit_", None)
            sizes = dict(batch_size=self.batch_size, n_epochs=self.max_iter)
            with self._translated():
                docs = docs.take(np.arange(X.shape[0]))
            self._step(docs, delay=self.learning_offset, **sizes, **self._rates())
        self.bound_ = self.perplexity(X)
        return self

    def partial_fit(self, X: Given, y: Given = None) -> Self:
        """Move the topics by minibatches of documents, which stand for `total_samples` documents."""
        first = "fit_" not in vars(self)
        with self._translated():
            X, docs = self._documents(X, reset=first)
            rows = np.split(np.arange(X.shape[0]), range(self.batch_size, X.shape[0], self.batch_size))
            batches = [docs.take(own) for own in rows]
        so_far = 0 if first else self.n_batch_iter_ - 1
        delay, total = self.learning_offset + so_far, int(self.total_samples)
        self._step(iter(batches), delay=delay, total_rows=total, **self._rates())
        self.n_batch_iter_ = so_far + len(batches) + 1
        return self

    def _rates(self) -> dict[str, Given]:
        return dict(key=draw_key(self.random_state), forgetting=self.learning_decay)

    def transform(self, X: Given, *, normalize: bool = True) -> np.ndarray:
        """Return the expected shares of topics in documents, (n, k), or their concentrations."""
        with self._fitted() as fit:
            X, docs = self._documents(X)
            shares = fit.document_topics(docs)
            return np.asarray(shares.mean if normalize else shares.concentration)[: X.shape[0]]

    def score(self, X: Given, y: Given = None) -> float:
        """Return the lower bound of the log probability of documents, in nats."""
        with self._fitted() as fit:
            return float(_bound(fit.model, fit.params, self._documents(X)[1]))

    def perplexity(self, X: Given) -> float:
        """Return exp(-score / number of words) of documents."""
        score, words = self.score(X), self._read(X, accept_sparse="csr").sum()
        return math.exp(-score / words) if words else math.nan

    @property
    def _n_features_out(self) -> int:
        return len(self.fit_.params.topics.concentration)


@jit
def _bound(model: models.LatentDirichletAllocation, params: Params, docs: Documents) -> Array:
    return expectation(model, params, docs).bound


def documents(X: np.ndarray | sparse.csr_array) -> Documents:
    """Return the rows of a table of counts, which need not be whole, followed by some empty ones.

    Their parts have shapes that tables of similar size share; a small one is one part.
    """
    X = sparse.csr_array(X, copy=True)
    X.sum_duplicates()
    X.eliminate_zeros()
    docs = Documents.packed(np.diff(X.indptr), X.indices, X.data, X.shape[1], X.dtype)
    rows, shape_of = program_rows(X.shape[0]), cast(Any, jax.ShapeDtypeStruct)
    if rows * X.shape[1] <= _DENSE:
        shapes = [(rows, X.shape[1])]
    else:
        shapes = [
            (program_rows(n, 1), program_rows(words, 1)) for n, words in (p.ids.shape for p in docs.parts)
        ]
    parts = tuple(Bags(shape_of(shape, np.int32), shape_of(shape, X.dtype)) for shape in shapes)
    return docs.in_parts_of(Documents(parts, docs.order, n_words=X.shape[1]))
