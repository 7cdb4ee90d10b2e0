"""An error of `fit` names the argument: bad data, bad arguments and bad models are refused before a sweep."""

import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.clouds import key, rows
from tests.support.registry import N_ROWS, mean_and_precision, without_data
from vbjax.families import NormalState

EM, COLUMN = vb.GaussianMixture(2), vb.textbook.UnitVarianceMixture(2)


def with_entry(value):
    x = np.zeros((N_ROWS, 2), "float32")
    x[3, 1] = x[7, 0] = value
    return x


Y = np.array([1.0, 2.0, 3.0, 4.0])
BAD_DATA = {
    "groups of names": (
        vb.textbook.RandomEffects(2),
        (Y, ["a", "b", "a", "b"]),
        r"group must be numbers; got an array of <U1; code categories .*np\.unique",
    ),
    "groups from 1": (
        vb.textbook.RandomEffects(2),
        (Y, [1, 2, 1, 2]),
        r"group must be between 0 and n_groups - 1 = 1; got 2 in row 1; np\.unique",
    ),
    "masked groups": (
        vb.textbook.RandomEffects(2),
        (Y, np.ma.array([0, 1, 0, 1], mask=[0, 1, 0, 0])),
        r"group must have no masked entry; entry \[1\] is masked",
    ),
    "classes of names": (
        vb.BayesianLogisticRegression(),
        (Y[:, None], ["a", "b", "a", "b"]),
        "y must be numbers; got an array of <U1; code categories",
    ),
    "classes from 1": (
        vb.BayesianProbitRegression(),
        (Y[:, None], [1, 2, 1, 2]),
        r"y must be 0 or 1 in every row; got 2.0 in row 1; y == one_class",
    ),
    "a category that is a slip": (
        vb.BayesianCategoricalMixture(2),
        [[0], [10**9], [1]],
        r"data must be categories below 1000000 where n_categories is not given; got 1000000000",
    ),
    "NaN": (EM, with_entry(np.nan), "data must be finite; row 3 is the first"),
    "infinity": (EM, with_entry(-np.inf), "data must be finite; row 3 is the first"),
    "NaN in a column": (COLUMN, [0.0, np.nan, 1.0], "data must be finite; row 1 is the first"),
    "NaN in a dict": (
        mean_and_precision(),
        dict(a=np.ones(4), b=with_entry(np.nan)[:4]),
        "data must be finite; row 3",
    ),
    "one axis": (
        EM,
        np.zeros(5),
        r"data must have shape \(n, d\).*got \(5,\); reshape one column with x\[:, None\]",
    ),
    "three axes": (EM, np.zeros((5, 2, 2)), r"data must have shape \(n, d\) with d >= 1; got \(5, 2, 2\)$"),
    "no columns": (vb.KMeans(2), np.zeros((5, 0)), r"data must have shape \(n, d\) with d >= 1"),
    "two axes for one": (COLUMN, np.zeros((5, 2)), r"data must have shape \(n,\); got \(5, 2\)"),
    "too few rows": (EM, np.zeros((1, 2)), "data must have at least 2 rows; got 1"),
    "fewer rows than clusters": (vb.KMeans(3), np.zeros((2, 2)), "data must have at least 3 rows; got 2"),
    "no rows": (COLUMN, np.zeros(0), "data must have at least 1 rows; got 0"),
    "no rows for an own model": (mean_and_precision(), np.zeros(0), "data must have at least one row"),
    "a number": (mean_and_precision(), 3.0, "data must be arrays with a common leading axis"),
    "nothing": (mean_and_precision(), (), "data must be arrays with a common leading axis"),
    "two lengths": (mean_and_precision(), (np.zeros(3), np.zeros(4)), r"common leading axis.*\(3,\), \(4,\)"),
    "words": (COLUMN, ["a", "b"], "data must be numbers"),
    "complex": (COLUMN, np.array([1j, 2]), "data must be numbers; got an array of complex"),
    "ragged": (COLUMN, [[1.0], [1.0, 2.0]], "data must be numeric arrays; got list"),
    "None": (EM, None, "data must be numbers"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_are_refused(name):
    model, data, message = BAD_DATA[name]
    with pytest.raises(ValueError, match=message):
        vb.fit(model, data, key=key())


def weights_with(value):
    return np.ones(N_ROWS) * np.where(np.arange(N_ROWS) == 5, value, 1)


def states(mean, precision):
    return vb.Record(mu=NormalState(jnp.asarray(mean), jnp.asarray(precision)))


BAD_ARGUMENTS = {
    "too few weights": (dict(weights=np.ones(3)), rf"weights .* {N_ROWS} rows; got shape \(3,\)"),
    "a table of weights": (dict(weights=np.ones((N_ROWS, 1))), r"weights .* got shape \(40, 1\)"),
    "a negative weight": (
        dict(weights=weights_with(-1)),
        "weights must be finite, at least 0, and not all 0",
    ),
    "a weight of NaN": (dict(weights=weights_with(np.nan)), "weights must be finite"),
    "an infinite weight": (dict(weights=weights_with(np.inf)), "weights must be finite"),
    "no weight": (dict(weights=np.zeros(N_ROWS)), "weights must be finite, at least 0, and not all 0"),
    "a word for weights": (dict(weights="uniform"), "weights must be numbers"),
    "no restarts": (dict(n_restarts=0), "n_restarts must be a whole number of at least 1; got 0"),
    "half a restart": (dict(n_restarts=2.0), "n_restarts must be a whole number"),
    "a truth for restarts": (dict(n_restarts=True), "n_restarts must be a whole number"),
    "no sweeps": (dict(max_iter=0), "max_iter must be a whole number of at least 1; got 0"),
    "endless sweeps": (dict(max_iter=np.inf), "max_iter must be a whole number"),
    "no lanes": (dict(lanes=0), "lanes must be a whole number of at least 1; got 0"),
    "a negative tol": (dict(tol=-1e-3), "tol must be a finite number of at least 0; got -0.001"),
    "a tol of NaN": (dict(tol=np.nan), "tol must be a finite number of at least 0; got nan"),
    "params of another name": (
        dict(params=vb.Record(tau=states([0.0, 1.0], [1.0, 1.0]).mu)),
        "params must have the structure",
    ),
    "params of another family": (
        dict(params=vb.Record(mu=vb.Delta(vb.Normal((2,))).at(np.array([0.0, 1.0])))),
        "params must have the structure",
    ),
    "params of another k": (
        dict(params=states(np.zeros(3), np.ones(3))),
        r"params must have shapes \[\(2,\), \(2,\)\]; got \[\(3,\), \(3,\)\]",
    ),
    "params of words": (
        dict(params=vb.Record(mu=NormalState(["a", "b"], ["c", "d"]))),
        "params must have the structure",
    ),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_are_refused_by_name(name):
    wrong, message = BAD_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        vb.fit(COLUMN, rows("unit variance"), key=key(), **wrong)


BAD_MODELS = {
    "no components": (
        vb.textbook.UnitVarianceMixture(0),
        "unit variance",
        "n_components must be a whole number",
    ),
    "no clusters": (vb.KMeans(0), "EM", "n_clusters must be a whole number"),
    "unknown start": (
        vb.KMeans(2, start="first"),
        "EM",
        "start must be one of 'k-means\\+\\+', 'random'; got 'first'",
    ),
    "unknown covariance": (
        vb.GaussianMixture(2, "round"),
        "EM",
        "covariance_type of the component must be one of full.*got 'round'",
    ),
    "MAP on the boundary": (
        vb.GaussianMixture(2, weight_concentration=0.5),
        "EM",
        "concentration of the weights must be at least 1 for MAP",
    ),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_models_are_refused_by_name(name):
    model, data, message = BAD_MODELS[name]
    with pytest.raises(ValueError, match=message):
        vb.fit(model, rows(data), key=key())


def test_weights_without_data_are_refused():
    with pytest.raises(ValueError, match="weights are for rows of data; there are none"):
        vb.fit(without_data(), key=key(), weights=np.ones(3))


def test_a_model_that_is_not_conjugate_is_refused():
    def wrong(s, x):
        return vb.terms.normal(x, s.mu, 1.0) - s.mu.first**2

    with pytest.raises(ValueError, match="factor 'mu'"):
        vb.fit(vb.Model(factors=dict(mu=vb.Normal()), log_likelihood=wrong), rows("unit variance"), key=key())


BAD_USES = {
    "a word for weights": (lambda m, p, x: m.elbo_terms(p, x, "uniform"), "weights must be numbers"),
    "too few weights": (lambda m, p, x: m.elbo_terms(p, x, np.ones(3)), "weights must have one number for"),
    "no weight": (lambda m, p, x: m.elbo_terms(p, x, np.zeros(N_ROWS)), "weights must be finite, at least 0"),
    "a number for a key": (lambda m, p, x: m.sample(p, 0, 3), "key must be one PRNG key"),
    "a word for a key": (lambda m, p, x: m.sample(p, key="key", n=3), "key must be one PRNG key"),
    "no key": (lambda m, p, x: m.sample_posterior(p, None), "key must be one PRNG key"),
}


@pytest.mark.parametrize("name", BAD_USES)
def test_uses_of_a_fit_read_weights_and_keys(name):
    use, message = BAD_USES[name]
    x = jnp.asarray(rows("EM"))
    model, means = EM.resolve(x), x[:2]
    params = model.params_at(
        jnp.full(2, 0.5, x.dtype), means, jnp.broadcast_to(jnp.eye(2, dtype=x.dtype), (2, 2, 2))
    )
    with pytest.raises(ValueError, match=message):
        use(model, params, x)


def test_weights_of_no_rows_are_refused_by_uses_too():
    model = without_data()
    with pytest.raises(ValueError, match="weights are for rows of data; there are none"):
        model.elbo_terms(model.init(key(), None), None, np.ones(3))


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_given_values_of_a_mixture_have_its_shapes(kind):
    model, means = vb.GaussianMixture(2, kind), np.zeros((2, 3))
    good = dict(full=np.ones((2, 3, 3)), tied=np.ones((3, 3)), diag=np.ones((2, 3)), spherical=np.ones(2))[
        kind
    ]
    for weights, covariances, name in [
        (np.ones(3) / 3, good, "weights"),
        ("even", good, "weights"),
        (-np.ones(2) / 2, good, "weights"),
        (np.ones(2) / 2, np.nan * good, "covariances"),
        (np.ones(2) / 2, -good, "covariances"),
        (np.ones(2) / 2, np.ones((2, 4, 3)), "covariances"),
        (np.ones(2) / 2, "full", "covariances"),
    ]:
        with pytest.raises(ValueError, match=f"{name} must"):
            model.params_at(weights, means, covariances)
    with pytest.raises(ValueError, match="means must"):
        model.params_at(np.ones(2) / 2, "a", good)
    with pytest.raises(ValueError, match="centers must"):
        vb.KMeans(2).params_at(1j * means)


@pytest.mark.parametrize("ascent", [vb.core.CoordinateAscent, vb.core.AcceleratedAscent])
def test_fields_of_an_algorithm_are_read_when_it_is_used(ascent):
    x = rows("unit variance")
    for wrong, message in [
        (dict(model="gmm", tol=1e-6), "model must be"),
        (dict(model=COLUMN, tol=-1.0), "tol must be"),
        (dict(model=COLUMN, tol=1j), "tol must be"),
        (dict(model=COLUMN, tol=1e-6, check="yes"), "check must be True or False"),
    ]:
        with pytest.raises(ValueError, match=message):
            vb.fit(ascent(**wrong), x, key=key())
