"""Names for types that annotations cannot describe further: trees of arrays whose structure is the user's.

Everything may import it.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Tree: TypeAlias = Any  # a pytree of arrays
Data: TypeAlias = Any  # a pytree of arrays whose leading axes are the rows, or `Ragged` rows, or None
