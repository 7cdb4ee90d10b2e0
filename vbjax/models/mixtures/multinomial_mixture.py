"""Mixtures of multinomial rows: documents as bags of words, profiles of counts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from vbjax.core.hyperparameters import POSITIVE, hyper
from vbjax.families.base import pytree
from vbjax.families.dirichlet import Dirichlet, DirichletState, DirichletStatistics
from vbjax.models.mixtures.conjugate_mixture import is_count, over_components, require
from vbjax.models.mixtures.count_mixture import CountMixture, log_negative_binomial
from vbjax.numerics.inputs import as_floating, read_count, read_key
from vbjax.numerics.record import Record
from vbjax.numerics.special import digamma_remainder, log_factorial_remainder


@pytree
class MultinomialMixture(CountMixture):
    """x_n | c_n = k ~ Multinomial(sum_j x_nj, p_k), p_k ~ Dirichlet(alpha): rows of counts.

    The number of counts of a row is given, not modelled. The components' update is

        alpha_kj = alpha_j + sum_n r_nk x_nj.

    The predictive density of component k is Dirichlet-multinomial.

    Data: (n, d) of counts. The factors are `weights` and `components` (Dirichlet, (k, d)).

    Args:
        n_components: k, an upper bound.
        concentration: alpha, a number or (d,); by default 1.
        weight_prior, weight_concentration: see `ConjugateMixture`.

    Raises:
        ValueError: an entry that is no count; a hyperparameter that is not positive.

    References:
        Nigam, McCallum, Thrun & Mitchell (2000), Text classification from labeled and unlabeled documents
        using EM, section 3; Minka (2000), Estimating a Dirichlet distribution, eq. 19 for the predictive.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([[9, 1, 0], [7, 2, 1], [0, 3, 8], [1, 2, 9]])
    >>> fit = vb.fit(vb.MultinomialMixture(2), x, key=jax.random.key(0), n_restarts=4)
    >>> labels = fit.model.predict(fit.params, x)
    >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
    True
    """

    concentration: Any = hyper(None, POSITIVE, "d")

    @property
    def component_family(self) -> Dirichlet:
        return Dirichlet(self.columns, plate=(self.n_components,))

    @property
    def component_prior(self) -> DirichletState:
        return over_components(DirichletState(self.concentration), self.n_components)

    def read(self, data: Any) -> Array:
        x = super().read(data)
        require(is_count, x, "data must be counts")
        return x

    def defaults(self, data: Array, weights: Array | None) -> dict[str, Any]:
        return dict(concentration=jnp.ones(data.shape[1], data.dtype))

    @property
    def prior_mean(self) -> Float[Array, " d"]:
        return self.concentration / self.concentration.sum()

    def log_excess(self, components: DirichletState) -> Float[Array, "k d"]:
        alpha = components.concentration
        return digamma_remainder(alpha) - digamma_remainder(alpha.sum(-1, keepdims=True))

    def expected_counts(self, mean: Float[Array, " d"], rows: Float[Array, "n d"]) -> Float[Array, "n d"]:
        return rows.sum(-1, keepdims=True) * mean

    def log_remainder(self, rows: Float[Array, "n d"]) -> Float[Array, " n"]:
        return log_factorial_remainder(rows.sum(-1)) - log_factorial_remainder(rows).sum(-1)

    def table(self, components: DirichletStatistics, rows: Float[Array, "n d"]) -> Float[Array, "n k"]:
        return rows @ (components.log - jnp.log(self.prior_mean)).T

    def log_predictive_of(self, component: DirichletState, rows: Float[Array, "n d"]) -> Float[Array, " n"]:
        # counts that are negative binomial, given their number: whatever the probability, here that of means
        alpha, total, n = component.concentration, component.concentration.sum(), rows.sum(-1, keepdims=True)
        p, q = total / (total + n), n / (total + n)
        own = log_negative_binomial(rows, alpha, p, q).sum(-1)
        return own - log_negative_binomial(n, total, p, q)[..., 0]

    def sample(self, params: Record, key: Array, n: int, n_counts: ArrayLike = 1) -> Float[Array, "{n} d"]:
        """New rows (n, d), of `n_counts` counts each (a number or (n,))."""
        n = read_count(n, "n")
        return _sample(self, params, read_key(key), _read_totals(n_counts, n, "n_counts"))

    def redraw_rows(self, parameters: Any, key: Array, c: Array, rows: Any) -> Float[Array, "n d"]:
        return _draw_counts(key, rows.sum(-1), parameters[c])

    def read_given(self, given: Any, n: int) -> Array:
        return _read_totals(1 if given is None else given, n, "given")

    def draw_rows(self, params: Record, key: Array, c: Array, given: Any = None) -> Float[Array, "n d"]:
        keys = jax.random.split(key)
        p = jax.tree.map(lambda leaf: leaf[c], params.components).sample(keys[0])
        return _draw_counts(keys[1], given.astype(p.dtype), p)


def _read_totals(given: Any, n: int, name: str) -> Array:
    """How many counts each of n rows has."""
    counts = as_floating(given, name)
    if counts.shape not in ((), (n,)):
        raise ValueError(f"{name} must be a number of counts, or one for each of {n}; got {counts.shape}")
    require(is_count, counts, f"{name} must be numbers of counts")
    return jnp.broadcast_to(counts, (n,))


@jax.jit
def _sample(model: MultinomialMixture, params: Record, key: Array, counts: Array) -> Array:
    keys = jax.random.split(key)
    return model.draw_rows(params, keys[1], model.draw_labels(params, keys[0], len(counts)), counts)


@jax.jit
def _draw_counts(key: Array, counts: Array, p: Array) -> Array:
    return jax.random.multinomial(key, counts, p, dtype=p.dtype)
