"""What `vb.Model` cannot take is refused by the name of the argument, before anything else is done."""

import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb

REFUSED = [
    (dict(factors=[vb.Normal()]), "factors must be a mapping from names to families.*got list"),
    (dict(factors="mu"), "factors must be a mapping"),
    (dict(factors=None), "factors must have at least one family"),
    (dict(factors=dict(mu=vb.Normal)), r"factors 'mu' must be a family.* the class Normal: write Normal\(\)"),
    (dict(factors=dict(mu=3)), "factors 'mu' must be a family, .*got 3"),
    (dict(factors={"values": vb.Normal()}), "factors must have names that s.NAME can read; got 'values'"),
    (dict(factors={"a b": vb.Normal()}), "got 'a b'"),
    (dict(local=dict(z=vb.Normal)), "local 'z' must be a family.* the class Normal"),
    (dict(log_prior=3.0), "log_prior must be a function; got 3.0"),
    (dict(log_likelihood="x"), "log_likelihood must be a function; got 'x'"),
    (dict(hyper=[1.0]), "hyper must be a mapping from names to numbers"),
    (dict(hyper=dict(a="b")), "hyper 'a' must be numbers"),
    (dict(hyper=dict(a=None)), "hyper 'a' must be numbers"),
    (dict(hyper=dict(a=1j)), "hyper 'a' must be numbers"),
    (dict(hyper=dict(mu=1.0)), "must have different names; got mu, mu"),
    (dict(blocks=("mu",)), "blocks must be tuples of names"),
    (dict(blocks="mu"), "blocks must be tuples of names"),
    (dict(blocks=3), "blocks must be tuples of names"),
]


@pytest.mark.parametrize(("wrong", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_a_model_cannot_take_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        vb.Model(**dict(factors=dict(mu=vb.Normal()), log_prior=lambda s: 0.0) | wrong)


def test_hyperparameters_are_numbers_lists_and_trees_of_them():
    given = dict(a=1, b=[1.0, 2.0], c=np.float64(2), d=jnp.ones(2), e=(1.0, dict(x=2.0)))
    own = vb.Model(factors=dict(mu=vb.Normal()), log_prior=lambda s: 0.0, hyper=given)
    assert isinstance(own.hyper.b, np.ndarray)
    assert own.hyper.e == (1.0, dict(x=2.0))
    assert own.replace(a=3.0).hyper.a == 3.0
    with pytest.raises(ValueError, match="hyper 'a' must be numbers"):
        own.replace(a="x")
