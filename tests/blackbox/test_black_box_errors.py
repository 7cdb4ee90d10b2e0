"""Hostile calls of black-box inference: refused before anything is compiled, by the name of the argument.

Each of these was an error from inside a program, a wrong answer without one, or the end of the process.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vbjax as vb

bb = vb.blackbox
NAN = float("nan")
NUMBER = dict(x=vb.real())
DATA = np.array([1.0, 2.0, 3.0], "f")


def key():
    return jax.random.key(0)


def square(s):
    return -0.5 * s.x**2


def rows(s, d):
    return -0.5 * (d - s.x) ** 2


def fit(log_density=square, support=NUMBER, *args, data=None, **kwargs):
    return vb.fit(vb.BlackBox(log_density, support, *args, **kwargs), data, key=key())


@pytest.mark.parametrize(
    ("log_density", "message"),
    [
        (lambda s: "x", "log_density cannot be evaluated at latents of shapes Record.*: TypeError"),
        (lambda s: None, "log_density must return a scalar; got None"),
        (lambda s: s.x * jnp.ones(3), "log_density must return a scalar; got .*3"),
        (lambda s: jax.lax.complex(s.x, s.x), "log_density must return real numbers; got complex64"),
        (lambda s: s.x > 0, "log_density must return real numbers; got bool"),
        (
            lambda s: s.y,
            r"log_density cannot be .*Record\(x=\(\)\): AttributeError: no 'y' here; there are: x",
        ),
        (lambda s: s["y"], "log_density cannot be evaluated .*: KeyError: 'y'"),
        (lambda s: 1 / 0, "log_density cannot be evaluated .*: ZeroDivisionError"),
        (lambda: 0.0, "log_density cannot be evaluated .*: TypeError: .*takes 0 positional arguments"),
        (lambda s: s.x if s.x > 0 else 0.0, "log_density cannot be evaluated .*; write it with jax.numpy"),
        (lambda s: np.log(s.x), "log_density cannot be evaluated .*; write it with jax.numpy"),
    ],
)
def test_functions_that_are_no_densities_are_named(log_density, message):
    with pytest.raises(ValueError, match=message):
        fit(log_density)


@pytest.mark.parametrize(
    ("log_likelihood", "message"),
    [
        (lambda s, d: rows(s, d).sum(), "log_likelihood must return one number for each of 3 rows"),
        (lambda s, d: jax.lax.complex(d, d), "log_likelihood must return real numbers; got complex64"),
        (lambda s, d: d > s.x, "log_likelihood must return real numbers; got bool"),
        (lambda s: rows(s, DATA), r"log_likelihood cannot .* and data of shapes \(3,\): TypeError"),
        (lambda s, d: s.y, "log_likelihood cannot be evaluated .*no 'y' here"),
    ],
)
def test_functions_that_are_no_likelihoods_are_named(log_likelihood, message):
    with pytest.raises(ValueError, match=message):
        fit(log_likelihood=log_likelihood, data=DATA)


@pytest.mark.parametrize(
    ("support", "message"),
    [
        (None, "support must hold supports alone .*got None"),
        (dict(x=None), "support must hold supports alone .*got None"),
        (dict(x=vb.real(), y=None), "support must hold supports alone .*got None"),
        (dict(x=vb.real), "support must hold supports alone .*got <function real"),
        ({vb.real()}, "support must hold supports alone"),
        (dict(x=vb.supports.Support()), "support must hold supports alone"),
        (dict(x=vb.real(0)), "support must have a latent of some size"),
        ({1: vb.real()}, "support must have names that are strings; got 1"),
        ({"x": vb.real(), ("y",): vb.real()}, "support must have names that are strings"),
    ],
)
def test_what_is_no_support_is_refused(support, message):
    with pytest.raises(ValueError, match=message):
        fit(support=support)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit(family=dict), "family must be one of .*; got <class 'dict'>"),
        (lambda: fit(family=bb.low_rank), "family cannot be evaluated .*: TypeError: low_rank"),
        (lambda: fit(family=lambda *_: 1 / 0), "family cannot be evaluated .*: ZeroDivisionError"),
        (lambda: fit(n_draws=True), "n_draws must be even"),
        (lambda: fit(n_draws=2**40), "n_draws must be at most"),
        (lambda: fit(support=vb.real(10**6)), "family has an array of 1,000,000,000,000 numbers"),
        (
            lambda: fit(support=vb.real(10**6), family="mean_field"),
            "n_draws draws of 1000000 numbers are 8,000,000,000,000 numbers",
        ),
        (lambda: fit(data=np.array(["a", "b"])), "data must be numbers"),
        (lambda: fit(data="abc"), "data must be numbers"),
        (lambda: fit(data=len), "data must be numbers"),
        (lambda: fit(data=key()), "data must be numbers"),
        (lambda: fit(data=np.ma.masked_array(DATA, DATA > 2)), "data must have no masked entry"),
        (lambda: fit(data=DATA), "log_density cannot .* takes 1 positional argument but 2 were given"),
        (lambda: fit(log_likelihood=rows, data=3.0), "data must be arrays with a common leading axis"),
        (lambda: fit(log_likelihood=rows, data=DATA[:0]), "data must have at least one row"),
        (lambda: fit(log_likelihood=rows, data=(DATA, DATA[:2])), "data must be arrays with a common"),
        (lambda: fit(log_likelihood=rows, data=DATA * NAN), "data must be finite; row 0"),
    ],
)
def test_options_and_data_are_read_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_numbers_of_numpy_and_lists_of_rows_are_taken():
    model = vb.BlackBox(square, NUMBER, n_draws=np.int64(8), log_likelihood=rows)
    assert model.inspect(model.read([1.0, 2.0])) is model


@pytest.fixture(scope="module")
def fitted():
    model = vb.BlackBox(square, NUMBER)
    return model, vb.fit(model, key=key())


@pytest.mark.parametrize("n", [0, -1, 2.0, "3", None, NAN, True, (2, 3), 2**40])
def test_numbers_of_draws_are_read(n, fitted):
    model, fit = fitted
    for call in (
        lambda: fit.params.sample(key(), n),
        lambda: model.resample(fit.params, key(), n),
        lambda: bb.gradient_estimates(model, fit.params, key=key(), n_draws=n),
        lambda: bb.gradient_estimates(model, fit.params, key=key(), n_estimates=n),
        lambda: bb.pathfinder(model, key=key(), max_iter=n),
        lambda: vb.fit(bb.StochasticAscent(model, n_steps=n), key=key()),
        lambda: vb.fit(bb.StochasticAscent(model, n_draws=n), key=key()),
        lambda: bb.low_rank(n),
        lambda: bb.mixture(n),
    ):
        with pytest.raises(
            ValueError, match=r"^(n|n_draws|n_estimates|n_steps|max_iter|rank|n_components) must"
        ):
            call()


@pytest.mark.parametrize("wrong", [None, 0, "a", np.zeros(3), jax.random.split(jax.random.key(0))])
def test_keys_are_read(wrong, fitted):
    model, fit = fitted
    for call in (
        lambda: fit.params.sample(wrong, 3),
        lambda: model.resample(fit.params, wrong, 3),
        lambda: bb.gradient_estimates(model, fit.params, key=wrong),
        lambda: vb.NonConjugate(vb.real()).neutral("float32").sample(wrong),
    ):
        with pytest.raises(ValueError, match="key must be one PRNG key"):
            call()


@pytest.mark.parametrize("p", [-0.1, 2.0, NAN, "a", None, 1j, [0.1, 1.1]])
def test_probabilities_are_read(p, fitted):
    for state in (fitted[1].params, vb.NonConjugate(vb.real()).neutral("float32")):
        with pytest.raises(ValueError, match=r"^p must be "):
            state.quantile(p)


def test_parameters_are_those_of_the_model(fitted):
    model, fit = fitted
    other = vb.BlackBox(lambda s: -(s @ s), vb.real(3)).init(key())
    batch = jax.tree.map(lambda x: x[None], fit.params)
    for wrong in (None, "a", 3, dict(x=1.0), fit, bb.Approximation, other, batch):
        for call in (
            lambda wrong: model.resample(wrong, key(), 3),
            lambda wrong: bb.gradient_estimates(model, wrong, key=key()),
            model.diagnose,
            model.bound,
            model.gradient_norm,
            model.score_draws,
            lambda wrong: model.log_ratios(wrong, jnp.zeros((2, 1))),
            lambda wrong: vb.linear_response(vb.BlackBox(square, NUMBER, "mean_field"), wrong),
        ):
            with pytest.raises(ValueError, match="params must be"):
                call(wrong)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: bb.gradient_estimates(square, None, key=key()), "model must be a BlackBox"),
        (
            lambda model: vb.fit(bb.StochasticAscent(model, optax.adam), key=key()),
            "optimizer must be an optax",
        ),
        (lambda model: vb.fit(bb.StochasticAscent(model, tol="a"), key=key()), "tol must be"),
        (lambda model: vb.fit(bb.ScoreMatching(model, tol=-1), key=key()), "tol must be"),
        (lambda model: vb.fit(bb.FixedDraws(model, tol=np.ones(2)), key=key()), "tol must be"),
        (
            lambda model: vb.fit(
                bb.NaturalAscent(vb.BlackBox(square, NUMBER, bb.low_rank(1)), 1.0), key=key()
            ),
            "NaturalAscent is for the families",
        ),
        (
            lambda model: vb.fit(bb.FixedDraws(vb.BlackBox(lambda s: s, vb.category(2))), key=key()),
            "FixedDraws is not for discrete latents",
        ),
        (
            lambda model: vb.fit(bb.StochasticAscent(model, batch_size=2.0), DATA, key=key()),
            "log_density cannot",
        ),
        (lambda model: bb.summed_out(3, dict(z=vb.category(2))), "log_density must be a function"),
        (lambda model: bb.summed_out(square, [vb.category(2)]), "discrete must hold vb.category"),
        (
            lambda model: fit(bb.summed_out(square, dict(x=vb.category(2)))),
            "latents must not have 'x', which",
        ),
        (
            lambda model: fit(bb.summed_out(square, dict(z=vb.category(2))), vb.real()),
            "latents must have names",
        ),
        (
            lambda model: fit(bb.summed_out(lambda s: s.x * jnp.ones(3), dict(z=vb.category(2)))),
            r"log_density must return a scalar; got shape \(3,\)",
        ),
        (lambda model: bb.pareto_smoothed("a"), "log_ratios must be numbers"),
        (lambda model: bb.pareto_smoothed(np.full(9, np.inf)), "log_ratios must be finite, or -inf"),
        (lambda model: bb.pareto_smoothed(np.zeros(4)), "log_ratios must be at least 5 numbers"),
        (lambda model: bb.pareto_smoothed(np.zeros((9, 9))), "log_ratios must be at least 5 numbers"),
        (lambda model: vb.NonConjugate(dict(a=vb.real(), b=None)), "support must hold supports alone"),
        (lambda model: vb.NonConjugate(vb.real(), ["full_rank"]), "family must be one of"),
        (lambda model: vb.NonConjugate(vb.real(), n_draws=3), "n_draws must be even"),
        (lambda model: vb.NonConjugate(vb.real()).neutral("float32").sample(key(), -1), "shape must be"),
    ],
)
def test_what_makes_no_sense_is_named(call, message, fitted):
    with pytest.raises(ValueError, match=message):
        call(fitted[0])
