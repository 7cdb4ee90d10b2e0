"""Hidden Markov models by name: the bare name is EM, `Bayesian...` is variational Bayes."""

from __future__ import annotations

from typing import Any, ClassVar

from vbjax.families.base import pytree
from vbjax.models.components import Categorical, Gamma, Gaussian, Mixture, Poisson
from vbjax.models.labels.weights import Weights, weights_of
from vbjax.models.markov.hidden_markov import HiddenMarkovModel


@pytree
class GaussianHMM(HiddenMarkovModel):
    """A hidden Markov model of normal steps (d,), by EM.

    Data and factors: see `HiddenMarkovModel`.

    Args:
        n_states: K.
        covariance_type, location, mean_precision, degrees_of_freedom, inverse_scale, covariance_floor, scale,
            missing: see `vb.components.Gaussian`.
        initial_concentration, transition_concentration, stickiness: see `HiddenMarkovModel`.
    """

    def __init__(
        self,
        n_states: int,
        covariance_type: str = "full",
        *,
        location: Any = None,
        mean_precision: Any = None,
        degrees_of_freedom: Any = None,
        inverse_scale: Any = None,
        covariance_floor: Any = 1e-6,
        scale: Any = None,
        missing: bool = False,
        initial_concentration: Any = None,
        transition_concentration: Any = None,
        stickiness: Any = 0.0,
    ) -> None:
        component = Gaussian(
            covariance_type,
            location,
            mean_precision,
            degrees_of_freedom,
            inverse_scale,
            covariance_floor,
            scale=scale,
            missing=missing,
        )
        super().__init__(
            n_states,
            component,
            initial_concentration=initial_concentration,
            transition_concentration=transition_concentration,
            stickiness=stickiness,
        )


@pytree
class BayesianGaussianHMM(HiddenMarkovModel):
    """A hidden Markov model of normal steps (d,), by variational Bayes.

    Data and factors: see `BayesianHiddenMarkovModel`.

    Args:
        n_states: K.
        covariance_type, location, mean_precision, degrees_of_freedom, inverse_scale, scale, missing: see
            `vb.components.Gaussian`.
        initial_concentration, transition_concentration, stickiness: see `BayesianHiddenMarkovModel`.
    """

    points: ClassVar[bool] = False

    def __init__(
        self,
        n_states: int,
        covariance_type: str = "full",
        *,
        location: Any = None,
        mean_precision: Any = None,
        degrees_of_freedom: Any = None,
        inverse_scale: Any = None,
        scale: Any = None,
        missing: bool = False,
        initial_concentration: Any = None,
        transition_concentration: Any = None,
        stickiness: Any = 0.0,
    ) -> None:
        component = Gaussian(
            covariance_type,
            location,
            mean_precision,
            degrees_of_freedom,
            inverse_scale,
            scale=scale,
            missing=missing,
        )
        super().__init__(
            n_states,
            component,
            initial_concentration=initial_concentration,
            transition_concentration=transition_concentration,
            stickiness=stickiness,
        )


@pytree
class MixtureHMM(HiddenMarkovModel):
    """A hidden Markov model of a mixture of `n_components` normals in every state, by EM.

    Data and factors: see `HiddenMarkovModel`.

    Args:
        n_states: K.
        n_components, covariance_type, location, mean_precision, degrees_of_freedom, inverse_scale,
            covariance_floor, scale, missing, weight_concentration: see `vb.components.Mixture` and
            `vb.components.Gaussian`; `weight_concentration` is of the shares of every state.
        initial_concentration, transition_concentration, stickiness: see `HiddenMarkovModel`.
    """

    def __init__(
        self,
        n_states: int,
        n_components: int,
        covariance_type: str = "full",
        *,
        location: Any = None,
        mean_precision: Any = None,
        degrees_of_freedom: Any = None,
        inverse_scale: Any = None,
        covariance_floor: Any = 1e-6,
        scale: Any = None,
        missing: bool = False,
        weight_concentration: Any = None,
        initial_concentration: Any = None,
        transition_concentration: Any = None,
        stickiness: Any = 0.0,
    ) -> None:
        component = Mixture(
            n_components,
            Gaussian(
                covariance_type,
                location,
                mean_precision,
                degrees_of_freedom,
                inverse_scale,
                covariance_floor,
                scale=scale,
                missing=missing,
            ),
            Weights(weight_concentration),
        )
        super().__init__(
            n_states,
            component,
            initial_concentration=initial_concentration,
            transition_concentration=transition_concentration,
            stickiness=stickiness,
        )


