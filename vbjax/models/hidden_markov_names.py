"""Hidden Markov models by the names that people look for: by EM or variational Bayes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vbjax.models.bayesian_gaussian_mixture import BayesianGaussianMixture
from vbjax.models.categorical_mixture import CategoricalMixture
from vbjax.models.gaussian_mixture import GaussianMixture
from vbjax.models.hidden_markov import HiddenMarkovModel
from vbjax.models.nested_mixture import NestedMixture
from vbjax.models.poisson_mixture import PoissonMixture


def GaussianHMM(n_states: int, covariance_type: str = "full", **options: Any) -> HiddenMarkovModel:
    """Normal steps (d,), by EM; `options` as of `GaussianMixture` and `HiddenMarkovModel`."""
    return _chained(GaussianMixture, n_states, options, covariance_type=covariance_type)


def BayesianGaussianHMM(n_states: int, covariance_type: str = "full", **options: Any) -> HiddenMarkovModel:
    """The same by variational Bayes; `options` as of `BayesianGaussianMixture` and `HiddenMarkovModel`."""
    return _chained(BayesianGaussianMixture, n_states, options, covariance_type=covariance_type)


def MixtureHMM(
    n_states: int, n_components: int, covariance_type: str = "full", **options: Any
) -> HiddenMarkovModel:
    """Normal mixtures of `n_components` in every state, by EM; `options` as of `GaussianHMM`.

    The emissions are a `NestedMixture`; `weight_concentration` is that of every state's shares.
    """
    own = dict(covariance_type=covariance_type)
    return _chained(_nested(GaussianMixture, n_components), n_states, options, **own)


def BayesianMixtureHMM(
    n_states: int, n_components: int, covariance_type: str = "full", **options: Any
) -> HiddenMarkovModel:
    """The same by variational Bayes; `options` as of `BayesianGaussianHMM`."""
    own = dict(covariance_type=covariance_type)
    return _chained(_nested(BayesianGaussianMixture, n_components), n_states, options, **own)


def PoissonHMM(n_states: int, **options: Any) -> HiddenMarkovModel:
    """Steps of d independent counts, by EM; `options` as of `PoissonMixture` and `HiddenMarkovModel`."""
    return _chained(PoissonMixture, n_states, options, maximum_likelihood=True)


def BayesianPoissonHMM(n_states: int, **options: Any) -> HiddenMarkovModel:
    """The same by variational Bayes."""
    return _chained(PoissonMixture, n_states, options)


def CategoricalHMM(n_states: int, **options: Any) -> HiddenMarkovModel:
    """Steps of d independent categories, by EM; `options` of `CategoricalMixture` and `HiddenMarkovModel`."""
    return _chained(CategoricalMixture, n_states, options, maximum_likelihood=True)


def BayesianCategoricalHMM(n_states: int, **options: Any) -> HiddenMarkovModel:
    """The same by variational Bayes."""
    return _chained(CategoricalMixture, n_states, options)


def _nested(mixture: Any, n_components: int) -> Callable[..., NestedMixture]:
    return lambda n_states, **own: NestedMixture(n_states, mixture(n_components, **own))


def _chained(mixture: Any, n_states: int, options: dict[str, Any], **own: Any) -> HiddenMarkovModel:
    """The chain takes the options that are its own, the emissions the others."""
    chain = ("initial_concentration", "transition_concentration", "stickiness")
    of_chain = {name: options[name] for name in chain if name in options}
    own |= {name: value for name, value in options.items() if name not in chain}
    return HiddenMarkovModel(n_states, mixture(n_states, **own), **of_chain)
