"""Hidden Markov models: a component whose labels are a Markov chain, by EM or by variational Bayes."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from vbjax.core.hyperparameters import NON_NEGATIVE, POSITIVE, Range, at_least, count, hyper, part
from vbjax.core.rows import float_dtype
from vbjax.data.moments import fill_defaults
from vbjax.data.sequences import Sequences
from vbjax.families.base import pytree, replace
from vbjax.families.delta import Delta
from vbjax.families.dirichlet import Dirichlet, DirichletState
from vbjax.models.components.component import Component
from vbjax.models.markov.hidden_markov_use import HiddenMarkovUse
from vbjax.numerics.record import Record


def _with_mode(model: Any) -> Range:
    """Return the range of concentrations: by EM of those with a mode inside the simplex."""
    return at_least(1, " by EM") if model.points else POSITIVE


@pytree
class HiddenMarkovModel(HiddenMarkovUse):
    """x_t | z_t from component z_t, z_1 ~ initial, z_t | z_{t-1} ~ row z_{t-1} of transitions; by EM.

    The algorithm of Baum and Welch (Rabiner 1989, eq. 40a to 40c): from the marginals gamma and the pairs xi
    of the states

        A_ij = xi_ij / sum_j xi_ij,   pi = gamma_1,   components as in a mixture, with gamma_t for r_n.

    `BayesianHiddenMarkovModel` is the same model by variational Bayes.

    Data: `vb.Sequences`, or what `Sequences.of` takes; steps as rows of the component. NaN are steps, or with
    `missing` of the component entries, that are missing. Weights are of sequences; the tolerance of a fit is
    per step. The factors are `initial` (K,), `transitions` (K, K) and the component's own, `components`;
    points (`Delta`).

    Args:
        n_states: K.
        component: what a step is in each state, of `vb.components`.
        initial_concentration: alpha of the first state, a number or (K,); by default none, at least 1.
        transition_concentration: alpha of the next state, a number, (K,) or (K, K); by default none, at least
            1.
        stickiness: what is added to that of the state itself; by default 0.

    Raises:
        ValueError: data that are no sequences of such rows; a concentration below 1: its mode is on the
            simplex's boundary.

    References:
        Rabiner (1989), A tutorial on hidden Markov models; Bishop (2006), section 13.2.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.earthquakes()
    >>> fit = vb.fit(vb.PoissonHMM(2), x, key=jax.random.key(0), n_restarts=4, tol=1e-9)
    >>> print(f"{fit.objective:.2f}")
    -341.88
    """

    n_states: int = count("k")
    component: Any = part(Component, "a component, such as vb.components.Gaussian()")
    initial_concentration: Any = hyper(None, lambda m, sizes: (_with_mode(m), "k"), kw_only=True)
    transition_concentration: Any = hyper(None, lambda m, sizes: (_with_mode(m), "k", "k k"), kw_only=True)
    stickiness: Any = hyper(0.0, NON_NEGATIVE, kw_only=True)

    @property
    def factors(self) -> Record:
        initial, transitions = Dirichlet(self.n_states), Dirichlet(self.n_states, plate=(self.n_states,))
        own = self.component.factors
        if self.points:
            return Record(initial=Delta(initial), transitions=Delta(transitions), **own)
        return Record(initial=initial, transitions=transitions, **own)

    def resolve(self, data: Sequences, weights: Array | None = None) -> HiddenMarkovModel:
        resolved = replace(self, component=self.resolved_component(data, weights))
        even = np.full((self.n_states, self.n_states), 1 / self.n_states)
        defaults = dict(initial_concentration=even[0], transition_concentration=even)
        if self.points:  # what is not given is no prior
            defaults = {name: x for name, x in defaults.items() if getattr(self, name) is not None}
        return fill_defaults(resolved, float_dtype(data), **defaults)

    def _priors(self) -> dict[str, DirichletState]:
        """Of the chain's factors that have one."""
        priors: dict[str, DirichletState] = {}
        if self.initial_concentration is not None:
            priors["initial"] = DirichletState(self.initial_concentration)
        if self.transition_concentration is not None:
            own = self.stickiness * jnp.eye(self.n_states, dtype=self.transition_concentration.dtype)
            priors["transitions"] = DirichletState(self.transition_concentration + own)
        return priors

    def log_prior(self, s: Record) -> Array:
        total = self.component.log_prior(s)
        for name, prior in self._priors().items():
            total = total + (prior.log_density(s[name]) + s[name].base).sum()
        return total


@pytree
class BayesianHiddenMarkovModel(HiddenMarkovModel):
    """A hidden Markov model by variational Bayes: every row of transitions has a factor

        Dirichlet(alpha + stickiness at itself + xi),

    and the E-step is that of a chain with the weights exp E[log A], which are not normalised: the bound has
    the log-normaliser of that chain.

    Data: as of `HiddenMarkovModel`. The factors are `initial` (K,), `transitions` (K, K) and the component's
    own.

    Args:
        n_states: K.
        component: what a step is in each state, of `vb.components`.
        initial_concentration: alpha of the first state, a number or (K,); by default 1 / K.
        transition_concentration: alpha of the next state, a number, (K,) or (K, K); by default 1 / K.
        stickiness: what is added to that of the state itself; by default 0.

    References:
        Beal (2003), Variational algorithms for approximate Bayesian inference, chapter 3; Fox et al. (2011)
        for stickiness.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.earthquakes()
    >>> model = vb.BayesianHiddenMarkovModel(2, vb.components.Poisson(), stickiness=2.0)
    >>> fit = vb.fit(model, x, key=jax.random.key(0), n_restarts=4)
    >>> sorted(fit.params.components.mean[:, 0].round().tolist())
    [15.0, 26.0]
    """

    points: ClassVar[bool] = False
