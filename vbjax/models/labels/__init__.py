"""Who chooses the component of a row: mixing weights, and the chains of hidden Markov models."""

from vbjax.models.labels.weights import Labels, StickBreaking, Weights

__all__ = ["Labels", "StickBreaking", "Weights"]
