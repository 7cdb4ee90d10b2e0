"""Mixtures of multinomial rows: documents as bags of words, profiles of counts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from vbjax.families.base import pytree
from vbjax.families.dirichlet import Dirichlet, DirichletState, DirichletStatistics
from vbjax.models.conjugate_mixture import ConjugateMixture, is_count, over_components, require, width
from vbjax.record import Record
from vbjax.special import log_factorial_remainder, log_rising


@pytree
class MultinomialMixture(ConjugateMixture):
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

    concentration: Any = None

    @property
    def n_features(self) -> int | None:
        return width(self.concentration)

    @property
    def component_family(self) -> Dirichlet:
        return Dirichlet(self.columns, plate=(self.n_components,))

    @property
    def component_prior(self) -> DirichletState:
        return over_components(DirichletState(self.concentration), self.n_components)

    def read_rows(self, data: Any) -> Array:
        x = super().read_rows(data)
        require(is_count, x, "data must be counts")
        return x

    def defaults(self, data: Array, weights: Array | None) -> dict[str, Any]:
        return dict(concentration=jnp.ones(data.shape[1], data.dtype))

    def table(self, components: DirichletStatistics, rows: Float[Array, "n d"]) -> Float[Array, "n k"]:
        return rows @ (components.log - self._log_pivot).T

    def constant(self, rows: Float[Array, "n d"]) -> Float[Array, " n"]:
        return _log_multinomial(rows, self._log_pivot)

    @property
    def _log_pivot(self) -> Array:
        """log p at the prior's mean: tables about it are small."""
        return jnp.log(self.concentration / self.concentration.sum())

    def log_predictive_of(self, component: DirichletState, rows: Float[Array, "n d"]) -> Float[Array, " n"]:
        alpha, total = component.concentration, component.concentration.sum()
        rising = log_rising(alpha, rows).sum(-1) - log_rising(total, rows.sum(-1))
        return _log_multinomial(rows, jnp.log(alpha / total)) + rising

    def sample(self, params: Record, key: Array, n: int, n_counts: ArrayLike = 1) -> Float[Array, "{n} d"]:
        """New rows (n, d), of `n_counts` counts each (a number or (n,))."""
        keys = jax.random.split(key)
        p = super().sample(params, keys[0], n)
        counts = jnp.broadcast_to(jnp.asarray(n_counts, p.dtype), (n,))
        return _draw_counts(keys[1], counts, p)

    def draw(self, key: Array, parameters: Float[Array, "n d"]) -> Float[Array, "n d"]:
        return parameters


@jax.jit
def _draw_counts(key: Array, counts: Array, p: Array) -> Array:
    return jax.random.multinomial(key, counts, p, dtype=p.dtype)


def _log_multinomial(x: Float[Array, "n d"], log_p: Float[Array, " d"]) -> Float[Array, " n"]:
    """log Multinomial(x | sum x, p), differences of shares from p before anything large."""
    n = x.sum(-1, keepdims=True)
    share = jnp.log(jnp.where(x > 0, x / jnp.maximum(n, 1), 1))
    rows = jnp.where(x > 0, x * (log_p - share), 0) - log_factorial_remainder(x)
    return rows.sum(-1) + log_factorial_remainder(n[..., 0])
