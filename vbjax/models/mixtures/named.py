"""Mixtures by the names that people look for: the bare name is EM, `Bayesian...` is variational Bayes."""

from __future__ import annotations

from typing import ClassVar

from vbjax.families.base import pytree
from vbjax.models.components import Bernoulli, Categorical, Gamma, Multinomial, Poisson
from vbjax.models.labels.weights import Weights, weights_of
from vbjax.models.mixtures.mixture import Mixture
from vbjax.numerics.types import Hyper


@pytree
class BernoulliMixture(Mixture):
    """A mixture of columns of 0 and 1, by EM.

    Data: (n, d) of 0 and 1. The factors are `weights` and `components` (Beta, (k, d)), points (`Delta`).

    Args:
        n_components: k.
        concentration1, concentration0: see `vb.components.Bernoulli`.
        weight_concentration: alpha0 of a Dirichlet prior of the weights, a number or (k,), at least 1; None
            for none.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]])
    >>> fit = vb.fit(vb.BernoulliMixture(2), x, key=jax.random.key(0), n_restarts=4)
    >>> labels = fit.model.predict(fit.params, x)
    >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
    True
    """

    def __init__(
        self,
        n_components: int,
        concentration1: Hyper = None,
        concentration0: Hyper = None,
        *,
        weight_concentration: Hyper = None,
    ) -> None:
        super().__init__(
            n_components, Bernoulli(concentration1, concentration0), Weights(weight_concentration)
        )


@pytree
class BayesianBernoulliMixture(Mixture):
    """A mixture of columns of 0 and 1, by variational Bayes.

    Data: (n, d) of 0 and 1. The factors are `weights` and `components` (Beta, (k, d)).

    Args:
        n_components: k, an upper bound.
        concentration1, concentration0: see `vb.components.Bernoulli`.
        weight_prior: "dirichlet", or "dirichlet_process" truncated at k (`vb.labels.StickBreaking`).
        weight_concentration: alpha0, a number, or (k,) of a Dirichlet; by default 1 / k of every component, 1
            of the process.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]])
    >>> fit = vb.fit(vb.BayesianBernoulliMixture(2), x, key=jax.random.key(0), n_restarts=4)
    >>> labels = fit.model.predict(fit.params, x)
    >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
    True
    """

    points: ClassVar[bool] = False

    def __init__(
        self,
        n_components: int,
        concentration1: Hyper = None,
        concentration0: Hyper = None,
        *,
        weight_prior: str = "dirichlet",
        weight_concentration: Hyper = None,
    ) -> None:
        super().__init__(
            n_components,
            Bernoulli(concentration1, concentration0),
            weights_of(weight_prior, weight_concentration),
        )


@pytree
class CategoricalMixture(Mixture):
    """A mixture of columns of categories 0 to v - 1, by EM.

    Data: (n, d), whole numbers. The factors are `weights` and `components` (Dirichlet, (k, d, v)), points
    (`Delta`).

    Args:
        n_components: k.
        n_categories, concentration: see `vb.components.Categorical`.
        weight_concentration: alpha0 of a Dirichlet prior of the weights, a number or (k,), at least 1; None
            for none.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([[0, 2, 1], [0, 2, 0], [1, 0, 1], [1, 0, 0]])
    >>> fit = vb.fit(vb.CategoricalMixture(2), x, key=jax.random.key(0), n_restarts=4)
    >>> labels = fit.model.predict(fit.params, x)
    >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
    True
    """

    def __init__(
        self,
        n_components: int,
        n_categories: Hyper = None,
        concentration: Hyper = None,
        *,
        weight_concentration: Hyper = None,
    ) -> None:
        super().__init__(
            n_components, Categorical(n_categories, concentration), Weights(weight_concentration)
        )


