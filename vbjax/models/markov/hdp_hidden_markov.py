"""Hidden Markov models of a hierarchical Dirichlet process: as many states as the sequences need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammaln
from jaxtyping import Bool, Float

from vbjax.core.hyperparameters import NON_NEGATIVE, POSITIVE, count, hyper, part
from vbjax.core.model import in_dtype
from vbjax.core.rows import float_dtype
from vbjax.data.sequences import Sequences
from vbjax.families.base import pytree, replace
from vbjax.families.dirichlet import Dirichlet, DirichletState
from vbjax.families.stick_breaking import StickBreaking, StickBreakingState
from vbjax.models.components.component import Component
from vbjax.models.labels.shared_weights import climbed, slack
from vbjax.models.labels.weights import stick_prior
from vbjax.models.markov.hidden_markov_base import CHAIN
from vbjax.models.markov.hidden_markov_use import HiddenMarkovUse
from vbjax.numerics.record import Record


@pytree
class HDPHiddenMarkovModel(HiddenMarkovUse):
    """A hidden Markov model whose states have unequal weight; it finds how many are used.

        w ~ GEM(gamma), pieces of a stick:  w_k = v_k prod_{j<k} (1 - v_j),  v_k ~ Beta(1, gamma),
        initial ~ Dirichlet(alpha w),   row k of transitions ~ Dirichlet(alpha w + kappa at k),

    the process truncated at `n_states`; else as `HiddenMarkovModel` by variational Bayes, times
    prod_k q(v_k). The weights are not conjugate to the rows; in place of the rows' prior, the bound has a
    lower bound of it (`shared_weights`), so the objective stays below the evidence, and no update lowers it.
    Where a fit ends with two states that do the work of one, `vb.merge_states` goes on from there.

    Data: see `HiddenMarkovModel`. The factors are `initial` (K,), `transitions` (K, K), `weights`
    (StickBreaking, (K,)) and `components`.

    Args:
        n_states: K, at least 2, where the process is truncated: more than are expected. Every state that is
            not used costs the bound a few nats.
        component: what a step is in each state, of `vb.components`.
        transition_concentration: alpha; by default 1.
        weight_concentration: gamma; by default 1.
        stickiness: kappa, what is added for the state itself; by default 0.

    Raises:
        ValueError: as `HiddenMarkovModel`.

    References:
        Teh, Jordan, Beal & Blei (2006), Hierarchical Dirichlet processes, section 7; Fox, Sudderth, Jordan &
        Willsky (2011), A sticky HDP-HMM, section 3; Hughes, Stephenson & Sudderth (2015), Scalable adaptation
        of state complexity for nonparametric hidden Markov models, section 2.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.earthquakes()
    >>> model = vb.HDPHiddenMarkovModel(6, vb.components.Poisson())
    >>> fit = vb.merge_states(vb.fit(model, x, key=jax.random.key(0)), x)
    >>> len(set(fit.model.decode(fit.params, x).tolist()))
    3
    """

    points: ClassVar[bool] = False
    n_states: int = count("k", least=2)
    component: Any = part(Component, "a component, such as vb.components.Gaussian()")
    transition_concentration: Any = hyper(1.0, POSITIVE, kw_only=True)
    weight_concentration: Any = hyper(1.0, POSITIVE, kw_only=True)
    stickiness: Any = hyper(0.0, NON_NEGATIVE, kw_only=True)

    @property
    def factors(self) -> Record:
        k = self.n_states
        chain: dict[str, Any] = dict(initial=Dirichlet(k), transitions=Dirichlet(k, plate=(k,)))
        return Record(chain, weights=StickBreaking(k), **self.component.factors)

    def resolve(self, data: Sequences, weights: Array | None = None) -> HDPHiddenMarkovModel:
        resolved = replace(self, component=self.resolved_component(data, weights))
        return in_dtype(resolved, float_dtype(data))

    @property
    def weights_prior(self) -> StickBreakingState:
        """The prior of the states' weights."""
        return stick_prior(self.n_states, self.weight_concentration)

    def _rows_priors(self, weights: StickBreakingState) -> dict[str, DirichletState]:
        """What initial and transitions have for their priors, at the mean of the weights."""
        shared = self.transition_concentration * weights.mean
        own = self.stickiness * jnp.eye(self.n_states, dtype=shared.dtype)
        return dict(initial=DirichletState(shared), transitions=DirichletState(shared + own))

    def _slack(self, weights: StickBreakingState) -> Float[Array, ""]:
        """Of all rows: what the bound has beyond those priors."""
        alpha, kappa = self.transition_concentration, self.stickiness
        return slack(weights, alpha, jnp.zeros_like(kappa))[0] + slack(weights, alpha, kappa).sum()

    def m_step(self, params: Record, statistics: Any, block: Iterable[str]) -> Record:
        """Update the rows from their prior and the counts; then q(v) climbs."""
        block = tuple(block)
        of_component = [name for name in block if name in self.component.factors]
        moved, priors = super().m_step(params, statistics, of_component), self._rows_priors(params.weights)
        for name in (name for name in CHAIN if name in block):
            moved |= {name: DirichletState(priors[name].concentration + statistics[name].log)}
        if "weights" not in block:
            return moved
        alpha, kappa, k = self.transition_concentration, self.stickiness, self.n_states
        log = moved.initial.expected().log + moved.transitions.expected().log.sum(0)
        number = jnp.full_like(log, k) + jnp.where(kappa > 0, 0, 1).astype(log.dtype)
        safe = jnp.where(kappa > 0, kappa, 1)
        own = jnp.where(kappa > 0, gammaln(safe) - gammaln(safe + alpha), 0) - number * gammaln(1 + alpha)
        return moved | dict(weights=climbed(params.weights, self.weights_prior, alpha, log, number, own))

    def log_prior(self, s: Record) -> Array:
        """Compute that of the component; for the chain see `expected_log_prior`."""
        return self.component.log_prior(s)

    def expected_log_prior(self, params: Any) -> Array:
        prior, q = self.weights_prior, params.weights.expected()
        total = (
            super().expected_log_prior(params) + prior.log_density(q) + q.base + self._slack(params.weights)
        )
        for name, rows in self._rows_priors(params.weights).items():
            t = params[name].expected()
            total = total + (rows.log_density(t) + t.base).sum()
        return total

    def _global_terms(self, params: Any, expectation: Any) -> dict[str, Array]:
        """Priors and entropies of rows and weights, paired; and those of the component."""
        terms = {n: -params[n].kl(rows).sum() for n, rows in self._rows_priors(params.weights).items()}
        terms |= {"weights": -params.weights.kl(self.weights_prior), "slack": self._slack(params.weights)}
        return terms | self._terms_of(self.component.factors, params, expectation)

    # -- use -----------------------------------------------------------------------------------------

    def used_states(self, params: Any) -> Bool[Array, " k"]:
        """Which states are entered more than once, by the rows that the fit found, (K,)."""
        priors = self._rows_priors(params.weights)
        counts = [(params[name].concentration - priors[name].concentration).reshape(-1, self.n_states).sum(0)
                  for name in CHAIN]  # fmt: skip
        return sum(counts) > 1
