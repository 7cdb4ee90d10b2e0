"""What logistic and probit regression share: one local latent for each row makes the likelihood quadratic.

Not a model itself. The subclasses give the latent, the row's bound, and the link.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from vbjax import terms
from vbjax.core.hyperparameters import POSITIVE, REAL, flag, hyper
from vbjax.core.model import scored_rows
from vbjax.core.rows import Expectation
from vbjax.data.moments import fill_defaults
from vbjax.families.base import pytree
from vbjax.families.gamma import Gamma
from vbjax.families.multivariate_normal import (
    MultivariateNormal,
    MultivariateNormalStatistics,
)
from vbjax.models.regression.base import Regression, around, quadratic_rows
from vbjax.numerics.inputs import is_concrete
from vbjax.numerics.record import Record


@pytree
class BinaryRegression(Regression):
    """y_n in {0, 1}, w_0 ~ N(0, 1 / intercept_precision), w_j ~ N(0, 1 / precision_j) or N(0, 1 / alpha_j).

    With (2 y_n - 1) psi_n of mean m_n and variance v_n under q(w), the latent optimised away leaves a row's
    bound, a pull r_n and a precision k_n on psi_n, and

        S^-1 = A + X' diag(k) X,   m_new = m + S (X' r - A m).
    """

    fit_intercept: bool = flag(default=True)
    ard: bool = flag()
    center: Any = hyper(None, REAL, "d")
    intercept_precision: Any = hyper(0.01, POSITIVE)
    precision: Any = hyper(None, POSITIVE, "d", excludes="ard")
    a: Any = hyper(1e-6, POSITIVE)
    b: Any = hyper(None, POSITIVE, "d", requires="ard")

    @property
    def factors(self) -> Record:
        alpha = dict(alpha=Gamma(self.center.shape)) if self.ard else {}
        return Record(w=MultivariateNormal(self.n_weights), **alpha)

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        return (("w",), ("alpha",)) if self.ard else (("w",),)

    def read(self, data: Any) -> tuple[Array, Array]:
        x, y = super().read(data)
        if is_concrete(y) and (others := (y != 0) & (y != 1)).any():
            row = int(others.argmax())
            hint = "y == one_class codes two classes"
            raise ValueError(f"y must be 0 or 1 in every row; got {y[row]} in row {row}; {hint}")
        return x, y

    def resolve(self: Any, data: tuple[Array, Array], weights: Array | None = None) -> Any:
        center, scale = self.units(data[0], weights, self.center)
        prior: dict[str, Any] = dict(b=self.a / scale) if self.ard else dict(precision=0.1 * scale)
        return fill_defaults(self, data[0].dtype, center=center, **prior)

    def init(self, key: Array, data: Any, weights: Array | None = None) -> Record:
        """The weights at their prior, its precisions at their prior's means."""
        if not self.ard:
            return Record(w=self.weights_at(self.precision))
        alpha = around(self.a, self.b)
        return Record(w=self.weights_at(alpha.mean), alpha=alpha)

    def log_prior(self, s: Record) -> Array:
        precisions = self.prior_precisions(s.alpha if self.ard else self.precision)
        weights = terms.normal(s.w, 0.0, precisions).sum()
        return weights + terms.gamma(s.alpha, self.a, self.b).sum() if self.ard else weights

    def row(self, mean: Array, variance: Array) -> tuple[Array, Array, Array]:
        """The bound of a row, and the pull and the precision on its psi, all times (2 y - 1)."""
        raise TypeError("given by the subclass")

    def log_probability(self, mean: Array, variance: Array) -> Array:
        """log p(y = 1) of psi ~ N(mean, variance)."""
        raise TypeError("given by the subclass")

    def e_step(self, prepared: Any, rows: tuple[Array, Array], weights: Array) -> Expectation:
        """The rows' bounds, in forms that keep their digits, and what they leave for q(w)."""
        w, x, sign = prepared.w, self.design(rows[0]), signs(*rows)
        bound, pull, precision = self.row(sign * (x @ w.pivot), quadratic_rows(x, w.second))
        second = -0.5 * (x * (weights * precision)[:, None]).T @ x
        at_w = MultivariateNormalStatistics(jnp.zeros_like(w.pivot), (weights * sign * pull) @ x, second)
        none = jax.tree.map(jnp.zeros_like, prepared)
        return scored_rows(none | dict(w=at_w), bound, weights)

    # -- use -----------------------------------------------------------------------------------------

    def redraw(self, values: Record, local: Record, key: Array, data: tuple[Array, Array]) -> Any:
        x, y = data
        psi = self.design(x) @ values.w
        log_p = self.log_probability(psi, jnp.zeros_like(psi))
        return x, jax.random.bernoulli(key, jnp.exp(log_p)).astype(y.dtype)

    def probabilities(self, params: Record, x: Any) -> Float[Array, " n"]:
        """P(y = 1) of rows x, (n,), w integrated out."""
        return jnp.exp(_log_probability(self, params, self.read_design(x), None))

    def predict(self, params: Record, x: Any) -> Int[Array, " n"]:
        """The more probable y of rows x, 0 or 1, (n,)."""
        return (self.psi(params, x) > 0).astype(int)

    def log_predictive(self, params: Record, data: Any) -> Float[Array, " n"]:
        """log P(y_n | x_n) of new rows, (n,), w integrated out."""
        return _log_probability(self, params, *self.read(data))

    def sample(self, params: Record, key: Array, x: Any) -> Int[Array, " n"]:
        """A draw of y, 0 or 1, for every row of x, (n,), each with w of its own."""
        return jax.random.bernoulli(key, self.probabilities(params, x)).astype(int)


def signs(x: Float[Array, "n d"], y: Array) -> Float[Array, " n"]:
    """2 y - 1, in the dtype of x."""
    return 2 * y.astype(x.dtype) - 1


@jax.jit
def _log_probability(model: BinaryRegression, params: Record, x: Array, y: Array | None) -> Array:
    design = model.design(x)
    mean, variance = design @ params.w.mean, quadratic_rows(design, params.w.covariance)
    return model.log_probability(mean if y is None else signs(x, y) * mean, variance)
