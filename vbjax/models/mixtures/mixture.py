"""Mixtures: a component, and weights that draw the label of every row."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp, xlogy
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from vbjax.core.devices import jit_over_mesh
from vbjax.core.hyperparameters import count, part
from vbjax.core.model import ConjugateModel, scored_rows
from vbjax.core.rows import (
    Expectation,
    expectation,
    float_dtype,
    n_rows,
    read_row_weights,
    sum_over_rows,
    sweep_rows,
    total_weight,
)
from vbjax.data.labelled import keep_known, labels_of, read_labelled, rows_of, with_rows
from vbjax.families.base import pytree, replace
from vbjax.families.categorical import Categorical
from vbjax.inference.replicate import restore_missing, sample_posterior
from vbjax.models.components import moves
from vbjax.models.components.component import Component
from vbjax.models.components.seeding import draw_active
from vbjax.models.labels.labels import Labels
from vbjax.models.labels.weights import Weights
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import read_count, read_key
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Params, Tree


@pytree
class Mixture(ConjugateModel):
    """Rows x_n | c_n from component c_n, c_n ~ Categorical(weights); maximum likelihood or MAP by EM.

    With responsibilities r_nk proportional to weights_k p(x_n | component k), components maximise
    sum_n r_nk log p(x_n | component k), and weights_k = sum_n r_nk / N (Bishop 2006, section 9.3).
    `BayesianMixture` is the same model by variational Bayes.

    Data: as the component takes them, with `vb.labels.Gated` a pair of covariates and these, or `vb.Labelled`
    where some labels are known. The factors are `weights` and `components`, points (`Delta`).

    Args:
        n_components: k.
        component: what a row is like, of `vb.components`.
        weights: who chooses the component, of `vb.labels`.

    Raises:
        ValueError: data that are none of the component's; a hyperparameter out of range.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([[2, 30], [1, 25], [20, 3], [24, 2]])
    >>> fit = vb.fit(vb.Mixture(2, vb.components.Poisson()), x, key=jax.random.key(0), n_restarts=4)
    >>> labels = fit.model.predict(fit.params, x)
    >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
    True
    """

    n_components: int = count("k")
    component: Any = part(Component, "a component, such as vb.components.Poisson()")
    weights: Any = part(
        Labels,
        "labels, such as vb.labels.Weights()",
        lambda model, labels: labels.of_rows,
        default=Weights(),
    )

    draws_data = True
    has_moves = True
    named_axes: ClassVar[Mapping[str, int]] = dict(components=1)
    points: ClassVar[bool] = True
    """Whether weights and components are points, fitted by EM."""

    def __post_init__(self) -> None:
        for name in ("component", "weights"):
            if isinstance(value := getattr(self, name), (Component, Labels)):
                object.__setattr__(self, name, value.of(self.n_components, self.points))

    # -- data ----------------------------------------------------------------------------------------

    def read(self, data: Data) -> Data:
        read = lambda data: self.weights.read(data, self.component.read)
        return read_labelled(data, read, self.n_components)

    def _split(self, data: Data) -> tuple[Array | None, Data]:
        """Return the covariates of the rows, and the rows, without labels."""
        return self.weights.split(rows_of(data))

    def _rows(self, data: Data) -> Data:
        return self._split(data)[1]

    def sizes(self, data: Data) -> dict[str, int]:
        return self.component.sizes(self._rows(data)) | self.weights.sizes(rows_of(data))

    def inspect(self, data: Data) -> Tree:
        self.weights.inspect(self.component)
        return replace(self, component=self.component.inspect(self._rows(data)))

    def resolve(self, data: Data, weights: Array | None = None) -> Tree:
        covariates, rows = self._split(data)
        labels = self.weights.resolve(float_dtype(data), covariates, weights)
        return replace(self, component=self.component.resolve(rows, weights), weights=labels)

    def annotate(self, data: Data, weights: Array | None = None) -> Data:
        covariates, rows = self._split(data)
        return with_rows(data, self.weights.join(covariates, self.component.annotate(rows, weights)))

    def chunk_rows(self, data: Data) -> int:
        return self.component.chunk_rows(self.component.bare(self._rows(data)))

    # -- the model -----------------------------------------------------------------------------------

    @property
    def factors(self) -> Record:
        return self.weights.factors | self.component.factors

    def local(self, rows: Data) -> Record:
        return Record(c=Categorical(self.n_components, plate=(n_rows(rows),)))

    def log_prior(self, s: Record) -> Array:
        return self.weights.log_prior(s) + self.component.log_prior(s)

    def log_likelihood(self, s: Record, rows: Data) -> Float[Array, " n"]:
        covariates, own = self._split(rows)
        bare, constant = self.component.split(own)
        table = keep_known(self.component.energy(s, bare), labels_of(rows))
        labelled = self.weights.log_density(s, s.c, covariates) + (s.c.p * table).sum(-1)
        return labelled if constant is None else labelled + constant

    def prepare(self, params: Params) -> tuple[Tree, Tree]:
        return self.weights.prepare(params), self.component.prepare(params)

    def e_step(self, prepared: tuple[Tree, Tree], rows: Data, weights: Array) -> Expectation:
        """Compute responsibilities and the statistics that they leave.

        Bishop (2006), eq. 10.46 to 10.49; by EM 9.23.
        """
        mixing, components = prepared
        covariates, own = self._split(rows)
        density, pull = self.component.log_density(components, own)
        log = self.weights.log_weights(mixing, covariates)
        table = keep_known(self.weights.where_active((log + density).T), labels_of(rows)).T
        bound = logsumexp(table, 0)
        r = weights * jnp.exp(table - bound)
        return scored_rows(self.weights.statistics(mixing, r, covariates) | pull(r), bound, weights)

    def constrain(self, params: Record, before: Record, block: Iterable[str]) -> Record:
        return self.component.constrain(params, before)

    def gradient_at(self, s: Record, local: Tree, data: Data, weights: Array | None = None) -> Record:
        if (why := self.component.undrawable or self.weights.undrawable) is not None:
            raise ValueError(why)
        return super().gradient_at(s, local, data, weights)

    def cancelled(self, params: Params, expectation: Expectation) -> Tree:
        return self.component.cancelled(params, expectation)

    def singular(self, params: Record) -> Array:
        return self.component.singular(params)

    def ill_conditioned(self, params: Record) -> Array:
        return self.component.ill_conditioned(params)

    def empty(self, params: Record) -> Bool[Array, " k"] | None:
        return self.weights.empty(params)

    def init(self, key: Array, data: Data, weights: Array | None = None) -> Record:
        """Draw components to start from, equally heavy; those of known labels start at rows with these."""
        return self.init_run(key, data, weights, 0)

    def init_run(self, key: Array, data: Data, weights: Array | None, number: ArrayLike) -> Record:
        """Draw a start as `init` does; by VB, runs after the first may start with fewer components."""
        k, active = self.n_components, self.weights.active
        n = total_weight(data, weights).astype(float_dtype((self, data)))
        free = not self.points and labels_of(data) is None
        if free and self.weights.all_active is None and self.component.may_be_idle:
            active = draw_active(jax.random.fold_in(key, k), self.weights.n_active, number, n.dtype)
        component = self.component.of(k, self.points, active)
        own = component.begin(key, self._rows(data), weights, labels_of(data))
        return self.weights.start(n, active) | own

    def without_idle(self, params: Params) -> tuple[Mixture, Record]:
        if self.weights.active is None:
            return self, params
        labels, own = self.weights.without_idle(params)
        component = self.component.permute(params, jnp.arange(labels.n_components))
        return replace(self, n_components=labels.n_components, weights=labels), own | component

    def propose(self, key: Array, params: Record, other: Record, data: Data, weights: Array | None) -> Record:
        w = jnp.ones(n_rows(data), float_dtype(params)) if weights is None else weights
        blank, chunk = jnp.zeros((n_rows(data), self.n_components), w.dtype), self.chunk_rows(data)

        def responsibilities(params: Record) -> Array:
            def of_chunk(rows: Data, _: Array, __: Array) -> tuple[Tree, Array]:
                return (), jax.nn.softmax(self.labels_table(params, rows), -1)

            return sweep_rows(of_chunk, data, w, blank, chunk=chunk)[1]

        both = responsibilities(params), responsibilities(other)
        update = lambda key, r: self.at_responsibilities(params, r, data, w)
        score = lambda params: self.objective(params, expectation(self, params, data, weights))
        rows, active = self._rows(data), self.weights.mask()
        return moves.propose(key, self.component, rows, w, *both, active, update, score)

    def at_responsibilities(
        self, params: Record, r: Float[Array, "n k"], data: Data, weights: Float[Array, " n"]
    ) -> Record:
        """Return the parameters after an update from given responsibilities."""
        mixing, components = self.prepare(params)

        def statistics(some: tuple[Data, Array], w: Array) -> Record:
            (covariates, own), r = self._split(some[0]), w * some[1].T
            pull = self.component.log_density(components, own)[1]
            return self.weights.statistics(mixing, r, covariates) | pull(r)

        total = sum_over_rows(statistics, (data, r), weights, chunk=self.chunk_rows(data))
        return self.m_step(params, total, self.factors)

    # -- use -----------------------------------------------------------------------------------------

    def labels_table(self, params: Record, rows: Data) -> Float[Array, "n k"]:
        """Compute log q(c_n = k) but for a constant in each row."""
        (mixing, components), (covariates, own) = self.prepare(params), self._split(rows)
        density = self.component.log_density(components, own)[0]
        log = self.weights.log_weights(mixing, covariates)
        return keep_known(self.weights.where_active((log + density).T), labels_of(rows))

    def responsibilities(self, params: Record, x: Data) -> Float[Array, "n k"]:
        """Return the probability of every component for every row."""
        return _responsibilities(self, params, self.read(x))

    def predict(self, params: Record, x: Data) -> Int[Array, " n"]:
        """Return the most probable component of every row."""
        return self.responsibilities(params, x).argmax(-1)

    def log_predictive(self, params: Record, x: Data) -> Float[Array, " n"]:
        """Return the log density of new rows under the fitted mixture, in nats."""
        return _log_predictive(self, params, self.read(x))

    def sample_posterior(self, params: Record, key: Array, n: int | tuple[int, ...] = ()) -> Record:
        """Draw parameters: `weights` (n, k), `components` (`.location`, `.precision` if joint)."""
        return sample_posterior(params, key, n)

    def sample(self, params: Record, key: Array, n: int, *, given: Given = None) -> Data:
        """Draw n new rows, each with parameters of its own drawn from q: draws of the predictive density.

        Args:
            params: of a fit.
            key: PRNG key.
            n: how many.
            given: what rows are drawn for beside their component: of regressions their x (n, d), y being what
                is drawn; of multinomials how many counts a row has, a number or (n,), by default 1. With
                `vb.labels.Gated` the covariates (n, q), or the pair of them and such a thing.
        """
        n = read_count(n, "n")
        covariates, given = self.weights.read_given(given, n, self.component.read_given)
        return _sample(self, params, read_key(key), covariates, given, n)

    def replicate(self, params: Record, key: Array, data: Data, n_draws: int) -> Data:
        return _replicate(self, params, key, self.read(data), n_draws)

    def simulate(self, params: Record, key: Array, data: Data) -> Data:
        keys = jax.random.split(key)
        covariates, rows = self._split(data)
        c = self.draw_labels(params, keys[0], n_rows(rows), covariates)
        return _redraw(self, params, keys[1], c, covariates, rows)

    def draw_labels(
        self, params: Record, key: Array, n: int, covariates: Array | None = None
    ) -> Int[Array, " n"]:
        """Draw the components of n new rows."""
        return self.weights.draw(params, key, n, covariates)

    # -- criteria of point estimates -----------------------------------------------------------------

    @property
    def n_parameters(self) -> int:
        """Free parameters: those of the weights, and the components'."""
        if not self.points:
            raise ValueError(
                "n_parameters, aic, bic and icl are of maximum likelihood; after VB compare the bounds"
            )
        k = self.n_components - self.weights.n_idle
        return self.weights.n_parameters + self.component.of(k, True).n_parameters

    def total_log_likelihood(self, params: Record, x: Data, weights: Given = None) -> Float[Array, ""]:
        """Return sum_n w_n log p(x_n), in nats."""
        return _criteria(self, params, *self._read_weighted(x, weights), 0.0).log_likelihood

    def bic(self, params: Record, x: Data, weights: Given = None) -> Float[Array, ""]:
        """Return -2 log L + (free parameters) log n; smaller is better (Schwarz 1978)."""
        return self._criteria(params, x, weights).bic

    def aic(self, params: Record, x: Data, weights: Given = None) -> Float[Array, ""]:
        """Return -2 log L + 2 (free parameters); smaller is better (Akaike 1974)."""
        return self._criteria(params, x, weights).aic

    def icl(self, params: Record, x: Data, weights: Given = None) -> Float[Array, ""]:
        """Return BIC + 2 (entropy of the responsibilities); smaller is better (Biernacki et al. 2000)."""
        return self._criteria(params, x, weights).icl

    def _criteria(self, params: Record, x: Data, weights: Given) -> _Criteria:
        n_parameters = float(self.n_parameters)
        return _criteria(self, params, *self._read_weighted(x, weights), n_parameters)

    def _read_weighted(self, x: Data, weights: Any) -> tuple[Any, Float[Array, " n"]]:
        x = self.read(x)
        weights = read_row_weights(weights, x)
        return x, jnp.ones(n_rows(x), float_dtype(x)) if weights is None else weights