@pytree
class BayesianCategoricalMixture(Mixture):
    """A mixture of columns of categories 0 to v - 1, by variational Bayes.

    Data: (n, d), whole numbers. The factors are `weights` and `components` (Dirichlet, (k, d, v)).

    Args:
        n_components: k, an upper bound.
        n_categories, concentration: see `vb.components.Categorical`.
        weight_prior: "dirichlet", or "dirichlet_process" truncated at k (`vb.labels.StickBreaking`).
        weight_concentration: alpha0, a number, or (k,) of a Dirichlet; by default 1 / k of every component, 1
            of the process.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([[0, 2, 1], [0, 2, 0], [1, 0, 1], [1, 0, 0]])
    >>> fit = vb.fit(vb.BayesianCategoricalMixture(2), x, key=jax.random.key(0), n_restarts=4)
    >>> labels = fit.model.predict(fit.params, x)
    >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
    True
    """

    points: ClassVar[bool] = False

    def __init__(
        self,
        n_components: int,
        n_categories: Hyper = None,
        concentration: Hyper = None,
        *,
        weight_prior: str = "dirichlet",
        weight_concentration: Hyper = None,
    ) -> None:
        super().__init__(
            n_components,
            Categorical(n_categories, concentration),
            weights_of(weight_prior, weight_concentration),
        )


@pytree
class MultinomialMixture(Mixture):
    """A mixture of rows of counts, whose total is given, by EM.

    Data: (n, d) of counts. The factors are `weights` and `components` (Dirichlet, (k, d)), points (`Delta`).

    Args:
        n_components: k.
        concentration: see `vb.components.Multinomial`.
        weight_concentration: alpha0 of a Dirichlet prior of the weights, a number or (k,), at least 1; None
            for none.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([[9, 1, 0], [7, 2, 1], [0, 3, 8], [1, 2, 9]])
    >>> fit = vb.fit(vb.MultinomialMixture(2), x, key=jax.random.key(0), n_restarts=4)
    >>> labels = fit.model.predict(fit.params, x)
    >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
    True
    """

    def __init__(
        self,
        n_components: int,
        concentration: Hyper = None,
        *,
        weight_concentration: Hyper = None,
    ) -> None:
        super().__init__(n_components, Multinomial(concentration), Weights(weight_concentration))


@pytree
class BayesianMultinomialMixture(Mixture):
    """A mixture of rows of counts, whose total is given, by variational Bayes.

    Data: (n, d) of counts. The factors are `weights` and `components` (Dirichlet, (k, d)).

    Args:
        n_components: k, an upper bound.
        concentration: see `vb.components.Multinomial`.
        weight_prior: "dirichlet", or "dirichlet_process" truncated at k (`vb.labels.StickBreaking`).
        weight_concentration: alpha0, a number, or (k,) of a Dirichlet; by default 1 / k of every component, 1
            of the process.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([[9, 1, 0], [7, 2, 1], [0, 3, 8], [1, 2, 9]])
    >>> fit = vb.fit(vb.BayesianMultinomialMixture(2), x, key=jax.random.key(0), n_restarts=4)
    >>> labels = fit.model.predict(fit.params, x)
    >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
    True
    """

    points: ClassVar[bool] = False

    def __init__(
        self,
        n_components: int,
        concentration: Hyper = None,
        *,
        weight_prior: str = "dirichlet",
        weight_concentration: Hyper = None,
    ) -> None:
        super().__init__(
            n_components, Multinomial(concentration), weights_of(weight_prior, weight_concentration)
        )


@pytree
class PoissonMixture(Mixture):
    """A mixture of independent columns of counts, by EM.

    Data: (n, d) of counts. The factors are `weights` and `components` (Gamma, (k, d)), points (`Delta`).

    Args:
        n_components: k.
        concentration, rate: see `vb.components.Poisson`.
        weight_concentration: alpha0 of a Dirichlet prior of the weights, a number or (k,), at least 1; None
            for none.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([[2, 30], [1, 25], [20, 3], [24, 2]])
    >>> fit = vb.fit(vb.PoissonMixture(2), x, key=jax.random.key(0), n_restarts=4)
    >>> labels = fit.model.predict(fit.params, x)
    >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
    True
    """

    def __init__(
        self,
        n_components: int,
        concentration: Hyper = None,
        rate: Hyper = None,
        *,
        weight_concentration: Hyper = None,
    ) -> None:
        super().__init__(n_components, Poisson(concentration, rate), Weights(weight_concentration))


