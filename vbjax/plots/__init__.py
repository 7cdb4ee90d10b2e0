"""Pictures of fits and mixtures (the functions here), `chains` and `topics`."""

from vbjax.plots import chains, topics
from vbjax.plots.fits import components, overview, pairs, restarts, trace

__all__ = ["chains", "components", "overview", "pairs", "restarts", "topics", "trace"]
