"""Pathfinder: exact at the end of its path where the target is normal, and a better start where it is not."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from notebooks.posteriors import posterior
from tests.support.clouds import key
from tests.support.tolerances import close
from vbjax.blackbox import pathfinder
from vbjax.blackbox.scales import Diagonal, Full, whitener

PRECISION = np.array([[4.0, 1.5, 0.0], [1.5, 1.0, 0.3], [0.0, 0.3, 9.0]])
MEAN = np.array([1.0, -20.0, 300.0])


def normal_target(s):
    """log N(MEAN, PRECISION^-1) of a pair and a number, but for a constant."""
    shift = jnp.concatenate([s.pair, s.single[None]]) - jnp.asarray(MEAN, s.pair.dtype)
    return -0.5 * shift @ jnp.asarray(PRECISION, s.pair.dtype) @ shift


SUPPORT = dict(pair=vb.real(2), single=vb.real())


@pytest.mark.parametrize("family", ["full_rank", "blocks", "mean_field"])
def test_paths_to_a_normal_target_end_near_the_best_of_the_family(float64, family):
    # whose bound is 1/2 log |2 pi P^-1| for the target's own part P of the precision
    model = vb.BlackBox(normal_target, SUPPORT, family=family, n_paths=4)
    start = pathfinder(model, key=key())
    own = dict(full_rank=np.zeros(3), blocks=np.array([0, 0, 1]), mean_field=np.arange(3))[family]
    precision = np.where(own[:, None] == own, PRECISION, 0)
    best = -0.5 * np.linalg.slogdet(precision / (2 * np.pi))[1]
    assert best - 0.1 < model.bound(start) < best + 1e-9


@pytest.mark.parametrize(("kind", "keep"), [(Full(), np.ones((3, 3))), (Diagonal(), np.eye(3))])
def test_the_part_of_a_family_is_its_own_part_of_the_precision(kind, keep, dtype):
    precision = jnp.asarray(PRECISION, dtype)
    scale = np.asarray(kind.part(precision, whitener(precision)), float)
    scale = scale if keep.all() else np.diag(scale)
    close((scale @ scale.T).astype(dtype), np.linalg.inv(PRECISION * keep))


def test_every_fit_finds_the_higher_of_two_modes_where_single_starts_find_either(float64):
    # 0.9 N(-5, 1) + 0.1 N(3, 1): most points are nearer to the lower mode
    def two_modes(u):
        return jnp.logaddexp(jnp.log(0.9) - 0.5 * (u + 5) ** 2, jnp.log(0.1) - 0.5 * (u - 3) ** 2)

    model = lambda n: vb.BlackBox(two_modes, vb.real(), n_paths=n)
    keys = jax.random.split(key(), 12)
    ends = {}
    for n in (1, 16):
        mean = jax.jit(jax.vmap(lambda k, n=n: vb.fit(model(n), key=k).params.mean))(keys)
        ends[n] = np.abs(mean + 5) < 0.1
    assert not ends[1].all()
    assert ends[16].all()


def test_a_fit_starts_where_the_paths_end(float64):
    target = posterior("kidscore_momiq")
    model = vb.BlackBox(target.log_density, target.support)
    start = pathfinder(model, target.data, key=key(1), max_iter=100)
    again = model.init(key(1), model.read(target.data))
    chex.assert_trees_all_close(again, start, rtol=1e-9)
    assert vb.fit(model, target.data, key=key(1)).n_iter < 20


def test_a_path_beside_an_abyss_stays_out_of_it_or_is_refused():
    # log x (1 - x) of any real x: not a number outside (0, 1), infinitely low at its ends
    model = vb.BlackBox(lambda s: jnp.log(s.x) + jnp.log1p(-s.x), dict(x=vb.real()), family="mean_field")
    inside = {s: bool(0 < model.begin(key(s))[0].q.location[0] < 1) for s in range(4)}
    assert set(inside.values()) == {False, True}
    for seed, fine in inside.items():
        if fine:
            start = pathfinder(model, key=key(seed))
            chex.assert_tree_all_finite(start.q)
        else:
            message = "log_density with the supports' Jacobian is nan at the start, at Record.*x="
            with pytest.raises(ValueError, match=message):
                pathfinder(model, key=key(seed))


def test_what_has_no_path_is_refused():
    mixture = vb.BlackBox(lambda x: -(x**2), vb.real(), family=vb.blackbox.mixture(2))
    with pytest.raises(ValueError, match=r"pathfinder is for the families 'full_rank'.*got MixtureStart"):
        pathfinder(mixture, key=key())
    with pytest.raises(ValueError, match="model must be a BlackBox; got 3"):
        pathfinder(3, key=key())


def test_an_end_that_no_valley_parts_from_the_best_is_at_its_mode(float64):
    # a ridge, flat but for its ends: paths end anywhere along it
    ridge = lambda s: -0.5 * (s.x / 30) ** 8 - 50 * (s.y - s.x) ** 2
    model = vb.BlackBox(ridge, dict(x=vb.real(), y=vb.real()))
    paths = pathfinder(model, key=key()).paths
    assert np.ptp(paths.location[paths.ended][:, 0]) > 1
    assert paths.ended.sum() > 4
    assert not paths.elsewhere.any()
