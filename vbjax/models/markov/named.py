"""Hidden Markov models by name: the bare name is EM, `Bayesian...` is variational Bayes."""

from __future__ import annotations

from typing import ClassVar

from jax import Array
from jaxtyping import Float

from vbjax.families.base import pytree
from vbjax.models.components import Autoregression, Categorical, Gamma, Gaussian, Mixture, Poisson
from vbjax.models.labels.chain import Chain
from vbjax.models.labels.weights import Weights, weights_of
from vbjax.models.markov.hidden_markov import HiddenMarkovModel
from vbjax.numerics.record import Record
from vbjax.numerics.types import Hyper


@pytree
class GaussianHMM(HiddenMarkovModel):
    """A hidden Markov model of normal steps (d,), by EM.

    Data and factors: see `HiddenMarkovModel`.

    Args:
        n_states: K.
        covariance_type, location, mean_precision, degrees_of_freedom, inverse_scale, covariance_floor, scale,
            missing: see `vb.components.Gaussian`.
        initial_concentration, transition_concentration, stickiness: see `vb.labels.Chain`.

    >>> import vbjax as vb
    >>> model = vb.GaussianHMM(2).resolve(vb.Sequences.of([vb.datasets.earthquakes()]))
    >>> model.n_parameters  # 1 + 2 of the chain, and a mean and a variance in each state
    7
    """

    def __init__(
        self,
        n_states: int,
        covariance_type: str = "full",
        *,
        location: Hyper = None,
        mean_precision: Hyper = None,
        degrees_of_freedom: Hyper = None,
        inverse_scale: Hyper = None,
        covariance_floor: Hyper = 1e-6,
        scale: Hyper = None,
        missing: bool = False,
        initial_concentration: Hyper = None,
        transition_concentration: Hyper = None,
        stickiness: Hyper = 0.0,
    ) -> None:
        prior = location, mean_precision, degrees_of_freedom, inverse_scale
        component = Gaussian(covariance_type, *prior, covariance_floor, scale=scale, missing=missing)
        chain = Chain(initial_concentration, transition_concentration, stickiness)
        HiddenMarkovModel.__init__(self, n_states, component, chain)


@pytree
class BayesianGaussianHMM(HiddenMarkovModel):
    """A hidden Markov model of normal steps (d,), by variational Bayes.

    Data and factors: see `BayesianHiddenMarkovModel`.

    Args:
        n_states: K.
        covariance_type, location, mean_precision, degrees_of_freedom, inverse_scale, scale, missing: see
            `vb.components.Gaussian`.
        initial_concentration, transition_concentration, stickiness: see `vb.labels.Chain`.

    >>> import vbjax as vb
    >>> model = vb.BayesianGaussianHMM(2).resolve(vb.Sequences.of([vb.datasets.old_faithful()]))
    >>> model.factors.components  # under each state of fit.params
    NormalWishart(plate=(2,), size=2)
    """

    points: ClassVar[bool] = False

    def __init__(
        self,
        n_states: int,
        covariance_type: str = "full",
        *,
        location: Hyper = None,
        mean_precision: Hyper = None,
        degrees_of_freedom: Hyper = None,
        inverse_scale: Hyper = None,
        scale: Hyper = None,
        missing: bool = False,
        initial_concentration: Hyper = None,
        transition_concentration: Hyper = None,
        stickiness: Hyper = 0.0,
    ) -> None:
        prior = location, mean_precision, degrees_of_freedom, inverse_scale
        component = Gaussian(covariance_type, *prior, scale=scale, missing=missing)
        chain = Chain(initial_concentration, transition_concentration, stickiness)
        HiddenMarkovModel.__init__(self, n_states, component, chain)


