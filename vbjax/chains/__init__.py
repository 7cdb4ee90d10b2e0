"""Inference in Markov chains: discrete ones (the functions here), and Gaussian ones (`chains.gaussian`)."""

from vbjax.chains import gaussian
from vbjax.chains.discrete import (
    Filtered,
    Path,
    Posterior,
    entropy,
    filter,
    log_normalizer,
    predict,
    sample_paths,
    smoother,
    viterbi,
)

__all__ = [
    "Filtered",
    "Path",
    "Posterior",
    "entropy",
    "filter",
    "gaussian",
    "log_normalizer",
    "predict",
    "sample_paths",
    "smoother",
    "viterbi",
]
