"""Laws of mean field on tables of discrete latents.

Sweep by sweep it is the textbook's update written with sums over all cells; the bound is below the log
evidence and attains it where the table factorises; marginals and evidence are enumeration's. The same joint
as a function of statistics gives the same fit. Impossible cells lose all mass. Bad input raises.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import vbjax as vb
from tests.support.registry import sweeps
from tests.support.tolerances import close
from vbjax.families import CategoricalState

KEY = jax.random.key(0)
SIZES = 2, 3, 4
NAMES = "z1", "z2", "z3"


def table(seed=0, coupling=2.0):
    return coupling * np.random.default_rng(seed).normal(size=SIZES)


def start(dtype="float64"):
    rng = np.random.default_rng(1)
    logits = [jnp.asarray(rng.normal(size=size), dtype) for size in SIZES]
    return vb.Record(zip(NAMES, map(CategoricalState, logits), strict=True))


def at(cell):
    """The statistics of given states."""
    return vb.Record({name: q.statistics(k) for (name, q), k in zip(start().items(), cell, strict=True)})


def bound(log_joint, q):
    """sum_z q(z) (log p(x, z) - log q(z)) over all cells."""
    total = 0.0
    for cell in itertools.product(*map(range, log_joint.shape)):
        weight = np.prod([q[i][k] for i, k in enumerate(cell)])
        if weight > 0:
            total += weight * (log_joint[cell] - np.log(weight))
    return total


def brute_force(log_joint, q, n_sweeps):
    """Bishop (2006), eq. 10.9, with the bound before every update."""
    scores = []
    for _, i in itertools.product(range(n_sweeps), range(len(q))):
        scores.append(bound(log_joint, q))
        others = [q[j] if j != i else np.ones(len(q[j])) for j in range(len(q))]
        weights = np.einsum("i,j,k->ijk", *others)
        expected = (weights * log_joint).sum(tuple(j for j in range(len(q)) if j != i))
        q[i] = special.softmax(expected)
    return q, np.reshape(scores, (n_sweeps, -1))


def test_every_update_is_the_textbooks(dtype):
    log_joint = table()
    model = vb.textbook.MeanFieldTable(jnp.asarray(log_joint, dtype)).resolve(None)
    q = [np.asarray(q.probabilities, float) for q in start(dtype).values()]
    expected, scores = brute_force(log_joint, q, 8)
    params, objective, _ = sweeps(model, start(dtype), None)
    close(objective, scores, factor=10)  # eight sweeps pass their roundings on
    for name, p in zip(NAMES, expected, strict=True):
        close(params[name].probabilities, p, factor=100)
    assert objective[-1, -1] < model.log_evidence()


def test_evidence_and_marginals_are_those_of_enumeration(dtype):
    model = vb.textbook.MeanFieldTable(jnp.asarray(table(), dtype))
    p = np.exp(table())
    close(model.log_evidence(), np.log(p.sum()), factor=3)
    for i, name in enumerate(NAMES):
        rest = tuple(j for j in range(3) if j != i)
        close(model.marginals()[name].probabilities, p.sum(rest) / p.sum(), factor=3)


def test_a_table_that_factorises_is_found_exactly_at_once(dtype):
    parts = [np.random.default_rng(i).normal(size=size) for i, size in enumerate(SIZES)]
    log_joint = parts[0][:, None, None] + parts[1][:, None] + parts[2]
    model = vb.textbook.MeanFieldTable(jnp.asarray(log_joint, dtype))
    fit = vb.fit(model, key=KEY)
    assert fit.n_iter <= 3
    close(fit.objective, model.log_evidence(), factor=3, scale=1)
    for name, part in zip(NAMES, parts, strict=True):
        close(fit.params[name].probabilities, special.softmax(part), factor=3)


def test_the_same_joint_as_a_function_gives_the_same_fit(float64):
    """A field on each latent and a coupling of neighbours."""
    rng = np.random.default_rng(2)
    fields = [jnp.asarray(rng.normal(size=size)) for size in SIZES]
    first, second = (jnp.asarray(rng.normal(size=pair)) for pair in (SIZES[:2], SIZES[1:]))

    def log_joint(s):
        field = sum(s[name].p @ b for name, b in zip(NAMES, fields, strict=True))
        return field + s.z1.p @ first @ s.z2.p + s.z2.p @ second @ s.z3.p

    own = vb.Model(
        factors={n: vb.Categorical(size) for n, size in zip(NAMES, SIZES, strict=True)}, log_prior=log_joint
    )
    cells = jnp.stack([jax.jit(log_joint)(at(cell)) for cell in itertools.product(*map(range, SIZES))])
    how = dict(key=KEY, params=start(), tol=0.0, max_iter=100)
    named = vb.fit(vb.textbook.MeanFieldTable(cells.reshape(SIZES)), **how)
    fit = vb.fit(own, **how)
    close(fit.objective, named.objective, factor=3)
    for name in NAMES:
        close(fit.params[name].probabilities, named.params[name].probabilities, factor=100)


def test_impossible_cells_lose_their_mass(dtype):
    """Of two states that must agree, q settles on one: the larger by the best of the restarts."""
    with np.errstate(divide="ignore"):
        log_joint = np.log(np.diag([0.2, 0.5, 0.3]))
    model = vb.textbook.MeanFieldTable(jnp.asarray(log_joint, dtype))
    fit = vb.fit(model, key=KEY, n_restarts=16)
    close(fit.objective, np.log(0.5))
    close(fit.params.z1.probabilities, [0.0, 1.0, 0.0])
    close(fit.params.z2.probabilities, [0.0, 1.0, 0.0])
    close(model.log_evidence(), 0.0, scale=1)
    close(model.marginals().z1.probabilities, [0.2, 0.5, 0.3])
    found = np.exp(np.asarray(fit.runs.objective, float))
    assert {0.2, 0.3, 0.5} == set(found.round(3).tolist())


BAD = {
    "an array of one axis or more; got 1.0": (1.0, None),
    "no NaN": ([0.0, np.nan], None),
    "no .inf": ([0.0, np.inf], None),
    "not all -inf": ([-np.inf, -np.inf], None),
    "must be None": ([0.0, 0.0], np.zeros(3)),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_raises(message):
    log_joint, data = BAD[message]
    with pytest.raises(ValueError, match=message):
        vb.fit(vb.textbook.MeanFieldTable(np.asarray(log_joint)), data, key=KEY)


@pytest.mark.parametrize("wrong", ["a", None, np.array([np.nan, 0.0]), 3.0, np.zeros((2, 0))])
def test_what_is_exact_reads_the_table_too(wrong):
    for ask in (vb.textbook.MeanFieldTable(wrong).log_evidence, vb.textbook.MeanFieldTable(wrong).marginals):
        with pytest.raises(ValueError, match="log_joint"):
            ask()
