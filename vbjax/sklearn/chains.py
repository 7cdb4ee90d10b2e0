"""Hidden Markov models as estimators, with the signatures of hmmlearn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import field
from typing import Any, Self

import jax
import numpy as np

from vbjax import models
from vbjax.data.labelled import Labelled
from vbjax.data.sequences import Sequences, Steps
from vbjax.inference.result import Fit
from vbjax.numerics.inputs import read_count
from vbjax.numerics.types import Given, Hyper, Tree
from vbjax.sklearn.component_mixtures import gamma_rates, gamma_shapes
from vbjax.sklearn.estimator import Estimator, Fitted, RandomState, draw_key, estimator, program_rows
from vbjax.sklearn.settable import CATEGORIES, COUNTS, NORMAL, OF_CHAINS, Settable, normals


@estimator
class HiddenMarkovModel(Estimator):
    """Hidden Markov model of any component, with the signatures of hmmlearn: `_model` says of which.

    Every method takes sequences end to end, X (t_1 + t_2 + ..., d), and their `lengths`, without which X is
    one sequence. `lengths` may come second by position, as in hmmlearn. A second argument with a number for
    every row of X is the target that scikit-learn hands to all estimators, and is ignored.

    It differs from hmmlearn in that there are no `params`, `init_params`, `algorithm` and `implementation`;
    starts are k-means++ seeds; a fit that does not converge warns; and by default there are no priors of
    points, in hmmlearn weak ones. As there, the attributes of `GaussianHMM`, `PoissonHMM` and
    `CategoricalHMM` may be set: with all of them there are `score`, `decode`, `sample` and the others without
    a fit.

    Args:
        n_components: the number of states.
        n_iter, tol: sweeps at most; the rise of the log likelihood (or its bound), of all steps together, at
            which a fit has converged.
        n_init: number of fits, from different starts, of which the best is kept.
        startprob_prior, transmat_prior: concentrations of Dirichlet priors, a number or (k,), and a number or
            (k, k); by default none, of Bayesian models 1 / k.
        random_state: a seed, a `RandomState`, or None for numpy's own.
        verbose: whether to show progress.

    Attributes:
        startprob_, transmat_: (k,) and (k, k), of Bayesian models expected.
        lower_bounds_: the log likelihood, of Bayesian models its bound, at the start and after each sweep.
        converged_, n_iter_: whether the best fit has converged, and in how many sweeps.

    >>> from vbjax.sklearn import PoissonHMM
    >>> hmm = PoissonHMM(2, random_state=0).fit([[1.0], [2.0], [30.0], [31.0]])
    >>> sorted(hmm.lambdas_[:, 0].round(1).tolist())
    [1.5, 30.5]
    """

    n_components: int = field(default=1, kw_only=False)
    startprob_prior: Hyper = None
    transmat_prior: Hyper = None
    n_iter: int = 1000
    tol: float = 1e-2
    n_init: int = 1
    random_state: RandomState = None
    verbose: int = 0

    _names = dict(
        n_components="n_states",
        n_mix="n_components",
        startprob_prior="initial_concentration",
        transmat_prior="transition_concentration",
        min_covar="covariance_floor",
        n_features="n_categories",
        n_iter="max_iter",
    )
    startprob_ = Fitted(lambda fit: fit.params.initial.mean)
    transmat_ = Fitted(lambda fit: fit.params.transitions.mean)
    lower_bounds_ = Fitted(lambda fit: fit.trace)

    def _sequences(
        self, X: Given, y: Given, lengths: Given, reset: bool = False
    ) -> tuple[np.ndarray, Sequences]:
        """Return the lengths of sequences, and the sequences, followed by some that are empty."""
        X = self._read(X, reset=reset, ensure_min_samples=2 if reset else 1)
        if lengths is None:
            lengths = [len(X)] if y is None or len(np.atleast_1d(y)) == len(X) else y
        lengths = np.asarray(lengths)
        return lengths, with_shared_shapes(Sequences.of(X, lengths))

    def fit(self, X: Given, y: Given = None, lengths: Given = None) -> Self:
        """Fit the model to sequences, end to end in X."""
        with self._translated():
            lengths, data = self._sequences(X, y, lengths, reset=True)
        self._run(
            data,
            tol=self.tol / lengths.sum(),
            max_iter=self.n_iter,
            key=draw_key(self.random_state),
            n_restarts=self.n_init,
            progress=bool(self.verbose),
        )
        return self

    def score(self, X: Given, y: Given = None, lengths: Given = None) -> float:
        """Return the log likelihood of all sequences, of Bayesian models of the predictive kind."""
        with self._fitted() as fit:
            lengths, data = self._sequences(X, y, lengths)
            return float(fit.log_predictive(data)[: len(lengths)].sum())

    def decode(self, X: Given, y: Given = None, lengths: Given = None) -> tuple[float, np.ndarray]:
        """Return the log probability of sequences with their most probable states, and these, (n,)."""
        with self._fitted() as fit:
            lengths, data = self._sequences(X, y, lengths)
            states = np.concatenate(fit.decode(data))
            return float(fit.log_predictive(Labelled(data, states))[: len(lengths)].sum()), states

    def predict(self, X: Given, y: Given = None, lengths: Given = None) -> np.ndarray:
        """Return the most probable path of states, (n,), by Viterbi's algorithm."""
        with self._fitted() as fit:
            return np.concatenate(fit.decode(self._sequences(X, y, lengths)[1]))

    def predict_proba(self, X: Given, y: Given = None, lengths: Given = None) -> np.ndarray:
        """Return the probability of every state at every step, (n, k)."""
        with self._fitted() as fit:
            return np.concatenate(fit.state_probabilities(self._sequences(X, y, lengths)[1]))

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> tuple[np.ndarray, np.ndarray]:
        """Draw a new sequence: its steps (n, d), and their states, (n,)."""
        key = draw_key(self.random_state if random_state is None else random_state)
        with self._fitted() as fit:
            states, steps = fit.sample(key, read_count(n_samples, "n_samples"))
            return np.asarray(steps), np.asarray(states)

    def bic(self, X: Given, y: Given = None, lengths: Given = None) -> float:
        """Return the Bayesian information criterion of a fit by EM; smaller is better."""
        with self._fitted() as fit:
            return float(fit.bic(self._sequences(X, y, lengths)[1]))

    def aic(self, X: Given, y: Given = None, lengths: Given = None) -> float:
        """Return Akaike's information criterion of a fit by EM; smaller is better."""
        with self._fitted() as fit:
            return float(fit.aic(self._sequences(X, y, lengths)[1]))


