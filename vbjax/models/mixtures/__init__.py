"""Mixtures of every kind of component, and k-means."""
