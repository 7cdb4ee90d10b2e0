"""Factor models: principal components and factor analysis."""
