"""The engine: models, the expectation over rows, algorithms, restarts and `fit`. It knows no model."""
