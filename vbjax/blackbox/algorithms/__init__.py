"""Algorithms that fit a `BlackBox`: natural gradients, score matching, quasi-Newton, stochastic ascent."""
