"""The check for conjugacy: what is not affine in a factor's statistics is refused by that factor's name.

Also inside jit, far from the origin, where the mistake is in one row alone or in a gradient alone, and where
statistics are taken for raw moments. A likelihood gives one number for each row. (What is accepted, and the
blocks that are found: test_check_blocks.py.)
"""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import vbjax as vb
from tests.support.registry import mean_and_precision
from tests.support.small_models import MU, TAU, column, far, model, none, regression_data
from vbjax import terms
from vbjax.core.conjugacy.check import inspect_model

# ---------------------------------------------------------------- programs that are not conjugate


def flat(x):
    """A row's worth of nothing, so that what is wrong is elsewhere."""
    return jnp.zeros_like(x)


def squared_mean(s, x):
    return terms.normal(x, s.mu, 1.0) - s.mu.first**2


def logistic(s, x):
    return jax.nn.log_sigmoid(x * s.w.first)


def student_t(s, x):
    return -2.5 * jnp.log1p((x - s.mu.first) ** 2 / 4)


def two_picks_of_one(s):
    return terms.normal(s.mu, 0.0, 1.0) + (s.c.p[0] * s.c.p[1]).sum()


def two_local_picks_of_one(s, x):
    return terms.normal(x, s.mu, 1.0) + (s.c.p[:, 0] * s.c.p[:, 1]).sum(-1)


def latent_shape(s, x):
    return terms.gamma(x**2, s.a.value, 2.0)


def absolute(s, x):
    return -jnp.abs(x - s.mu.first)


def squared_precision(s, x):
    return terms.normal(x, 0.0, s.tau) - s.tau.value**2


def log_of_mean(s, x):
    return 0.5 * (jnp.log(s.tau.value) - s.tau.value * x**2)


def variance_for_precision(s, x):
    return terms.normal(x, 0.0, 1 / s.tau.value)


def correlated_product(s, x):
    return x * s.w.first[0] * s.w.first[1]


def stopped(s, x):
    return terms.normal(x, lax.stop_gradient(s.mu), s.tau)


def sign(s, x):
    return x * jnp.sign(s.w.first).sum()


def rectified(s, x):
    return x * jax.nn.relu(s.w.first).sum()


def determinant_of_mean(s):
    return jnp.linalg.slogdet(s.lam.value)[1] - jnp.trace(s.lam.value)


def entropy_of_weights(s):
    return -(jnp.exp(s.weights.log) * s.weights.log).sum()


def most_probable(s, x):
    return x * s.c.p.max(-1)


def squared_projection(s, rows):
    return -((rows["y"] - rows["x"] @ s.w.first) ** 2)


def square_in_scan(s, x):
    return lax.scan(lambda carry, xi: (carry * s.mu.first, carry + xi), jnp.ones_like(x[0]), x)[1]


def of_the_prior(s):
    return terms.gamma(s.tau, 2.0, 1.0) + terms.normal(s.mu, 0.0, jnp.exp(s.tau.log))


