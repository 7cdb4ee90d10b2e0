"""`BlackBox`: variational inference for any log density, on unconstrained space. For users, by `fit`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from vbjax.blackbox.algorithms.estimators import surrogate
from vbjax.blackbox.algorithms.natural_ascent import NaturalAscent
from vbjax.blackbox.algorithms.paths import follow_paths, overdispersed
from vbjax.blackbox.algorithms.structured_ascent import StructuredAscent
from vbjax.blackbox.approximation import (
    Approximation,
    constrain,
    support_leaves,
    support_size,
)
from vbjax.blackbox.contracts import (
    Distribution,
    FamilyStart,
    Free,
    Latents,
    SupportTree,
    WithDiscrete,
    WithLocal,
    needs_fresh_draws,
)
from vbjax.blackbox.diagnostics import Diagnostics, diagnose_until_clear, most_lots
from vbjax.blackbox.families import LocationScale, entropy, to_free
from vbjax.blackbox.flows import Flow
from vbjax.blackbox.inspection import (
    inspect_family,
    inspect_function,
    inspect_n_draws,
    inspect_params,
    inspect_support,
)
from vbjax.blackbox.local_latents import (
    DrawLocal,
    inspect_local,
    local_shapes,
    map_with_local,
    sample_rows,
    score_rows,
)
from vbjax.blackbox.proposals import diagnose_by_proposals, resample_draws
from vbjax.blackbox.scales import Slope
from vbjax.blackbox.starts import StructuredStart, start_of_latents
from vbjax.blackbox.structured.probing import find_sparsity
from vbjax.core.contracts import Algorithm, Options
from vbjax.core.devices import jit_over_mesh
from vbjax.core.model import ConjugateModel
from vbjax.core.presentation import model_repr, offered
from vbjax.core.rows import Annotated, blank_idle, float_dtype, n_rows
from vbjax.families.base import pytree, replace, static
from vbjax.inference.derivatives import LinearResponse, linear_response
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import as_array, read_arrays, read_count, read_key
from vbjax.numerics.types import Data

_LONGEST = 100  # steps of a path to a start
_LARGEST = 2**24  # numbers in the Hessians of all paths; more take one start


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
        family: "full_rank", "mean_field" (independent entries) or "blocks" (independent latents), which are
            normals and fitted by natural gradients, or "structured", a normal whose precision is as sparse
            as the log density's Hessian (see below); `blackbox.low_rank(rank)`, `blackbox.mixture(n,
            of=family)`, or a function of `(key, sizes, dtype)` that returns a pytree with `sample(key, n)`,
            draws (n, d) differentiable in its arrays, and `log_prob(u)`, (n,), where d is the sum of sizes;
            these are fitted by L-BFGS, unless q has `needs_fresh_draws = True`. `blackbox.flow(build)`, a
            flow of flowjax, has; and discrete latents (`category`), which are independent in q: the fit is
            then one by stochastic gradients.
        n_draws: number of draws, even; by default max(128, 8 d), and 128 for "structured". "full_rank" and
            "blocks" need more than 2 d.
        log_likelihood: `log_likelihood(latents, rows)`, one number for each row. The density is then
            `log_density(latents)` plus their sum, and rows may have weights and come in minibatches.
        local: supports of the latents that each row has for itself, for a model with log_likelihood, which is
            then `log_likelihood(latents, local, rows)`, log p(row, its latents | latents) for each row; the
            leaves of `local` have the rows in front. The family is `blackbox.amortized(encoder)`.
        n_paths: number of points from which paths to modes start a fit of "full_rank", "mean_field", "blocks"
            or a flow (`blackbox.pathfinder`); the fit climbs from the end of the best. Other families, and
            latents of more than some 1,000 numbers, have one start.

    "structured" is for chains, hierarchies and fields of many latents. `fit` finds which of the d numbers
    interact by products of the Hessian with random vectors at two random points (some 10 log2 d of them, for
    a chain), orders them as a band of width w beside a border of b numbers that touch all (reverse
    Cuthill-McKee), and keeps the precision in that order. Time and memory are then linear in d: a sweep takes
    d (w + b)^2 steps and, for each draw, as many Hessian products as columns of the pattern need colours (3
    for a chain, b more for the border). Of a square grid w is sqrt(d), and a sweep takes d^2 steps. Means and
    standard deviations are exact where log p is quadratic; `covariance` and quantiles are those of the draws.
    `blackbox.structured(sparsity)` takes a sparsity that is known.

    Raises:
        ValueError: at `fit`, for a tree without supports, an unknown family, too few draws, or a density that
            is no scalar or is not finite where the fit starts.

    References:
        Kucukelbir et al. (2017); Lin, Khan & Schmidt (2019); Giordano, Ingram & Broderick (2024).

    >>> import jax, vbjax as vb
    >>> heads = lambda s: 7 * jax.numpy.log(s.p) + 3 * jax.numpy.log1p(-s.p)
    >>> fit = vb.fit(vb.BlackBox(heads, dict(p=vb.unit_interval())), key=jax.random.key(0))
    >>> print(f"{fit.params.mean.p:.2f} +- {fit.params.sd.p:.2f}")  # Beta(8, 4): 0.67 +- 0.13
    0.67 +- 0.13
    """

    log_density: Callable[..., Array] = static()
    support: SupportTree = dataclasses.field()
    family: str | FamilyStart = static(default="full_rank")
    n_draws: int | None = static(default=None)
    log_likelihood: Callable[..., Array] | None = static(default=None)
    local: SupportTree = None
    n_paths: int = static(default=16)
    found: StructuredStart | None = static(default=None, init=False, repr=False)  # "structured": by `inspect`

    lanes_on_cpu = 4
    may_have_saddles = False
    has_moves = False
    named_axes: ClassVar[Mapping[str, int]] = {}

    def __repr__(self) -> str:
        return model_repr(self)

    def __dir__(self) -> list[str]:
        return offered(super().__dir__(), ConjugateModel)

    @property
    def size(self) -> int:
        """Number d of real numbers that the latents are made from."""
        return support_size(self.support)

    # -- what `fit` calls ----------------------------------------------------------------------------

    def read(self, data: Data) -> Data:
        """Return the data as arrays; with a log_likelihood their leading axes are the rows."""
        if self.log_likelihood is not None:
            return read_arrays(data, "data")
        return jax.tree.map(lambda x: as_array(x, "data"), data)

    def inspect(self, data: Data) -> BlackBox:
        """Refuse a model that cannot be fitted to the data."""
        for name in ("log_density", "log_likelihood"):
            given = getattr(self, name)
            if not callable(given) and not (given is None and name == "log_likelihood"):
                raise ValueError(f"{name} must be a function; got {given!r}")
        inspect_support(self.support, discrete=True)
        read_count(self.n_paths, "n_paths")
        if not isinstance(self.family, str) or self.family != "structured":
            return self._inspected(data)
        self._inspect_density(data)
        return replace(self, found=StructuredStart(find_sparsity(self, data)))._inspected(data)

    def _inspected(self, data: Data) -> BlackBox:
        """Return the model, whose family is known; refuse one that cannot be fitted to the data."""
        q = self.inspect_family(float_dtype(data))
        inspect_local(self.local, self.log_likelihood, q, data)
        least = q.kind.least_draws(self.size) if isinstance(q, LocationScale) else 2
        inspect_n_draws("n_draws", self._draws_of(q), least, self.size)
        self._inspect_density(data)
        return self

    def inspect_family(self, dtype: DTypeLike) -> Distribution:
        """Return the shapes of q at its start; refuse a family that does not fit the latents."""
        return inspect_family(lambda key: self._start(key, dtype), self.size)

    def _inspect_density(self, data: Data) -> None:
        """Refuse functions that do not give real numbers of the right shape at the latents."""
        dtype = float_dtype(data)
        alone = data is None or self.log_likelihood is not None
        inspect_function("log_density", self.log_density, self.support, dtype, () if alone else (data,), ())
        if self.log_likelihood is None:
            return
        if data is None:
            raise ValueError("log_likelihood needs data; there are none")
        local = () if self.local is None else (local_shapes(self.local, n_rows(data), dtype),)
        given, shape = (*local, data), (n_rows(data),)
        inspect_function("log_likelihood", self.log_likelihood, self.support, dtype, given, shape)

    def resolve(self, data: Data, weights: Array | None = None) -> BlackBox:
        """Return the model, of which nothing follows the data; refuse weights where there are no rows."""
        if weights is not None and self.log_likelihood is None:
            raise ValueError(
                "weights are for models of rows: give log_likelihood, or weigh its terms yourself"
            )
        return self

    def annotate(self, data: Data, weights: Array | None = None) -> Data:
        """Return the data, with the weights of their rows if there are any."""
        return data if weights is None else Annotated(data, constant=weights)

    def inspect_options(self, data: Data, options: Options) -> None:
        """Refuse options of coordinate ascent, and a tolerance where the stopping rule has none."""
        if options.accelerate or options.check:
            raise ValueError("accelerate and check are for coordinate ascent, which BlackBox has not")
        if options.search:
            raise ValueError("search is for models of components, states or topics, which BlackBox has not")
        if options.tol is not None and needs_fresh_draws(self.inspect_family(float_dtype(data))):
            raise ValueError(
                "tol is for fits on fixed draws; stochastic ascent, which discrete latents and flows need, "
                "stops by a rule of its own: see vb.blackbox.StochasticAscent"
            )

    def algorithm(self, data: Data, options: Options) -> Algorithm:
        """Return the algorithm that suits the family."""
        # two of these take optax, which is imported at its first use
        from vbjax.blackbox.algorithms.fixed_draws import FixedDraws
        from vbjax.blackbox.algorithms.stochastic_ascent import GENTLE, StochasticAscent

        dtype = float_dtype(data)
        q = self.inspect_family(dtype)
        if isinstance(q, WithDiscrete):
            return StochasticAscent(self)
        if needs_fresh_draws(q):
            return StochasticAscent(self, GENTLE)
        tol = jnp.asarray(options.tol, dtype)
        if not isinstance(q, LocationScale):
            return FixedDraws(self, tol)
        return (StructuredAscent if q.kind.needs_hessian else NaturalAscent)(self, tol)

    def ill_conditioned(self, params: Approximation) -> Bool[Array, ""]:
        """Return False: there is no covariance of data whose rounding could spoil the bound."""
        return jnp.asarray(False)

    def singular(self, params: Approximation) -> Bool[Array, ""]:
        """Return False: a scale that vanishes has no finite bound."""
        return jnp.asarray(False)

    def empty(self, params: Approximation) -> None:
        """Return None: there are no components."""

    def _draws_of(self, q: Distribution) -> int:
        """Return the number of draws of a fit by this family."""
        if self.n_draws is not None:
            return self.n_draws
        return q.kind.usual_draws(self.size) if isinstance(q, LocationScale) else max(128, 8 * self.size)

    def init(self, key: Array, data: Data = None) -> Approximation:
        """Return the best normal of several paths, or the start of another family, with the fit's draws."""
        start, place = self.begin(key, data)
        normal = start.q.normal if isinstance(start.q, Flow) else start.q
        if not isinstance(normal, LocationScale) or normal.kind.needs_hessian:
            return start
        if self.n_paths * self.size**2 > _LARGEST:
            return start
        begun = dataclasses.replace(start, q=normal)
        best: Approximation = self.follow_paths(begun, place, data, jnp.asarray(_LONGEST))
        return dataclasses.replace(best, q=start.q.about(best.q)) if isinstance(start.q, Flow) else best

    def begin(self, key: Array, data: Data = None) -> tuple[Approximation, Array]:
        """Return the start of the family, with the draws of a fit; and a key for more points."""
        dtype = float_dtype(data)
        place, rest = jax.random.split(key)
        q = self._start(place, dtype)
        start = Approximation.begin(q, rest, self._draws_of(q), self.support, dtype)
        return start, jax.random.fold_in(place, 1)

    def follow_paths(
        self, start: Approximation[LocationScale], key: Array, data: Data, max_iter: Array
    ) -> Approximation[LocationScale]:
        """Return the best normal of `n_paths` paths, the first of which begins at `start`, with the paths."""
        points = overdispersed(key, start.q, self.n_paths)
        log_p = lambda u: self.log_joint(u, data)
        q, paths = follow_paths(log_p, start.q, start.noise, points, max_iter)
        return dataclasses.replace(start, q=q, paths=paths)

    def _start(self, key: Array, dtype: DTypeLike) -> Distribution:
        family = self.family if self.found is None else self.found
        return start_of_latents(family, support_leaves(self.support), key, dtype)

    # -- the bound, and what users compute from it ---------------------------------------------------

    def _density(self, latents: Latents, data: Data) -> Array:
        alone = data is None or self.log_likelihood is not None
        return self.log_density(latents) if alone else self.log_density(latents, data)

    def log_joint(
        self, u: Float[Array, " d"], data: Data = None, share: float = 1, draw_local: DrawLocal | None = None
    ) -> Float[Array, ""]:
        """Compute log p(latents, data) + log |Jacobian| at unconstrained u.

        Args:
            share: the share of all rows that `data` holds; the log likelihood is divided by it.
            draw_local: of a model with local latents, draws those of rows, unconstrained, with their log
                density, which is subtracted.
        """
        latents, stretch = constrain(self.support, u)
        log_p = jnp.asarray(self._density(latents, data), u.dtype) + stretch
        if self.log_likelihood is None:
            return log_p
        if isinstance(data, Annotated):
            weights = data.constant
            rows = blank_idle(data.rows, weights)
            each = score_rows(self.log_likelihood, self.local, latents, rows, draw_local)
            each = jnp.where(weights == 0, 0, weights * each)
        else:
            each = score_rows(self.log_likelihood, self.local, latents, data, draw_local)
        return log_p + each.sum().astype(u.dtype) / share

    def log_joints(
        self, q: Distribution, u: Float[Array, "n d"], key: Array, data: Data = None, share: float = 1
    ) -> Float[Array, " n"]:
        """Compute `log_joint` at every row of u; with local latents, on fresh draws of theirs by q."""
        if not isinstance(q, WithLocal):
            return jax.vmap(lambda u: self.log_joint(u, data, share))(u)
        return map_with_local(lambda u, draw: self.log_joint(u, data, share, draw), q, u, key)

    def sample_local(self, params: Approximation, key: Array, n: int, data: Data) -> Latents:
        """Draw n values of the local latents of the rows of data; n, then the rows, lead their shapes.

        Raises:
            ValueError: a model without local latents; parameters of another; a key or a number of another
                kind.
        """
        inspect_params(self.support, params)
        if not isinstance(params.q, WithLocal) or self.local is None:
            raise ValueError("sample_local is for models with local latents")
        rows = self.read(data)
        return sample_rows(self.local, params.q, read_key(key), read_count(n, "n"), rows)

    def score_draws(
        self, params: Approximation, data: Data = None
    ) -> tuple[Float[Array, " n"], Float[Array, "n d"]]:
        """Compute `log_joint` and its gradients at the draws of the fit."""
        inspect_params(self.support, params)
        u, q = params.points()[0], params.q
        if isinstance(q, WithLocal):
            value, pull = jax.vjp(lambda u: self.log_joints(q, u, params.key, data), u)
            return value, pull(jnp.ones_like(value))[0]
        return jax.vmap(jax.value_and_grad(lambda u: self.log_joint(u, data)))(u)

    def slope(self, params: Approximation[LocationScale], data: Data = None) -> Any:
        """Compute the gradient of the bound of a normal on the draws of the fit, a slope of its kind."""
        q = params.q
        if q.kind.needs_hessian:
            return q.kind.slope_at(lambda u: self.log_joint(u, data), q.location, q.scale, params.noise)
        return q.kind.slope(q.scale, params.noise, self.score_draws(params, data)[1])

    def bound(self, params: Approximation, data: Data = None) -> Float[Array, ""]:
        """Compute the bound E_q[log p] + H[q] on the draws of the fit."""
        inspect_params(self.support, params)
        u, w = points = params.points()
        return w @ self.log_joints(params.q, u, params.key, data) + entropy(params.q, points)

    def log_ratios(
        self, params: Approximation, u: Float[Array, "n d"], data: Data = None
    ) -> Float[Array, " n"]:
        """Compute log p - log q at every row of unconstrained u."""
        inspect_params(self.support, params)
        return self.log_joints(params.q, u, params.key, data) - params.q.log_prob(u)

    def gradient_norm(self, params: Approximation, data: Data = None) -> Float[Array, ""]:
        """Compute the length of the bound's gradient.

        For a normal it is that of the natural gradient, in standard deviations of q; for other families that
        of the gradient in their `to_free` arrays.
        """
        inspect_params(self.support, params)
        return self._slope(params, data)[0]

    def _slope(self, params: Approximation, data: Data) -> tuple[Float[Array, ""], Slope | None]:
        """Return the length of the bound's gradient; and, of a normal, the slope that has it."""
        q = params.q
        if isinstance(q, LocationScale):
            slope = self.slope(params, data)
            return jnp.sqrt(2 * q.kind.gain(slope)), None if q.kind.needs_hessian else slope

        def value(free: Free) -> Float[Array, ""]:
            here = params.at(free)
            log_joints = lambda u: self.log_joints(here.q, u, params.key, data)
            return surrogate("pathwise", log_joints, here.q, here.points())

        gradient = jax.grad(value)(to_free(q))
        return jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradient))), None

    def diagnose(self, params: Approximation, data: Data = None) -> Diagnostics:
        """Compute the diagnostics of a fit, from draws that it has not seen."""
        inspect_params(self.support, params)
        lanes = 2  # q, and what judges it
        most = most_lots(lanes * self.size)
        return diagnose_until_clear(lambda n_lots: _diagnosed(self, params, data, n_lots=n_lots), most)

    def _diagnose(
        self, params: Approximation, data: Data, n_lots: int
    ) -> tuple[Diagnostics, Bool[Array, ""]]:
        norm, slope = self._slope(params, data)
        log_joints = lambda u, key: self.log_joints(params.q, u, key, data)
        factorised = self.family == "mean_field"
        return diagnose_by_proposals(params, log_joints, norm, slope, factorised=factorised, n_lots=n_lots)

    def mean_response(self, params: Approximation, data: Data) -> tuple[Latents, Float[Array, "p p"]]:
        """Compute the means of the latents and their response to pulls, for `vb.linear_response`.

        With G the derivative of the means in m and log sd, and H the Hessian of the bound in these, the
        matrix is G (-H)^-1 G' (Giordano, Broderick & Jordan 2018, eq. 13), over all entries of the latents.

        Raises:
            ValueError: another family than "mean_field"; parameters of another model.
        """
        if self.family != "mean_field":
            raise ValueError(
                f"linear_response is for family='mean_field'; {self.family!r} has covariances of its own"
            )
        inspect_params(self.support, params)
        return _mean_response(self, params, self.read(data))

    def linear_response(self, params: Approximation, data: Data = None) -> LinearResponse:
        """Compute the covariances that a mean field does not show (`vb.linear_response`).

        Of a fit it is `fit.linear_response(data)`.

        Raises:
            ValueError: another family than "mean_field"; parameters of another model.
        """
        return linear_response(self, params, data)

    def resample(self, params: Approximation, key: Array, n: int, data: Data = None) -> Latents:
        """Draw n values of the latents by Pareto-smoothed importance resampling, closer to the posterior.

        They are taken, with repetition, from max(10 n, 2000) draws of q; of a normal, from a mixture with a
        Student-t that also has the correlations which q lacks (Hesterberg 1995). To be trusted unless the
        verdict says that q may miss part of the posterior.

        Raises:
            ValueError: parameters of another model; a key or a number of another kind.
        """
        inspect_params(self.support, params)
        data = self.read(data)
        self._inspect_density(data)
        return _resample(self, params, read_key(key), read_count(n, "n"), data)

    def refuse_not_finite(self, params: Approximation, data: Data) -> None:
        """Raise a ValueError that names the latents of the first draw at which the density is not finite."""
        value, gradient = map(np.asarray, self.score_draws(params, data))
        if (~np.isfinite(value)).any():
            row = int(np.argmax(~np.isfinite(value)))
            latents = jax.tree.map(lambda x: x[row], params.draws)
            raise ValueError(
                f"log_density with the supports' Jacobian is {value[row]} at the start, at {latents}"
            )
        if not np.isfinite(gradient).all():
            raise ValueError("log_density has a gradient that is not finite where the fit starts")


# apart from the loop of a fit: it runs once, and most of its time is compilation
_diagnosed = jit_over_mesh(BlackBox._diagnose, static=["n_lots"], quickly=True)


@jit
def _mean_response(model: BlackBox, params: Approximation, data: Data) -> tuple[Latents, Float[Array, "p p"]]:
    def at(eta: Float[Array, " 2*d"]) -> Approximation:
        return params.at(tuple(jnp.split(eta, 2)))

    eta = jnp.concatenate(to_free(params.q))
    means = jax.jacfwd(lambda eta: ravel_pytree(at(eta).mean)[0])(eta)
    return params.mean, means @ jnp.linalg.solve(
        -jax.hessian(lambda eta: model.bound(at(eta), data))(eta), means.T
    )


@functools.partial(jit, static_argnames="n")
def _resample(model: BlackBox, params: Approximation, key: Array, n: int, data: Data) -> Latents:
    slope = model._slope(params, data)[1]
    log_joints = lambda u, key: model.log_joints(params.q, u, key, data)
    return params.values(resample_draws(params, log_joints, slope, key, n))
