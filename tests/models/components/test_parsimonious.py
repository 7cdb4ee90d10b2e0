"""The fourteen covariance models: each update is the best in its family, and published fits are reached.

Of random scatters every maximiser gives covariances that share what their name says; the objective has no
slope there in the family's own coordinates, and is higher than at any of many members about it. A wider
family is never worse. Of one component all are the same but for what a name leaves out. Free parameters are
counted as in Celeux & Govaert (1995), table 1. Maximum likelihoods are those that mclust prints.
(That no update lowers the likelihood, and float32: test_contracts.py.)
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.linalg import expm

import vbjax as vb
from tests.support.tolerances import close
from vbjax.models.components.covariance import MAXIMISERS, STRUCTURES, Update, n_covariance_parameters

K, D = 3, 3
NAMES = [name for name in STRUCTURES if name.isupper()]


def scatters():
    """Covariances of three components, of different sizes and directions, and their shares of the rows."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(K, D, 2 * D)) * np.array([1.0, 2.0, 0.5])[:, None, None]
    return root @ root.swapaxes(1, 2), np.array([0.5, 0.3, 0.2])


def loss(covariance, own, share):
    """Twice the objective, without its sign."""
    each = jnp.linalg.slogdet(covariance)[1] + jnp.trace(jnp.linalg.solve(covariance, own), axis1=1, axis2=2)
    return share @ each


@functools.partial(jax.jit, static_argnames="name")
def maximum(name, own, share):
    """The covariances (k, d, d) to which updates lead from the axes."""
    layout = STRUCTURES[name].layout
    diagonal, eye = jnp.diagonal(own, axis1=1, axis2=2), jnp.eye(D)
    as_laid = dict(full=own, diag=diagonal, spherical=diagonal.mean(1), tied=own)[layout]
    begin = diagonal[:, :, None] * eye if layout == "full" else as_laid
    if name in MAXIMISERS:
        weight = jnp.broadcast_to(share[:, None], (K, D)) if layout == "diag" else share
        update = Update(as_laid, weight, begin, jnp.full(D, 1e-9))
        again = lambda _, before: MAXIMISERS[name](update._replace(before=before))
        found = jax.lax.fori_loop(0, 60, again, begin)
    else:  # the plain ones have the closed forms of their families
        found = jnp.broadcast_to(jnp.tensordot(share, own, 1), own.shape) if layout == "tied" else as_laid
    return found if found.ndim == 3 else found.reshape(K, -1, 1) * eye


def coordinates(name, covariance):
    """Volumes, shapes and axes of members of a family, which share what the name says (checked)."""
    volume = np.linalg.det(covariance) ** (1 / D)
    if name[2] == "V":
        values, axes = np.linalg.eigh(covariance)
    else:
        axes = np.broadcast_to(
            np.linalg.eigh(covariance[1])[1] if name[2] == "E" else np.eye(D), covariance.shape
        )
        inside = axes.swapaxes(1, 2) @ covariance @ axes
        values = np.diagonal(inside, axis1=1, axis2=2)
        np.testing.assert_allclose(inside, values[:, :, None] * np.eye(D), atol=1e-9 * values.max())
    shape = values / volume[:, None]
    if name[0] == "E":
        np.testing.assert_allclose(volume, volume[0], rtol=1e-12)
    if name[1] in "EI":
        same = shape[0] if name[1] == "E" else np.ones(D)
        np.testing.assert_allclose(shape, np.broadcast_to(same, shape.shape), rtol=1e-9)
    return volume, shape, axes


@functools.partial(jax.jit, static_argnames="name")
def about(name, theta, volume, shape, axes):
    """A member of the family about another, at coordinates `theta` (5, k, d); the other at 0."""
    free = lambda letter, x: x if letter == "V" else jnp.broadcast_to(x[:1], x.shape) * float(letter == "E")
    size = free(name[0], theta[0, :, :1])
    form = free(name[1], theta[1] - theta[1].mean(1, keepdims=True))
    turn = free(name[2], theta[2])
    skew = jnp.zeros((K, D, D)).at[:, *np.tril_indices(D, -1)].set(turn)
    axes = axes @ jax.vmap(expm)(skew - skew.swapaxes(1, 2))
    return (axes * (volume[:, None] * shape * jnp.exp(size + form))[:, None]) @ axes.swapaxes(1, 2)


@functools.partial(jax.jit, static_argnames="name")
def slope_and_neighbours(name, own, share, parts, draws):
    score = lambda theta: loss(about(name, theta, *parts), own, share)
    return jax.grad(score)(jnp.zeros_like(draws[0])), jax.vmap(score)(draws)


@pytest.mark.parametrize("name", MAXIMISERS)
def test_an_update_is_the_best_of_its_family(name, float64):
    own, share = scatters()
    found = np.asarray(maximum(name, own, share))
    parts = coordinates(name, found)
    scale = np.geomspace(1e-3, 2, 200)[:, None, None, None]
    draws = scale * np.random.default_rng(1).normal(size=(200, 3, K, D))
    slope, neighbours = slope_and_neighbours(name, own, share, parts, draws)
    np.testing.assert_allclose(slope, 0, atol=1e-7)
    assert (neighbours >= loss(found, own, share) - 1e-12).all()


