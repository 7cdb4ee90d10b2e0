"""Models from NumPyro, an optional package, imported by the function that needs it.

For users; imports the rest of this room.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
from jax import Array
from jaxtyping import Float

from vbjax.blackbox.black_box import BlackBox
from vbjax.blackbox.contracts import FamilyStart, Latents
from vbjax.blackbox.inspection import evaluating
from vbjax.blackbox.supports import Support
from vbjax.families.base import pytree, static
from vbjax.numerics.extras import import_extra
from vbjax.numerics.inputs import is_concrete
from vbjax.numerics.types import Tree

Site: TypeAlias = Mapping[str, Tree]  # a site of NumPyro's trace


@runtime_checkable
class Transform(Protocol):
    """Bijection of NumPyro from R^n, as far as it is used here."""

    def __call__(self, x: Array) -> Array: ...

    def inv(self, y: Array) -> Array: ...

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]: ...

    def log_abs_det_jacobian(self, x: Array, y: Array) -> Array: ...


@pytree
class Bijected(Support):
    """Support that satisfies one of NumPyro's constraints, by the constraint's transform (`biject_to`)."""

    transform: Transform
    shape: tuple[int, ...] = static()

    @property
    def size(self) -> int:
        return math.prod(self.transform.inverse_shape(self.shape))

    def to(self, u: Float[Array, " size"]) -> tuple[Array, Float[Array, ""]]:
        u = u.reshape(self.transform.inverse_shape(self.shape))
        value = self.transform(u)
        return value, self.transform.log_abs_det_jacobian(u, value).sum()

    def back(self, value: Array) -> Float[Array, " size"]:
        return self.transform.inv(value).reshape(-1)


def from_numpyro(
    model: Callable[..., object],
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    *,
    family: str | FamilyStart = "full_rank",
    n_draws: int | None = None,
) -> BlackBox:
    """Return the `BlackBox` of a NumPyro model; its latents are the sample sites, in their own space.

    Args:
        model: a function with NumPyro's primitives.
        args: its arguments, data among them; `fit` then gets none.
        kwargs: its arguments by name.
        family, n_draws: as of `BlackBox`.

    Raises:
        ImportError: NumPyro is not installed.
        ValueError: arguments of another kind; a latent that is discrete, or whose support moves with the
            others; a `param` site; no latent at all; a model that cannot be run.

    ::

        fit = vb.fit(vb.blackbox.from_numpyro(eight_schools, (effects, errors)), key=key)
        fit.params.mean["mu"], fit.params.sample(key, 1000)
    """
    handlers = import_extra("numpyro", "numpyro.handlers")
    util = import_extra("numpyro", "numpyro.infer.util")
    if not callable(model):
        raise ValueError(f"model must be a function with NumPyro's primitives; got {model!r}")
    if not isinstance(args, Sequence) or isinstance(args, str):
        raise ValueError(f"args must be a tuple of the model's arguments; got {type(args).__name__}")
    if not isinstance(kwargs, Mapping | None):
        raise ValueError(f"kwargs must be a dict of the model's arguments; got {type(kwargs).__name__}")
    kwargs = {} if kwargs is None else kwargs
    initial = import_extra("numpyro", "numpyro.infer").init_to_uniform  # draws from improper priors too

    def sites(seed: int) -> Mapping[str, Site]:
        drawn = handlers.substitute(handlers.seed(model, seed), substitute_fn=initial)
        return handlers.trace(drawn).get_trace(*args, **kwargs)

    with evaluating("model", "args and kwargs"):
        first, again = sites(0), sites(1)
    support = {}
    for name, site in first.items():
        if site["type"] == "param":
            raise ValueError(f"model must have no param sites, which are not latents; got {name!r}")
        if site["type"] == "sample" and not site["is_observed"]:
            support[name] = _support(name, site, again[name])
    if not support:
        raise ValueError("model must have a sample site that is not observed; it has none")

    def log_density(latents: Latents) -> Array:
        return util.log_density(model, args, kwargs, dict(latents))[0]

    return BlackBox(log_density, support, family, n_draws)


def _support(name: str, site: Site, again: Site) -> Bijected:
    """Return the support of one sample site, which must be equal in two runs of the model."""
    constraint = site["fn"].support
    if constraint.is_discrete:
        raise ValueError(f"the latent {name!r} is discrete ({site['fn']}): sum it out of the model first")
    pairs = jax.tree.leaves(constraint), jax.tree.leaves(again["fn"].support)
    if is_concrete(pairs) and not all(map(np.array_equal, *pairs)):
        raise ValueError(
            f"the support of {name!r} moves with the other latents: write it as a function of one"
        )
    transform = import_extra("numpyro", "numpyro.distributions").biject_to(constraint)
    return Bijected(transform, np.shape(site["value"]))