@pytree
class BayesianMixtureHMM(HiddenMarkovModel):
    """A hidden Markov model of a mixture of `n_components` normals in every state, by variational Bayes.

    Data and factors: see `BayesianHiddenMarkovModel`.

    Args:
        n_states: K.
        n_components, covariance_type, location, mean_precision, degrees_of_freedom, inverse_scale, scale,
            missing, weight_prior, weight_concentration: see `vb.components.Mixture` and
            `vb.components.Gaussian`; `weight_concentration` is of the shares of every state.
        initial_concentration, transition_concentration, stickiness: see `BayesianHiddenMarkovModel`.
    """

    points: ClassVar[bool] = False

    def __init__(
        self,
        n_states: int,
        n_components: int,
        covariance_type: str = "full",
        *,
        location: Any = None,
        mean_precision: Any = None,
        degrees_of_freedom: Any = None,
        inverse_scale: Any = None,
        scale: Any = None,
        missing: bool = False,
        weight_prior: str = "dirichlet",
        weight_concentration: Any = None,
        initial_concentration: Any = None,
        transition_concentration: Any = None,
        stickiness: Any = 0.0,
    ) -> None:
        component = Mixture(
            n_components,
            Gaussian(
                covariance_type,
                location,
                mean_precision,
                degrees_of_freedom,
                inverse_scale,
                scale=scale,
                missing=missing,
            ),
            weights_of(weight_prior, weight_concentration),
        )
        super().__init__(
            n_states,
            component,
            initial_concentration=initial_concentration,
            transition_concentration=transition_concentration,
            stickiness=stickiness,
        )


@pytree
class PoissonHMM(HiddenMarkovModel):
    """A hidden Markov model of steps of d independent counts, by EM.

    Data and factors: see `HiddenMarkovModel`.

    Args:
        n_states: K.
        concentration, rate: see
            `vb.components.Poisson`.
        initial_concentration, transition_concentration, stickiness: see `HiddenMarkovModel`.
    """

    def __init__(
        self,
        n_states: int,
        *,
        concentration: Any = None,
        rate: Any = None,
        initial_concentration: Any = None,
        transition_concentration: Any = None,
        stickiness: Any = 0.0,
    ) -> None:
        component = Poisson(concentration, rate)
        super().__init__(
            n_states,
            component,
            initial_concentration=initial_concentration,
            transition_concentration=transition_concentration,
            stickiness=stickiness,
        )


@pytree
class BayesianPoissonHMM(HiddenMarkovModel):
    """A hidden Markov model of steps of d independent counts, by variational Bayes.

    Data and factors: see `BayesianHiddenMarkovModel`.

    Args:
        n_states: K.
        concentration, rate: see
            `vb.components.Poisson`.
        initial_concentration, transition_concentration, stickiness: see `BayesianHiddenMarkovModel`.
    """

    points: ClassVar[bool] = False

    def __init__(
        self,
        n_states: int,
        *,
        concentration: Any = None,
        rate: Any = None,
        initial_concentration: Any = None,
        transition_concentration: Any = None,
        stickiness: Any = 0.0,
    ) -> None:
        component = Poisson(concentration, rate)
        super().__init__(
            n_states,
            component,
            initial_concentration=initial_concentration,
            transition_concentration=transition_concentration,
            stickiness=stickiness,
        )