def with_shared_shapes(data: Sequences) -> Sequences:
    """Return sequences, followed by empty ones, in parts whose shapes sequences of similar length share."""

    def shared(part: Steps) -> Steps:
        n, t = part.observed.shape
        n = program_rows(n, 1)
        shape = n, program_rows(t, 256 // n)
        of: Callable[[Any], Any] = lambda x: jax.ShapeDtypeStruct((*shape, *x.shape[2:]), x.dtype)
        return part._replace(values=jax.tree.map(of, part.values), observed=of(part.observed))

    return data.in_parts_of(dataclasses.replace(data, parts=tuple(map(shared, data.parts))))


# -- normal steps ----------------------------------------------------------------------------------------


def _in_states(function: Callable[[Fit], Any]) -> Fitted:
    """Return an attribute of the normals of a mixture in every state, (k, m, ...)."""

    def read(fit: Fit) -> Tree:
        x = function(fit)
        return x.reshape(fit.model.n_states, -1, *x.shape[1:])

    return Fitted(read)


@estimator
class GaussianHMM(HiddenMarkovModel):
    """Hidden Markov model of normal steps by EM, as `hmmlearn.hmm.GaussianHMM`.

    It differs in `min_covar`, which is relative to the data's variances, and in having no priors of the
    normals. See `HiddenMarkovModel`.

    Args:
        covariance_type: "diag", "full", "tied" or "spherical"; or another of the fourteen models of
            `vb.components.Gaussian`.
        min_covar: smallest variance of a state in any direction, relative to the data's; positive.

    Attributes:
        means_: (k, d).
        covars_: (k, d, d), of every type; to set them also (d, d) tied, (k, d) diag, (k,) spherical.

    Other parameters and attributes: see `HiddenMarkovModel`.
    """

    covariance_type: str = field(default="diag", kw_only=False)
    min_covar: float = 1e-6

    _model = models.GaussianHMM
    _settable = Settable(OF_CHAINS, ("means_", "covars_"), NORMAL, normals)
    means_ = Fitted(lambda fit: fit.model.component.means(fit.params))
    covars_ = Fitted(lambda fit: fit.model.component.covariances(fit.params))


@estimator
class BayesianGaussianHMM(HiddenMarkovModel):
    """Hidden Markov model of normal steps by variational Bayes.

    hmmlearn's `VariationalGaussianHMM` is its like.

    Args:
        covariance_type: "diag", "full", "tied" or "spherical".

    Attributes:
        means_, covars_: as those of `GaussianHMM`, at the expected precisions.

    Other parameters and attributes: see `HiddenMarkovModel`.
    """

    covariance_type: str = field(default="diag", kw_only=False)

    _model = models.BayesianGaussianHMM
    means_ = Fitted(lambda fit: fit.model.component.means(fit.params))
    covars_ = Fitted(lambda fit: fit.model.component.covariances(fit.params))


@estimator
class MixtureHMM(HiddenMarkovModel):
    """Hidden Markov model of a mixture of normals in every state by EM, as `hmmlearn.hmm.GMMHMM`.

    Args:
        n_mix: the number of normals in every state.
        covariance_type, min_covar: see `GaussianHMM`.

    Attributes:
        weights_, means_, covars_: (k, m), (k, m, d) and (k, m, d, d).

    Other parameters and attributes: see `HiddenMarkovModel`.
    """

    n_mix: int = field(default=1, kw_only=False)
    covariance_type: str = "diag"
    min_covar: float = 1e-6

    _model = models.MixtureHMM
    weights_ = Fitted(lambda fit: fit.params.shares.mean)
    means_ = _in_states(lambda fit: fit.model.component.component.means(fit.params))
    covars_ = _in_states(lambda fit: fit.model.component.component.covariances(fit.params))


@estimator
class BayesianMixtureHMM(HiddenMarkovModel):
    """Hidden Markov model of a mixture of normals in every state by variational Bayes.

    Args:
        n_mix: the number of normals in every state.
        covariance_type: "diag", "full", "tied" or "spherical".

    Attributes:
        weights_, means_, covars_: as those of `MixtureHMM`, expected.

    Other parameters and attributes: see `HiddenMarkovModel`.
    """

    n_mix: int = field(default=1, kw_only=False)
    covariance_type: str = "diag"

    _model = models.BayesianMixtureHMM
    weights_ = Fitted(lambda fit: fit.params.shares.mean)
    means_ = _in_states(lambda fit: fit.model.component.component.means(fit.params))
    covars_ = _in_states(lambda fit: fit.model.component.component.covariances(fit.params))


@estimator
class AutoregressiveHMM(HiddenMarkovModel):
    """Hidden Markov model whose steps are regressions on the steps before them, by EM.

    Args:
        order: the number of steps on which a step depends.
        min_covar: see `GaussianHMM`.

    Attributes:
        coefficients_: (k, order, d, d); [k, l - 1] multiplies the step l before.
        intercepts_, covars_: (k, d) and (k, d, d).

    Other parameters and attributes: see `HiddenMarkovModel`.
    """

    order: int = 1
    min_covar: float = 1e-6

    _model = models.AutoregressiveHMM
    coefficients_ = Fitted(lambda fit: fit.coefficients())
    intercepts_ = Fitted(lambda fit: fit.intercepts())
    covars_ = Fitted(lambda fit: fit.covariances())


@estimator
class BayesianAutoregressiveHMM(HiddenMarkovModel):
    """Hidden Markov model whose steps are regressions on the steps before them, by variational Bayes.

    Args:
        order: the number of steps on which a step depends.

    Attributes:
        coefficients_, intercepts_, covars_: as those of `AutoregressiveHMM`, expected.

    Other parameters and attributes: see `HiddenMarkovModel`.
    """

    order: int = 1

    _model = models.BayesianAutoregressiveHMM
    coefficients_ = Fitted(lambda fit: fit.coefficients())
    intercepts_ = Fitted(lambda fit: fit.intercepts())
    covars_ = Fitted(lambda fit: fit.covariances())


# -- other steps -----------------------------------------------------------------------------------------


@estimator
class PoissonHMM(HiddenMarkovModel):
    """Hidden Markov model of steps of independent counts by EM, as `hmmlearn.hmm.PoissonHMM`.

    Attributes:
        lambdas_: (k, d).

    Other parameters and attributes: see `HiddenMarkovModel`.
    """

    _model, _whole, _positive = models.PoissonHMM, True, True
    _settable = Settable(OF_CHAINS, ("lambdas_",), COUNTS, lambda _, rates: rates)
    lambdas_ = Fitted(lambda fit: fit.params.components.mean)


@estimator
class BayesianPoissonHMM(HiddenMarkovModel):
    """Hidden Markov model of steps of independent counts by variational Bayes.

    Attributes:
        lambdas_: (k, d), expected.

    Other parameters and attributes: see `HiddenMarkovModel`.
    """

    _model, _whole, _positive = models.BayesianPoissonHMM, True, True
    lambdas_ = Fitted(lambda fit: fit.params.components.mean)


def _emissions(fit: Fit) -> Tree:
    probabilities = fit.params.components.mean
    return probabilities[:, 0] if probabilities.shape[1] == 1 else probabilities


def _by_column(probabilities: np.ndarray) -> np.ndarray:
    """Return what `_emissions` has been given, (k, d, v)."""
    return probabilities[:, None] if probabilities.ndim == 2 else probabilities


@estimator
class CategoricalHMM(HiddenMarkovModel):
    """Hidden Markov model of steps of categories by EM, as `hmmlearn.hmm.CategoricalHMM`.

    Steps may have several columns; of one column `emissionprob_` is hmmlearn's.

    Args:
        n_features: the number of categories v, of the column that has most; by default from the data.

    Attributes:
        emissionprob_: (k, v), of d > 1 columns (k, d, v).

    Other parameters and attributes: see `HiddenMarkovModel`.
    """

    n_features: int | None = None

    _model, _whole, _positive = models.CategoricalHMM, True, True
    _settable = Settable(
        OF_CHAINS,
        ("emissionprob_",),
        lambda probabilities: CATEGORIES(_by_column(probabilities)),
        lambda _, probabilities: _by_column(probabilities),
    )
    emissionprob_ = Fitted(_emissions)


@estimator
class BayesianCategoricalHMM(HiddenMarkovModel):
    """Hidden Markov model of steps of categories by variational Bayes.

    hmmlearn's `VariationalCategoricalHMM` is its like.

    Args:
        n_features: see `CategoricalHMM`.

    Attributes:
        emissionprob_: as that of `CategoricalHMM`, expected.

    Other parameters and attributes: see `HiddenMarkovModel`.
    """

    n_features: int | None = None

    _model, _whole, _positive = models.BayesianCategoricalHMM, True, True
    emissionprob_ = Fitted(_emissions)


@estimator
class GammaHMM(HiddenMarkovModel):
    """Hidden Markov model of steps of independent positive numbers by EM.

    Args:
        learn_shape: whether every state and column has a shape of its own, which is learned.
        known_shape: the shape of all, or where they begin.

    Attributes:
        shapes_, rates_: (k, d); a column's mean is their ratio.

    Other parameters and attributes: see `HiddenMarkovModel`.
    """

    learn_shape: bool = True
    known_shape: Hyper = 1.0

    _model, _positive = models.GammaHMM, True
    shapes_, rates_ = Fitted(gamma_shapes), Fitted(gamma_rates)


@estimator
class BayesianGammaHMM(HiddenMarkovModel):
    """Hidden Markov model of steps of independent positive numbers by variational Bayes.

    Args:
        learn_shape, known_shape: see `GammaHMM`.

    Attributes:
        shapes_, rates_: as those of `GammaHMM`, the rates expected.

    Other parameters and attributes: see `HiddenMarkovModel`.
    """

    learn_shape: bool = True
    known_shape: Hyper = 1.0

    _model, _positive = models.BayesianGammaHMM, True
    shapes_, rates_ = Fitted(gamma_shapes), Fitted(gamma_rates)
