"""Forward and backward passes over discrete Markov chains with evidence, for the functions of `chains`.

Messages are kept as numbers, not as logarithms, and scaled at every step. Sequences lie along the last axis,
so that one step of all of them is one short vector operation. Bounds take care of numbers that are too small
for the dtype. Forward messages are never less than the true ones (what falls below a floor is raised to it),
and backward messages never more (what underflows becomes 0). So their products over the scales cannot
decrease along the chain, and if they stay the same to rounding, the posterior marginals are right. Where they
do not, or where a scale is too small to tell, the passes run again in logarithms.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int

from vbjax.numerics.types import Data, Given, Tree

Weights: TypeAlias = tuple[Array, Array, Array, Array | None]  # initial, transitions, log_likelihood, length
Out = TypeVar("Out", bound=tuple[Array, ...])


class Posterior(NamedTuple):
    """Discrete chain given its observations.

    Attributes:
        log_normalizer: the log likelihood of the observations, a scalar.
        marginals: the distribution of the state at every step, (T, K).
        pairs: the joint distribution of the states before and after a transition, in the shape of
            `transitions`: (K, K), summed over the steps, or (T - 1, K, K).

    >>> import jax.numpy as jnp, vbjax as vb
    >>> half = jnp.log(jnp.full((2, 2), 0.5))
    >>> found = vb.chains.smoother(half[0], half, jnp.log(jnp.array([[0.1, 0.3], [0.4, 0.4]])))
    >>> print(found.marginals[1], f"{found.pairs.sum():.1f}")  # one transition
    [0.5 0.5] 1.0
    """

    log_normalizer: Float[Array, ""]
    marginals: Float[Array, "t k"]
    pairs: Float[Array, "*steps k k"]


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def log_normalizer(initial, transitions, log_likelihood, length, parallel):
    """Return the log-normaliser of one sequence by the forward pass (Rabiner 1989, eq. 19-21).

    Its derivatives are the marginals; second derivatives are those of the passes in logarithms.
    """
    return posterior(initial, transitions, log_likelihood, length, parallel).log_normalizer


@log_normalizer.defjvp
def _(parallel, primals, tangents):
    value, marginals, pairs = posterior(*primals, parallel)
    weights = marginals[0], pairs, marginals
    slopes = ((t * w).sum() for t, w in zip(tangents[:3], weights, strict=True))
    return value, sum(slopes, jnp.zeros_like(value))


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def posterior(initial, transitions, log_likelihood, length, parallel) -> Posterior:
    """Return the posterior of one sequence; `parallel` says how messages are passed.

    The marginals are Rabiner 1989, eq. 27, the pairs eq. 37 (Bishop 2006, eq. 13.33 and 13.43).
    """
    return _run_single(_posteriors, parallel, initial, transitions, log_likelihood, length)


@posterior.defjvp
def _(parallel, primals, tangents):
    exact = lambda *weights: _posterior_in_logarithms(*weights, primals[3])
    return posterior(*primals, parallel), jax.jvp(exact, primals[:3], tangents[:3])[1]


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def forward_filter(initial, transitions, log_likelihood, length, parallel) -> tuple[Array, Array]:
    """Return log p(z_t | x_1 .. x_t), (T, K), and the log of each step's scale, (T,).

    It is the normalised forward pass of one sequence (Bishop 2006, eq. 13.55-13.59).
    """
    return _run_single(_filters, parallel, initial, transitions, log_likelihood, length)


@forward_filter.defjvp
def _(parallel, primals, tangents):
    exact = lambda *weights: _filter_in_logarithms(*weights, primals[3])
    return forward_filter(*primals, parallel), jax.jvp(exact, primals[:3], tangents[:3])[1]


def total(x: Float[Array, " t"]) -> Float[Array, ""]:
    """Return the sum along the first axis, added by halves so that rounding grows only as log T."""
    while x.shape[0] > 1:
        half = x.shape[0] // 2
        x = jnp.concatenate([x[:half] + x[half : 2 * half], x[2 * half :]])
    return x[0]


def without_padding(
    transitions: Float[Array, " ..."],
    log_likelihood: Float[Array, "*n t k"],
    here: Bool[Array, "*n t"] | None,
) -> tuple[Array, Array]:
    """Return the weights with zeros at padding; `here` (..., T) says which steps are real."""
    if here is None:
        return transitions, log_likelihood
    if transitions.ndim > log_likelihood.ndim:
        transitions = jnp.where(here[..., 1:, None, None], transitions, 0)
    return transitions, jnp.where(here[..., None], log_likelihood, 0)


# -- numbers, many sequences at a time ---------------------------------------------------------------------


def _run_single(function: Callable[..., Out], parallel: bool | None, *weights: Array | None) -> Out:
    """Run a function of batches on one sequence; `jax.vmap` of it makes the batch larger."""
    out = _over_sequences(function, parallel)(*jax.tree.map(lambda x: x[None], weights))
    return jax.tree.map(lambda x: x[0], out)


@functools.cache
def _over_sequences(function: Callable[..., Out], parallel: bool | None) -> Callable[..., Out]:
    """Return a function of weights with a leading axis, whose length is 1 if all sequences share them."""
    run = jax.custom_batching.custom_vmap(functools.partial(function, parallel))

    def more(size: int, batched: list[Any], *weights: Array | None) -> tuple[Tree, Tree]:
        count = max(jax.tree.leaves(jax.tree.map(lambda x, own: x.shape[int(own)], weights, tuple(batched))))

        def merge(x: Array, own: bool) -> Array:
            if not own and x.shape[0] == 1:
                return x
            x = jnp.broadcast_to(x, (size, count, *x.shape[2 if own else 1 :]))
            return x.reshape(size * count, *x.shape[2:])

        out = run(*jax.tree.map(merge, weights, tuple(batched)))
        apart = jax.tree.map(lambda x: x.reshape(size, count, *x.shape[1:]), out)
        return apart, jax.tree.map(lambda _: True, out)

    run.def_vmap(more)
    return run


class _Chains(NamedTuple):
    """Weights of n chains as numbers, with their scales kept apart.

    The largest weight out of a state counts as evidence for that state, and the largest evidence of a step is
    the scale of the step.
    """

    start: Float[Array, "n k"]
    matrices: Array  # (n or 1, k, k), or (n or 1, t - 1, k, k)
    evidence: Float[Array, "n t k"]
    scale: Float[Array, "n t"]
    here: Bool[Array, "n t"]
    length: Int[Array, " n"] | None

    @classmethod
    def of(cls, weights: Weights, *, causal: bool = False) -> _Chains:
        """Return chains from log weights; if `causal`, a step's evidence says nothing about later steps."""
        initial, transitions, log_likelihood, length = weights
        n = max(x.shape[0] for x in jax.tree.leaves(weights))
        steps, k = log_likelihood.shape[1:]
        at, here = jnp.arange(steps), None
        last: int | Array = steps
        if length is not None:
            length = jnp.broadcast_to(length, (n,))
            last = length[:, None]
            here = at < last
        transitions, log_likelihood = without_padding(transitions, log_likelihood, here)
        top = _finite(transitions.max(-1))
        ahead, within = at < last - 1, (0, 1)
        if causal:  # the greatest of all weights, at the step that they lead to
            top = jnp.broadcast_to(top.max(-1, keepdims=True), top.shape)
            ahead, within = (at > 0) & (at < last), (1, 0)
        moved = top[:, None] if transitions.ndim == 3 else jnp.pad(top, ((0, 0), within, (0, 0)))
        log_likelihood = log_likelihood + jnp.where(ahead[..., None], moved, 0)
        log_likelihood = jnp.broadcast_to(log_likelihood, (n, steps, k))
        scale, first = _finite(_over_states(jnp.maximum, log_likelihood)), _finite(initial.max(-1))
        return cls(
            jnp.broadcast_to(jnp.exp(initial - first[:, None]), (n, k)),
            jnp.exp(transitions - top[..., None]),
            jnp.exp(log_likelihood - scale[..., None]),
            scale + jnp.where(at == 0, first[:, None], 0),
            jnp.broadcast_to(at < last, (n, steps)),
            length,
        )

    def messages(
        self, parallel: bool | None, *, floor: bool = False, backward: bool = False
    ) -> Float[Array, "n t k"]:
        """Return the messages before the evidence of every step: p(z_t | earlier) or p(later | z_t), scaled.

        Each message follows from its neighbour's, divided by the sum of that message times its evidence. The
        recursions are Rabiner 1989, eq. 20 forwards and eq. 25 backwards.
        """
        lowest = float(jnp.finfo(self.start.dtype).tiny) ** 0.5 if floor else 0.0
        start = jnp.maximum(jnp.ones_like(self.start) if backward else self.start, lowest)
        if self.evidence.shape[1] == 1:
            return start[:, None]
        one_by_one = functools.partial(_one_by_one, lowest=lowest, backward=backward)
        by_doubling = functools.partial(_by_doubling, lowest=lowest, backward=backward)
        arguments = start, self.matrices, self.evidence, self.length if backward else None
        if parallel is None:
            return lax.platform_dependent(*arguments, cpu=one_by_one, default=by_doubling)
        return (by_doubling if parallel else one_by_one)(*arguments)


