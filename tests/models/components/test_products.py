"""Products of components: rows whose columns are of different kinds.

Independent columns are one component of all of them, by EM and by variational Bayes, in mixtures and in
hidden Markov models: table, pullback and whole runs. With one law a bound is the sum of the parts' own. The
order of the parts is of no account. The derived E-step is the oracle of what goes by parts. Starts take the
same rows for all parts. What a part refuses is said with its name. (Weights, chunks, monotone updates:
test_contracts.py.)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.registry import (
    N_COMPONENTS,
    N_ROWS,
    binary,
    categories,
    counts,
    lines,
    positive,
    profiles,
    sweeps,
    table,
)
from tests.support.rows import in_float
from tests.support.tolerances import close

K, KEY = N_COMPONENTS, jax.random.key(0)

INDEPENDENT = {  # components of independent columns, and data for them
    "binary": (vb.components.Bernoulli(), binary),
    "categories": (vb.components.Categorical(4), categories),
    "counts": (vb.components.Poisson(), counts),
    "positive": (vb.components.Gamma(), positive),
    "table": (vb.components.Gaussian("diag"), table),
}
KINDS = dict(em=vb.Mixture, vb=vb.BayesianMixture)
CHAINS = dict(em=vb.HiddenMarkovModel, vb=vb.BayesianHiddenMarkovModel)

every_how = pytest.mark.parametrize("how", KINDS)
every_independent = pytest.mark.parametrize("name", INDEPENDENT)


def rows(make, dtype):
    return jax.tree.map(lambda x: in_float(x, dtype), make(np.random.default_rng(0)))


def by_column(x):
    """Both columns of an array, or of parameters (k, d, ...), each as those of a part."""
    return jax.tree.map(lambda leaf: leaf[:, :1], x), jax.tree.map(lambda leaf: leaf[:, 1:], x)


@jax.jit
def started(model, data, key=KEY):
    """The model resolved, and where a run starts: in one program, where each operation would be one."""
    model = model.resolve(data)
    return model, model.init(key, data)


def columns(name, how, dtype, kinds=KINDS):
    """A model of both columns and of their product, resolved; their data; and one start for both."""
    component, make = INDEPENDENT[name]
    x = rows(make, dtype)
    parts = dict(zip("ab", by_column(x), strict=True))
    both = kinds[how](K, component)
    product = kinds[how](K, vb.components.Product(a=component, b=component))
    if kinds is CHAINS:
        x, parts = both.read(x), product.read(parts)
    both, start = started(both, x)
    return both, jax.jit(type(product).resolve)(product, parts), x, parts, start, split(start)


def split(params):
    """The parameters of the product of the columns, from those of one component."""
    a, b = by_column(params["components"])
    return vb.Record({name: q for name, q in params.items() if name != "components"}) | dict(a=a, b=b)


@every_independent
@every_how
def test_columns_by_themselves_are_a_component_of_all(name, how, dtype):
    both, product, x, parts, start, own = columns(name, how, dtype)
    ones = jnp.ones(N_ROWS, dtype)

    @jax.jit
    def scored(model, params, data):
        prepared = model.prepare(params)
        table, pull = model.component.log_density(prepared[1], data)
        return table, pull(table - table.mean()), sweeps(model, params, data, ones)[:2]

    expected, found = scored(both, start, x), scored(product, own, parts)
    close(found[0], expected[0])
    a, b = by_column(expected[1]["components"])
    statistics = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, 1), found[1]["a"], found[1]["b"])
    together = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, 1), a, b)
    close(statistics, together, factor=10)  # products of other shapes add up in other orders
    close(found[2][1], expected[2][1], factor=10)
    means = [{name: q.mean for name, q in params.items()} for params in (found[2][0], split(expected[2][0]))]
    close(*means, factor=1000)  # as of all that is compared after eight sweeps


@pytest.mark.parametrize("name", ["counts", "table"])
@every_how
def test_a_chain_of_columns_is_a_chain_of_all(name, how, float64):
    both, product, x, parts, start, own = columns(name, how, float64, CHAINS)
    expected, found = sweeps(both, start, x)[1], sweeps(product, own, parts)[1]
    assert np.ptp(expected) > 1
    close(found, expected, factor=10)


def different(dtype):
    """Parts of different kinds, and data for them."""
    parts = dict(
        height=vb.components.Gaussian("full"),
        visits=vb.components.Poisson(),
        line=vb.components.Regression(),
        taken=vb.components.Multinomial(),
    )
    makers = dict(height=table, visits=counts, line=lines, taken=profiles)
    return parts, {name: rows(make, dtype) for name, make in makers.items()}


def settled(model, data):
    """A model of one law, resolved; its parameters and its bound, where they no longer move."""
    model, start = started(model, data)
    params, objective, _ = sweeps(model, start, model.annotate(data))  # as a fit has them
    close(objective[1], objective[-1])
    return model, params, objective[-1, 0]


def test_the_bound_of_one_law_is_the_sum_of_its_parts(dtype):
    parts, data = different(dtype)
    whole, params, bound = settled(vb.BayesianMixture(1, vb.components.Product(**parts)), data)
    own = {name: settled(vb.BayesianMixture(1, part), data[name]) for name, part in parts.items()}
    close(bound, sum(bound for _, _, bound in own.values()))
    each = [model.log_predictive(params, data[name]) for name, (model, params, _) in own.items()]
    close(whole.log_predictive(params, data), sum(each), factor=10)
    for name, (_, alone, _) in own.items():
        close(params[name], alone.components, factor=10)
    terms = whole.elbo_terms(params, data)
    close(sum(terms.values()), bound, scale=max(map(abs, terms.values())))
    assert {f"entropy of {name}" for name in parts} < set(terms)


def two(dtype):
    """Two of these parts, and their data."""
    parts, data = different(dtype)
    first = ("height", "visits")
    return {name: parts[name] for name in first}, {name: data[name] for name in first}


def test_the_order_of_the_parts_changes_nothing(float64):
    parts, data = two(float64)
    orders = parts, dict(reversed(parts.items()))
    cases = [started(vb.BayesianMixture(K, vb.components.Product(**own)), data) for own in orders]
    assert list(cases[1][1]) == ["weights", "visits", "height"]
    first, second = (sweeps(*case, data)[1] for case in cases)
    close(second, first, factor=10)


@every_how
def test_the_derived_e_step_is_the_oracle(how, dtype):
    parts, data = different(dtype)
    model, params = started(KINDS[how](K, vb.components.Product(**parts)), data)
    weights = jnp.linspace(0, 2, N_ROWS, dtype=dtype)

    @jax.jit
    def both(model, params, rows, weights):
        s = vb.core.ConjugateModel.prepare(model, params)
        own = model.e_step(model.prepare(params), rows, weights)
        return own, vb.core.ConjugateModel.e_step(model, s, rows, weights)

    for given in (data, model.annotate(data)):
        own, derived = both(model, params, given, weights)
        close(own.bound, derived.bound, scale=derived.magnitude)
        natural = lambda t: {name: factor.natural for name, factor in t.items()}
        close(natural(own.statistics), natural(derived.statistics), factor=100)


def test_a_part_may_be_a_mixture_in_every_state(float64):
    """One state of it is a mixture beside the bound of the other part, sweep for sweep."""
    parts, data = two(float64)
    nested = vb.components.Mixture(2, vb.components.Gaussian())

    def in_time(component, data):
        model = vb.BayesianHiddenMarkovModel(1, component)
        data = model.read(data)
        model, start = started(model, data)
        return model, start, model.annotate(data)

    model, params, both = in_time(vb.components.Product(height=nested, visits=parts["visits"]), data)
    assert list(params) == ["initial", "transitions", "height_shares", "height", "visits"]
    first, own, height = in_time(nested, data["height"])
    other, alone, visits = in_time(parts["visits"], data["visits"])
    own |= dict(shares=params.height_shares, components=params.height)
    alone |= dict(components=params.visits)
    found = sweeps(model, params, both)[1]
    assert np.ptp(found) > 1
    close(found, sweeps(first, own, height)[1] + sweeps(other, alone, visits)[1], factor=10)


def test_parts_start_from_the_same_rows(float64):
    """Of rows that are far apart every law starts at one, in all parts."""
    x = jnp.arange(3.0)[jnp.arange(N_ROWS) % 3]
    data = dict(a=10 * x[:, None], b=jnp.round(100 * x[:, None] + 1))
    model = vb.Mixture(3, vb.components.Product(a=vb.components.Gaussian("diag"), b=vb.components.Poisson()))
    _, params = started(model, data)
    a = np.asarray(params.a.mean.location)[:, 0]
    np.testing.assert_allclose(np.sort(a), [0, 10, 20])
    np.testing.assert_allclose(params.b.mean[:, 0], 10 * a + 1, rtol=0.05)


def test_missing_entries_are_left_to_the_part(float64):
    parts, data = two(float64)
    holes = np.array(data["height"])
    holes[::3, 0] = np.nan
    parts |= dict(height=vb.components.Gaussian("diag", missing=True))
    data |= dict(height=holes)
    whole, params, bound = settled(vb.BayesianMixture(1, vb.components.Product(**parts)), data)
    own = [settled(vb.BayesianMixture(1, part), data[name]) for name, part in parts.items()]
    close(bound, sum(bound for _, _, bound in own))
    assert np.isnan(vb.replicate(whole, params, data, key=KEY)["height"][0, ::3, 0]).all()
    assert np.isnan(whole.simulate(params, KEY, whole.read(data))["height"][::3, 0]).all()


def test_draws_are_by_part(float64):
    parts, data = different(float64)
    model, params = started(vb.BayesianMixture(K, vb.components.Product(**parts)), data)
    given = dict(line=data["line"][0][:5], taken=7)
    drawn = model.sample(params, KEY, 5, given=given)
    assert {name: x.shape for name, x in drawn.items()} == dict(
        height=(5, 2), visits=(5, 2), line=(5,), taken=(5, 3)
    )
    np.testing.assert_array_equal(drawn["taken"].sum(-1), 7)
    again = vb.replicate(model, params, data, key=KEY, n_draws=2)
    assert jax.tree.map(jnp.shape, again) == jax.tree.map(lambda x: (2, *x.shape), data)
    np.testing.assert_array_equal(again["line"][0][0], data["line"][0])
    with pytest.raises(ValueError, match="part 'line': given must be the x"):
        model.sample(params, KEY, 5)
    with pytest.raises(ValueError, match="given must be a dict by the names of parts"):
        model.sample(params, KEY, 5, given=7)


def test_hyperparameters_are_changed_by_the_name_of_the_part():
    model = vb.BayesianMixture(
        2, vb.components.Product(a=vb.components.Poisson(), visits=vb.components.Poisson())
    )
    found = model.replace(rate=1.0, visits_rate=2.0, visit_concentration=3.0).component.parts
    assert (found.a.rate, found.visits.rate, found.visits.concentration) == (1.0, 2.0, 3.0)


GOOD = dict(a=np.ones((4, 2)), b=np.ones((4, 1)))
PRODUCT = vb.components.Product(a=vb.components.Gaussian(), b=vb.components.Poisson())
BAD = {
    "data must be a dict of the data of 'a', 'b'; got an array": lambda: np.ones((4, 2)),
    "data must be a dict of the data of 'a', 'b'; got one of 'a'": lambda: dict(a=GOOD["a"]),
    "part 'b': data must be counts; got -1": lambda: GOOD | dict(b=-GOOD["b"]),
    "part 'a': data must have shape": lambda: GOOD | dict(a=np.ones(4)),
    "data must have as many rows in every part": lambda: GOOD | dict(a=np.ones((5, 2))),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_data_are_refused_by_the_name_of_the_part(message):
    with pytest.raises(ValueError, match=message):
        vb.fit(vb.BayesianMixture(2, PRODUCT), BAD[message](), key=KEY)


def test_bad_parts_are_refused_by_name():
    product = vb.components.Product
    with pytest.raises(ValueError, match="parts must be components by name"):
        product()
    with pytest.raises(ValueError, match="a must be a component"):
        product(a=3)
    with pytest.raises(ValueError, match="the part 'weights' must have another name"):
        product(weights=vb.components.Poisson())
    same = product(a=vb.components.Mixture(2, vb.components.Gaussian()), a_shares=vb.components.Poisson())
    with pytest.raises(ValueError, match="the part 'a_shares' must have another name"):
        vb.fit(vb.BayesianHiddenMarkovModel(2, same), dict(a=GOOD["a"], a_shares=GOOD["b"]), key=KEY)
    negative = product(a=vb.components.Gaussian(), b=vb.components.Poisson(rate=-1.0))
    with pytest.raises(ValueError, match="rate of the part 'b' must be positive; got -1"):
        vb.fit(vb.BayesianMixture(2, negative), GOOD, key=KEY)
    other = product(a=vb.components.Gaussian(), b=vb.components.Poisson(rate=np.ones(3)))
    with pytest.raises(ValueError, match="part 'b': data must have 3 columns"):
        vb.fit(vb.BayesianMixture(2, other), GOOD, key=KEY)
