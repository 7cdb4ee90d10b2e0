"""Laws of points, over the table of families.

A point is where <g, t> is largest, whatever the number of its densities in the log joint: no neighbour has
more. Its statistics are those of its value. Partial steps average what points rest on, one after the other.
A cell of which a gradient says nothing keeps its value to the last digit, and has no NaN. A point that was
given rests on nothing. Coordinates lead there and back. (That a point is the mode of the family's optimal
state: test_families.py.)
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.family_table import CASES, N_NEAR, PLATE, around, elsewhere, jit
from tests.support.tolerances import close
from vbjax.families import (
    DeltaState,
    LocationCovariance,
    MatrixNormalWishart,
    MultivariateNormalGamma,
    NormalGamma,
    NormalWishart,
    Wishart,
)
from vbjax.families.coordinates import at_coordinates, coordinates
from vbjax.families.shaped_gamma import ShapedGamma, ShapeRate

POINTS = [name for name, case in CASES.items() if case.has_mode]
MOVING = [name for name in POINTS if name not in ("Categorical", "MarkovChain", "GaussMarkov")]
of_points = pytest.mark.parametrize("name", POINTS)


def gradient_of(case, dtype, seed):
    """Statistics about a pivot of their own, and the gradient of a log density there, without its base."""
    q = case.state(dtype, seed)
    t = elsewhere(q.expected())
    return t, case.family.natural(q, t).with_base(0.0)


@of_points
def test_a_point_beats_its_neighbours_with_a_density_of_its_own_or_none(name, float64):
    case = CASES[name]

    @jit
    def measure(n_densities):
        t, gradient = gradient_of(case, float64, 0)
        gradient = gradient.with_base(n_densities)
        point = vb.Delta(case.family).from_gradient(t, gradient)

        def energy(x):
            s = point.statistics(x).like(t)
            return s.inner(gradient) + gradient.log_base * s.log_base

        return energy(point.mean), energy(around(case, point.mean, N_NEAR, 0.02)), point.expected()

    for n_densities in (0.0, 1.0):
        top, near, t = measure(n_densities)
        assert (top >= near).all()
        assert (top > near).any()
        chex.assert_tree_all_finite(t)


@of_points
def test_partial_steps_average_what_points_rest_on(name, float64):
    case = CASES[name]
    factor, rhos = vb.Delta(case.family), (0.3, 0.6)

    @jit
    def both():
        given = [gradient_of(case, float64, seed) for seed in range(3)]
        one, two, three = (factor.from_gradient(*pair) for pair in given)
        t = given[0][0]
        a, b, c = (g.gradient_like(t) for g in (one.gradient, two.gradient, three.gradient))
        mixed = factor.mix(factor.mix(one, two, rhos[0]), three, rhos[1])
        weights = (1 - rhos[0]) * (1 - rhos[1]), rhos[0] * (1 - rhos[1]), rhos[1]
        total = jax.tree.map(lambda *x: sum(w * y for w, y in zip(weights, x, strict=True)), a, b, c)
        ends = factor.mix(one, two, 0.0), one, factor.mix(one, two, 1.0), two
        return mixed.value, factor.from_gradient(t, total).value, [point.value for point in ends]

    mixed, desired, (none, one, all_of_it, two) = both()
    close(mixed, desired, factor=100)  # sums about pivots that are far apart
    close((none, all_of_it), (one, two), factor=100)


@pytest.mark.parametrize("name", [name for name in POINTS if name != "GaussMarkov"])
def test_a_cell_without_rows_keeps_its_point_and_a_given_point_rests_on_nothing(name, dtype):
    case = CASES[name]
    factor = vb.Delta(case.family)

    @jit
    def check():
        _, gradient = gradient_of(case, dtype, 0)
        before = factor.neutral(dtype)
        t = before.expected()
        gradient = gradient.gradient_like(t)
        here = jnp.arange(*PLATE) == 0
        where = lambda x: jnp.where(here.reshape(PLATE + (1,) * (x.ndim - 1)), x, 0)
        moved = factor.update(before, t, gradient)
        halved = factor.update(before, t, jax.tree.map(where, gradient))
        return before, moved, halved, factor.mix(before, moved, 0.25)

    before, moved, halved, mixed = check()
    for old, new, kept in zip(*(jax.tree.leaves(x.value) for x in (before, moved, halved)), strict=True):
        close(kept[0], new[0], factor=10)
        if name not in ("Categorical", "MarkovChain"):  # where nothing is said the first state is best
            np.testing.assert_array_equal(kept[1], old[1])
    chex.assert_tree_all_finite(halved)
    close(mixed.value, moved.value, factor=100)  # of a point that rests on nothing, nothing is left


@pytest.mark.parametrize("name", MOVING)
def test_coordinates_of_points_lead_there_and_back(name, dtype):
    case = CASES[name]
    factor = vb.Delta(case.family)

    @jit
    def travel():
        origin, point = (factor.from_gradient(*gradient_of(case, dtype, seed)) for seed in range(2))
        there = coordinates(point, origin)
        shifted = at_coordinates(jax.tree.map(lambda x: x - 3, there), origin)
        return there, at_coordinates(there, origin).value, point.value, shifted.expected()

    there, back, value, elsewhere = travel()
    assert set(there) == set(case.state(dtype).expected().point_domains)
    close(back, value, factor=10)
    chex.assert_tree_all_finite(elsewhere)


def test_where_shares_and_rates_are_0_they_stay_0(dtype):
    """In an extrapolation too: EM cannot leave the boundary."""
    for factor, zero, other in (
        (vb.Delta(vb.Dirichlet(3)), [0.5, 0.5, 0.0], [0.25, 0.75, 0.0]),
        (vb.Delta(vb.Gamma((2,))), [0.0, 2.0], [0.0, 3.0]),
        (vb.Delta(vb.Beta((2,))), [0.0, 0.5], [0.0, 0.25]),
    ):
        origin, point = (factor.at(np.asarray(x, dtype)) for x in (zero, other))
        close(at_coordinates(coordinates(point, origin), origin).value, point.value)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(point.expected()))


def test_points_of_values_have_the_statistics_of_those_values(dtype):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(2, 3, 6))
    covariance = (root @ np.swapaxes(root, 1, 2)).astype(dtype)
    location, shared = rng.normal(size=(2, 3)).astype(dtype), rng.normal(size=(2, 4, 3)).astype(dtype)
    rows = LocationCovariance(location, covariance[:, 0, 0])
    given = {
        Wishart(3, plate=(2,)): covariance,
        NormalGamma((2,)): LocationCovariance(location[:, 0], covariance[:, 0, 0]),
        NormalWishart(3, plate=(2,)): LocationCovariance(location, covariance),
        MultivariateNormalGamma(3, plate=(2,)): rows,
        MatrixNormalWishart(4, 3, plate=(2,)): LocationCovariance(shared, covariance),
        vb.Beta((2,)): np.asarray([0.25, 0.5], dtype),
        ShapedGamma((2,)): ShapeRate(np.asarray([2.0, 3.0], dtype), np.asarray([1.0, 0.5], dtype)),
    }
    for family, value in given.items():
        point = vb.Delta(family).at(value)
        neutral = family.neutral(dtype)
        close(point.expected(), neutral.statistics(point.mean), factor=10, scale=1)
        chex.assert_trees_all_equal(point.gradient, jax.tree.map(np.zeros_like, point.gradient))
        assert {x.dtype for x in jax.tree.leaves(point)} == {dtype}
        assert jax.tree.structure(point) == jax.tree.structure(vb.Delta(family).neutral(dtype))
    plain = vb.Delta(NormalWishart(3, plate=(2,))).at(LocationCovariance(location, covariance)).mean
    close(plain.precision, np.linalg.inv(covariance.astype(float)), factor=100)  # of condition a hundred


def test_the_chances_near_1_keep_the_digits_of_what_is_missing():
    counts = vb.families.BetaStatistics(jnp.float32(1e9), jnp.float32(1.0), jnp.float32(0.0))
    point = vb.Delta(vb.Beta()).from_gradient(counts, counts)
    assert isinstance(point, DeltaState)
    np.testing.assert_allclose(point.expected().log_complement, -np.log(1e9 + 1), rtol=1e-6)


@pytest.mark.parametrize(
    ("family", "value", "message"),
    [
        (NormalGamma(), np.zeros(2), "value must be a pair .location, covariance.; got ndarray"),
        (NormalGamma((2,)), (np.zeros(2), np.ones(3)), r"value must have the shapes \[\(2,\), \(2,\)\]"),
        (vb.Dirichlet(3), [0.5, 0.5], r"value must have the shapes \[\(3,\)\].*got \[\(2,\)\]"),
        (vb.Gamma(), "one", "value must be numbers"),
    ],
)
def test_values_that_are_none_of_the_familys_are_refused_by_name(family, value, message):
    with pytest.raises(ValueError, match=message):
        vb.Delta(family).at(value)