def _posteriors(parallel: bool | None, *weights: Given) -> Posterior:
    """Return the posteriors of a batch of sequences."""
    chains = _Chains.of(weights)
    after = chains.messages(parallel, backward=True)
    ahead = after * chains.evidence
    behind = _sum(ahead)

    def forward(floor: bool) -> tuple[Array, Array, Array]:
        before = chains.messages(parallel, floor=floor)
        return before, _sum(before, chains.evidence), _sum(before, ahead)

    above = forward(True)
    lost = _has_lost_mass(chains, behind, *above)
    # where weights are zero, exact zeros need messages that were never raised to the floor
    zeros = jnp.isneginf(weights[0]).any() | jnp.isneginf(weights[1]).any()
    before, norm, both = _unless(zeros, above, lambda: forward(False))

    def fast() -> Posterior:
        joint = before * chains.evidence
        first = joint[:, :-1] / both[:, :-1, None]
        second = ahead[:, 1:] / behind[:, 1:, None]
        if chains.length is not None:
            second = jnp.where(chains.here[:, 1:, None], second, 0)
        if weights[1].ndim == 3:
            pairs = chains.matrices * jnp.einsum("nti,ntj->nij", first, second)
        else:
            pairs = first[..., :, None] * chains.matrices * second[..., None, :]
        logs = jnp.where(chains.here, jnp.log(norm) + chains.scale, 0)
        marginals = jnp.where(chains.here[..., None], joint * after / both[..., None], 0)
        return Posterior(total(logs.T), marginals, pairs)

    return lax.cond(lost, lambda: _map_chains(_posterior_in_logarithms, weights), fast)


