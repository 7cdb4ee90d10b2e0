"""What a row is like, given which of k laws it follows: for mixtures and hidden Markov models."""

from vbjax.models.components.autoregression import Autoregression
from vbjax.models.components.bernoulli import Bernoulli
from vbjax.models.components.categorical import Categorical
from vbjax.models.components.component import Component
from vbjax.models.components.factor_analyzer import FactorAnalyzer
from vbjax.models.components.gamma import Gamma
from vbjax.models.components.gaussian import Gaussian
from vbjax.models.components.multinomial import Multinomial
from vbjax.models.components.multivariate_regression import MultivariateRegression
from vbjax.models.components.nested import Mixture
from vbjax.models.components.noise import Noise
from vbjax.models.components.poisson import Poisson
from vbjax.models.components.product import Product
from vbjax.models.components.regression import Regression
from vbjax.models.components.student_t import StudentT
from vbjax.models.components.union import Union

__all__ = [
    "Autoregression",
    "Bernoulli",
    "Categorical",
    "Component",
    "FactorAnalyzer",
    "Gamma",
    "Gaussian",
    "Mixture",
    "Multinomial",
    "MultivariateRegression",
    "Noise",
    "Poisson",
    "Product",
    "Regression",
    "StudentT",
    "Union",
]
