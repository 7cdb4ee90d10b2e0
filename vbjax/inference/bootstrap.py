"""How far estimates vary from data to data: the weighted likelihood bootstrap, and a likelihood ratio test.

The bootstrap refits under random row weights, the test on data that the null model draws. For users; imports
`fit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from vbjax.core.model import ConjugateModel, require_model
from vbjax.core.presentation import uses
from vbjax.core.rows import float_dtype, n_rows
from vbjax.data.frames import read_frame
from vbjax.families.base import pytree
from vbjax.inference.fit import fit as fit_model
from vbjax.inference.repeated_fits import Effort, map_fits, warn_unless_converged
from vbjax.inference.replicate import require_simulation
from vbjax.inference.resolution import read_data
from vbjax.inference.result import Fit
from vbjax.inference.summary import INTERVAL, Summary, tabulate
from vbjax.numerics.inputs import describe, is_single, read_count, read_key, read_number, read_probabilities
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Params

if TYPE_CHECKING:
    from vbjax.core.contracts import Model

# -- row weights -------------------------------------------------------------------------------------------


@pytree
class Bootstrap:
    """Estimates under random row weights, by the names of the parameters.

    Attributes:
        fit: the fit that they start from.
        draws: point estimates, or means of q, of every refit: trees as `fit.params.mu.mean`, each array with
            a leading axis of draws.
        sound: which refits have an objective that is to be trusted, (n,); the others are left out of
            intervals.
        status: `Status` numbers of the refits, (n,).

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> fit = vb.fit(vb.GaussianMixture(2), x, key=jax.random.key(0), n_restarts=4)
    >>> refits = vb.bootstrap(fit, x, key=jax.random.key(1), n=20)
    >>> refits.draws.weights.shape, int(refits.sound.sum())
    ((20, 2), 20)
    """

    fit: Fit
    draws: Record
    sound: Bool[Array, " n"]
    status: Int[Array, " n"]

    @property
    def _sound_draws(self) -> Record:
        keep = lambda x: jnp.where(self.sound.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.nan)
        return jax.tree.map(keep, self.draws)

    def quantile(self, p: ArrayLike) -> Record:
        """Return quantiles of every parameter: arrays with the axes of p in front."""
        p = jnp.asarray(read_probabilities(p), float_dtype(self.draws))
        return jax.tree.map(lambda x: jnp.nanquantile(x, p, axis=0), self._sound_draws)

    @property
    def interval(self) -> Record:
        """Percentile intervals of 90 % by the parameters' names: arrays with the two ends in front."""
        return self.quantile(jnp.asarray(INTERVAL))

    @property
    def sd(self) -> Record:
        """Standard deviations of the estimates, by the parameters' names."""
        return jax.tree.map(lambda x: jnp.nanstd(x, axis=0, ddof=1), self._sound_draws)

    def summary(self) -> Summary:
        """Return a table of the estimates, their standard deviations and 90 % intervals."""
        named: Any = self.fit.model.named_axes
        estimate = Record({name: q.mean for name, q in self.fit.params.items()})
        low, high = (jax.tree.map(lambda x, i=i: x[i], self.interval) for i in (0, 1))
        n, sound = self.sound.size, int(self.sound.sum())
        left_out = f"; {n - sound} of {n} left out, their solutions are singular or not finite"
        name = type(self.fit.model).__name__
        verdict = f"{name}: estimates, and the spread of {sound} refits under random row weights"
        tables = jax.device_get((estimate, self.sd, low, high))
        return tabulate(tables, verdict + (left_out if sound < n else ""), named, self.fit.columns)

    def __repr__(self) -> str:
        whole = is_single(self.sound, axes=1)
        return str(self.summary()) if whole else f"Bootstrap({type(self.fit.model).__name__})"