@pytree
class MixtureHMM(HiddenMarkovModel):
    """A hidden Markov model of a mixture of `n_components` normals in every state, by EM.

    Data and factors: see `HiddenMarkovModel`.

    Args:
        n_states: K.
        n_components, covariance_type, location, mean_precision, degrees_of_freedom, inverse_scale,
            covariance_floor, scale, missing, weight_concentration: see `vb.components.Mixture` and
            `vb.components.Gaussian`; `weight_concentration` is of the shares of every state.
        initial_concentration, transition_concentration, stickiness: see `vb.labels.Chain`.

    >>> import vbjax as vb
    >>> model = vb.MixtureHMM(2, n_components=3).resolve(vb.Sequences.of([vb.datasets.earthquakes()]))
    >>> model.n_parameters  # 1 + 2 of the chain, in each state 2 of the shares and 3 x 2 of the normals
    19
    """

    def __init__(
        self,
        n_states: int,
        n_components: int,
        covariance_type: str = "full",
        *,
        location: Hyper = None,
        mean_precision: Hyper = None,
        degrees_of_freedom: Hyper = None,
        inverse_scale: Hyper = None,
        covariance_floor: Hyper = 1e-6,
        scale: Hyper = None,
        missing: bool = False,
        weight_concentration: Hyper = None,
        initial_concentration: Hyper = None,
        transition_concentration: Hyper = None,
        stickiness: Hyper = 0.0,
    ) -> None:
        prior = location, mean_precision, degrees_of_freedom, inverse_scale
        own = Gaussian(covariance_type, *prior, covariance_floor, scale=scale, missing=missing)
        component = Mixture(n_components, own, Weights(weight_concentration))
        chain = Chain(initial_concentration, transition_concentration, stickiness)
        HiddenMarkovModel.__init__(self, n_states, component, chain)


@pytree
class BayesianMixtureHMM(HiddenMarkovModel):
    """A hidden Markov model of a mixture of `n_components` normals in every state, by variational Bayes.

    Data and factors: see `BayesianHiddenMarkovModel`.

    Args:
        n_states: K.
        n_components, covariance_type, location, mean_precision, degrees_of_freedom, inverse_scale, scale,
            missing, weight_prior, weight_concentration: see `vb.components.Mixture` and
            `vb.components.Gaussian`; `weight_concentration` is of the shares of every state.
        initial_concentration, transition_concentration, stickiness: see `vb.labels.Chain`.

    >>> import vbjax as vb
    >>> model = vb.BayesianMixtureHMM(2, n_components=3).resolve(vb.Sequences.of([vb.datasets.earthquakes()]))
    >>> model.factors.shares, model.factors.components  # six normals, three in each state
    (Dirichlet(plate=(2,), size=3), NormalWishart(plate=(6,), size=1))
    """

    points: ClassVar[bool] = False

    def __init__(
        self,
        n_states: int,
        n_components: int,
        covariance_type: str = "full",
        *,
        location: Hyper = None,
        mean_precision: Hyper = None,
        degrees_of_freedom: Hyper = None,
        inverse_scale: Hyper = None,
        scale: Hyper = None,
        missing: bool = False,
        weight_prior: str = "dirichlet",
        weight_concentration: Hyper = None,
        initial_concentration: Hyper = None,
        transition_concentration: Hyper = None,
        stickiness: Hyper = 0.0,
    ) -> None:
        prior = location, mean_precision, degrees_of_freedom, inverse_scale
        own = Gaussian(covariance_type, *prior, scale=scale, missing=missing)
        component = Mixture(n_components, own, weights_of(weight_prior, weight_concentration))
        chain = Chain(initial_concentration, transition_concentration, stickiness)
        HiddenMarkovModel.__init__(self, n_states, component, chain)


@pytree
class PoissonHMM(HiddenMarkovModel):
    """A hidden Markov model of steps of d independent counts, by EM.

    Data and factors: see `HiddenMarkovModel`.

    Args:
        n_states: K.
        concentration, rate: see `vb.components.Poisson`.
        initial_concentration, transition_concentration, stickiness: see `vb.labels.Chain`.

    >>> import vbjax as vb
    >>> model = vb.PoissonHMM(2).resolve(vb.Sequences.of([vb.datasets.earthquakes()]))
    >>> model.n_parameters  # 1 + 2 of the chain, and a rate in each state
    5
    """

    def __init__(
        self,
        n_states: int,
        *,
        concentration: Hyper = None,
        rate: Hyper = None,
        initial_concentration: Hyper = None,
        transition_concentration: Hyper = None,
        stickiness: Hyper = 0.0,
    ) -> None:
        component = Poisson(concentration, rate)
        chain = Chain(initial_concentration, transition_concentration, stickiness)
        HiddenMarkovModel.__init__(self, n_states, component, chain)


