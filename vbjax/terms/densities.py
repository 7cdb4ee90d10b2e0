"""Log densities of `vbjax.terms`, each affine in the statistics of every argument."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from vbjax.families.beta import BetaStatistics, beta_log_density
from vbjax.families.categorical import CategoricalStatistics
from vbjax.families.dirichlet import DirichletStatistics, dirichlet_log_density
from vbjax.families.gamma import GammaStatistics, gamma_log_density
from vbjax.families.joint import JointState, JointStatistics
from vbjax.families.matrix_normal_wishart import MatrixNormalWishartState, MatrixNormalWishartStatistics
from vbjax.families.multivariate_normal import MultivariateNormalStatistics
from vbjax.families.multivariate_normal_gamma import (
    MultivariateNormalGammaState,
    MultivariateNormalGammaStatistics,
)
from vbjax.families.normal import NormalStatistics
from vbjax.families.normal_gamma import NormalGammaState, NormalGammaStatistics
from vbjax.families.normal_wishart import NormalWishartState, NormalWishartStatistics
from vbjax.families.polya_gamma import PolyaGammaStatistics
from vbjax.families.stick_breaking import StickBreakingState, StickBreakingStatistics
from vbjax.families.wishart import WishartStatistics, wishart_log_density
from vbjax.numerics.linalg import transpose
from vbjax.numerics.special import LOG_2PI, finite_log, log_factorial_remainder
from vbjax.terms.arguments import (
    Argument,
    family_of,
    read_log,
    read_states,
    read_statistics,
    read_value,
    require_alone,
    require_shapes,
)


def _location(x: Argument, name: str) -> NormalStatistics:
    """Return elementwise statistics of a location; a multivariate normal gives its diagonal."""
    if isinstance(x, MultivariateNormalStatistics):
        return NormalStatistics(x.pivot, x.first, jnp.diagonal(x.second, axis1=-2, axis2=-1))
    return read_statistics(NormalStatistics, x, name)


def normal(x: Argument, mean: Argument, precision: Argument = None) -> Float[Array, " ..."]:
    """Return log N(x | mean, 1 / precision), elementwise (Bishop 2006, eq. 1.46).

    Args:
        x, mean: values, or statistics of a Normal or MultivariateNormal factor.
        precision: a value or the statistics of a Gamma factor. Left out where `mean` is the statistics
            of a NormalGamma factor, which holds both.

    >>> from vbjax.terms import normal
    >>> print(f"{normal(1.0, 0.0, 4.0):.6f}")
    -2.225791
    """
    if isinstance(mean, NormalGammaStatistics):
        require_alone(precision, "normal", mean)
        x = read_value(x, "normal: x")
        require_shapes("normal", x=x, mean=mean.pivot)
        return 0.5 * (mean.logdet - LOG_2PI - mean.square_about(x))
    x, mean = _location(x, "normal: x"), _location(mean, "normal: mean")
    precision = read_statistics(GammaStatistics, precision, "normal: precision")
    require_shapes("normal", x=x.pivot, mean=mean.pivot, precision=precision.value)
    shift = x.pivot - mean.pivot  # E[(x - m)^2] of independent x and m, from differences
    square = shift**2 + 2 * shift * (x.first - mean.first) - 2 * x.first * mean.first
    square = square + x.second + mean.second
    return 0.5 * (precision.log - LOG_2PI - precision.value * square)


def gamma(x: Argument, concentration: ArrayLike, rate: Argument) -> Float[Array, " ..."]:
    """Return log Gamma(x | concentration, rate) (Bishop 2006, eq. B.26).

    Args:
        x: a value or the statistics of a Gamma factor.
        concentration: a value. rate: a value or the statistics of a Gamma factor.

    >>> from vbjax.terms import gamma
    >>> print(f"{gamma(2.0, 1.0, 3.0):.6f}")  # log 3 - 6
    -4.901388
    """
    x = read_statistics(GammaStatistics, x, "gamma: x")
    concentration = read_value(concentration, "gamma: concentration")
    of_latent = isinstance(rate, GammaStatistics)
    rate = rate if of_latent else read_value(rate, "gamma: rate")
    require_shapes("gamma", x=x.value, concentration=concentration, rate=rate.value if of_latent else rate)
    if of_latent:
        # E[log b] and E[b] stand in two places: the rate's part is separate from the stable one
        unit = gamma_log_density(x, concentration, jnp.ones_like(x.value))
        return unit + concentration * rate.log - (rate.value - 1) * x.value + x.base
    return gamma_log_density(x, concentration, rate) + x.base


def poisson(x: ArrayLike, rate: Argument) -> Float[Array, " ..."]:
    """Return log Poisson(x | rate), elementwise: x log rate - rate - log x!.

    Args:
        x: counts, values. rate: a value or the statistics of a Gamma factor.

    >>> from vbjax.terms import poisson
    >>> print(f"{poisson(2.0, 1.0):.6f}")  # log(1 / (2 e))
    -1.693147
    """
    rate = read_statistics(GammaStatistics, rate, "poisson: rate")
    x = _counts(x, "poisson: x", rate.value)
    require_shapes("poisson", x=x, rate=rate.value)
    log = jnp.log(jnp.where(x > 0, x, 1))  # large counts cancel on paper
    pull = jnp.where(x > 0, x * (finite_log(rate.log) - log), 0)
    return pull + (x - rate.value) - log_factorial_remainder(x)


def _counts(x: Argument, name: str, like: Array) -> Array:
    """Return counts, or booleans, as floats."""
    x = read_value(x, name)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(like.dtype)


def beta(x: Argument, concentration1: ArrayLike, concentration0: ArrayLike) -> Float[Array, " ..."]:
    """Return log Beta(x | concentration1, concentration0) (Bishop 2006, eq. B.6).

    >>> from vbjax.terms import beta
    >>> print(f"{beta(0.25, 2.0, 1.0):.6f}")  # log(2 x)
    -0.693147
    """
    x = read_statistics(BetaStatistics, x, "beta: x")
    a = read_value(concentration1, "beta: concentration1")
    b = read_value(concentration0, "beta: concentration0")
    require_shapes("beta", x=x.log, concentration1=a, concentration0=b)
    return beta_log_density(x, a, b) + x.base


def bernoulli(x: ArrayLike, probability: Argument) -> Float[Array, " ..."]:
    """Return log Bernoulli(x | probability), elementwise: x log p + (1 - x) log(1 - p).

    Bishop 2006, eq. 2.2.

    Args:
        x: 0 or 1, or booleans; values. probability: a value or the statistics of a Beta factor.

    >>> from vbjax.terms import bernoulli
    >>> print(f"{bernoulli(True, 0.25):.6f}")
    -1.386294
    """
    p = read_statistics(BetaStatistics, probability, "bernoulli: probability")
    x = _counts(x, "bernoulli: x", p.log)
    require_shapes("bernoulli", x=x, probability=p.log)
    return x * finite_log(p.log) + (1 - x) * finite_log(p.log_complement)


def logistic(y: ArrayLike, logit: Argument, omega: PolyaGammaStatistics) -> Float[Array, " ..."]:
    """Return log p(y, omega | logit) of y in {0, 1} with probability 1 / (1 + exp(-logit)) of 1, elementwise.

    With omega from PG(1, 0) it is quadratic in the logit psi, (y - 1/2) psi - omega psi^2 / 2 - log 2
    but for the base measure (Polson, Scott & Windle 2013, theorem 1). At the optimal factor of omega it gives
    the bound of Jaakkola & Jordan (Bishop 2006, eq. 10.151).

    Args:
        y: values. logit: a value, or statistics as `linear` gives them.
        omega: the statistics of a PolyaGamma factor of one trial.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> omega = vb.families.PolyaGammaState(jnp.array(0.0)).expected()
    >>> print(f"{vb.terms.logistic(1.0, 0.0, omega):.6f}")  # log 1 / 2
    -0.693147
    """
    logit = _location(logit, "logistic: logit")
    if not isinstance(omega, PolyaGammaStatistics):
        raise ValueError("logistic: omega must be the statistics of a PolyaGamma factor of one trial")
    y = read_value(y, "logistic: y").astype(logit.pivot.dtype)
    require_shapes("logistic", y=y, logit=logit.pivot, omega=omega.value)
    return (y - 0.5) * logit.mean - 0.5 * omega.value * logit.square_about(0.0) - math.log(2)


def dirichlet(x: Argument, concentration: ArrayLike) -> Float[Array, " ..."]:
    """Return log Dirichlet(x | concentration) over the last axis (Bishop 2006, eq. B.16).

    A scalar concentration stands for every corner.

    >>> import jax.numpy as jnp
    >>> from vbjax.terms import dirichlet
    >>> print(f"{dirichlet(jnp.array([0.2, 0.3, 0.5]), 1.0):.4f}")  # log 2 everywhere
    0.6931
    """
    x = read_statistics(DirichletStatistics, x, "dirichlet: x", axes=1)
    concentration = read_value(concentration, "dirichlet: concentration")
    require_shapes("dirichlet", x=x.log, concentration=concentration)
    return dirichlet_log_density(x, concentration) + x.base


def stick_breaking(x: Argument, concentration1: ArrayLike, concentration0: ArrayLike) -> Float[Array, " ..."]:
    """Return the log density of a stick's K pieces, over the last axis: v_k ~ Beta are shares of the rest.

    With concentrations 1 and alpha, a Dirichlet process truncated at K (Blei & Jordan 2006, section 2).

    >>> from vbjax.terms import stick_breaking
    >>> print(f"{stick_breaking([0.5, 0.25, 0.25], 1.0, 1.0):.6f}")  # -log(1 / 2): v_2 = x_2 / (1 - x_1)
    0.693147
    """
    x = read_statistics(StickBreakingStatistics, x, "stick_breaking: x", axes=1)
    dtype, shape = x.log_rest.dtype, x.log_rest.shape
    a = read_value(concentration1, "stick_breaking: concentration1").astype(dtype)
    b = read_value(concentration0, "stick_breaking: concentration0").astype(dtype)
    require_shapes("stick_breaking", shares=x.log_rest, concentration1=a, concentration0=b)
    shares = (jnp.broadcast_to(concentration, shape) for concentration in (a, b))
    return StickBreakingState(*shares).log_density(x) + x.base


def categorical(x: Argument, probabilities: Argument) -> Float[Array, " ..."]:
    """Return log Categorical(x | probabilities), over the last axis.

    Args:
        x: the number of a state, or the statistics of a Categorical factor.
        probabilities: values, or the statistics of a Dirichlet or StickBreaking factor.

    >>> import jax.numpy as jnp
    >>> from vbjax.terms import categorical
    >>> print(f"{categorical(1, jnp.array([0.5, 0.25, 0.25])):.6f}")
    -1.386294
    """
    log = read_log(probabilities, "categorical: probabilities")
    if isinstance(x, CategoricalStatistics):
        require_shapes("categorical", event=1, x=x.p, probabilities=log)
        return (x.p * log).sum(-1)
    x = read_states(x, "categorical: x", log.shape[-1])
    require_shapes("categorical", x=x, probabilities_of_a_state=log[..., 0])
    shape = jnp.broadcast_shapes(x.shape, log.shape[:-1])
    log = jnp.broadcast_to(log, (*shape, log.shape[-1]))
    return jnp.take_along_axis(log, jnp.broadcast_to(x, shape)[..., None], -1)[..., 0]


def multinomial(x: ArrayLike, probabilities: Argument) -> Float[Array, " ..."]:
    """Return log Multinomial(x | probabilities), over the last axis (Bishop 2006, eq. 2.34).

    Args:
        x: counts (..., K), values.
        probabilities: values, or the statistics of a Dirichlet or StickBreaking factor.

    >>> from vbjax.terms import multinomial
    >>> print(f"{multinomial([1.0, 1.0], [0.5, 0.5]):.6f}")
    -0.693147
    """
    log = read_log(probabilities, "multinomial: probabilities")
    x = _counts(x, "multinomial: x", log)
    require_shapes("multinomial", event=1, x=x, probabilities=log)
    n = x.sum(-1)
    share = jnp.log(
        jnp.where(x > 0, x, 1) / jnp.where(n > 0, n, 1)[..., None]
    )  # large counts cancel on paper
    pull = jnp.where(x > 0, x * (log - share), 0) - log_factorial_remainder(x)
    return pull.sum(-1) + log_factorial_remainder(n)


def multivariate_normal(x: Argument, mean: Argument, precision: Argument = None) -> Float[Array, " ..."]:
    """Return log N(x | mean, precision^-1), over the last axis (Bishop 2006, eq. 2.43).

    Args:
        x, mean: vectors, or statistics of a MultivariateNormal factor.
        precision: a matrix or the statistics of a Wishart factor. Left out where `mean` is the
            statistics of a NormalWishart, MultivariateNormalGamma or MatrixNormalWishart factor; the
            last gives one number for each of its q locations, a new last axis.

    >>> import jax.numpy as jnp
    >>> from vbjax.terms import multivariate_normal
    >>> print(f"{multivariate_normal([1.0, 2.0], [1.0, 2.0], jnp.eye(2)):.6f}")  # -log(2 pi)
    -1.837877
    """
    term, joint = "multivariate_normal", (NormalWishartStatistics, MultivariateNormalGammaStatistics)
    if isinstance(mean, (MatrixNormalWishartStatistics, *joint)):
        require_alone(precision, term, mean)
        x = read_value(x, f"{term}: x", axes=1)
        if isinstance(mean, joint):
            require_shapes(term, event=1, x=x, mean=mean.pivot)
            size = x.shape[-1] if isinstance(mean, MultivariateNormalGammaStatistics) else 1
            return 0.5 * (size * mean.logdet - x.shape[-1] * LOG_2PI - mean.square_about(x))
        require_shapes(term, event=1, x=x, mean=mean.pivot[..., 0, :])
        square = mean.square_about(x[..., None, :])
        return 0.5 * (mean.logdet[..., None] - x.shape[-1] * LOG_2PI - square)
    x = read_statistics(MultivariateNormalStatistics, x, f"{term}: x", axes=1)
    mean = read_statistics(MultivariateNormalStatistics, mean, f"{term}: mean", axes=1)
    precision = read_statistics(WishartStatistics, precision, f"{term}: precision", axes=2, square=True)
    require_shapes(term, event=1, x=x.pivot, mean=mean.pivot, row_of_precision=precision.value[..., 0])
    shift = x.pivot - mean.pivot
    cross = (x.first - mean.first)[..., :, None] * shift[..., None, :]
    cross = cross - x.first[..., :, None] * mean.first[..., None, :]
    scatter = shift[..., :, None] * shift[..., None, :] + cross + transpose(cross) + x.second + mean.second
    square = (precision.value * scatter).sum((-1, -2))
    return 0.5 * (precision.logdet - shift.shape[-1] * LOG_2PI - square)


def wishart(x: Argument, degrees_of_freedom: ArrayLike, inverse_scale: ArrayLike) -> Float[Array, " ..."]:
    """Return log Wishart(x | nu, W), with W given by its inverse (Bishop 2006, eq. B.78).

    >>> from vbjax.terms import wishart
    >>> print(f"{wishart([[1.0]], 1.0, [[1.0]]):.6f}")  # the log density of chi^2 at 1
    -1.418939
    """
    x = read_statistics(WishartStatistics, x, "wishart: x", axes=2, square=True)
    inverse_scale = read_value(inverse_scale, "wishart: inverse_scale", axes=2)
    nu = read_value(degrees_of_freedom, "wishart: degrees_of_freedom").astype(inverse_scale.dtype)
    require_shapes("wishart", event=2, x=x.value, inverse_scale=inverse_scale)
    require_shapes("wishart", x_of_a_cell=x.logdet, degrees_of_freedom=nu)
    return wishart_log_density(x.value, x.logdet, nu, inverse_scale) + x.base


def _joint(
    term: str, kind: type[JointStatistics], state: type[JointState], x: Argument, prior: dict[str, ArrayLike]
) -> Array:
    """Return the log density of a location and its precision."""
    if not isinstance(x, (kind, tuple)):
        raise ValueError(
            f"{term}: x must be a location with its precision, or the statistics of a {family_of(kind)} "
            f"factor; got {type(x).__name__}"
        )
    x = x if isinstance(x, kind) else kind.of(x)
    values = {name: read_value(value, f"{term}: {name}") for name, value in prior.items()}
    n_axes = kind.events["cross"]  # of a location
    require_shapes(term, event=n_axes, x=x.pivot, location=values["location"])
    for name in (name for name in values if state.domains[name] == "definite"):
        size = x.pivot.shape[-2 if n_axes == 2 and name == "mean_precision" else -1]
        if values[name].shape[-2:] != (size, size):
            raise ValueError(f"{term}: {name} must be ({size}, {size}); got shape {values[name].shape}")
    return state(**values).log_density(x) + x.base


def normal_gamma(
    x: Argument, location: ArrayLike, mean_precision: ArrayLike, concentration: ArrayLike, rate: ArrayLike
) -> Float[Array, " ..."]:
    """Return log N(m | location, 1 / (mean_precision tau)) Gamma(tau | concentration, rate), x = (m, tau).

    Bishop 2006, eq. 2.154.

    >>> from vbjax.terms import normal_gamma
    >>> print(f"{normal_gamma((0.0, 1.0), 0.0, 1.0, 1.0, 1.0):.6f}")  # -log(2 pi) / 2 - 1
    -1.918938
    """
    prior = dict(location=location, mean_precision=mean_precision, concentration=concentration, rate=rate)
    return _joint("normal_gamma", NormalGammaStatistics, NormalGammaState, x, prior)


def normal_wishart(
    x: Argument,
    location: ArrayLike,
    mean_precision: ArrayLike,
    degrees_of_freedom: ArrayLike,
    inverse_scale: ArrayLike,
) -> Float[Array, " ..."]:
    """Return log N(m | location, (mean_precision Lam)^-1) Wishart(Lam | nu, W), x = (m, Lam).

    Bishop 2006, eq. 2.157.

    >>> from vbjax.terms import normal_wishart
    >>> print(f"{normal_wishart(([0.0], [[1.0]]), [0.0], 1.0, 1.0, [[1.0]]):.6f}")  # -log(2 pi) - 1 / 2
    -2.337877
    """
    prior = dict(
        location=location,
        mean_precision=mean_precision,
        degrees_of_freedom=degrees_of_freedom,
        inverse_scale=inverse_scale,
    )
    return _joint("normal_wishart", NormalWishartStatistics, NormalWishartState, x, prior)


def multivariate_normal_gamma(
    x: Argument, location: ArrayLike, mean_precision: ArrayLike, concentration: ArrayLike, rate: ArrayLike
) -> Float[Array, " ..."]:
    """Return log N(m | location, (tau B)^-1) Gamma(tau | concentration, rate), x = (m, tau), B a matrix.

    >>> from vbjax.terms import multivariate_normal_gamma
    >>> print(f"{multivariate_normal_gamma(([0.0], 1.0), [0.0], [[1.0]], 1.0, 1.0):.4f}")  # log N(0) - 1
    -1.9189
    """
    prior = dict(location=location, mean_precision=mean_precision, concentration=concentration, rate=rate)
    return _joint(
        "multivariate_normal_gamma", MultivariateNormalGammaStatistics, MultivariateNormalGammaState, x, prior
    )


def matrix_normal_wishart(
    x: Argument,
    location: ArrayLike,
    mean_precision: ArrayLike,
    degrees_of_freedom: ArrayLike,
    inverse_scale: ArrayLike,
) -> Float[Array, " ..."]:
    """Return log MN(M | location, R^-1, Lam^-1) Wishart(Lam | nu, W), x = (M, Lam), R a (q, q) matrix.

    >>> from vbjax.terms import matrix_normal_wishart
    >>> one = [[1.0]]
    >>> print(f"{matrix_normal_wishart(([[0.0]], one), [[0.0]], one, 1.0, one):.6f}")  # -log(2 pi) - 1 / 2
    -2.337877
    """
    prior = dict(
        location=location,
        mean_precision=mean_precision,
        degrees_of_freedom=degrees_of_freedom,
        inverse_scale=inverse_scale,
    )
    return _joint("matrix_normal_wishart", MatrixNormalWishartStatistics, MatrixNormalWishartState, x, prior)
