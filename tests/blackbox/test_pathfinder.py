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
from vbjax.blackbox.algorithms.pathfinder import _nearest_normal
from vbjax.blackbox.families import LocationScale
from vbjax.blackbox.scales import Diagonal, Full

PRECISION = np.array([[4.0, 1.5, 0.0], [1.5, 1.0, 0.3], [0.0, 0.3, 9.0]])
MEAN = np.array([1.0, -20.0, 300.0])


def normal_target(s):
    """log N(MEAN, PRECISION^-1) of a pair and a number, but for a constant."""
    shift = jnp.concatenate([s.pair, s.single[None]]) - jnp.asarray(MEAN, s.pair.dtype)
    return -0.5 * shift @ jnp.asarray(PRECISION, s.pair.dtype) @ shift


SUPPORT = dict(pair=vb.real(2), single=vb.real())


def test_a_path_to_a_normal_target_ends_at_it_after_as_many_steps_as_dimensions(float64):
    # two more, as the search along a line is not exact; q has the target's blocks of precision
    model = vb.BlackBox(normal_target, SUPPORT, family="blocks")
    keys = jax.random.split(key(), 3)
    starts = jax.jit(jax.vmap(lambda k: pathfinder(model, key=k, max_iter=5)))(keys)
    np.testing.assert_allclose(starts.q.location, np.tile(MEAN, (3, 1)), atol=1e-9)
    covariance = starts.q.scale @ jnp.swapaxes(starts.q.scale, 1, 2)
    apart = np.array([0, 0, 1])
    own = np.linalg.inv(np.where(apart[:, None] == apart, PRECISION, 0))
    np.testing.assert_allclose(covariance, np.tile(own, (3, 1, 1)), atol=1e-8)


@pytest.mark.parametrize(("kind", "keep"), [(Full(), np.ones((3, 3))), (Diagonal(), np.eye(3))])
def test_the_nearest_of_a_family_to_a_normal_has_its_mean_and_its_own_part_of_the_precision(
    kind, keep, dtype
):
    like = LocationScale(jnp.zeros(3, dtype), kind.start(3, dtype), kind)
    q = _nearest_normal(like, jnp.asarray(MEAN, dtype), jnp.asarray(PRECISION, dtype))
    scale = np.asarray(q.scale, float) if keep.all() else np.diag(np.asarray(q.scale, float))
    close(q.location, MEAN)
    close((scale @ scale.T).astype(dtype), np.linalg.inv(PRECISION * keep))


def test_a_fit_that_starts_there_takes_fewer_sweeps(float64):
    target = posterior("kidscore_momiq")
    model = vb.BlackBox(target.log_density, target.support)
    start = pathfinder(model, target.data, key=key(1))
    fit = vb.fit(model, target.data, key=key(1), params=start, n_restarts=2, lanes=1)
    assert (fit.runs.status == vb.Status.CONVERGED).all()
    assert fit.runs.n_iter[0] < fit.runs.n_iter[1]  # of the second run, from a random start
    np.testing.assert_allclose(fit.runs.objective, fit.objective, atol=1e-2)  # other draws


def test_a_path_beside_an_abyss_stays_out_of_it_or_is_refused():
    # log x (1 - x) of any real x: not a number outside (0, 1), infinitely low at its ends
    model = vb.BlackBox(lambda s: jnp.log(s.x) + jnp.log1p(-s.x), dict(x=vb.real()), family="mean_field")
    inside = {s: bool(0 < model.init(key(s)).q.location[0] < 1) for s in range(4)}
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
