"""Ready-made models, each a page with its equations."""

from vbjax.models.gaussian_mean_precision import GaussianMeanPrecision
from vbjax.models.unit_variance_mixture import UnitVarianceMixture

__all__ = ["GaussianMeanPrecision", "UnitVarianceMixture"]
