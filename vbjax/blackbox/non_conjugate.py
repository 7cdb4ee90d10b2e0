"""`NonConjugate`: a factor of `vb.Model` for a latent in whose statistics the log joint is not affine.

Its q is a normal on unconstrained space, which the engine knows by fixed, matched draws
(`families.monte_carlo`). Its step is that of `NaturalAscent`, and the sweep takes the step back where the
bound would fall. For users; imports families and this room.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float

from vbjax.blackbox.approximation import constrain, support_size
from vbjax.blackbox.contracts import Latents, SupportTree
from vbjax.blackbox.families import with_equal_weights
from vbjax.blackbox.inspection import inspect_n_draws, inspect_support
from vbjax.blackbox.moments import DrawnMoments
from vbjax.blackbox.normal_draws import matched_draws
from vbjax.blackbox.scales import Diagonal, Full
from vbjax.blackbox.starts import START_SD
from vbjax.blackbox.supports import Support
from vbjax.families.base import Family, State, pytree, static
from vbjax.families.monte_carlo import Draws
from vbjax.numerics.special import LOG_2PI

_FAMILIES: dict[str, type[Diagonal | Full]] = {"full_rank": Full, "mean_field": Diagonal}


@pytree
class NonConjugateState(DrawnMoments, State):
    """Normal u ~ N(location, L L') on unconstrained space, and the latent constrain(u).

    `mean`, `sd`, `variance`, `covariance` and `quantile(p)` are those of the draws of the fit.

    Attributes:
        location: (d,).
        scale: L, (d,) standard deviations or (d, d) lower triangular.
        base: (n, d), the standard normal draws of the fit, from which `draws` are made.
        support: support of the latent.
        kind: `Diagonal` or `Full`.

    >>> import vbjax as vb
    >>> q = vb.NonConjugate(vb.positive(2)).neutral("float32")
    >>> print(q.location, (q.mean > 0).all())  # log-normal: the location is that of the logarithms
    [0. 0.] True
    """

    location: Float[Array, " d"]
    scale: Float[Array, " d"] | Float[Array, "d d"]
    base: Float[Array, "n d"] = dataclasses.field(repr=False)
    support: SupportTree = dataclasses.field()
    kind: Diagonal | Full = static()

    @property
    def domains(self) -> dict[str, str]:  # type: ignore[override]
        full = isinstance(self.kind, Full)
        return {"location": "location", "scale": "triangular" if full else "positive"}

    @property
    def location_scale(self) -> Float[Array, " d"]:
        """Standard deviations on unconstrained space."""
        return jnp.sqrt((self.scale**2).sum(-1)) if isinstance(self.kind, Full) else self.scale

    def place(self, z: Float[Array, "m d"]) -> tuple[Latents, Float[Array, ""]]:
        """Return the latent at standard normals z, and the mean log volume of the map there."""
        u = self.location + self.kind.apply(self.scale, z)
        values, stretch = jax.vmap(lambda u: constrain(self.support, u))(u)
        return values, stretch.mean()

    def statistics(self, x: Latents) -> Draws:
        """Return a value as a single draw."""
        return Draws(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], x), jnp.zeros_like(self.location[0]))

    def expected(self) -> Draws:
        values, stretch = self.place(self.base)
        return Draws(values, -stretch)

    def base_entropy(self) -> Float[Array, ""]:
        """Return H[q] on unconstrained space."""
        return self.kind.log_det(self.scale) + 0.5 * len(self.location) * (1 + LOG_2PI)

    @property
    def draws(self) -> Latents:
        """Latent at the draws with which the fit was made."""
        return self.place(self.base)[0]

    def weighted_draws(self) -> tuple[Float[Array, " n"], Latents]:
        """Return the weights of the fit's draws, and the latent at them."""
        return with_equal_weights(self.base)[1], self.draws

    def draw(self, key: Array, shape: tuple[int, ...]) -> Latents:
        z = jax.random.normal(key, (int(np.prod(shape)), len(self.location)), self.location.dtype)
        return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), self.place(z)[0])

    def towards(self, gradient: Draws, rho: ArrayLike) -> NonConjugateState:
        """Return the state after a natural-gradient step of length rho; NaN where it leaves the family.

        Args:
            gradient: gradient of the expected log joint in `expected()`, a mean over the draws.
        """
        at = lambda u: jax.vmap(lambda u: constrain(self.support, u))(u)
        n, (u, w) = len(self.base), with_equal_weights(self.location + self.kind.apply(self.scale, self.base))
        # cotangents of the values and of the log volumes, which are part of the density of u
        (slopes,) = jax.vjp(at, u)[1]((gradient.value, w))
        slope = self.kind.slope(self.scale, self.base, n * slopes)
        location, scale = self.kind.move(self.location, self.scale, slope, jnp.asarray(rho, u.dtype))
        return dataclasses.replace(self, location=location, scale=scale)