@pytree
class BayesianMixture(Mixture):
    """A mixture by variational Bayes: q(labels) q(weights) prod_k q(component k), each by its exact update.

        r_nk proportional to exp(E[log weights_k] + E[log p(x_n | component k)]),   N_k = sum_n r_nk

    (Bishop 2006, eq. 10.46 to 10.49). The objective is the exact evidence lower bound, so it may be compared
    over k and over priors. Superfluous components empty themselves where the concentration of the weights is
    small.

    Data: as the component takes them. The factors are `weights` and `components`.

    Args:
        n_components: k, an upper bound.
        component: what a row is like, of `vb.components`.
        weights: who chooses the component, of `vb.labels`.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> process = vb.labels.StickBreaking(concentration=1.0)
    >>> model = vb.BayesianMixture(6, vb.components.Gaussian("full"), weights=process)
    >>> fit = vb.fit(model, x, key=jax.random.key(0), n_restarts=4)
    >>> int((fit.model.responsibilities(fit.params, x).sum(0) > 1).sum())
    2
    """

    points: ClassVar[bool] = False


@jit
def _responsibilities(model: Mixture, params: Record, x: Data) -> Array:
    return jax.nn.softmax(model.labels_table(params, x), -1)


@jit
def _log_predictive(model: Mixture, params: Record, x: Data) -> Array:
    covariates, rows = model.weights.split(rows_of(x))
    table = model.weights.log_at_mean(params, covariates) + model.component.log_components(params, rows)
    return logsumexp(keep_known(model.weights.where_active(table), labels_of(x)), -1)