@pytree
class BayesianPoissonHMM(HiddenMarkovModel):
    """A hidden Markov model of steps of d independent counts, by variational Bayes.

    Data and factors: see `BayesianHiddenMarkovModel`.

    Args:
        n_states: K.
        concentration, rate: see `vb.components.Poisson`.
        initial_concentration, transition_concentration, stickiness: see `vb.labels.Chain`.

    >>> import vbjax as vb
    >>> model = vb.BayesianPoissonHMM(2).resolve(vb.Sequences.of([vb.datasets.earthquakes()]))
    >>> model.factors.components, model.factors.transitions
    (Gamma(plate=(2, 1)), Dirichlet(plate=(2,), size=2))
    """

    points: ClassVar[bool] = False
    __init__ = PoissonHMM.__init__


@pytree
class CategoricalHMM(HiddenMarkovModel):
    """A hidden Markov model of steps of d independent categories, by EM.

    Data and factors: see `HiddenMarkovModel`.

    Args:
        n_states: K.
        n_categories, concentration: see `vb.components.Categorical`.
        initial_concentration, transition_concentration, stickiness: see `vb.labels.Chain`.

    >>> import vbjax as vb
    >>> model = vb.CategoricalHMM(2, n_categories=4).resolve(vb.Sequences.of([[[0], [3], [3]]]))
    >>> model.n_parameters  # 1 + 2 of the chain, and 3 of each state's probabilities
    9
    """

    def __init__(
        self,
        n_states: int,
        n_categories: int | None = None,
        *,
        concentration: Hyper = None,
        initial_concentration: Hyper = None,
        transition_concentration: Hyper = None,
        stickiness: Hyper = 0.0,
    ) -> None:
        component = Categorical(n_categories, concentration)
        chain = Chain(initial_concentration, transition_concentration, stickiness)
        HiddenMarkovModel.__init__(self, n_states, component, chain)


@pytree
class BayesianCategoricalHMM(HiddenMarkovModel):
    """A hidden Markov model of steps of d independent categories, by variational Bayes.

    Data and factors: see `BayesianHiddenMarkovModel`.

    Args:
        n_states: K.
        n_categories, concentration: see `vb.components.Categorical`.
        initial_concentration, transition_concentration, stickiness: see `vb.labels.Chain`.

    >>> import vbjax as vb
    >>> model = vb.BayesianCategoricalHMM(2, n_categories=4).resolve(vb.Sequences.of([[[0], [3], [3]]]))
    >>> model.factors.components  # of every state and column, over four categories
    Dirichlet(plate=(2, 1), size=4)
    """

    points: ClassVar[bool] = False
    __init__ = CategoricalHMM.__init__


@pytree
class GammaHMM(HiddenMarkovModel):
    """A hidden Markov model of steps of d independent positive numbers, by EM.

    Data and factors: see `HiddenMarkovModel`.

    Args:
        n_states: K.
        known_shape, concentration, rate, learn_shape: see `vb.components.Gamma`.
        initial_concentration, transition_concentration, stickiness: see `vb.labels.Chain`.

    >>> import vbjax as vb
    >>> model = vb.GammaHMM(2, learn_shape=True).resolve(vb.Sequences.of([vb.datasets.old_faithful()]))
    >>> model.n_parameters  # 1 + 2 of the chain, in each state two shapes and two rates
    11
    """

    def __init__(
        self,
        n_states: int,
        *,
        known_shape: Hyper = 1.0,
        concentration: Hyper = None,
        rate: Hyper = None,
        learn_shape: bool = False,
        initial_concentration: Hyper = None,
        transition_concentration: Hyper = None,
        stickiness: Hyper = 0.0,
    ) -> None:
        component = Gamma(known_shape, concentration, rate, learn_shape=learn_shape)
        chain = Chain(initial_concentration, transition_concentration, stickiness)
        HiddenMarkovModel.__init__(self, n_states, component, chain)


