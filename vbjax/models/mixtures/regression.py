"""Mixtures of linear regressions, of one response or of several, by EM and by variational Bayes."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from vbjax.core.hyperparameters import read_columns
from vbjax.families.base import pytree
from vbjax.models.components import MultivariateRegression, Regression
from vbjax.models.labels.weights import Weights, weights_of
from vbjax.models.mixtures.mixture import Mixture
from vbjax.numerics.compilation import jit
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Hyper


@pytree
class RegressionMixture(Mixture):
    """A mixture of linear regressions: lines through the data, each row on one of them; by EM.

    Data: a pair (x, y), (n, d) and (n,). The factors are `weights` and `components` (MultivariateNormalGamma,
    (k,)), points (`Delta`).

    Args:
        n_components: k.
        location, mean_precision, concentration, rate: see
            `vb.components.Regression`.
        weight_concentration: see `GaussianMixture`.

    >>> import vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> model = vb.RegressionMixture(2).resolve((x[:, :1], x[:, 1]))
    >>> model.n_parameters  # a weight, and a slope and a variance of each line
    5
    """

    def __init__(
        self,
        n_components: int,
        location: Hyper = None,
        mean_precision: Hyper = None,
        concentration: Hyper = None,
        rate: Hyper = None,
        *,
        weight_concentration: Hyper = None,
    ) -> None:
        super().__init__(
            n_components,
            Regression(location, mean_precision, concentration, rate),
            Weights(weight_concentration),
        )

    def mean(self, params: Record, x: Data) -> Array:
        """Return E[y | x] of new rows x, over all components, in the shape of y."""
        return _mean(self, params, read_columns(self.component, x, "x"))


@pytree
class BayesianRegressionMixture(Mixture):
    """A mixture of linear regressions: lines through the data, each row on one of them; by variational Bayes.

    Data: a pair (x, y), (n, d) and (n,). The factors are `weights` and `components` (MultivariateNormalGamma,
    (k,)).

    Args:
        n_components: k, an upper bound.
        location, mean_precision, concentration, rate: see
            `vb.components.Regression`.
        weight_prior, weight_concentration: see `BayesianGaussianMixture`.

    >>> import jax, vbjax as vb
    >>> t = jax.numpy.linspace(-1, 1, 40)
    >>> x, y = jax.numpy.stack([jax.numpy.ones(40), t], 1), jax.numpy.where(t * 20 % 2 < 1, 1 + 2 * t, -3 * t)
    >>> fit = vb.fit(vb.BayesianRegressionMixture(2), (x, y), key=jax.random.key(0), n_restarts=8)
    >>> sorted(fit.params.components.location[:, 1].round().tolist())
    [-3.0, 2.0]
    """

    points: ClassVar[bool] = False

    def __init__(
        self,
        n_components: int,
        location: Hyper = None,
        mean_precision: Hyper = None,
        concentration: Hyper = None,
        rate: Hyper = None,
        *,
        weight_prior: str = "dirichlet",
        weight_concentration: Hyper = None,
    ) -> None:
        super().__init__(
            n_components,
            Regression(location, mean_precision, concentration, rate),
            weights_of(weight_prior, weight_concentration),
        )

    def mean(self, params: Record, x: Data) -> Array:
        """Return E[y | x] of new rows x, over all components, in the shape of y."""
        return _mean(self, params, read_columns(self.component, x, "x"))


@pytree
class MultivariateRegressionMixture(Mixture):
    """A mixture of linear regressions of several responses, whose noise is correlated; by EM.

    Data: a pair (x, y), (n, d) and (n, m). The factors are `weights` and `components` (MatrixNormalWishart,
    (k,)), points (`Delta`).

    Args:
        n_components: k.
        location, mean_precision, degrees_of_freedom, inverse_scale, covariance_floor, center, offset: see
            `vb.components.MultivariateRegression`.
        weight_concentration: see `GaussianMixture`.

    >>> import vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> model = vb.MultivariateRegressionMixture(2).resolve((x[:, :1], x))
    >>> model.n_parameters  # a weight, and of each two slopes, two intercepts and a covariance
    15
    """

    def __init__(
        self,
        n_components: int,
        location: Hyper = None,
        mean_precision: Hyper = None,
        degrees_of_freedom: Hyper = None,
        inverse_scale: Hyper = None,
        covariance_floor: Hyper = 1e-6,
        center: Hyper = None,
        offset: Hyper = None,
        *,
        weight_concentration: Hyper = None,
    ) -> None:
        super().__init__(
            n_components,
            MultivariateRegression(
                location, mean_precision, degrees_of_freedom, inverse_scale, covariance_floor, center, offset
            ),
            Weights(weight_concentration),
        )

    def mean(self, params: Record, x: Data) -> Array:
        """Return E[y | x] of new rows x, over all components, in the shape of y."""
        return _mean(self, params, read_columns(self.component, x, "x"))


@pytree
class BayesianMultivariateRegressionMixture(Mixture):
    """A mixture of linear regressions of several responses, whose noise is correlated; by variational Bayes.

    Data: a pair (x, y), (n, d) and (n, m). The factors are `weights` and `components` (MatrixNormalWishart,
    (k,)).

    Args:
        n_components: k, an upper bound.
        location, mean_precision, degrees_of_freedom, inverse_scale, covariance_floor, center, offset: see
            `vb.components.MultivariateRegression`.
        weight_prior, weight_concentration: see `BayesianGaussianMixture`.

    >>> import jax, vbjax as vb
    >>> t = jax.numpy.linspace(-1, 1, 40)
    >>> up = jax.numpy.arange(40) % 2 < 1
    >>> y = jax.numpy.stack([jax.numpy.where(up, t, -3 * t), jax.numpy.where(up, 2 * t, 5.0)], 1)
    >>> model = vb.BayesianMultivariateRegressionMixture(2)
    >>> fit = vb.fit(model, (t[:, None], y), key=jax.random.key(0), n_restarts=8)
    >>> sorted(fit.params.components.location[:, 0, 0].round().tolist())
    [-3.0, 1.0]
    """

    points: ClassVar[bool] = False

    def __init__(
        self,
        n_components: int,
        location: Hyper = None,
        mean_precision: Hyper = None,
        degrees_of_freedom: Hyper = None,
        inverse_scale: Hyper = None,
        covariance_floor: Hyper = 1e-6,
        center: Hyper = None,
        offset: Hyper = None,
        *,
        weight_prior: str = "dirichlet",
        weight_concentration: Hyper = None,
    ) -> None:
        super().__init__(
            n_components,
            MultivariateRegression(
                location, mean_precision, degrees_of_freedom, inverse_scale, covariance_floor, center, offset
            ),
            weights_of(weight_prior, weight_concentration),
        )

    def mean(self, params: Record, x: Data) -> Array:
        """Return E[y | x] of new rows x, over all components, in the shape of y."""
        return _mean(self, params, read_columns(self.component, x, "x"))


@jit
def _mean(model: Mixture, params: Record, x: Array) -> Array:
    location = jnp.tensordot(params.weights.mean, params.components.mean.location, 1)
    return model.component.expected_responses(location, x)