@dataclasses.dataclass(frozen=True, eq=False)
class NonConjugate(Family):
    """Factor of `vb.Model` for a latent that is not conjugate; in the log joint `s.w` is a value of it.

    q(w) is a normal N(m, L L') on unconstrained space, carried to the support. E_q is the mean over draws
    w_j = constrain(m + L z_j), whose z_j are fixed for a fit and exactly of mean 0 and covariance I. So the
    bound is a function of m, L and the other factors, and still affine in the statistics of the latter: they
    have their closed-form updates, from the mean over the draws, and w has a natural-gradient step. With g_j
    the gradient of E[log p] in the unconstrained w_j, log |Jacobian| included, and K = -E[(L' g) z'], made
    symmetric,

        S^-1 <- (1 - rho) S^-1 + rho L^-T K L^-1,   m <- m + rho S E[g],   S = L L':

    with rho = 1 the exact update where the log joint is quadratic in w. The step is shortened until the
    bound does not fall: `fit` never lowers it.

    Args:
        support: `vb.real(3)`, `vb.positive()`, ...; or a pytree of them, for latents with one joint normal
            (`s.w.a` and `s.w.b` of a dict).
        family: "full_rank" or "mean_field" (every entry by itself).
        n_draws: number of draws, even; by default max(128, 8 d), where d counts the numbers that all such
            factors of a model are made from. These factors share their draws, and the largest n_draws holds.

    Raises:
        ValueError: no support, an unknown family, a number of draws that is odd or not above 2 d; from `fit`
            and other drivers, for such a factor as a local one, inside `vb.Delta`, or where a conditional or
            a response in closed form is needed (`vb.gibbs`, `vb.linear_response`, `vb.optimum`).

    References:
        Khan & Lin (2017), Conjugate-computation variational inference, AISTATS, eq. 9 to 11; Lin, Khan &
        Schmidt (2019), on Stein's lemma; Giordano, Ingram & Broderick (2024), on fixed draws.

    >>> import jax, vbjax as vb
    >>> from vbjax.terms import gamma, normal
    >>> counts = jax.numpy.array([2.0, 3.0, 6.0, 9.0])
    >>> model = vb.Model(
    ...     factors=dict(w=vb.NonConjugate(vb.real(2)), tau=vb.Gamma()),
    ...     log_prior=lambda s: normal(s.w, 0.0, s.tau).sum() + gamma(s.tau, 1.0, 1.0),
    ...     log_likelihood=lambda s, d: d[1] * (d[0] @ s.w) - jax.numpy.exp(d[0] @ s.w),
    ... )
    >>> x = jax.numpy.array([[1.0, -1.5], [1.0, -0.5], [1.0, 0.5], [1.0, 1.5]])
    >>> fit = vb.fit(model, (x, counts), key=jax.random.key(0))
    >>> print(f"{fit.params.w.mean[1]:.1f} {fit.params.tau.concentration}")  # of a Gamma(1 + 2 / 2, ...)
    0.5 2.0
    """

    plate: tuple[int, ...] = dataclasses.field(default=(), init=False, repr=False)  # shapes are the support's
    support: SupportTree = dataclasses.field(default_factory=Support)
    family: str = "full_rank"
    n_draws: int | None = None
    guarded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        inspect_support(self.support, discrete=False)
        if not isinstance(self.family, str) or self.family not in _FAMILIES:
            raise ValueError(f"family must be one of {', '.join(_FAMILIES)}; got {self.family!r}")
        if self.n_draws is not None:
            inspect_n_draws("n_draws", self.n_draws, 2 * self.size + 2, self.size)

    def _key(self) -> tuple[Hashable, ...]:
        """Return what two equal factors have in common: arrays of the support by their bytes."""
        ends, structure = jax.tree.flatten(self.support)
        return structure, tuple(np.asarray(x).tobytes() for x in ends), self.family, self.n_draws

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NonConjugate) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    @property
    def size(self) -> int:
        """Number d of real numbers that the latent is made from."""
        return support_size(self.support)

    def _state(self, location: Float[Array, " d"], base: Float[Array, "n d"]) -> NonConjugateState:
        """Return a narrow normal about a location, with given draws."""
        dtype, kind = base.dtype, _FAMILIES[self.family]()
        support = jax.tree.map(lambda x: jnp.asarray(x, dtype), self.support)
        return NonConjugateState(location, START_SD * kind.start(self.size, dtype), base, support, kind)

    def neutral(self, dtype: DTypeLike) -> NonConjugateState:
        """Return a narrow normal about the origin, with two draws."""
        ones = jnp.ones((1, self.size), dtype)
        return self._state(jnp.zeros(self.size, dtype), jnp.concatenate([ones, -ones]))

    @staticmethod
    def starts(
        families: Mapping[str, NonConjugate], key: Array, dtype: DTypeLike
    ) -> dict[str, NonConjugateState]:
        """Return narrow normals about standard normal points, with draws that are matched jointly.

        Raises:
            ValueError: `n_draws` out of range.
        """
        sizes = [family.size for family in families.values()]
        d, least = sum(sizes), 2 * sum(sizes) + 2
        for name, family in families.items():
            if family.n_draws is not None:
                inspect_n_draws(f"n_draws of {name!r}", family.n_draws, least, d)
        n = max((f.n_draws for f in families.values() if f.n_draws is not None), default=max(128, 8 * d))
        place, draw = jax.random.split(key)
        locations = jnp.split(jax.random.normal(place, (d,), dtype), np.cumsum(sizes)[:-1])
        bases = jnp.split(matched_draws(draw, n, d, dtype), np.cumsum(sizes)[:-1], 1)
        pairs = zip(families.items(), locations, bases, strict=True)
        return {name: family._state(location, base) for (name, family), location, base in pairs}

    def step(
        self, state: NonConjugateState, statistics: Draws, gradient: Draws, rho: ArrayLike
    ) -> NonConjugateState:
        """Return the state after a natural-gradient step of length rho."""
        return state.towards(gradient, rho)
