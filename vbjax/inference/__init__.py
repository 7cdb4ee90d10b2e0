"""The drivers: `fit` and its algorithms, restarts, stochastic steps, Gibbs. They know no model."""
