"""Benchmarks against the peers, by ratios measured in one run: `python -m bench mixtures`."""