def _has_lost_mass(
    chains: _Chains,
    behind: Float[Array, "n t"],
    above: Float[Array, "n t k"],
    norm: Float[Array, "n t"],
    both: Float[Array, "n t"],
) -> Bool[Array, ""]:
    """Return whether mass that matters is missing from backward messages, or was added to forward ones."""
    k, info = above.shape[-1], jnp.finfo(above.dtype)
    eps, tiny = float(info.eps), float(info.tiny)
    fine = (both > k * tiny / eps) & (norm > k * tiny**0.5)
    growth = (both[:, 1:] / behind[:, 1:]) * (norm[:, :-1] / both[:, :-1]) - 1
    growth = jnp.where(chains.here[:, 1:], growth, 0)
    tolerance = 8 * (k + 8) * eps
    fine = (fine | ~chains.here).all() & (jnp.abs(growth) <= tolerance).all()
    return ~(fine & (jnp.abs(growth.sum(1)) <= tolerance * above.shape[1] ** 0.5).all())


def _filters(parallel: bool | None, *weights: Given) -> tuple[Float[Array, "n t k"], Float[Array, "n t"]]:
    """Return log p(z_t | x_1 .. x_t) and the log scales of a batch of sequences."""
    chains = _Chains.of(weights, causal=True)
    above = _sum(chains.messages(parallel, floor=True), chains.evidence)
    joint = chains.messages(parallel) * chains.evidence
    norm = _sum(joint)
    k, info = joint.shape[-1], jnp.finfo(joint.dtype)
    fine = (jnp.abs(above / norm - 1) <= 8 * (k + 8) * float(info.eps)) & (norm > k * float(info.tiny) ** 0.5)
    fast = jnp.log(joint / norm[..., None]), jnp.where(chains.here, jnp.log(norm) + chains.scale, 0)
    return _unless(~(fine | ~chains.here).all(), fast, lambda: _map_chains(_filter_in_logarithms, weights))


