"""`BlackBox`: any log density, approximated by a normal on unconstrained space. For users; driven by fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from vbjax.blackbox.approximation import NormalApproximation, constrain, support_leaves
from vbjax.blackbox.diagnostics import N_DRAWS, Diagnostics, diagnosed, resampled_rows
from vbjax.blackbox.draws import matched_draws
from vbjax.blackbox.natural_ascent import NaturalAscent
from vbjax.blackbox.scales import Diagonal, Full
from vbjax.core.expectation import float_dtype
from vbjax.families.base import pytree, static
from vbjax.special import LOG_2PI
from vbjax.supports import Support

_FAMILIES = ("full_rank", "mean_field", "blocks")
_START_SD = 0.1


@pytree
class BlackBox:
    """Variational inference for a log density that is only known as a function.

    q is a normal N(m, L L') on R^d, carried to the latents' supports; m and L maximise
    E_q[log p(latents, data) + log |Jacobian|] + H[q] on draws that are fixed for the fit, of exactly
    mean 0 and covariance I: where log p is quadratic, the answer is exact.

    Args:
        log_density: `log_density(latents)`, or `log_density(latents, data)` where `fit` gets data: a scalar,
            up to a constant. `latents` is a `Record` if `support` is a dict, else a pytree like it.
        support: a pytree of supports (`real`, `positive`, `simplex`, ...), one for each latent.
        family: "full_rank", "mean_field" (every entry by itself), or "blocks" (every latent by itself).
        n_draws: how many draws, even; by default 128, but 8 d if that is more. "full_rank" and "blocks"
            want more than 2 d.

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
    family: str = static(default="full_rank")
    n_draws: int | None = static(default=None)

    lanes_on_cpu = 4

    @property
    def size(self) -> int:
        """d: how many real numbers the latents are made from."""
        return sum(leaf.size for leaf in support_leaves(self.support))

    @property
    def _scale(self) -> Diagonal | Full:
        if self.family == "mean_field":
            return Diagonal()
        sizes = tuple(leaf.size for leaf in support_leaves(self.support))
        return Full(sizes if self.family == "blocks" else None)

    # -- what `fit` asks -----------------------------------------------------------------------------

    def read(self, data: Any) -> Any:
        """The data as arrays."""
        return jax.tree.map(jnp.asarray, data)

    def inspect(self, data: Any) -> BlackBox:
        """Refuses what cannot be fitted."""
        if not callable(self.log_density):
            raise ValueError(f"log_density must be a function; got {self.log_density!r}")
        leaves = support_leaves(self.support)
        if wrong := [leaf for leaf in leaves if not isinstance(leaf, Support)]:
            raise ValueError(
                f"support must hold supports alone (vb.real(), vb.positive(), ...); got {wrong[0]!r}"
            )
        if self.size < 1:
            raise ValueError("support has no latent of any size")
        if self.family not in _FAMILIES:
            raise ValueError(f"family must be one of {', '.join(_FAMILIES)}; got {self.family!r}")
        n, least = self._n_draws, 2 if self.family == "mean_field" else 2 * self.size + 2
        if not isinstance(n, int) or n % 2 or n < least:
            raise ValueError(f"n_draws must be even and at least {least} for {self.size} numbers; got {n!r}")
        u = jax.ShapeDtypeStruct((self.size,), float_dtype(data))
        shape = jax.eval_shape(lambda u: self._density(constrain(self.support, u)[0], data), u)
        if getattr(shape, "shape", None) != ():
            raise ValueError(f"log_density must return a scalar; got {shape}")
        return self

    def resolve(self, data: Any, weights: Array | None = None) -> BlackBox:
        """Itself: nothing follows the data."""
        if weights is not None:
            raise ValueError("weights are for models of rows; weigh the terms of log_density instead")
        return self

    def annotate(self, data: Any, weights: Array | None = None) -> Any:
        """The data as they are."""
        return data

    def ascent(self, tol: Any, data: Any) -> NaturalAscent:
        """The algorithm that `fit` drives."""
        return NaturalAscent(self, jnp.asarray(tol, float_dtype(data)))

    def singular(self, params: NormalApproximation) -> Array:
        """Never: a scale that vanishes has no finite bound."""
        return jnp.asarray(False)

    @property
    def _n_draws(self) -> int:
        return max(128, 8 * self.size) if self.n_draws is None else self.n_draws

    def init(self, key: Array, data: Any = None) -> NormalApproximation:
        """A narrow normal about a standard normal point, and the draws of a fit."""
        dtype = float_dtype(data)
        place, draws, fresh = jax.random.split(key, 3)
        return NormalApproximation(
            location=jax.random.normal(place, (self.size,), dtype),
            scale=_START_SD * self._scale.start(self.size, dtype),
            base=matched_draws(draws, self._n_draws, self.size, dtype),
            seed=jax.random.key_data(fresh),
            support=jax.tree.map(lambda x: jnp.asarray(x, dtype), self.support),
            family=self._scale,
        )

    # -- the bound, and what is asked of it ----------------------------------------------------------

    def _density(self, latents: Any, data: Any) -> Any:
        return self.log_density(latents) if data is None else self.log_density(latents, data)

    def log_joint(self, u: Array, data: Any = None) -> Array:
        """log p(latents, data) + log |Jacobian| at unconstrained u (d,)."""
        latents, stretch = constrain(self.support, u)
        return jnp.asarray(self._density(latents, data), u.dtype) + stretch

    def scored(self, params: NormalApproximation, data: Any = None) -> tuple[Array, Array]:
        """`log_joint` at the draws of the fit, (n,), and its gradients, (n, d)."""
        score = jax.value_and_grad(lambda u: self.log_joint(u, data))
        return jax.vmap(score)(params.unconstrained(params.base))

    def entropy(self, params: NormalApproximation) -> Array:
        """H[q] on unconstrained space."""
        return params.family.log_det(params.scale) + 0.5 * self.size * (1 + LOG_2PI)

    def log_ratios(self, params: NormalApproximation, z: Array, data: Any = None) -> Array:
        """log p - log q at standard normals z (n, d)."""
        log_p = jax.vmap(lambda u: self.log_joint(u, data))(params.unconstrained(z))
        return log_p + params.family.log_det(params.scale) + 0.5 * ((z**2).sum(-1) + self.size * LOG_2PI)

    def diagnose(self, params: NormalApproximation, data: Any = None) -> Diagnostics:
        """The diagnostics of a fit, from draws that it has not seen."""
        key = jax.random.wrap_key_data(params.seed)
        z = jax.random.normal(key, (N_DRAWS, self.size), params.location.dtype)
        gradient = self.scored(params, data)[1]
        gain = params.family.gain(params.family.slope(params.scale, params.base, gradient))
        return diagnosed(self.log_ratios(params, z, data), jnp.sqrt(2 * gain))

    @jax.jit
    def mean_response(self, params: NormalApproximation, data: Any) -> tuple[Any, Array]:
        """The means of the latents, and how they respond to pulls on them, a matrix over all their entries.

        See `vb.linear_response`. Over m and log sd it is G (-H)^-1 G', G the derivative of the means, H the
        second one of the bound (Giordano, Broderick & Jordan 2018, eq. 13).
        """
        if self.family != "mean_field":
            raise ValueError(
                f"linear_response is for family='mean_field'; {self.family!r} has covariances of its own"
            )

        def at(eta: Array) -> NormalApproximation:
            location, log_scale = jnp.split(eta, 2)
            return dataclasses.replace(params, location=location, scale=jnp.exp(log_scale))

        def bound(eta: Array) -> Array:
            q = at(eta)
            return self.scored(q, data)[0].mean() + self.entropy(q)

        eta = jnp.concatenate([params.location, jnp.log(params.scale)])
        means = jax.jacfwd(lambda eta: ravel_pytree(at(eta).mean)[0])(eta)
        return params.mean, means @ jnp.linalg.solve(-jax.hessian(bound)(eta), means.T)

    def resample(self, params: NormalApproximation, key: Array, n: int, data: Any = None) -> Any:
        """n draws of the latents by Pareto-smoothed importance resampling: nearer to the posterior than q.

        To be trusted where k-hat is below 0.7; drawn with repetition from ten times as many, or 2,000.
        """
        normals, picks = jax.random.split(key)
        z = jax.random.normal(normals, (max(10 * n, N_DRAWS), self.size), params.location.dtype)
        uniforms = jax.random.uniform(picks, (n,), params.location.dtype)
        return params.values(z[resampled_rows(self.log_ratios(params, z, data), uniforms)])

    def refuse_not_finite(self, params: NormalApproximation, data: Any) -> None:
        """A ValueError that names the latents of the first draw at which the density is not finite."""
        value = np.asarray(self.scored(params, data)[0])
        if (~np.isfinite(value)).any():
            row = int(np.argmax(~np.isfinite(value)))
            latents = jax.tree.map(lambda x: x[row], params.draws)
            raise ValueError(
                f"log_density with the supports' Jacobian is {value[row]} at the start, at {latents}"
            )
        raise ValueError("log_density has a gradient that is not finite where the fit starts")
