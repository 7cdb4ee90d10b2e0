"""Hidden Markov models by the names that people look for: by EM or variational Bayes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vbjax.models.markov.autoregressive_hidden_markov import AutoregressiveHiddenMarkovModel
from vbjax.models.markov.hidden_markov import HiddenMarkovModel
from vbjax.models.markov.nested_mixture import NestedMixture
from vbjax.models.mixtures.bayesian_gaussian_mixture import BayesianGaussianMixture
from vbjax.models.mixtures.categorical_mixture import CategoricalMixture
from vbjax.models.mixtures.gamma_mixture import GammaMixture
from vbjax.models.mixtures.gaussian_mixture import GaussianMixture
from vbjax.models.mixtures.multivariate_regression_mixture import MultivariateRegressionMixture
from vbjax.models.mixtures.poisson_mixture import PoissonMixture


def GaussianHMM(n_states: int, covariance_type: str = "full", **options: Any) -> HiddenMarkovModel:
    """Normal steps (d,), by EM; `options` as of `GaussianMixture` and `HiddenMarkovModel`."""
    return _chained(GaussianMixture, n_states, options | dict(covariance_type=covariance_type))


def BayesianGaussianHMM(n_states: int, covariance_type: str = "full", **options: Any) -> HiddenMarkovModel:
    """The same by variational Bayes; `options` as of `BayesianGaussianMixture` and `HiddenMarkovModel`."""
    return _chained(BayesianGaussianMixture, n_states, options | dict(covariance_type=covariance_type))


def MixtureHMM(
    n_states: int, n_components: int, covariance_type: str = "full", **options: Any
) -> HiddenMarkovModel:
    """Normal mixtures of `n_components` in every state, by EM; `options` as of `GaussianHMM`.

    The emissions are a `NestedMixture`; `weight_concentration` is that of every state's shares.
    """
    own = options | dict(covariance_type=covariance_type)
    return _chained(_nested(GaussianMixture, n_components), n_states, own)


def BayesianMixtureHMM(
    n_states: int, n_components: int, covariance_type: str = "full", **options: Any
) -> HiddenMarkovModel:
    """The same by variational Bayes; `options` as of `BayesianGaussianHMM`."""
    own = options | dict(covariance_type=covariance_type)
    return _chained(_nested(BayesianGaussianMixture, n_components), n_states, own)


def PoissonHMM(n_states: int, **options: Any) -> HiddenMarkovModel:
    """Steps of d independent counts, by EM; `options` as of `PoissonMixture` and `HiddenMarkovModel`."""
    return _chained(PoissonMixture, n_states, options | dict(maximum_likelihood=True))


def BayesianPoissonHMM(n_states: int, **options: Any) -> HiddenMarkovModel:
    """The same by variational Bayes."""
    return _chained(PoissonMixture, n_states, options)


def CategoricalHMM(n_states: int, **options: Any) -> HiddenMarkovModel:
    """Steps of d independent categories, by EM; `options` of `CategoricalMixture` and `HiddenMarkovModel`."""
    return _chained(CategoricalMixture, n_states, options | dict(maximum_likelihood=True))


def BayesianCategoricalHMM(n_states: int, **options: Any) -> HiddenMarkovModel:
    """The same by variational Bayes."""
    return _chained(CategoricalMixture, n_states, options)


def GammaHMM(n_states: int, **options: Any) -> HiddenMarkovModel:
    """Steps of d independent Gammas, by EM; `options` as of `GammaMixture` and `HiddenMarkovModel`."""
    return _chained(GammaMixture, n_states, options | dict(maximum_likelihood=True))


def BayesianGammaHMM(n_states: int, **options: Any) -> HiddenMarkovModel:
    """The same by variational Bayes."""
    return _chained(GammaMixture, n_states, options)


def AutoregressiveHMM(n_states: int, order: int = 1, **options: Any) -> AutoregressiveHiddenMarkovModel:
    """Steps (d,), normal about a linear function of the `order` before them, by EM.

    Maximum likelihood, with a floor under the covariances; `options` as of `MultivariateRegressionMixture`
    and `AutoregressiveHiddenMarkovModel`.

    >>> import jax, vbjax as vb
    >>> t = jax.numpy.arange(120.0)
    >>> x = jax.numpy.sin(jax.numpy.where(t // 30 % 2 == 1, 0.3, 1.2) * t)[:, None]
    >>> x = x + 0.01 * jax.random.normal(jax.random.key(1), x.shape)
    >>> fit = vb.fit(vb.AutoregressiveHMM(2, order=2), x, key=jax.random.key(0), n_restarts=8)
    >>> len(set(fit.model.decode(fit.params, x)[32:58].tolist()))
    1
    """
    model = AutoregressiveHiddenMarkovModel
    how = dict(maximum_likelihood=True)
    return _chained(MultivariateRegressionMixture, n_states, options | how, model, order=order)


def BayesianAutoregressiveHMM(
    n_states: int, order: int = 1, **options: Any
) -> AutoregressiveHiddenMarkovModel:
    """The same by variational Bayes; its prior follows what one autoregression of all steps leaves."""
    model = AutoregressiveHiddenMarkovModel
    return _chained(MultivariateRegressionMixture, n_states, options, model, order=order)


def _nested(mixture: Any, n_components: int) -> Callable[..., NestedMixture]:
    return lambda n_states, **own: NestedMixture(n_states, mixture(n_components, **own))


def _chained(
    mixture: Any, n_states: int, options: dict[str, Any], model: Any = HiddenMarkovModel, **chain: Any
) -> Any:
    """The chain takes the options that are its own, the emissions the others."""
    names = ("initial_concentration", "transition_concentration", "stickiness")
    chain |= {name: options[name] for name in names if name in options}
    own = {name: value for name, value in options.items() if name not in names}
    idle = [name for name in own if name.startswith("weight_")] if isinstance(mixture, type) else []
    if idle:  # states of one component each have no weights
        raise ValueError(f"{idle[0]} is of no use in a chain: give {names[0]} or {names[1]}")
    return model(n_states, mixture(n_states, **own), **chain)
