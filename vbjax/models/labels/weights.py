"""The two kinds of mixing weights: a Dirichlet, and a Dirichlet process truncated at k by stick-breaking.

Either is a factor over the simplex whose statistics give E[log weights] as `.log`; so a mixture need not know
which it has. For every Bayesian mixture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax.core.hyperparameters import POSITIVE
from vbjax.families.base import Family
from vbjax.families.dirichlet import Dirichlet, DirichletState
from vbjax.families.stick_breaking import StickBreaking, StickBreakingState

KINDS = ("dirichlet", "dirichlet_process")


def concentration_of(model: Any, sizes: Mapping[str, int]) -> tuple[Any, ...]:
    """Return what alpha0 of a mixture may be, and its shapes: a process has one for all pieces."""
    return (POSITIVE, "k") if model.weight_prior == "dirichlet" else (POSITIVE,)


def weights_family(kind: str, k: int) -> Family:
    """The family of the factor `weights`."""
    return Dirichlet(k) if kind == "dirichlet" else StickBreaking(k)


def weights_prior(kind: str, k: int, concentration: Array) -> Any:
    """Dirichlet(alpha0), or shares v_j ~ Beta(1, alpha0), j < k (Blei & Jordan 2006, section 2)."""
    if kind == "dirichlet":
        return DirichletState(jnp.broadcast_to(concentration, (k,)))
    rest = jnp.broadcast_to(concentration, (k - 1,))
    return StickBreakingState(jnp.ones_like(rest), rest)


def default_concentration(kind: str, k: int) -> float:
    """alpha0: 1 / k of every component; 1 of the process."""
    return 1 / k if kind == "dirichlet" else 1.0


def from_counts(weights: Any, number: Float[Array, "*n k"]) -> Any:
    """The gradient of sum_k number_k E[log weights_k] in the statistics of the weights."""
    return jax.grad(lambda t: (number * t.log).sum())(weights)