def _map_chains(exact: Callable[..., Out], weights: tuple[Array | None, ...]) -> Out:
    """Apply a function of one chain's weights to every chain of a batch."""
    n = max(x.shape[0] for x in jax.tree.leaves(weights))
    return jax.vmap(exact)(*jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape[1:])), weights))


def _unless(lost: Bool[Array, ""], fast: Out, exact: Callable[[], Out]) -> Out:
    """Return `fast`, or `exact()` if anything is lost: a loop of one turn or of none, which costs nothing."""
    once = lambda _: (jnp.zeros_like(lost), exact())
    return lax.while_loop(lambda carry: carry[0], once, (lost, fast))[1]


def _over_states(operation: Callable[[Array, Array], Array], *factors: Array) -> Array:
    """Return sums or maxima over the last axis of a product of tables.

    For few states the reduction is unrolled: XLA's own was up to 25 times slower on a CPU (4 states).
    """
    k = factors[0].shape[-1]
    if k > 4:
        product = functools.reduce(operator.mul, factors)
        return product.sum(-1) if operation is operator.add else product.max(-1)
    columns = (functools.reduce(operator.mul, [x[..., j] for x in factors]) for j in range(k))
    return functools.reduce(operation, columns)


_sum = functools.partial(_over_states, operator.add)