@pytree
class CategoricalHMM(HiddenMarkovModel):
    """A hidden Markov model of steps of d independent categories, by EM.

    Data and factors: see `HiddenMarkovModel`.

    Args:
        n_states: K.
        n_categories, concentration: see
            `vb.components.Categorical`.
        initial_concentration, transition_concentration, stickiness: see `HiddenMarkovModel`.
    """

    def __init__(
        self,
        n_states: int,
        n_categories: int | None = None,
        *,
        concentration: Any = None,
        initial_concentration: Any = None,
        transition_concentration: Any = None,
        stickiness: Any = 0.0,
    ) -> None:
        component = Categorical(n_categories, concentration)
        super().__init__(
            n_states,
            component,
            initial_concentration=initial_concentration,
            transition_concentration=transition_concentration,
            stickiness=stickiness,
        )


@pytree
class BayesianCategoricalHMM(HiddenMarkovModel):
    """A hidden Markov model of steps of d independent categories, by variational Bayes.

    Data and factors: see `BayesianHiddenMarkovModel`.

    Args:
        n_states: K.
        n_categories, concentration: see
            `vb.components.Categorical`.
        initial_concentration, transition_concentration, stickiness: see `BayesianHiddenMarkovModel`.
    """

    points: ClassVar[bool] = False

    def __init__(
        self,
        n_states: int,
        n_categories: int | None = None,
        *,
        concentration: Any = None,
        initial_concentration: Any = None,
        transition_concentration: Any = None,
        stickiness: Any = 0.0,
    ) -> None:
        component = Categorical(n_categories, concentration)
        super().__init__(
            n_states,
            component,
            initial_concentration=initial_concentration,
            transition_concentration=transition_concentration,
            stickiness=stickiness,
        )


@pytree
class GammaHMM(HiddenMarkovModel):
    """A hidden Markov model of steps of d independent positive numbers, by EM.

    Data and factors: see `HiddenMarkovModel`.

    Args:
        n_states: K.
        known_shape, concentration, rate, learn_shape: see
            `vb.components.Gamma`.
        initial_concentration, transition_concentration, stickiness: see `HiddenMarkovModel`.
    """

    def __init__(
        self,
        n_states: int,
        *,
        known_shape: Any = 1.0,
        concentration: Any = None,
        rate: Any = None,
        learn_shape: bool = False,
        initial_concentration: Any = None,
        transition_concentration: Any = None,
        stickiness: Any = 0.0,
    ) -> None:
        component = Gamma(known_shape, concentration, rate, learn_shape=learn_shape)
        super().__init__(
            n_states,
            component,
            initial_concentration=initial_concentration,
            transition_concentration=transition_concentration,
            stickiness=stickiness,
        )


@pytree
class BayesianGammaHMM(HiddenMarkovModel):
    """A hidden Markov model of steps of d independent positive numbers, by variational Bayes.

    Data and factors: see `BayesianHiddenMarkovModel`.

    Args:
        n_states: K.
        known_shape, concentration, rate, learn_shape: see
            `vb.components.Gamma`.
        initial_concentration, transition_concentration, stickiness: see `BayesianHiddenMarkovModel`.
    """

    points: ClassVar[bool] = False

    def __init__(
        self,
        n_states: int,
        *,
        known_shape: Any = 1.0,
        concentration: Any = None,
        rate: Any = None,
        learn_shape: bool = False,
        initial_concentration: Any = None,
        transition_concentration: Any = None,
        stickiness: Any = 0.0,
    ) -> None:
        component = Gamma(known_shape, concentration, rate, learn_shape=learn_shape)
        super().__init__(
            n_states,
            component,
            initial_concentration=initial_concentration,
            transition_concentration=transition_concentration,
            stickiness=stickiness,
        )
