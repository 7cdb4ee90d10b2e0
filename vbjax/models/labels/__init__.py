"""Who chooses the component of a row: mixing weights, and the chains of hidden Markov models."""

from vbjax.models.labels.chain import Chain, HDPChain
from vbjax.models.labels.gated import Gated
from vbjax.models.labels.labels import Labels
from vbjax.models.labels.weights import StickBreaking, Weights

__all__ = ["Chain", "Gated", "HDPChain", "Labels", "StickBreaking", "Weights"]