def bootstrap(
    fit: Fit,
    data: Data,
    *,
    key: Array,
    n: int = 200,
    weights: Given = None,
    max_iter: int = 1000,
    tol: Given = None,
    devices: Sequence[jax.Device] | None = None,
) -> Bootstrap:
    """Refit under random row weights: intervals of every parameter (weighted likelihood bootstrap).

    Row weights are Dirichlet, n times as heavy as one: exponential draws, divided by their mean. Each refit
    starts at the fit, so that components keep their labels, and the intervals are of this optimum: they say
    nothing of others. They hold where the rows are independent, also if the model is wrong.

    Args:
        fit: of a conjugate model; the prior stays that of the fit.
        data: the data of the fit. Rows are what the model calls so: of a hidden Markov model whole sequences,
            of which there must be several.
        key: `jax.random.key(...)`.
        n: number of refits, all in one program.
        weights: (n,) row weights of the fit; a row that counts w times has a weight of Gamma(w).
        max_iter, tol: of each refit, as of `fit`.
        devices: those that may be used, by default all of this process: the refits are divided over them.

    Returns:
        A `Bootstrap`: `interval`, `sd`, `draws`; `print` shows a table.

    Warns:
        FitWarning: refits did not converge.

    Raises:
        ValueError: arguments of another kind; a single row (a single sequence).

    References:
        Newton & Raftery (1994), Approximate Bayesian inference with the weighted likelihood bootstrap; Rubin
        (1981), The Bayesian bootstrap; O'Hagan, Murphy, Scrucca & Gormley (2019), Investigation of parameter
        uncertainty in clustering using a Gaussian mixture model via jackknife, bootstrap and weighted
        likelihood bootstrap.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> fit = vb.fit(vb.GaussianMixture(2), x, key=jax.random.key(0), n_restarts=4)
    >>> intervals = vb.bootstrap(fit, x, key=jax.random.key(1), n=20).interval
    >>> intervals.weights.shape, intervals.components.location.shape
    ((2, 2), (2, 2, 2))
    """
    if not isinstance(fit, Fit):
        raise ValueError(f"fit must be a vb.Fit; got {describe(fit)}")
    require_model(fit.model, data, "the bootstrap")
    key, n, effort = read_key(key), read_count(n, "n", least=2), Effort.read(1, max_iter)
    tol = None if tol is None else read_number(tol, "tol")
    if data is None:
        raise ValueError("data must be rows, whose weights are drawn; got None")
    data, _ = read_frame(data, fit.columns)
    model, data, weights = read_data(fit.model, data, weights)
    if n_rows(data) < 2:
        raise ValueError(
            "data must have at least 2 rows, of whose weights draws differ; a sequence is one row"
        )
    tasks, shared = jax.random.split(key, n), (weights, fit.params, tol)
    found = map_fits(_refit, tasks, model, data, *shared, effort=effort, devices=devices)
    warn_unless_converged(found[2], "refits", stacklevel=2)
    return Bootstrap(fit, *found)


def _refit(
    key: Array, model: Model, data: Data, weights: Array | None, params: Params, tol: Given, effort: Effort
) -> tuple[Record, Array, Array]:
    n, dtype = n_rows(data), float_dtype(data)
    if weights is None:
        drawn = jax.random.exponential(key, (n,), dtype)
        drawn = drawn / drawn.mean()
    else:
        drawn = jnp.where(weights > 0, jax.random.gamma(key, jnp.where(weights > 0, weights, 1)), 0)
        drawn = drawn * (weights.sum() / drawn.sum())
    found = fit_model(model, data, key=key, weights=drawn, params=params, tol=tol, **effort._asdict())
    means = Record({name: q.mean for name, q in found.params.items()})
    return means, found.runs.sound.any(), found.status_code


# -- a test ------------------------------------------------------------------------------------------------


@pytree
class LikelihoodRatioTest:
    """Result of a likelihood ratio test by parametric bootstrap.

    Attributes:
        null, alternative: fits of both models to the data.
        statistic: twice the difference of their log likelihoods, in nats.
        draws: that of data drawn from the null model, (n,).

    >>> import jax, vbjax as vb
    >>> x, one, two = vb.datasets.old_faithful()[:60], vb.GaussianMixture(1), vb.GaussianMixture(2)
    >>> test = vb.likelihood_ratio_test(one, two, x, key=jax.random.key(0), n=19, n_restarts=2)
    >>> bool(test.statistic > test.draws.max())  # more than data of one component ever gave
    True
    """

    null: Fit
    alternative: Fit
    statistic: Float[Array, ""]
    draws: Float[Array, " n"]

    @property
    def p_value(self) -> Float[Array, ""]:
        """Share of the draws, the data among them, whose statistic is at least that of the data.

        A draw whose fits failed, so that it has no number, counts as such: the test stays on the safe side.
        """
        above = (~(self.draws < self.statistic)).sum().astype(self.draws.dtype)
        return (1 + above) / (1 + self.draws.size)

    def __repr__(self) -> str:
        if not is_single(self.draws, axes=1):
            return f"LikelihoodRatioTest(statistic={self.statistic})"
        return (
            f"LikelihoodRatioTest(statistic {float(self.statistic):.4g}, p-value {float(self.p_value):.3g} "
            f"by {self.draws.size} draws)"
        )


