"""An error of a family or of a state names the argument: what is no plate, no size, no key, no value.

What could be meant is read: one whole number for a plate, numbers for the fields of a state.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from vbjax.families import (
    BetaState,
    CategoricalState,
    DirichletState,
    GammaState,
    LocationPrecision,
    MultivariateNormalState,
    NormalGammaState,
    NormalState,
    WishartState,
)

KEY = jax.random.key(0)
SIZED = [
    vb.Categorical,
    vb.Dirichlet,
    vb.MultivariateNormal,
    vb.MultivariateNormalGamma,
    vb.NormalWishart,
    vb.StickBreaking,
    vb.Wishart,
]
PLAIN = [vb.Beta, vb.Gamma, vb.Normal, vb.NormalGamma, vb.TruncatedNormal]
NO_PLATES = ["3", 2.5, -1, True, None, (2, "a"), (2, -1), ((2,), 2), (2**31,), np.array([2.0]), object(), int]
NO_SIZES = ["3", 2.5, 2.0, 0, -1, True, None, (2,), 2**31, object(), int]


def plain(value):
    """Return the name of a test, without an address: all processes that run tests must find the same."""
    return "an object" if type(value) is object else repr(value)


@pytest.mark.parametrize("plate", NO_PLATES, ids=plain)
def test_a_plate_is_whole_numbers(plate):
    for family in [*PLAIN, *SIZED, vb.PolyaGamma, vb.MatrixNormalWishart]:
        with pytest.raises(ValueError, match="plate must be"):
            family(plate=plate)


@pytest.mark.parametrize("size", NO_SIZES, ids=plain)
def test_a_size_is_a_whole_number(size):
    for family in SIZED:
        with pytest.raises(ValueError, match="size must be"):
            family(size)
    with pytest.raises(ValueError, match="rows must be"):
        vb.MatrixNormalWishart(size, 2)
    with pytest.raises(ValueError, match="concentration must be"):
        vb.PolyaGamma(size)
    if size != 0:  # a table without rows has none
        with pytest.raises(ValueError, match="n must be"):
            vb.Gamma().repeated(size)


def test_one_number_or_a_list_is_a_plate():
    assert vb.Gamma(3) == vb.Gamma([3]) == vb.Gamma((3,))
    assert vb.Dirichlet(2, plate=np.int64(3)).neutral("float32").concentration.shape == (3, 2)


@pytest.mark.parametrize("of", [3, "normal", vb.Normal, None, NormalState(0.0, 1.0)], ids=repr)
def test_delta_is_of_a_family(of):
    with pytest.raises(ValueError, match="of must be a family"):
        vb.Delta(of)


def normal():
    return NormalState(jnp.zeros(3), jnp.ones(3))


POINT = vb.Delta(vb.Normal((3,))).at(np.zeros(3, "float32"))

BAD_CALLS = {
    "no key": (lambda: normal().sample(0), "key must be one PRNG key"),
    "many keys": (lambda: normal().sample(jax.random.split(KEY)), "key must be one PRNG key"),
    "no shape": (lambda: normal().sample(KEY, "3"), "shape must be a whole number"),
    "a negative shape": (lambda: normal().sample(KEY, (2, -1)), "shape must be a whole number"),
    "a vast shape": (lambda: normal().sample(KEY, 2**40), "shape must be of at most"),
    "a point without a key": (lambda: POINT.sample(None), "key must be one PRNG key"),
    "a point of another plate": (
        lambda: vb.Delta(vb.Normal((3,))).at(np.zeros(2)),
        r"value must have the shapes \[\(3,\)\].*got \[\(2,\)\]",
    ),
    "a point of a word": (lambda: vb.Delta(vb.Normal()).at("a"), "value must be"),
    "a word": (lambda: normal().log_prob("a"), "x must be numbers"),
    "another plate": (lambda: normal().log_prob(np.ones(4)), r"x must have the shape \(3,\)"),
    "a number for a vector": (
        lambda: MultivariateNormalState(jnp.zeros(2), jnp.eye(2)).log_prob(1.0),
        r"x must have the shape \(2,\).*got \(\)",
    ),
    "a vector for a matrix": (
        lambda: WishartState(jnp.float32(4), jnp.eye(2)).log_prob(np.ones(2)),
        r"x must have the shape \(2, 2\)",
    ),
    "other corners": (lambda: DirichletState(jnp.ones(3)).log_prob(np.ones(2) / 2), "x must have the shape"),
    "a number for two": (lambda: NormalGammaState(0.0, 1.0, 1.0, 1.0).log_prob(1.0), "x must be a LocationP"),
    "half a state": (
        lambda: CategoricalState(jnp.zeros(3)).log_prob(1.5),
        "x must be whole numbers from 0 to 2",
    ),
    "a state too many": (lambda: CategoricalState(jnp.zeros(3)).log_prob([0, 3]), "from 0 to 2"),
    "another family": (
        lambda: normal().kl(GammaState(jnp.ones(3), jnp.ones(3))),
        "other must be a NormalState",
    ),
    "no state": (lambda: normal().kl(None), "other must be a NormalState; got NoneType"),
    "a class": (lambda: normal().kl(NormalState), "other must be a NormalState; got type"),
    "another size": (
        lambda: normal().kl(NormalState(jnp.zeros(2), jnp.ones(2))),
        r"other must fit this state; got NormalState\(mean \(3,\), precision \(3,\)\) and",
    ),
    "above one": (lambda: normal().quantile(1.5), "p must be between 0 and 1"),
    "shares of another plate": (lambda: normal().quantile([0.1, 0.9]), r"p must .* shape \(3,\); got \(2,\)"),
    "no share": (lambda: BetaState(1.0, 1.0).quantile("a"), "p must be numbers"),
    "no share of a location": (
        lambda: NormalGammaState(0.0, 1.0, 1.0, 1.0).quantile(-0.1),
        "p must be between",
    ),
    "fields that do not fit": (
        lambda: GammaState(jnp.ones(3), jnp.ones(2)).sample(KEY),
        r"fields must fit one another; got GammaState\(concentration \(3,\), rate \(2,\)\)",
    ),
    "fields that do not fit a value": (
        lambda: NormalState(jnp.ones(3), jnp.ones(2)).log_prob(1.0),
        r"fields must fit one another; got NormalState\(mean \(3,\), precision \(2,\)\)",
    ),
    "a field of words": (lambda: GammaState("a", 1.0).entropy(), "concentration must be numbers"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_methods_of_states_name_the_argument(name):
    call, message = BAD_CALLS[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_fields_and_values_may_be_plain_numbers():
    state = NormalGammaState(1.0, 2.0, 3.0, 4.0)
    draw = state.sample(KEY, 5)
    assert isinstance(draw, LocationPrecision)
    assert draw.precision.shape == (5,)
    assert np.isfinite(state.log_prob((0.5, 2))).all()
    assert state.log_prob(draw).shape == (5,)
    assert GammaState(2, 1).entropy() == GammaState(jnp.array(2.0), jnp.array(1.0)).entropy()


def test_a_value_of_another_dtype_is_read_in_the_states_own(float64):
    state = NormalState(jnp.zeros(3, "float32"), jnp.ones(3, "float32"))
    assert state.log_prob(np.ones(3)).dtype == np.dtype("float32")
    assert jax.jit(lambda q, x: q.log_prob(x))(state, jnp.ones((2, 3))).shape == (2, 3)