def _finite(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return x with 0 in the place of -inf."""
    return jnp.where(jnp.isneginf(x), 0, x)


def _one_by_one(
    start: Array, matrices: Array, evidence: Array, length: Array | None, *, lowest: float, backward: bool
) -> Array:
    """Pass messages by a scan over the steps."""
    tiny, n_steps = float(jnp.finfo(start.dtype).tiny), evidence.shape[1]
    # [..., from, to, n] for the direction of the pass
    matrices = jnp.moveaxis(jnp.swapaxes(matrices, -1, -2) if backward else matrices, 0, -1)
    size = start.size * start.shape[-1]
    # measured on a CPU: up to about these sizes sums over the leading axis beat matrix products
    short = matrices.shape[-1] > 1 or size <= (2**14 if start.dtype.itemsize <= 4 else 2**11)

    def step(message: Array, here: tuple[Array, Array]) -> tuple[Array, Array]:
        at, seen = here
        own = matrices
        if own.ndim == 4:
            own = lax.dynamic_index_in_dim(own, jnp.clip(at - int(backward), 0, n_steps - 2), keepdims=False)
        joint = message * seen
        norm = jnp.maximum(joint.sum(0), tiny)
        if short:
            new = (joint[:, None] * own).sum(0) / norm
        else:
            new = jnp.einsum("ij,in->jn", own[..., 0], joint / norm)
        if lowest:
            new = jnp.maximum(new, lowest)
        if length is not None:
            new = jnp.where(at < length, new, message)
        return new, message

    xs = jnp.arange(n_steps), jnp.moveaxis(evidence, 0, -1)
    return jnp.moveaxis(lax.scan(step, start.T, xs, reverse=backward)[1], -1, 0)


def _by_doubling(
    start: Array, matrices: Array, evidence: Array, length: Array | None, *, lowest: float, backward: bool
) -> Array:
    """Pass messages by products of all matrices before, or after, every step, in a parallel scan."""
    n, n_steps, k = evidence.shape
    tiny = float(jnp.finfo(start.dtype).tiny)
    matrices = matrices if matrices.ndim == 4 else matrices[:, None]
    if backward:
        links = matrices * evidence[:, 1:, None, :]
        end = jnp.ones((n, 1, k, k), start.dtype)
    else:
        links = evidence[:, :-1, :, None] * matrices
        end = jnp.broadcast_to(start[:, None, None, :], (n, 1, k, k))
    if length is not None:
        here = jnp.arange(1, n_steps) < length[:, None]
        links = jnp.where(here[..., None, None], links, jnp.eye(k, dtype=start.dtype))

    def product(x: Array, y: Array) -> Array:
        z = jnp.matmul(y, x) if backward else jnp.matmul(x, y)
        z = z / jnp.maximum(z.max((-1, -2), keepdims=True), tiny)
        return jnp.maximum(z, lowest) if lowest else z

    links = jnp.concatenate([links, end] if backward else [end, links], 1)
    products = lax.associative_scan(product, links, reverse=backward, axis=1)
    messages = products[..., 0] if backward else products[..., 0, :]
    # one more step from each message to the next sets the scale of the next
    joint = messages * evidence
    joint = joint / jnp.maximum(joint.sum(-1, keepdims=True), tiny)
    if not backward:
        new = jnp.maximum(jnp.einsum("...i,...ij->...j", joint[:, :-1], matrices), lowest)
        return jnp.concatenate([start[:, None], new], 1)
    new = jnp.einsum("...ij,...j->...i", matrices, joint[:, 1:])
    if length is not None:
        new = jnp.where(here[..., None], new, 1)
    return jnp.concatenate([new, start[:, None]], 1)


# -- logarithms, one sequence --------------------------------------------------------------------------------


def _logsumexp(x: Array) -> Array:
    """Return the log of the sum of exp(x) over the first axis; -inf with derivative 0 where all are -inf."""
    top = lax.stop_gradient(_finite(x.max(0)))
    mass = jnp.exp(x - top).sum(0)
    return jnp.where(mass > 0, jnp.log(jnp.where(mass > 0, mass, 1)) + top, -jnp.inf)


def _forward_in_logarithms(
    initial: Float[Array, " k"],
    transitions: Float[Array, "*steps k k"],
    log_likelihood: Float[Array, "t k"],
    length: Int[Array, ""] | None,
) -> tuple[Float[Array, " k"], Float[Array, "t k"], Float[Array, " t"]]:
    """Return the last forward message, all of them, and their scales, constants to derivatives."""
    here = None if length is None else jnp.arange(len(log_likelihood)) < length
    transitions, log_likelihood = without_padding(transitions, log_likelihood, here)

    def scaled(log: Array) -> tuple[Array, Array]:
        top = lax.stop_gradient(_finite(log.max()))
        return log - top, top

    @jax.checkpoint
    def step(log: Array, x: Data) -> Tree:
        at, own, seen = x
        new, top = scaled(_logsumexp(log[:, None] + (transitions if own is None else own)) + seen)
        if length is not None:
            new, top = jnp.where(at < length, new, log), jnp.where(at < length, top, 0)
        return new, (new, top)

    first, top = scaled(initial + log_likelihood[0])
    own = transitions if transitions.ndim == 3 else None
    last, (logs, tops) = lax.scan(step, first, (jnp.arange(1, len(log_likelihood)), own, log_likelihood[1:]))
    return last, jnp.concatenate([first[None], logs]), jnp.concatenate([top[None], tops])


def _posterior_in_logarithms(*weights: Given) -> Posterior:
    """Return the posterior of one sequence; the marginals are derivatives of the log-normaliser."""

    def value(initial: Array, transitions: Array, log_likelihood: Array) -> Array:
        last, _, tops = _forward_in_logarithms(initial, transitions, log_likelihood, weights[3])
        log = total(tops) + _logsumexp(last)
        return log if weights[3] is None else jnp.where(weights[3] > 0, log, 0)

    log, (_, pairs, marginals) = jax.value_and_grad(value, (0, 1, 2))(*weights[:3])
    return Posterior(log, marginals, pairs)


def _filter_in_logarithms(*weights: Given) -> tuple[Float[Array, "t k"], Float[Array, " t"]]:
    """Return log p(z_t | x_1 .. x_t) and the log scales of one sequence."""
    _, logs, tops = _forward_in_logarithms(*weights)
    sums = _logsumexp(logs.T)
    scales = tops + sums - jnp.pad(_finite(sums)[:-1], (1, 0))
    if weights[3] is not None:
        scales = jnp.where(jnp.arange(len(sums)) < weights[3], scales, 0)
    return logs - _finite(sums)[:, None], scales
