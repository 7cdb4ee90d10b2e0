"""The engine: what is derived from a log joint, sums over rows, hyperparameters. It knows no model."""
