"""Operations on pytrees as wholes.

Everything may import it.
"""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool

T = TypeVar("T")


def choose(test: Bool[Array, ""], new: T, old: T) -> T:
    """Return the tree `new` where the test holds, the tree `old` of the same structure elsewhere."""
    return jax.tree.map(lambda x, y: jnp.where(test, x, y), new, old)
