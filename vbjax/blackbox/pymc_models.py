"""Models from PyMC, an optional package, imported by the function that needs it.

For users; imports the rest of this room.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from vbjax.blackbox.black_box import BlackBox
from vbjax.blackbox.contracts import FamilyStart, Latents
from vbjax.blackbox.inspection import evaluating
from vbjax.blackbox.supports import Support
from vbjax.families.base import pytree, static
from vbjax.numerics.extras import import_extra

Compiled: TypeAlias = Callable[..., tuple[Array, ...]]  # a graph of PyTensor as a function of JAX
Variable: TypeAlias = Any  # a variable of a graph of PyTensor
PyMCModel: TypeAlias = Any


class _Packages(NamedTuple):
    """Modules of PyMC and PyTensor that are used here."""

    pymc: Any
    compiler: Any
    logprob: Any
    utils: Any
    traversal: Any


def _import_packages() -> _Packages:
    """Import PyMC; JAX keeps the precision that it had, which PyTensor would raise to float64."""
    with ThreadPoolExecutor(1) as pool:  # what holds where no `jax.enable_x64` does
        before = pool.submit(lambda: jax.config.values["jax_enable_x64"]).result()
    modules = ("pymc", "pymc.sampling.jax", "pymc.logprob", "pymc.logprob.utils", "pytensor.graph.traversal")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of one of these packages about another
            return _Packages(*(import_extra("pymc", module) for module in modules))
    finally:
        jax.config.update("jax_enable_x64", before)


@contextlib.contextmanager
def _by_rules_of_pytensor() -> Iterator[None]:
    """Let dtypes be mixed, and float64 be asked for where JAX has float32."""
    with jax.numpy_dtype_promotion("standard"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Explicitly requested dtype")
        yield


@pytree
class Transformed(Support):
    """Support of a latent of PyMC, by the transform that PyMC has for it.

    Attributes:
        forward, backward: the map from a value to u, and from u to a value with the log volume of entries.
        shape, u_shape: of a value, and of its u.
    """

    forward: Compiled = static()
    backward: Compiled = static()
    shape: tuple[int, ...] = static()
    u_shape: tuple[int, ...] = static()

    @property
    def size(self) -> int:
        return math.prod(self.u_shape)

    def to(self, u: Float[Array, " size"]) -> tuple[Array, Float[Array, ""]]:
        with _by_rules_of_pytensor():
            value, stretch = self.backward(u.reshape(self.u_shape))
        return jnp.asarray(value, u.dtype), jnp.sum(jnp.asarray(stretch, u.dtype))

    def back(self, value: Array) -> Float[Array, " size"]:
        with _by_rules_of_pytensor():
            return self.forward(value)[0].astype(value.dtype).reshape(-1)


def from_pymc(
    model: PyMCModel, *, family: str | FamilyStart = "full_rank", n_draws: int | None = None
) -> BlackBox:
    """Return the `BlackBox` of a PyMC model; its latents are the free random variables, in their own space.

    Their log density is the model's, compiled to JAX by PyMC, with potentials and observed data.

    Args:
        model: a `pymc.Model`; data among it are those of the call.
        family, n_draws: as of `BlackBox`.

    Raises:
        ImportError: PyMC is not installed.
        ValueError: no model; a latent that is discrete, or whose support moves with the others; no latent
            at all; an operation that PyTensor has not for JAX.

    ::

        with pymc.Model() as model:
            mu = pymc.Normal("mu", 0, 5)
            pymc.Normal("x", mu, 1, observed=[1.0, 2.0])

        fit = vb.fit(vb.blackbox.from_pymc(model), key=key)
        fit.params.mean["mu"], fit.params.sample(key, 1000)
    """
    packages = _import_packages()
    if not isinstance(model, packages.pymc.Model):
        raise ValueError(f"model must be a pymc.Model; got {type(model).__name__}")
    if not model.free_RVs:
        raise ValueError("model must have a random variable that is not observed; it has none")
    with evaluating("model", "its initial point"):
        start = model.initial_point()
        values = {latent: latent.type(latent.name) for latent in model.free_RVs}
        log_p = _log_density(packages, model, values)
        compiled = packages.compiler.get_jaxified_graph(inputs=list(values.values()), outputs=[log_p])
    support = {}
    for latent in model.free_RVs:
        u = start[model.rvs_to_values[latent].name]
        support[latent.name] = _support(packages, model, latent, u)
    names = [latent.name for latent in model.free_RVs]

    def log_density(latents: Latents) -> Array:
        with _by_rules_of_pytensor():
            return jnp.asarray(compiled(*(latents[name] for name in names))[0])

    return BlackBox(log_density, support, family, n_draws)


def _log_density(packages: _Packages, model: PyMCModel, values: dict[Variable, Variable]) -> Variable:
    """Return the graph of the log density of values of the latents in their own space."""
    observed = {variable: model.rvs_to_values[variable] for variable in model.observed_RVs}
    terms = list(packages.logprob.conditional_logp({**values, **observed}).values())
    replaced = dict(rvs_to_values={**values, **observed}, rvs_to_transforms={})
    terms += packages.utils.replace_rvs_by_values(model.potentials, **replaced)
    return sum(term.sum() for term in terms)


def _support(packages: _Packages, model: PyMCModel, latent: Variable, start: np.ndarray) -> Transformed:
    """Return the support of one latent, whose transform must not take other latents.

    Args:
        start: an unconstrained value of it.
    """
    if not latent.dtype.startswith("float"):
        raise ValueError(f"the latent {latent.name!r} is discrete ({latent.dtype}): sum it out of the model")
    transform, u = model.rvs_to_transforms[latent], model.rvs_to_values[latent]
    value = latent.type()
    if transform is None:
        forward, backward, stretch = value, u, 0 * u
    else:
        inputs = latent.owner.inputs
        forward, backward = transform.forward(value, *inputs), transform.backward(u, *inputs)
        stretch = transform.log_jac_det(u, *inputs)
    if not set(model.basic_RVs).isdisjoint(packages.traversal.ancestors([forward, backward, stretch])):
        raise ValueError(
            f"the support of {latent.name!r} moves with the other latents: write it as a function of one"
        )
    compiled = packages.compiler.get_jaxified_graph
    with evaluating("model", f"the transform of {latent.name}"):
        there = compiled(inputs=[value], outputs=[forward])
        back = compiled(inputs=[u], outputs=[backward, stretch])
        with _by_rules_of_pytensor():
            shape = jax.eval_shape(back, jax.ShapeDtypeStruct(start.shape, start.dtype))[0].shape
    return Transformed(there, back, shape, start.shape)
