"""The words of documents, given the topics: the shares of the topics in each, without losing any mass.

Imported by topic models. Tables of documents x words x topics are made for a chunk of documents at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import logsumexp
from jaxtyping import Float

from vbjax.data.documents import Bags
from vbjax.numerics.special import digamma_remainder
from vbjax.numerics.types import Tree

_SIMD = 8  # topics are padded to a multiple of so many: twice as fast on a CPU at 20 topics


class Topics(NamedTuple):
    """E[log beta], topics along the leading axis; each word's greatest; and exp(log - top), transposed."""

    log: Float[Array, "k v"]
    top: Float[Array, " v"]
    table: Float[Array, "v padded"]

    @classmethod
    def of(cls, log: Float[Array, "k v"]) -> Topics:
        """Return the topics of E[log beta]."""
        top = log.max(0)
        return cls(log, top, jnp.pad(jnp.exp(log - top).T, ((0, 0), (0, -log.shape[0] % _SIMD))))


class Words(NamedTuple):
    """The words of some documents, given the topics.

    phi_dik is proportional to exp(E[log theta_dk]) times a row of `Topics.table`. Where all the products of
    a word underflow, its mass would be lost: what has such a word is done again in logarithms.

    Attributes:
        rows, topics: the documents, and the topics.
        table: rows of `Topics.table`, (n, L, K).
        unit: about log exp E[log theta_dk] + log sum_k gamma_dk of the topics that matter, (n, 1).
    """

    rows: Bags
    topics: Topics
    table: Array
    unit: Array

    @classmethod
    def of(cls, topics: Topics, rows: Bags, alpha: Float[Array, " k"]) -> Words:
        """Return the words of a chunk. The sum of gamma_d is that of alpha and the document's words."""
        even = (alpha.sum() + rows.counts.sum(1, keepdims=True)) / alpha.size
        return cls(rows, topics, topics.table[rows.ids], jnp.maximum(psi(even), -30))

    def pull(self, gamma: Float[Array, "n k"]) -> Float[Array, "n k"]:
        """Compute sum_i c_di phi_dik (Blei et al. 2003, eq. 6 and 7)."""
        share, norm, lost = self._shares(gamma)
        fast = share * jnp.einsum("nlk,nl->nk", self.table, self.rows.counts / norm)
        return _unless(lost, fast, lambda: self._in_logarithms(gamma)[0].sum(1))[:, : gamma.shape[1]]

    def scored(self, gamma: Float[Array, "n k"]) -> tuple[Float[Array, "n l padded"], Float[Array, " n"]]:
        """Compute c_di phi_dik; and sum_i c_di log sum_k exp(E[log theta_dk] + E[log beta_kw])."""
        share, norm, lost = self._shares(gamma)
        words = self.table * share[:, None, :] * (self.rows.counts / norm)[..., None]
        logs = jnp.log(norm) + self.unit + self.topics.top[self.rows.ids]
        words, logs = _unless(lost, (words, logs), lambda: self._in_logarithms(gamma))
        return words, (self.rows.counts * (logs - psi(gamma.sum(1, keepdims=True)))).sum(1)

    def _shares(self, gamma: Array) -> tuple[Array, Array, Array]:
        """Return exp E[log theta] up to a factor, the words' sums over topics, and whether mass is lost."""
        share = jnp.pad(jnp.exp(psi(gamma) - self.unit), ((0, 0), (0, self._padding(gamma))))
        norm = jnp.einsum("nlk,nk->nl", self.table, share)
        none = norm < float(jnp.finfo(norm.dtype).tiny) ** 0.5
        return share, jnp.where(none, 1, norm), (none & (self.rows.counts > 0)).any()

    def _in_logarithms(self, gamma: Array) -> tuple[Array, Array]:
        scores = jnp.moveaxis(self.topics.log[:, self.rows.ids], 0, -1) + psi(gamma)[:, None, :]
        words = self.rows.counts[..., None] * jax.nn.softmax(scores, -1)
        return jnp.pad(words, ((0, 0), (0, 0), (0, self._padding(gamma)))), logsumexp(scores, -1)

    def _padding(self, gamma: Array) -> int:
        return self.table.shape[-1] - gamma.shape[1]


def psi(gamma: Array) -> Array:
    """Compute the digamma function."""
    return jnp.log(gamma) + digamma_remainder(gamma)


def _unless(lost: Array, fast: Any, exact: Callable[[], Any]) -> Tree:
    """Return `exact()` where anything is lost: by a loop of one turn or none, which costs nothing where none
    is needed, under `vmap` too; no derivative goes through it.
    """
    start = (lost, *jax.tree.leaves(lax.stop_gradient(fast)))
    once = lambda _: (jnp.zeros_like(lost), *jax.tree.leaves(exact()))
    return jax.tree.unflatten(jax.tree.structure(fast), lax.while_loop(lambda c: c[0], once, start)[1:])
