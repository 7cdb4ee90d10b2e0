"""`BlackBox`: any log density, approximated on unconstrained space. For users; driven by fit."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from vbjax.blackbox.algorithms.estimators import surrogate
from vbjax.blackbox.algorithms.fixed_draws import FixedDraws
from vbjax.blackbox.algorithms.natural_ascent import NaturalAscent
from vbjax.blackbox.algorithms.stochastic_ascent import StochasticAscent
from vbjax.blackbox.approximation import Approximation, constrain, support_leaves
from vbjax.blackbox.diagnostics import N_DRAWS, Diagnostics, diagnosed, resampled_rows
from vbjax.blackbox.families import Hybrid, LocationScale, entropy, start_of_latents, to_free
from vbjax.blackbox.inspection import (
    inspect_family,
    inspect_function,
    inspect_n_draws,
    inspect_params,
    inspect_support,
)
from vbjax.core.contracts import Algorithm, Options
from vbjax.core.rows import float_dtype, n_rows
from vbjax.families.base import pytree, static
from vbjax.numerics.inputs import as_array, read_arrays, read_count, read_key


@pytree
class WeightedRows:
    """Rows of data and what each of them counts."""

    rows: Any
    weights: Array


@pytree
class BlackBox:
    """Variational inference for a log density that is only known as a function.

    q is a distribution on R^d, carried to the latents' supports; it maximises
    E_q[log p(latents, data) + log |Jacobian|] + H[q] on draws that are fixed for the fit, of exactly
    mean 0 and covariance I: where log p is quadratic and q normal, the answer is exact.

    Args:
        log_density: `log_density(latents)`, or `log_density(latents, data)` where `fit` gets data: a scalar,
            up to a constant. `latents` is a `Record` if `support` is a dict, else a pytree like it.
        support: a pytree of supports (`real`, `positive`, `simplex`, ...), one for each latent.
        family: "full_rank", "mean_field" (every entry by itself), "blocks" (every latent by itself):
            normals, by natural gradients; `blackbox.low_rank(rank)`, `blackbox.mixture(n, of=family)`; or
            a function `(key, sizes, dtype)` to a pytree with `sample(key, n)`, draws (n, d) differentiable
            in its arrays, and `log_prob(u)`, (n,), where d is the sum of sizes: by L-BFGS. Discrete
            latents (`category`) are independent in q, and the fit is one of stochastic gradients.
        n_draws: how many draws, even; by default 128, but 8 d if that is more. "full_rank" and "blocks"
            want more than 2 d.
        log_likelihood: `log_likelihood(latents, rows)`, one number for each row. The density is then
            `log_density(latents)` plus their sum: rows may have weights, and come in minibatches.

    Raises:
        ValueError: at `fit`: a support that is none, an unknown family, too few draws, a density that is no
            scalar or is not finite where the fit starts.

    References:
        Kucukelbir et al. (2017); Lin, Khan & Schmidt (2019); Giordano, Ingram & Broderick (2024).

    >>> import jax, vbjax as vb
    >>> heads = lambda s: 7 * jax.numpy.log(s.p) + 3 * jax.numpy.log1p(-s.p)
    >>> fit = vb.fit(vb.BlackBox(heads, dict(p=vb.unit_interval())), key=jax.random.key(0))
    >>> print(f"{fit.params.mean.p:.2f} +- {fit.params.sd.p:.2f}")  # Beta(8, 4): 0.67 +- 0.13
    0.67 +- 0.13
    """

    log_density: Callable[..., Any] = static()
    support: Any = dataclasses.field()
    family: Any = static(default="full_rank")
    n_draws: int | None = static(default=None)
    log_likelihood: Callable[[Any, Any], Any] | None = static(default=None)

    lanes_on_cpu = 4
    may_have_saddles = False

    @property
    def size(self) -> int:
        """d: how many numbers the latents are made from."""
        return sum(leaf.size for leaf in support_leaves(self.support))

    # -- what `fit` asks -----------------------------------------------------------------------------

    def read(self, data: Any) -> Any:
        """The data as arrays: of rows, where there is a log_likelihood."""
        if self.log_likelihood is not None:
            return read_arrays(data, "data")
        return jax.tree.map(lambda x: as_array(x, "data"), data)

    def inspect(self, data: Any) -> BlackBox:
        """Refuses what cannot be fitted."""
        for name in ("log_density", "log_likelihood"):
            given = getattr(self, name)
            if not callable(given) and not (given is None and name == "log_likelihood"):
                raise ValueError(f"{name} must be a function; got {given!r}")
        inspect_support(self.support, discrete=True)
        q = self.inspect_family(float_dtype(data))
        correlated = isinstance(q, LocationScale) and q.scale.ndim == 2
        inspect_n_draws("n_draws", self._n_draws, 2 * self.size + 2 if correlated else 2, self.size)
        self._inspect_density(data)
        return self

    def inspect_family(self, dtype: Any) -> Any:
        """Return the shapes of the family at its start; refuse one that is none."""
        return inspect_family(lambda key: self._start(key, dtype), self.size)

    def _inspect_density(self, data: Any) -> None:
        function, rows = self.log_density, () if data is None else (data,)
        given = () if self.log_likelihood is not None else rows
        inspect_function("log_density", function, self.support, float_dtype(data), given, ())
        if self.log_likelihood is None:
            return
        if data is None:
            raise ValueError("log_likelihood needs data; there are none")
        shape = (n_rows(data),)
        inspect_function("log_likelihood", self.log_likelihood, self.support, float_dtype(data), rows, shape)

    def resolve(self, data: Any, weights: Array | None = None) -> BlackBox:
        """Itself: nothing follows the data."""
        if weights is not None and self.log_likelihood is None:
            raise ValueError(
                "weights are for models of rows: give log_likelihood, or weigh its terms yourself"
            )
        return self

    def annotate(self, data: Any, weights: Array | None = None) -> Any:
        """The data, with the weights of their rows if there are any."""
        return data if weights is None else WeightedRows(data, weights)

    def inspect_options(self, data: Any, options: Options) -> None:
        """Raise for options of coordinate ascent; and for a tolerance where the stopping rule has none."""
        if options.accelerate or options.check:
            raise ValueError("accelerate and check are for coordinate ascent, which BlackBox has not")
        if options.tol is not None and isinstance(self.inspect_family(float_dtype(data)), Hybrid):
            raise ValueError(
                "tol is for fits on fixed draws; stochastic ascent, which discrete latents need, stops by a "
                "rule of its own: see vb.blackbox.StochasticAscent"
            )

    def algorithm(self, data: Any, options: Options) -> Algorithm:
        """Return the algorithm that suits the family."""
        dtype = float_dtype(data)
        q = self.inspect_family(dtype)
        if isinstance(q, Hybrid):
            return StochasticAscent(self)
        return (NaturalAscent if isinstance(q, LocationScale) else FixedDraws)(
            self, jnp.asarray(options.tol, dtype)
        )

    def ill_conditioned(self, params: Approximation) -> Array:
        """A black box has no covariance of data: nothing that its dtype cannot tell."""
        return jnp.asarray(False)

    def singular(self, params: Approximation) -> Array:
        """Never: a scale that vanishes has no finite bound."""
        return jnp.asarray(False)

    @property
    def _n_draws(self) -> int:
        return max(128, 8 * self.size) if self.n_draws is None else self.n_draws

    def init(self, key: Array, data: Any = None) -> Approximation:
        """Where the family starts, with the draws of a fit."""
        dtype = float_dtype(data)
        place, rest = jax.random.split(key)
        return Approximation.begin(self._start(place, dtype), rest, self._n_draws, self.support, dtype)

    def _start(self, key: Array, dtype: Any) -> Any:
        return start_of_latents(self.family, support_leaves(self.support), key, dtype)

    # -- the bound, and what is asked of it ----------------------------------------------------------

    def _density(self, latents: Any, data: Any) -> Any:
        alone = data is None or self.log_likelihood is not None
        return self.log_density(latents) if alone else self.log_density(latents, data)

    def log_joint(self, u: Array, data: Any = None, share: Any = 1) -> Array:
        """log p(latents, data) + log |Jacobian| at unconstrained u (d,).

        Rows that are one `share` of the whole count as the whole.
        """
        latents, stretch = constrain(self.support, u)
        log_p = jnp.asarray(self._density(latents, data), u.dtype) + stretch
        if self.log_likelihood is None:
            return log_p
        rows, weights = (data.rows, data.weights) if isinstance(data, WeightedRows) else (data, 1)
        return log_p + (weights * self.log_likelihood(latents, rows)).sum().astype(u.dtype) / share

    def scored(self, params: Approximation, data: Any = None) -> tuple[Array, Array]:
        """`log_joint` at the draws of the fit, (n,), and its gradients, (n, d)."""
        inspect_params(self.support, params)
        score = jax.value_and_grad(lambda u: self.log_joint(u, data))
        return jax.vmap(score)(params.points()[0])

    def bound(self, params: Approximation, data: Any = None) -> Array:
        """E_q[log p] + H[q] on the draws of the fit."""
        inspect_params(self.support, params)
        u, w = points = params.points()
        return w @ jax.vmap(lambda u: self.log_joint(u, data))(u) + entropy(params.q, points)

    def log_ratios(self, params: Approximation, u: Array, data: Any = None) -> Array:
        """log p - log q at unconstrained u (n, d)."""
        inspect_params(self.support, params)
        return jax.vmap(lambda u: self.log_joint(u, data))(u) - params.q.log_prob(u)

    def gradient_norm(self, params: Approximation, data: Any = None) -> Array:
        """Of the bound: in standard deviations of q (natural gradient) for a normal, else over `to_free`."""
        inspect_params(self.support, params)
        q = params.q
        if isinstance(q, LocationScale):
            return jnp.sqrt(2 * q.kind.gain(q.kind.slope(q.scale, params.base, self.scored(params, data)[1])))

        def of(free: Any) -> Array:
            here = params.at(free)
            return surrogate("pathwise", lambda u: self.log_joint(u, data), here.q, here.points())

        gradient = jax.grad(of)(to_free(q))
        return jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradient)))

    def diagnose(self, params: Approximation, data: Any = None) -> Diagnostics:
        """The diagnostics of a fit, from draws that it has not seen."""
        inspect_params(self.support, params)
        u = params.q.sample(params.key, N_DRAWS)
        log_p = jax.vmap(lambda u: self.log_joint(u, data))(u)
        return diagnosed(log_p, params.q.log_prob(u), self.gradient_norm(params, data))

    def mean_response(self, params: Approximation, data: Any) -> tuple[Any, Array]:
        """The means of the latents, and how they respond to pulls on them, a matrix over all their entries.

        See `vb.linear_response`. Over m and log sd it is G (-H)^-1 G', G the derivative of the means, H the
        second one of the bound (Giordano, Broderick & Jordan 2018, eq. 13).
        """
        if self.family != "mean_field":
            raise ValueError(
                f"linear_response is for family='mean_field'; {self.family!r} has covariances of its own"
            )
        inspect_params(self.support, params)
        return _mean_response(self, params, self.read(data))

    def resample(self, params: Approximation, key: Array, n: int, data: Any = None) -> Any:
        """n draws of the latents by Pareto-smoothed importance resampling: nearer to the posterior than q.

        To be trusted where k-hat is below 0.7; drawn with repetition from ten times as many, or 2,000.

        Raises:
            ValueError: parameters of another model; a key or a number that is none.
        """
        inspect_params(self.support, params)
        data = self.read(data)
        self._inspect_density(data)
        return _resample(self, params, read_key(key), read_count(n, "n"), data)

    def refuse_not_finite(self, params: Approximation, data: Any) -> None:
        """A ValueError that names the latents of the first draw at which the density is not finite."""
        value, gradient = map(np.asarray, self.scored(params, data))
        if (~np.isfinite(value)).any():
            row = int(np.argmax(~np.isfinite(value)))
            latents = jax.tree.map(lambda x: x[row], params.draws)
            raise ValueError(
                f"log_density with the supports' Jacobian is {value[row]} at the start, at {latents}"
            )
        if not np.isfinite(gradient).all():
            raise ValueError("log_density has a gradient that is not finite where the fit starts")


@jax.jit
def _mean_response(model: BlackBox, params: Approximation, data: Any) -> tuple[Any, Array]:
    def at(eta: Array) -> Approximation:
        return params.at(tuple(jnp.split(eta, 2)))

    eta = jnp.concatenate(to_free(params.q))
    means = jax.jacfwd(lambda eta: ravel_pytree(at(eta).mean)[0])(eta)
    return params.mean, means @ jnp.linalg.solve(
        -jax.hessian(lambda eta: model.bound(at(eta), data))(eta), means.T
    )


@functools.partial(jax.jit, static_argnames="n")
def _resample(model: BlackBox, params: Approximation, key: Array, n: int, data: Any) -> Any:
    normals, picks = jax.random.split(key)
    u = params.q.sample(normals, max(10 * n, N_DRAWS))
    uniforms = jax.random.uniform(picks, (n,), u.dtype)
    return params.values(u[resampled_rows(model.log_ratios(params, u, data), uniforms)])
