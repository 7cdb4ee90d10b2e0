"""Mark on the results of a fit, by which their reverse-mode derivative is an error that names a way out.

A loop that ends when it has converged cannot be differentiated in reverse. JAX's own error names
`lax.while_loop`, which the user has not written. Forward mode, and results that are not differentiated, work
as without the mark. For `fit`.
"""

from __future__ import annotations

from typing import NoReturn

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from vbjax.numerics.types import Tree

_identity = Primitive("result_of_fit")
_identity.def_impl(lambda x: x)
_identity.def_abstract_eval(lambda x: x)
mlir.register_lowering(_identity, lambda _, x: [x])
batching.defvectorized(_identity)


def _refuse(cotangent: Array, x: Array) -> NoReturn:
    raise ValueError(
        "vb.fit has no reverse-mode derivative: its sweeps are as many as they need to be. Differentiate "
        "vb.optimum(fit.model, fit.params, data), or vb.elbo(...) for the objective, at the result of a fit "
        "that is made before, or whose params go through jax.lax.stop_gradient"
    )


ad.deflinear2(_identity, _refuse)


def irreversible(tree: Tree) -> Tree:
    """Return the values unchanged; their reverse-mode derivative is a ValueError that names `vb.optimum`."""
    return jax.tree.map(
        lambda x: _identity.bind(x) if jnp.issubdtype(x.dtype, jnp.floating) else x,
        tree,
    )