BAD = {
    "squared mean": ("mu", model(MU, squared_mean), column),
    "squared mean below the rounding of the rest": ("mu", model(MU, squared_mean), far),
    "logistic": ("w", model(dict(w=vb.Normal()), logistic), column),
    "Student t": ("mu", model(MU, student_t), column),
    "two picks of one factor": (
        "c",
        model(MU | dict(c=vb.Categorical(3, plate=(2,))), prior=two_picks_of_one),
        none,
    ),
    "two picks of one local factor": (
        "c",
        model(MU, two_local_picks_of_one, local=dict(c=vb.Categorical(3, plate=(2,)))),
        column,
    ),
    "latent shape of a Gamma": ("a", model(dict(a=vb.Gamma()), latent_shape), column),
    "absolute value": ("mu", model(MU, absolute), column),
    "squared precision": ("tau", model(TAU, squared_precision), column),
    "log of a mean": ("tau", model(TAU, log_of_mean), column),
    "variance for precision": ("tau", model(TAU, variance_for_precision), column),
    "normal for precision": (
        "tau",
        model(dict(tau=vb.Normal()), lambda s, x: terms.normal(x, 0.0, s.tau.first)),
        column,
    ),
    "correlated product": ("w", model(dict(w=vb.Normal((2,))), correlated_product), column),
    "stop_gradient": ("mu", model(MU | TAU, stopped), column),
    "sign": ("w", model(dict(w=vb.Normal((4,))), sign), column),
    "rectified": ("w", model(dict(w=vb.Normal((4,))), rectified), column),
    "determinant of a mean": ("lam", model(dict(lam=vb.Wishart(2)), prior=determinant_of_mean), none),
    "entropy": ("weights", model(dict(weights=vb.Dirichlet(3)), prior=entropy_of_weights), none),
    "largest probability": ("c", model(MU, most_probable, local=dict(c=vb.Categorical(3))), column),
    "squared projection": ("w", model(dict(w=vb.MultivariateNormal(2)), squared_projection), regression_data),
    "square in a scan": ("mu", model(MU, square_in_scan), column),
    "in the prior": ("tau", model(MU | TAU, lambda s, x: flat(x), of_the_prior), column),
    "a point": ("mu", model(dict(mu=vb.Delta(vb.Normal())), squared_mean), column),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_affine_is_refused_by_name(name, dtype):
    factor, bad, make = BAD[name]
    with pytest.raises(ValueError, match=f"not affine in the statistics of the factor '{factor}'"):
        inspect_model(bad, make(dtype))


def probit(s, x):
    return jax.scipy.stats.norm.logcdf(x * s.w.first[0, 0])


def softplus(s, x):
    return -jax.nn.softplus(x * s.w.first)


LOADINGS = dict(w=vb.MultivariateNormal(2, plate=(3,)))
REMEDIES = {
    "terms.logistic, with a local vb.PolyaGamma.*w=vb.NonConjugate.vb.real": BAD["logistic"][1],
    "is terms.logistic": model(dict(w=vb.Normal()), softplus),
    r"vb.TruncatedNormal.*w=vb.NonConjugate\(vb.real\(\(3, 2\)\)\)": model(LOADINGS, probit),
    "normal whose precision is multiplied by a local vb.Gamma": BAD["Student t"][1],
    r"a=vb.NonConjugate\(vb.positive\(\(\)\)\), which is a value": BAD["latent shape of a Gamma"][1],
}


@pytest.mark.parametrize("message", REMEDIES)
def test_a_refusal_names_what_would_do(message):
    with pytest.raises(ValueError, match=message):
        inspect_model(REMEDIES[message], column("float32"))


# ---------------------------------------------------------------- rows that depend on other rows


def whole(dtype):
    return jnp.arange(5) // 3


def ones(dtype):
    return jnp.ones(5, int)


def flags(dtype):
    return jnp.arange(5) > 3


def about(values):
    """Rows from which something of all of them is taken away."""
    return model(MU, lambda s, x: terms.normal((x - values(x)).astype("float32"), s.mu, 1.0))


OF_OTHERS = {
    "mean": (about(jnp.mean), column),
    "mean, far away": (about(jnp.mean), far),
    "mean of what is not NaN": (about(jnp.nanmean), column),
    "largest": (about(jnp.max), column),
    "median": (about(jnp.median), column),
    "sum up to here": (about(jnp.cumsum), column),
    "sum from here": (about(lambda x: jnp.cumsum(x[::-1])[::-1]), column),
    "the row before": (about(lambda x: jnp.concatenate([x[:1], x[:-1]])), column),
    "the row after": (about(lambda x: jnp.concatenate([x[1:], x[-1:]])), column),
    "a row between": (about(lambda x: x[1]), column),
    "the place": (about(lambda x: jnp.arange(4.0, dtype=x.dtype)), column),
    "sum of whole numbers": (about(jnp.sum), whole),
    "sum of equal numbers": (about(jnp.sum), ones),
    "any flag": (model(MU, lambda s, x: terms.normal(jnp.where(x | x.any(), 1.0, 2.0), s.mu, 1.0)), flags),
}


@pytest.mark.parametrize("name", OF_OTHERS)
def test_a_row_that_depends_on_other_rows_is_refused(name):
    bad, make = OF_OTHERS[name]
    with pytest.raises(ValueError, match="log_likelihood must give each row's number from that row alone"):
        inspect_model(bad, make("float32"))


# ---------------------------------------------------------------- where it is asked


def test_inside_jit_a_model_is_examined_all_the_same():
    @jax.jit
    def inspected(bad, x):
        inspect_model(bad, x)

    with pytest.raises(ValueError, match="factor 'tau'"):
        inspected(model(TAU, squared_precision), column("float32"))
    inspected(mean_and_precision(), column("float32"))


def test_a_likelihood_that_is_not_one_number_for_each_row_is_refused():
    with pytest.raises(ValueError, match=r"one number for each row: of 4 rows shape \(4,\)"):
        inspect_model(model(MU, lambda s, x: terms.normal(x, s.mu, 1.0).sum()), column("float32"))


def test_a_mistake_in_one_row_alone_is_seen():
    def rows(s, x):
        return terms.normal(x, s.mu, 1.0).at[2].multiply(s.mu.first)

    with pytest.raises(ValueError, match="factor 'mu'"):
        inspect_model(model(MU, rows), column("float32"))


# ---------------------------------------------------------------- far away, in other words


def test_a_kink_far_away_is_seen():
    with pytest.raises(ValueError, match="factor 'mu'"):
        inspect_model(model(MU, absolute), far("float32"))


def stopped_in_part(s, x):
    return terms.normal(x, s.mu, 1.0) + terms.normal(x, lax.stop_gradient(s.mu), 1.0)


def test_a_wrong_gradient_is_seen_far_from_the_origin():
    with pytest.raises(ValueError, match="factor 'mu'"):
        inspect_model(model(MU, stopped_in_part), far("float32"))


def without_pivot(s, x):
    """As if `first` and `second` were E[mu] and E[mu^2]: right about the pivot 0 alone."""
    return -0.5 * (x**2 - 2 * x * s.mu.first + s.mu.second)


def test_statistics_taken_for_raw_moments_are_seen():
    with pytest.raises(ValueError, match="factor 'mu'"):
        inspect_model(model(MU, without_pivot), column("float32"))


# ---------------------------------------------------------------- what cannot be evaluated, or has no mass


def normal_rows(s, x):
    return terms.normal(x, s.mu, 1.0)


def refused(message, **parts):
    x = jnp.asarray([1.0, 2.0, 4.0, 3.0, 0.0], jnp.float32)
    with pytest.raises(ValueError, match=message):
        vb.fit(vb.Model(**parts), x, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        (
            "log_prior cannot .* no 'nu' here; there are: mu",
            dict(log_prior=lambda s: terms.normal(s.nu, 0.0, 1.0)),
        ),
        ("log_likelihood cannot .* no 'tau'", dict(log_likelihood=lambda s, x: terms.normal(x, s.mu, s.tau))),
        ("log_likelihood cannot .*mu: Normal\\(plate=\\(3,\\)\\)", dict(factors=dict(mu=vb.Normal((3,))))),
        ("log_prior must give one number", dict(log_prior=lambda s: terms.normal(jnp.zeros(3), s.mu, 1.0))),
        (
            r"the local factor 'c' \(Categorical\(.*is in no term of log_prior or log_likelihood",
            dict(local=dict(c=vb.Categorical(2))),
        ),
        ("hyperparameter out of its range", dict(log_prior=lambda s: terms.normal(s.mu, 0.0, -1.0))),
    ],
)
def test_what_cannot_be_evaluated_is_refused_with_names_and_shapes(message, parts):
    refused(message, **dict(factors=dict(mu=vb.Normal()), log_likelihood=normal_rows) | parts)


@pytest.mark.parametrize(
    ("message", "family", "rows"),
    [
        ("factor 'z' .* improper.* precision", vb.Normal((3,)), lambda s, x: terms.normal(x, s.z[0], 1.0)),
        ("factor 'z' .* improper.* rate", vb.Gamma((3,)), lambda s, x: terms.normal(x, 0.0, s.z[0])),
        (
            "factor 'z' .* improper.* precision",
            vb.MultivariateNormal(2),
            lambda s, x: 0 * s.z.first[0] + 0 * x,
        ),
    ],
)
def test_a_factor_that_neither_prior_nor_data_speak_of_is_refused_by_name(message, family, rows):
    refused(message, factors=dict(z=family), log_likelihood=rows)