@functools.partial(jit, static_argnames="n_draws")
def _replicate(model: Mixture, params: Record, key: Array, rows: Data, n_draws: int) -> Tree:
    labels = model.labels_table(params, rows)  # the same for every draw
    covariates, rows = model.weights.split(rows_of(rows))

    def draw(key: Array) -> Data:
        keys = jax.random.split(key)
        c = jax.random.categorical(keys[0], labels)
        return _redraw(model, params, keys[1], c, covariates, rows)

    return jax.lax.map(draw, jax.random.split(key, n_draws))


def _redraw(
    model: Mixture, params: Record, key: Array, c: Array, covariates: Array | None, rows: Data
) -> Data:
    """Draw rows anew of given components, at parameters from q; missing entries stay missing."""
    keys = jax.random.split(key)
    parameters = model.component.draw_parameters(params, keys[0])
    drawn = restore_missing(model.component.redraw_rows(parameters, keys[1], c, rows), rows)
    return model.weights.join(covariates, drawn)


@functools.partial(jit, static_argnames="n")
def _sample(
    model: Mixture, params: Record, key: Array, covariates: Array | None, given: Given, n: int
) -> Tree:
    keys = jax.random.split(key)
    c = model.draw_labels(params, keys[0], n, covariates)
    return model.component.draw_rows(params, keys[1], c, given)


class _Criteria(NamedTuple):
    log_likelihood: Array
    bic: Array
    aic: Array
    icl: Array


@functools.partial(jit_over_mesh, quickly=True)
def _criteria(model: Mixture, params: Record, x: Data, weights: Array, n_parameters: Array) -> _Criteria:
    table = model.labels_table(params, x)
    r = jax.nn.softmax(table, -1)
    loss = -2 * (weights @ logsumexp(table, -1))
    bic = loss + n_parameters * jnp.log(weights.sum())
    entropy = -(weights @ xlogy(r, r).sum(-1))
    return _Criteria(-loss / 2, bic, loss + 2 * n_parameters, bic + 2 * entropy)
