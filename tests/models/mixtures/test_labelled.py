"""Mixtures of rows whose labels are known in part.

With all labels known a bound is the sum of every class's own and the evidence of the labels, by scipy, and a
likelihood that of the classes; with none known a fit is that without labels. A known label is certain in what
is asked of a fit, and other rows are as without. Every class starts at its own rows, in every restart. The
derived E-step is the oracle; gradients are finite; minibatches of all rows are whole steps. Labels that are
none are refused by name. (Weights, chunks, monotone updates: test_contracts.py.)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import vbjax as vb
from tests.models.components.test_products import KINDS, rows, started
from tests.support.registry import N_COMPONENTS, N_ROWS, counts, lines, mixed, product, score, sweeps, table
from tests.support.tolerances import close
from vbjax.models.components.seeding import draw_labelled_seeds, squared_distance

K, KEY = N_COMPONENTS, jax.random.key(0)
COMPONENTS = {
    "table": (vb.components.Gaussian(), table),
    "counts": (vb.components.Poisson(), counts),
    "lines": (vb.components.Regression(), lines),
    "product": (product(), mixed),
}
CLASS = np.arange(N_ROWS) % K  # as the tables of the registry have them

every_how = pytest.mark.parametrize("how", KINDS)


def some_known(every=4):
    return np.where(np.arange(N_ROWS) % every == 0, CLASS, -1)


@pytest.mark.parametrize("name", COMPONENTS)
@every_how
def test_all_labels_known_are_one_fit_for_each_class(name, how, float64):
    component, make = COMPONENTS[name]
    x, n = rows(make, float64), np.bincount(CLASS)
    fit = vb.fit(KINDS[how](K, component), vb.Labelled(x, CLASS), key=KEY)
    prior = fit.model.component  # whose defaults follow all rows
    of_class = [np.asarray(k == CLASS, float64) for k in range(K)]  # the others weigh 0: one program for all
    own = [vb.fit(KINDS[how](1, prior), x, key=KEY, weights=weights) for weights in of_class]
    if how == "em":
        labels = special.xlogy(n, n / N_ROWS).sum()
    else:  # Dirichlet-multinomial, in the order of the rows
        alpha = np.full(K, 1 / K)
        labels = special.gammaln(alpha + n).sum() - special.gammaln(alpha).sum()
        labels += special.gammaln(alpha.sum()) - special.gammaln(alpha.sum() + N_ROWS)
    np.testing.assert_allclose(fit.objective, sum(f.objective for f in own) + labels, rtol=1e-12)
    np.testing.assert_array_equal(fit.predict(vb.Labelled(x, CLASS)), CLASS)


@every_how
def test_no_label_known_is_no_label(how, dtype):
    x = rows(table, dtype)
    model = KINDS[how](K, vb.components.Gaussian())
    unknown = vb.Labelled(x, np.full(N_ROWS, -1))
    fits = [vb.fit(model, data, key=KEY, n_restarts=2, max_iter=20) for data in (x, unknown)]
    np.testing.assert_allclose(fits[1].runs.objective, fits[0].runs.objective, rtol=10 * np.finfo(dtype).eps)
    close(fits[1].responsibilities(unknown), fits[0].responsibilities(x))  # by another program


@every_how
def test_a_known_label_is_certain(how, float64):
    x, labels = rows(table, float64), some_known()
    labels[0] = 2  # whatever the row says
    data = vb.Labelled(x, labels)
    fit = vb.fit(KINDS[how](K, vb.components.Gaussian()), data, key=KEY, n_restarts=2)
    r, free = np.asarray(fit.responsibilities(data)), np.asarray(fit.responsibilities(x))
    known = labels >= 0
    np.testing.assert_array_equal(r[known], np.eye(K)[labels[known]])
    np.testing.assert_array_equal(r[~known], free[~known])
    assert free[0, 2] < 0.5
    log = np.log(fit.params.weights.mean) + fit.model.component.log_components(fit.params, x)
    close(fit.log_predictive(data)[known], log[known, labels[known]])
    close(fit.log_predictive(data)[~known], special.logsumexp(log[~known], 1))
    terms = fit.elbo_terms(data)
    close(sum(terms.values()), fit.objective, scale=max(map(abs, terms.values())))
    assert vb.replicate(fit.model, fit.params, data, key=KEY, n_draws=2).shape == (2, *x.shape)
    if how == "em":
        close(fit.model.total_log_likelihood(fit.params, data), fit.objective, factor=10)


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize("far", [True, False])
def test_seeds_are_among_the_rows_of_their_class(each, far, dtype):
    """Of a class without labelled rows of weight they are among the rows without a label."""
    labels = jnp.where(jnp.arange(N_ROWS) < 20, jnp.arange(N_ROWS) % K, -1)
    distance = squared_distance(rows(table, dtype), jnp.ones(2, dtype)) if far else None
    mass = jnp.asarray((labels != 1) & (jnp.arange(N_ROWS) != 39), dtype)
    for key in jax.random.split(KEY, 5):
        seeds = np.asarray(draw_labelled_seeds(key, mass, distance, K, each, labels)).reshape(each, K)
        np.testing.assert_array_equal(labels[seeds], np.broadcast_to([0, -1, 2], (each, K)))
        assert (seeds != 39).all()


def test_every_class_starts_at_its_rows(float64):
    """Few labelled rows of a class name it; two classes are turned about, one has none."""
    x, turned = rows(table, float64), np.array([1, 0, 2])[CLASS]
    labels = np.where((np.arange(N_ROWS) < 18) & (CLASS != 2), turned, -1)
    model = vb.BayesianMixture(K, vb.components.Gaussian())
    fit = vb.fit(model, vb.Labelled(x, labels), key=KEY, n_restarts=4)
    right = np.asarray(fit.predict(x)) == turned
    assert right.mean() > 0.9
    runs = np.asarray(fit.runs.objective)
    np.testing.assert_allclose(runs, fit.objective, atol=1e-3)


@every_how
def test_the_derived_e_step_is_the_oracle(how, dtype):
    data = vb.Labelled(rows(table, dtype), jnp.asarray(some_known()))
    model, params = started(KINDS[how](K, vb.components.Gaussian("diag")), data)
    weights = jnp.linspace(0, 2, N_ROWS, dtype=dtype)

    @jax.jit
    def both(model, params, rows, weights):
        s = vb.core.ConjugateModel.prepare(model, params)
        own = model.e_step(model.prepare(params), rows, weights)
        return own, vb.core.ConjugateModel.e_step(model, s, rows, weights)

    own, derived = both(model, params, model.annotate(data), weights)
    close(own.bound, derived.bound, scale=derived.magnitude)
    natural = lambda t: {name: factor.natural for name, factor in t.items()}
    close(natural(own.statistics), natural(derived.statistics), factor=100)
    gradient = jax.jit(jax.grad(lambda m, p, x: score(m, p, vb.Labelled(x, data.labels)), (0, 1, 2)))
    leaves = jax.tree.leaves(gradient(model, params, data.x))
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert any((leaf != 0).any() for leaf in leaves)


def test_minibatches_keep_their_labels(float64):
    """Of all rows they are a whole step; of an iterator the last is short."""
    data = vb.Labelled(rows(table, float64), some_known())
    model = vb.BayesianMixture(K, vb.components.Gaussian())
    steps = vb.fit_stochastic(model, data, key=KEY, batch_size=N_ROWS, n_epochs=4, forgetting=0)
    read = model.read(data)
    resolved, start = started(model, read, jax.random.split(KEY)[0])
    close(steps.trace, sweeps(resolved, start, read, n_sweeps=4)[1][:, 0], factor=10)
    part = lambda a, b: vb.Labelled(data.x[a:b], data.labels[a:b])
    batches = iter([part(0, 16), part(16, 32), part(32, 40)])
    stream = vb.fit_stochastic(resolved, batches, key=KEY, total_rows=N_ROWS)
    assert np.isfinite(stream.trace).all()


BAD = {
    "labels must be whole numbers, -1 where unknown; got numbers of float": CLASS.astype(float),
    "labels must have one number for each of the 40 rows": CLASS[1:],
    r"labels must be from 0 to 2, or -1 where unknown; got 3 at \[0\]": CLASS + 3,
    r"labels must be from 0 to 2, or -1 where unknown; got -2 at \[0\]": CLASS - 2,
    "labels must be whole numbers, -1 where unknown; got numbers of bool": CLASS > 0,
    "labels must be numbers": None,
}


@pytest.mark.parametrize("message", BAD)
def test_labels_that_are_none_are_refused(message):
    data = vb.Labelled(np.ones((N_ROWS, 2)), BAD[message])
    with pytest.raises(ValueError, match=message):
        vb.fit(vb.Mixture(K, vb.components.Gaussian()), data, key=KEY)
