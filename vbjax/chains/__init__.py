"""Inference in Markov chains: the functions here take discrete chains, `chains.gaussian` Gaussian ones."""

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
