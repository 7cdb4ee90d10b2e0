"""The engine: what is derived from a log joint, sums over rows, hyperparameters. It knows no model.

Here are the contracts for algorithms and models of one's own.
"""

from vbjax.core.acceleration import AcceleratedAscent
from vbjax.core.contracts import Algorithm, Info, Options
from vbjax.core.coordinate_ascent import CoordinateAscent
from vbjax.core.model import ConjugateModel
from vbjax.core.rows import Expectation, expectation

__all__ = [
    "AcceleratedAscent",
    "Algorithm",
    "ConjugateModel",
    "CoordinateAscent",
    "Expectation",
    "Info",
    "Options",
    "expectation",
]
