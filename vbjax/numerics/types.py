"""Names for types that annotations cannot describe further: what users give, trees of their structure.

Everything may import it.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from jax import Array

Given: TypeAlias = Any  # an argument as the user gave it, not yet read: anything at all
Tree: TypeAlias = Any  # a pytree of arrays
Data: TypeAlias = Any  # a pytree of arrays whose leading axes are the rows, or `Ragged` rows, or None
Hyper: TypeAlias = Any  # a hyperparameter: as given, None where it follows the data; resolved, an array
Params: TypeAlias = Any  # parameters of a model: a `Record` of the factors' states by name
Index: TypeAlias = int | Array  # an index that may be traced
