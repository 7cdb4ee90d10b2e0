"""Points for tests, made of values and of the modes of distributions."""

import jax
import jax.numpy as jnp

import vbjax as vb


def shares(counts):
    """The point at which weights are the shares of some counts, over the last axis."""
    counts = jnp.asarray(counts)
    family = vb.Dirichlet(counts.shape[-1], plate=counts.shape[:-1])
    return vb.Delta(family).at(counts / counts.sum(-1, keepdims=True))


def modes(factors, states):
    """Points at the modes of distributions of the factors' families; they rest on nothing."""

    def at_mode(factor, state):
        t = state.expected()
        point = factor.from_gradient(t, factor.of.natural(state, t))
        zeros = jax.tree.map(jnp.zeros_like, point.gradient)
        return vb.families.DeltaState(point.value, zeros)

    return vb.Record({name: at_mode(factors[name], state) for name, state in states.items()})


def values(tree):
    """Points as their values alone: what they rest on is 0 but for its rounding, about themselves."""
    is_point = lambda q: isinstance(q, vb.families.DeltaState)
    return jax.tree.map(lambda q: q.value if is_point(q) else q, tree, is_leaf=is_point)