@pytree
class BayesianPoissonMixture(Mixture):
    """A mixture of independent columns of counts, by variational Bayes.

    Data: (n, d) of counts. The factors are `weights` and `components` (Gamma, (k, d)).

    Args:
        n_components: k, an upper bound.
        concentration, rate: see `vb.components.Poisson`.
        weight_prior: "dirichlet", or "dirichlet_process" truncated at k (`vb.labels.StickBreaking`).
        weight_concentration: alpha0, a number, or (k,) of a Dirichlet; by default 1 / k of every component, 1
            of the process.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([[2, 30], [1, 25], [20, 3], [24, 2]])
    >>> fit = vb.fit(vb.BayesianPoissonMixture(2), x, key=jax.random.key(0), n_restarts=4)
    >>> labels = fit.model.predict(fit.params, x)
    >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
    True
    """

    points: ClassVar[bool] = False

    def __init__(
        self,
        n_components: int,
        concentration: Hyper = None,
        rate: Hyper = None,
        *,
        weight_prior: str = "dirichlet",
        weight_concentration: Hyper = None,
    ) -> None:
        super().__init__(
            n_components, Poisson(concentration, rate), weights_of(weight_prior, weight_concentration)
        )


@pytree
class GammaMixture(Mixture):
    """A mixture of independent positive columns, by EM.

    Data: (n, d), positive. The factors are `weights` and `components` (Gamma, (k, d)), points (`Delta`).

    Args:
        n_components: k.
        known_shape, concentration, rate, learn_shape: see `vb.components.Gamma`.
        weight_concentration: alpha0 of a Dirichlet prior of the weights, a number or (k,), at least 1; None
            for none.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([[0.1], [0.12], [10.0], [9.0]])
    >>> fit = vb.fit(vb.GammaMixture(2, known_shape=5.0), x, key=jax.random.key(0), n_restarts=4)
    >>> labels = fit.model.predict(fit.params, x)
    >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
    True
    """

    def __init__(
        self,
        n_components: int,
        known_shape: Hyper = 1.0,
        concentration: Hyper = None,
        rate: Hyper = None,
        *,
        learn_shape: bool = False,
        weight_concentration: Hyper = None,
    ) -> None:
        super().__init__(
            n_components,
            Gamma(known_shape, concentration, rate, learn_shape=learn_shape),
            Weights(weight_concentration),
        )


@pytree
class BayesianGammaMixture(Mixture):
    """A mixture of independent positive columns, by variational Bayes.

    Data: (n, d), positive. The factors are `weights` and `components` (Gamma, (k, d)).

    Args:
        n_components: k, an upper bound.
        known_shape, concentration, rate, learn_shape: see `vb.components.Gamma`.
        weight_prior: "dirichlet", or "dirichlet_process" truncated at k (`vb.labels.StickBreaking`).
        weight_concentration: alpha0, a number, or (k,) of a Dirichlet; by default 1 / k of every component, 1
            of the process.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([[0.1], [0.12], [10.0], [9.0]])
    >>> fit = vb.fit(vb.BayesianGammaMixture(2, known_shape=5.0), x, key=jax.random.key(0), n_restarts=4)
    >>> labels = fit.model.predict(fit.params, x)
    >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
    True
    """

    points: ClassVar[bool] = False

    def __init__(
        self,
        n_components: int,
        known_shape: Hyper = 1.0,
        concentration: Hyper = None,
        rate: Hyper = None,
        *,
        learn_shape: bool = False,
        weight_prior: str = "dirichlet",
        weight_concentration: Hyper = None,
    ) -> None:
        super().__init__(
            n_components,
            Gamma(known_shape, concentration, rate, learn_shape=learn_shape),
            weights_of(weight_prior, weight_concentration),
        )
