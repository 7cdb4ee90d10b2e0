"""Pictures of fits and mixtures (the functions here), `chains` and `topics`; `page` suits any fit.

Functions with one panel take `ax` and return it, those with several take `figure` and return that.
"""

from vbjax.plots import chains, topics
from vbjax.plots.fits import components, overview, pairs, restarts, trace
from vbjax.plots.pages import page, parameters
from vbjax.plots.selection import criterion

__all__ = [
    "chains",
    "components",
    "criterion",
    "overview",
    "page",
    "pairs",
    "parameters",
    "restarts",
    "topics",
    "trace",
]
