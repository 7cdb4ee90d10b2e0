"""Starts made from whole optima: what they leave as it is, and what crossing puts together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vbjax.models.components.perturbations import cross, reweigh

LABELS = np.repeat(np.arange(6), 5)
PLANTED = np.eye(6)[LABELS]
KEYS = jax.random.split(
    jax.random.key(0), 4096
)  # of which one in 280 puts six components together as planted


def crossed(r, other, weights=None, active=None):
    """Crossings by every key."""
    weights = np.ones(len(r)) if weights is None else weights
    r, other, weights = (jnp.asarray(x, "float32") for x in (r, other, weights))
    return np.asarray(jax.jit(jax.vmap(lambda key: cross(key, r, other, weights, active)))(KEYS))


def test_an_optimum_crossed_with_itself_is_itself_however_its_components_are_ordered():
    r = np.random.default_rng(0).dirichlet(np.full(6, 0.1), 30)
    order = np.array([3, 0, 5, 1, 2, 4])
    found = crossed(r, r[:, order])
    np.testing.assert_allclose(found, np.broadcast_to(r, found.shape), rtol=1e-5, atol=1e-6)


def test_what_two_optima_have_right_in_different_rows_comes_together():
    """Each has two clusters in one component and two components in one cluster, in other rows."""
    left = np.where(LABELS == 1, 0, np.where((LABELS == 2) & (np.arange(30) % 2), 1, LABELS))
    right = np.where(LABELS == 4, 3, np.where((LABELS == 5) & (np.arange(30) % 2), 4, LABELS))
    r, other = np.eye(6)[left], np.eye(6)[right][:, ::-1]
    together = crossed(r, other).argmax(-1)
    pairs = LABELS[:, None] == LABELS
    reached = [np.array_equal(own[:, None] == own, pairs) for own in together]
    assert any(reached)
    assert not all(reached)


def test_rows_go_to_some_component_and_to_none_that_is_left_out():
    active = np.arange(6) < 4
    r = np.eye(6)[LABELS % 4]
    found = crossed(r, np.eye(6)[(LABELS * 7 + np.arange(30)) % 4], active=jnp.asarray(active))
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(found[..., ~active], 0)


def test_rows_without_weight_take_no_part_in_finding_partners():
    weights = (LABELS < 3).astype(float)
    other = PLANTED[:, [1, 2, 0, 3, 4, 5]]
    noisy = np.where(weights[:, None] > 0, other, np.eye(6)[np.zeros(30, int)])
    found = crossed(PLANTED, noisy, weights)[:, LABELS < 3]
    np.testing.assert_allclose(found, np.broadcast_to(PLANTED[LABELS < 3], found.shape), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reweighing_changes_rows_and_neither_their_total_nor_their_shares(dtype):
    with jax.enable_x64(dtype == "float64"):
        r = jnp.asarray(np.random.default_rng(1).dirichlet(np.ones(3), 50), dtype)
        weights = jnp.asarray(np.arange(50) % 3, dtype)
        found = jax.jit(lambda key: reweigh(key, r, weights))(KEYS[0])
        assert found.dtype == dtype
        scale = np.asarray(found.sum(1))
        np.testing.assert_allclose(found / scale[:, None], r, rtol=1e-5)
        np.testing.assert_allclose((weights * scale).sum(), weights.sum(), rtol=1e-5)
        assert scale.std() > 0.1