def test_a_wider_family_is_never_worse(float64):
    own, share = scatters()
    losses = {name: float(loss(maximum(name, own, share), own, share)) for name in NAMES}
    narrower = lambda a, b: (
        a != b and all("IEV".index(x) <= "IEV".index(y) for x, y in zip(a, b, strict=True))
    )
    pairs = [(a, b) for a in NAMES for b in NAMES if narrower(a, b)]
    assert len(pairs) == 61  # 3 in volume times 25 in the others, without the 14 of a name and itself
    assert all(losses[a] > losses[b] + 1e-3 for a, b in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_of_one_component_all_are_the_same(name, float64):
    """The others have no rows."""
    own, _ = scatters()
    found = maximum(name, own, np.array([1.0, 0, 0]))[0]
    expected = dict(I=np.diag(np.diag(own[0])), E=own[0], V=own[0])[name[2]]
    if name[1] == "I":
        expected = np.eye(D) * np.trace(own[0]) / D
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize(("k", "d"), [(3, 2), (2, 4), (14, 2)])
def test_free_parameters_are_counted_as_published(k, d):
    """Celeux & Govaert (1995), table 1, without means and weights; there in another form."""
    b = d * (d + 1) // 2
    table = dict(
        EEE=b, VEE=b + k - 1, EVE=b + (k - 1) * (d - 1), VVE=b + (k - 1) * d,
        EEV=k * b - (k - 1) * d, VEV=k * b - (k - 1) * (d - 1), EVV=k * b - (k - 1), VVV=k * b,
        EEI=d, VEI=d + k - 1, EVI=k * d - k + 1, VVI=k * d, EII=1, VII=k,
    )  # fmt: skip
    assert {name: n_covariance_parameters(name, k, d) for name in NAMES} == table


def iris():
    return pytest.importorskip("sklearn.datasets").load_iris().data


# what mclust prints: BIC in its sign, 2 log L - (free parameters) log n; by version 5 on R's own data
FAITHFUL = dict(
    EII=-3452.998, VII=-3458.305, EEI=-2354.601, VEI=-2350.607, EVI=-2352.618, VVI=-2346.065, EEE=-2325.220,
    VEE=-2322.972, EVE=-2324.273, VVE=-2320.433, EEV=-2329.115, VEV=-2325.416, EVV=-2327.598, VVV=-2322.192,
)  # fmt: skip
IRIS = dict(
    EII=-1123.4117, VII=-1012.2352, EEI=-1042.9679, VEI=-956.2823, EVI=-1007.3082, VVI=-857.5515,
    EEE=-688.0972, VEE=-656.3270, VEV=-561.7285, EVV=-658.3306, VVV=-574.0178,
)  # fmt: skip
SAMPLE = {("iris", "VEV"), ("faithful", "VVE")}
PUBLISHED = [
    pytest.param(data, name, bic, marks=[] if (data, name) in SAMPLE else pytest.mark.again)
    for data, table in dict(faithful=FAITHFUL, iris=IRIS).items()
    for name, bic in table.items()
]


@pytest.mark.parametrize(("data", "name", "published"), PUBLISHED)
def test_fits_of_two_components_are_as_published(data, name, published, float64):
    """Scrucca et al. (2016) and tables of mclustBIC; the best of some runs may be a little better."""
    x = iris() if data == "iris" else vb.datasets.old_faithful().astype(float)
    fit = vb.fit(vb.GaussianMixture(2, name), x, key=jax.random.key(0), n_restarts=8, tol=1e-8, max_iter=3000)
    np.testing.assert_allclose(-fit.bic(x), published, rtol=1e-4)


def test_three_equal_ellipses_on_old_faithful(float64):
    """What `Mclust(faithful)` chooses: log likelihood -1126.316 at convergence, df 11."""
    x = vb.datasets.old_faithful().astype(float)
    fit = vb.fit(
        vb.GaussianMixture(3, "EEE"), x, key=jax.random.key(0), n_restarts=8, tol=1e-8, max_iter=3000
    )
    np.testing.assert_allclose(fit.objective, -1126.316, rtol=1e-6)
    assert fit.model.n_parameters == 11


def test_accelerated_runs_stay_in_the_family(float64):
    """Extrapolated covariances are made alike: no sweep from them falls, and they share a shape."""
    x = vb.datasets.old_faithful().astype(float)
    fit = vb.fit(vb.GaussianMixture(2, "VEV"), x, key=jax.random.key(0), n_restarts=4, accelerate=True)
    assert (fit.runs.status == vb.Status.CONVERGED).all()
    values = np.linalg.eigvalsh(fit.params.components.value.covariance)
    np.testing.assert_allclose(values[0, 1] / values[0, 0], values[1, 1] / values[1, 0], rtol=1e-9)


def test_covariances_that_share_are_not_for_variational_bayes():
    message = r"covariance_type of the component must be full, tied, .* by variational Bayes; .* got 'VEV'"
    with pytest.raises(ValueError, match=message):
        vb.fit(vb.BayesianGaussianMixture(2, "VEV"), np.eye(3), key=jax.random.key(0))


def test_given_covariances_are_made_alike(float64):
    own, share = scatters()
    model = vb.GaussianMixture(K, "VEV")
    params = model.params_at(share, np.zeros((K, D)), own)
    values = np.linalg.eigvalsh(params.components.value.covariance)
    shape = values / np.prod(values, 1, keepdims=True) ** (1 / D)
    close(shape, np.broadcast_to(shape[0], shape.shape), factor=100)