def likelihood_ratio_test(
    null: ConjugateModel,
    alternative: ConjugateModel,
    data: Data,
    *,
    key: Array,
    n: int = 99,
    n_restarts: int = 8,
    max_iter: int = 1000,
    tol: Given = None,
    devices: Sequence[jax.Device] | None = None,
) -> LikelihoodRatioTest:
    """Test a model against a wider one by the likelihood ratio, whose law under the null is simulated.

    The number of components or states is on the null's boundary, where the law is no chi-square. So n data
    sets are drawn from the fitted null, and both models are fitted to each, as to the data. What the null
    does not model stays as it is in the data: covariates of `vb.labels.Gated`, x of regressions, totals of
    multinomial rows, which entries are missing. Whether weights depend on covariates at all is a test of
    `vb.labels.Gated(precision=1e6)`, whose slopes are next to 0, against `vb.labels.Gated()`.

    Args:
        null, alternative: models fitted by maximum likelihood (EM), the null a case of the alternative, such
            as `vb.GaussianMixture(1)` and `vb.GaussianMixture(2)`.
        data: rows of mixtures, factor models or regressions, or sequences, without known labels.
        key: `jax.random.key(...)`.
        n: number of data sets; the least p-value is 1 / (n + 1).
        n_restarts, max_iter, tol: of every fit, as of `fit`.
        devices: those that may be used, by default all of this process: the data sets are divided over them.

    Returns:
        A `LikelihoodRatioTest`: its `p_value`, `statistic`, the simulated `draws`, and both fits.

    Raises:
        ValueError: models by variational Bayes, whose objectives are no likelihoods; a null that does not
            draw data like these; arguments that `fit` refuses.

    References:
        McLachlan (1987), On bootstrapping the likelihood ratio test statistic for the number of components in
        a normal mixture.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()[:60]
    >>> one, two = vb.GaussianMixture(1), vb.GaussianMixture(2)
    >>> test = vb.likelihood_ratio_test(one, two, x, key=jax.random.key(0), n=19, n_restarts=2)
    >>> print(f"{test.p_value:.2f}")
    0.05
    """
    key, n, effort = read_key(key), read_count(n, "n"), Effort.read(n_restarts, max_iter)
    tol = None if tol is None else read_number(tol, "tol")
    for model, name in (null, "null"), (alternative, "alternative"):
        if not isinstance(model, ConjugateModel) or "log_predictive" not in uses(model):
            raise ValueError(f"{name} must be a model with a log density of rows; got {describe(model)}")
    if data is None:
        raise ValueError("data must be rows; got None")
    for model, name in (null, "null"), (alternative, "alternative"):
        _require_data(model, name, data)
    keys, models = jax.random.split(key, 3), (null, alternative)
    found = [
        fit_model(model, data, key=own, tol=tol, devices=devices, **effort._asdict())
        for model, own in zip(models, keys, strict=False)
    ]
    for own, name in zip(found, ("null", "alternative"), strict=True):
        if any(np.any(x) for q in own.params.values() for x in jax.tree.leaves(q.variance)):
            raise ValueError(
                f"{name} must be fitted by maximum likelihood, whose factors are points; a "
                f"{type(own.model).__name__} has a bound, no likelihood"
            )
    rows = found[0].model.read(read_frame(data)[0])
    require_simulation(found[0].model, found[0].params, rows)
    tasks, shared = jax.random.split(keys[2], n), (found[0], models, tol)
    draws = map_fits(_ratio_of_draw, tasks, null, rows, *shared, effort=effort, devices=devices)
    return LikelihoodRatioTest(found[0], found[1], _statistic(found, rows), draws)


def _require_data(model: ConjugateModel, name: str, data: Data) -> None:
    """Raise the model's own ValueError for data that it does not take, with its name in the test."""
    try:
        model.read(read_frame(data)[0])
    except ValueError as error:
        read_by = f"read by {name}, a {type(model).__name__}; both models take the same data"
        raise ValueError(f"{error} ({read_by})") from error


def _statistic(fits: Sequence[Fit], data: Data) -> Float[Array, ""]:
    """Compute twice the difference of the log likelihoods of two fits."""
    null, alternative = (fit.model.log_predictive(fit.params, data) for fit in fits)
    return 2 * (alternative - null).sum()


def _ratio_of_draw(
    key: Array,
    _: Any,
    data: Data,
    null: Fit,
    models: tuple[Any, Any],
    tol: Given,
    effort: Effort,
) -> Float[Array, ""]:
    """Compute the statistic of data drawn from the fitted null."""
    keys = jax.random.split(key, 3)
    drawn = null.model.simulate(null.params, keys[2], data)
    each = zip(models, keys, strict=False)
    return _statistic([fit_model(m, drawn, key=k, tol=tol, **effort._asdict()) for m, k in each], drawn)
