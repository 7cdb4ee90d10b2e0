"""Every driver reads every argument: what is none of its kind is an error that names it, before a sweep.

`fit` itself: test_fit_errors.py. Also: parameters of another model, data that overflow, and the reverse-mode
derivative of a fit, which names `vb.optimum`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.clouds import HOW, MODELS, key, rows
from tests.support.compilations import compilations
from vbjax.inference.irreversible import irreversible

X = np.asarray([1.0, 2.0, 4.0, 7.0], np.float32)
TEXTBOOK = vb.textbook.GaussianMeanPrecision(0.0, 1.0, 1.0, 1.0)
BLACK_BOX = vb.BlackBox(lambda s: -(s**2), vb.real())


@functools.cache
def textbook():
    return vb.fit(TEXTBOOK, X, key=key())


@functools.cache
def mixture():
    return vb.fit(MODELS["EM"], rows(), key=key(), **HOW)


def fit(model=TEXTBOOK, data=X, **how):
    return vb.fit(model, data, **dict(key=key()) | how)


def stochastic(model=TEXTBOOK, data=X, **how):
    return vb.fit_stochastic(model, data, **dict(key=key()) | how)


def gibbs(model=TEXTBOOK, data=X, **how):
    return vb.gibbs(model, data, **dict(key=key()) | how)


def fitted(driver, **how):
    return driver(*({"model": textbook().model, "params": textbook().params, "data": X} | how).values())


def draws(params=None, n=(), at=None):
    return vb.sample_posterior(
        textbook().params if params is None else params, key() if at is None else at, n
    )


def replicate(**how):
    arguments = dict(model=textbook().model, params=textbook().params, data=X, observed=vb.Normal())
    return vb.replicate(**arguments | dict(key=key(), n_draws=2) | how)


elbo, optimum, response = (
    functools.partial(fitted, driver) for driver in (vb.elbo, vb.optimum, vb.linear_response)
)

NUMBERS = [-1, np.nan, np.inf, -np.inf, "0.1", None, [0.1], np.zeros(2), 1j, object(), True]
COUNTS = [0, -1, 2.0, np.nan, np.inf, "3", None, [3], np.arange(3), True, np.True_, 2**40, object()]
FLAGS = [None, "yes", 1, 2.0, np.zeros(2)]
KEYS = [None, 0, "key", np.zeros(2), jnp.zeros(3)]


def bad(driver, name, values):
    return [
        pytest.param(driver, name, value, id=f"{getattr(driver, '__name__', 'driver')}-{name}-{i}")
        for i, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("driver", "name", "value"),
    [
        *bad(fit, "tol", [v for v in NUMBERS if v is not None]),
        *(case for name in ("n_restarts", "max_iter") for case in bad(fit, name, COUNTS)),
        *bad(fit, "lanes", [v for v in COUNTS if v is not None]),
        *(case for name in ("accelerate", "check", "progress") for case in bad(fit, name, FLAGS)),
        *(case for driver in (fit, gibbs, stochastic, replicate) for case in bad(driver, "key", KEYS)),
        *(case for name in ("n_draws", "n_chains") for case in bad(gibbs, name, COUNTS)),
        *bad(gibbs, "n_warmup", COUNTS[1:]),
        *(case for name in ("batch_size", "n_epochs") for case in bad(stochastic, name, COUNTS)),
        *bad(stochastic, "total_rows", [v for v in COUNTS if v is not None]),
        *bad(stochastic, "total_rows", [4]),  # for an iterator alone
        *bad(stochastic, "delay", [*NUMBERS, 1e300]),
        *bad(stochastic, "forgetting", [*NUMBERS, 0.5, 0.3, 1.01]),
        *bad(stochastic, "progress", FLAGS),
        *bad(replicate, "n_draws", COUNTS),
        *bad(draws, "n", [-1, 2.0, "3", None, np.nan, object()]),
        *bad(draws, "params", [3, "a", [1.0], dict(mu=3.0), X]),
    ],
)
def test_what_is_no_such_number_is_refused_by_name(driver, name, value):
    with pytest.raises(ValueError, match=rf"^{name} "):
        driver(**{name: value})


@pytest.mark.parametrize("driver", [fit, stochastic, gibbs, elbo, optimum, response, replicate])
def test_what_is_no_model_is_refused_and_data_are_not_shown(driver):
    for none in (None, "a", 3, X, [1.0], object(), range(3)):
        with pytest.raises(ValueError, match=rf"^model must be a model, .*got {type(none).__name__}$"):
            driver(model=none)
    with pytest.raises(
        ValueError, match=r"^model must be an instance, KMeans\(\.\.\.\); got the class KMeans$"
    ):
        driver(model=vb.KMeans)


def test_model_and_data_that_have_changed_places_are_told_apart():
    for driver in (fit, stochastic, gibbs):
        with pytest.raises(
            ValueError, match=r"^model must.*the model comes before the data, which are KMeans$"
        ):
            driver(model=X, data=vb.KMeans(2))


def test_drivers_of_conjugate_models_say_so():
    for driver in (stochastic, gibbs, elbo, optimum, replicate):
        with pytest.raises(ValueError, match=r"^model must be conjugate for .*; got BlackBox$"):
            driver(model=BLACK_BOX)


def test_an_algorithm_has_its_own_tolerance():
    steps = vb.blackbox.ScoreMatching(BLACK_BOX)
    for name, value in dict(tol=0.1, accelerate=True, check=True).items():
        with pytest.raises(ValueError, match=rf"^{name} is for models"):
            vb.fit(steps, key=key(), **{name: value})


def test_numpys_numbers_are_numbers():
    plain = fit(tol=0.5, max_iter=7)
    assert fit(tol=np.float32(0.5), max_iter=np.int16(7)).objective == plain.objective
    assert fit(tol=np.array(0.5), max_iter=7, check=np.False_).objective == plain.objective


# ---------------------------------------------------------------- parameters of another model


def test_parameters_of_another_model_are_refused_wherever_they_are_used():
    model, x = mixture().model, rows()
    wider = vb.GaussianMixture(3).params_at(np.full(3, 1 / 3), np.eye(3, 2), np.stack([np.eye(2)] * 3))
    other = textbook().params
    uses = [
        *(getattr(model, name) for name in ("predict", "responsibilities", "log_predictive", "elbo_terms")),
        lambda params, x: model.means(params),
        lambda params, x: model.covariances(params),
        *(functools.partial(use, model) for use in (vb.elbo, vb.optimum, vb.linear_response)),
        jax.jit(model.predict),
        lambda params, x: model.sample(params, key(), 3),
        lambda params, x: vb.replicate(model, params, x, key=key()),
        lambda params, x: vb.fit(
            model, x, key=key(), params=3 if params is None else params, **HOW
        ),  # None is a random start
    ]
    with compilations() as count:
        for use in uses:
            with pytest.raises(ValueError, match=r"^params must have .*shapes.*\(2,\).*\(3,\)"):
                use(wider, x)
            for none in (other, None, 3, x):
                with pytest.raises(ValueError, match=r"^params must "):
                    use(none, x)
    assert count == []
    swapped = mixture().params | dict(components=vb.families.DirichletState(wider.weights.value))
    with pytest.raises(ValueError, match=r"^params must be those.*a DeltaState; got DirichletState"):
        model.predict(swapped, x)


def test_parameters_of_a_batch_of_fits_go_through_vmap():
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), mixture().params)
    with pytest.raises(ValueError, match=r"jax\.vmap goes through a batch of fits$"):
        mixture().model.means(batch)
    assert jax.vmap(mixture().model.means)(batch).shape == (2, 2, 2)


# ---------------------------------------------------------------- overflow


@pytest.mark.parametrize("how", [{}, dict(accelerate=True)])
def test_data_whose_squares_overflow_are_named(how):
    with pytest.raises(
        ValueError, match=r"^data must have squares that float32 can add up.*unit, or use float64"
    ):
        vb.fit(MODELS["unit variance"], rows("unit variance") * 1e30, key=key(), **HOW, **how)


# ---------------------------------------------------------------- the derivative of a fit


def mean(mu0, through=lambda fit: fit.params.mu.mean):
    return through(vb.fit(vb.textbook.GaussianMeanPrecision(mu0, 1.0, 1.0, 1.0), X, key=key()))


def test_the_reverse_derivative_of_a_fit_names_optimum():
    for derivative in (jax.grad(mean), jax.jit(jax.grad(mean)), jax.grad(jax.jit(mean))):
        with pytest.raises(ValueError, match=r"vb.fit has no reverse-mode derivative.*vb.optimum"):
            derivative(0.5)


def test_other_derivatives_are_left_alone():
    # the posterior mean of mu is (mu0 + sum x) / 5 where tau0 = 1, whatever tau is
    np.testing.assert_allclose(jax.jacfwd(mean)(0.5), 0.2, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(mean)(jnp.asarray([0.0, 1.0])), [2.8, 3.0], rtol=1e-5)

    def bound(mu0):
        return mean(mu0, lambda fit: vb.elbo(fit.model, jax.lax.stop_gradient(fit.params), X))

    exact = jax.grad(lambda model: vb.elbo(model, textbook().params, X))(textbook().model).location
    np.testing.assert_allclose(jax.grad(bound)(0.0), exact, rtol=1e-4)


def test_marked_values_are_the_values():
    tree = (jnp.asarray([1.0, 2.0], jnp.float32), jnp.asarray(3))
    for marked in (irreversible(tree), jax.vmap(lambda x: irreversible((x, tree[1]))[0])(tree[0])):
        np.testing.assert_array_equal(jax.tree.leaves(marked)[0], tree[0])