@pytree
class BayesianGammaHMM(HiddenMarkovModel):
    """A hidden Markov model of steps of d independent positive numbers, by variational Bayes.

    Data and factors: see `BayesianHiddenMarkovModel`.

    Args:
        n_states: K.
        known_shape, concentration, rate, learn_shape: see `vb.components.Gamma`.
        initial_concentration, transition_concentration, stickiness: see `vb.labels.Chain`.

    >>> import vbjax as vb
    >>> model = vb.BayesianGammaHMM(2).resolve(vb.Sequences.of([vb.datasets.old_faithful()]))
    >>> model.factors.components  # rates, of every state and column
    Gamma(plate=(2, 2))
    """

    points: ClassVar[bool] = False
    __init__ = GammaHMM.__init__


@pytree
class AutoregressiveHMM(HiddenMarkovModel):
    """A hidden Markov model whose steps (d,) are regressions on the L steps before them, by EM.

    Data and factors: see `HiddenMarkovModel`.

    Args:
        n_states: K.
        order: L, steps on which a step depends.
        location, mean_precision, degrees_of_freedom, inverse_scale, covariance_floor, center, offset: see
            `vb.components.Autoregression`.
        initial_concentration, transition_concentration, stickiness: see `vb.labels.Chain`.

    >>> import jax, vbjax as vb
    >>> t = jax.numpy.arange(120.0)
    >>> x = jax.numpy.sin(jax.numpy.where(t // 30 % 2 == 1, 0.3, 1.2) * t)[:, None]
    >>> x = x + 0.01 * jax.random.normal(jax.random.key(1), x.shape)
    >>> fit = vb.fit(vb.AutoregressiveHMM(2, order=2), x, key=jax.random.key(0), n_restarts=8)
    >>> len(set(fit.model.decode(fit.params, x)[32:58].tolist()))
    1
    """

    def __init__(
        self,
        n_states: int,
        order: int = 1,
        *,
        location: Hyper = None,
        mean_precision: Hyper = None,
        degrees_of_freedom: Hyper = None,
        inverse_scale: Hyper = None,
        covariance_floor: Hyper = 1e-6,
        center: Hyper = None,
        offset: Hyper = None,
        initial_concentration: Hyper = None,
        transition_concentration: Hyper = None,
        stickiness: Hyper = 0.0,
    ) -> None:
        prior = location, mean_precision, degrees_of_freedom, inverse_scale
        component = Autoregression(*prior, covariance_floor, center, offset, order=order)
        chain = Chain(initial_concentration, transition_concentration, stickiness)
        HiddenMarkovModel.__init__(self, n_states, component, chain)

    def coefficients(self, params: Record) -> Float[Array, "k l d d"]:
        """Return the (expected) matrices by state and lag: [k, l - 1] multiplies x_{t-l}, (K, L, d, d)."""
        return self.component.coefficients(params)

    def intercepts(self, params: Record) -> Float[Array, "k d"]:
        """Return the (expected) constants that are added to these products, (K, d)."""
        return self.component.intercepts(params)

    def covariances(self, params: Record) -> Float[Array, "k d d"]:
        """Return the inverse (expected) precision matrices of the noise, (K, d, d)."""
        return self.component.covariances(params)


@pytree
class BayesianAutoregressiveHMM(HiddenMarkovModel):
    """A hidden Markov model of regressions on the L steps before, by variational Bayes.

    By default the prior follows what one autoregression of all steps leaves. Draws have parameters of their
    own.

    Data and factors: see `BayesianHiddenMarkovModel`.

    Args:
        n_states: K.
        order: L, steps on which a step depends.
        location, mean_precision, degrees_of_freedom, inverse_scale, covariance_floor, center, offset: see
            `vb.components.Autoregression`.
        initial_concentration, transition_concentration, stickiness: see `vb.labels.Chain`.

    >>> import vbjax as vb
    >>> model = vb.BayesianAutoregressiveHMM(2, order=3).resolve(vb.Sequences.of([vb.datasets.earthquakes()]))
    >>> model.factors.components  # coefficients of three steps and an intercept
    MatrixNormalWishart(plate=(2,), rows=4, size=1)
    """

    points: ClassVar[bool] = False
    __init__ = AutoregressiveHMM.__init__
    coefficients = AutoregressiveHMM.coefficients
    intercepts = AutoregressiveHMM.intercepts
    covariances = AutoregressiveHMM.covariances
