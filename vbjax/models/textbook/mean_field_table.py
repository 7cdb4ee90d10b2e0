"""Any number of discrete latents, their joint a table: mean field beside the exact sums."""

from __future__ import annotations

from dataclasses import MISSING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp
from jaxtyping import Float

from vbjax.core.hyperparameters import Range, hyper, read_hyperparameters
from vbjax.core.model import ConjugateModel, in_dtype
from vbjax.families.base import pytree
from vbjax.families.categorical import Categorical, CategoricalState
from vbjax.numerics.inputs import as_floating
from vbjax.numerics.record import Record
from vbjax.numerics.special import finite_log
from vbjax.numerics.types import Data, Given, Hyper

_LOG_PROBABILITIES = Range(
    "log probabilities (no NaN, no +inf, not all -inf)",
    lambda x: (x < np.inf) & (x > -np.inf).any(),
    finite=False,
)


@pytree
class MeanFieldTable(ConjugateModel):
    """Table p(z_1 .. z_m | x) of discrete latents approximated by q(z) = prod_i q_i(z_i).

    The joint log p(x, z_1 .. z_m) is given cell by cell, x fixed. The coordinate updates, one after the
    other (each uses those before it):

        log q_i(k) = E_{j != i}[log p(x, z) | z_i = k] + constant.

    The objective is the lower bound of log p(x) = log sum_z p(x, z), attained where the table is a sum of
    one term for each latent. An impossible cell (-inf) counts as finite and very low, as in
    `terms.categorical`, so q leaves it. There may be several optima: use restarts. It takes no data:
    `vb.fit(model, key=key)`; the factors are `z1` .. `zm`.

    Args:
        log_joint: (K_1, .., K_m), log probabilities up to a constant that the bound keeps.

    Raises:
        ValueError: a table without axes or cells, NaN, +inf, no possible cell; data.

    References:
        Bishop (2006), section 10.1.1, eq. 10.3 and 10.9.

    >>> import jax, vbjax as vb
    >>> model = vb.textbook.MeanFieldTable(jax.numpy.log(jax.numpy.array([[0.06, 0.14], [0.24, 0.56]])))
    >>> fit = vb.fit(model, key=jax.random.key(0))
    >>> p = fit.params.z1.probabilities
    >>> print(f"{p[0]:.4f} {p[1]:.4f}; {abs(fit.objective):.4f} {abs(model.log_evidence()):.4f}")
    0.2000 0.8000; 0.0000 0.0000
    """

    log_joint: Hyper = hyper(MISSING, _LOG_PROBABILITIES, "...", number=False)

    @property
    def factors(self) -> Record:
        sizes = jnp.shape(self.log_joint)
        return Record({f"z{i}": Categorical(size) for i, size in enumerate(sizes, 1)})

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        return tuple((name,) for name in self.factors)

    def read(self, data: Data) -> None:
        if data is not None:
            raise ValueError("data must be None: the table has them in it")

    def resolve(self, data: Data, weights: Given = None) -> MeanFieldTable:
        return in_dtype(self, jnp.result_type(jnp.asarray(self.log_joint).dtype, float))

    def init(self, key: Array, data: Data, weights: Given = None) -> Record:
        """Draw probabilities at random: the uniform ones may be a saddle."""
        dtype = jnp.asarray(self.log_joint).dtype
        keys = jax.random.split(key, len(self.factors))
        drawn = zip(self.factors.items(), keys, strict=True)
        return Record(
            {name: CategoricalState(jax.random.normal(k, (f.size,), dtype)) for (name, f), k in drawn}
        )

    def log_prior(self, s: Record) -> Array:
        """Compute E_q[log p(x, z)], the table summed over one axis after the other."""
        total = finite_log(self.log_joint)
        for name in self.factors:
            total = jnp.tensordot(s[name].p, total, 1)
        return total

    # -- beside it -----------------------------------------------------------------------------------

    def log_evidence(self) -> Float[Array, ""]:
        """Compute log p(x), exact: the sum over all cells."""
        return logsumexp(self._table())

    def marginals(self) -> Record:
        """Return the exact p(z_i | x), by name: they minimise the other divergence, KL(p || q)."""
        table = self._table()
        axes = range(table.ndim)
        others = {name: tuple(j for j in axes if j != i) for i, name in enumerate(self.factors)}
        return Record({name: CategoricalState(logsumexp(table, rest)) for name, rest in others.items()})

    def _table(self) -> Array:
        """Return the table, read as `fit` reads it."""
        return as_floating(read_hyperparameters(self, None).log_joint, "log_joint")
