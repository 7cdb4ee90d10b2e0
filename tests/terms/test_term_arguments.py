"""What a term cannot take is refused by the names of the term and its argument, and with the remedy.

Latents where only a value will do, statistics of another family, what is no number, shapes that do not fit.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.family_table import CASES
from vbjax import terms

REFUSED = {
    "a latent shape": (
        lambda t: terms.gamma(t["Gamma"], t["Gamma"], 1.0),
        "gamma: concentration must be a value; got the statistics of a Gamma factor.*vb.NonConjugate",
    ),
    "a latent concentration": (
        lambda t: terms.dirichlet(t["Dirichlet"], t["Gamma"]),
        "dirichlet: concentration must be a value; got the statistics of a Gamma factor",
    ),
    "a latent of a joint prior": (
        lambda t: terms.normal_gamma(t["NormalGamma"], t["Normal"], 1.0, 1.0, 1.0),
        "normal_gamma: location must be a value; got the statistics of a Normal factor",
    ),
    "a precision for a mean": (
        lambda t: terms.normal(0.0, t["Gamma"], 1.0),
        "normal: mean must be a value or the statistics of a Normal factor; got those of a Gamma factor",
    ),
    "a mean for a precision": (
        lambda t: terms.normal(0.0, 0.0, t["Normal"]),
        "normal: precision must be a value or the statistics of a Gamma factor; got those of a Normal",
    ),
    "no precision": (lambda t: terms.normal(0.0, t["Normal"]), "normal: precision must be given"),
    "two precisions": (
        lambda t: terms.normal(0.0, t["NormalGamma"], 1.0),
        "normal: precision must be left out: NormalGamma statistics hold their own",
    ),
    "a rate of another family": (
        lambda t: terms.poisson(1.0, t["Normal"]),
        "poisson: rate must be a value or the statistics of a Gamma factor; got those of a Normal factor",
    ),
    "latent counts": (lambda t: terms.poisson(t["Gamma"], 1.0), "poisson: x must be a value"),
    "a probability of another family": (
        lambda t: terms.bernoulli(1.0, t["Dirichlet"]),
        "bernoulli: probability must be a value or the statistics of a Beta factor; got those of a Di",
    ),
    "probabilities of another family": (
        lambda t: terms.multinomial([1.0, 2.0, 0.0], t["Beta"]),
        "multinomial: probabilities must be values or .* a Dirichlet.*got those of a Beta factor",
    ),
    "half a state": (
        lambda t: terms.categorical(0.5, t["Dirichlet"]),
        "categorical: x must be whole numbers",
    ),
    "words": (lambda t: terms.normal("a", 0.0, 1.0), "normal: x must be numbers"),
    "a function": (lambda t: terms.gamma(jnp.sum, 1.0, 1.0), "gamma: x must be numbers"),
    "no Polya-Gamma": (lambda t: terms.logistic(1.0, 0.0, 1.0), "logistic: omega must be the statistics"),
    "a number for a pair": (
        lambda t: terms.normal_gamma(1.0, 0.0, 1.0, 1.0, 1.0),
        "normal_gamma: x must be a location with its precision",
    ),
    "a number for a vector": (
        lambda t: terms.multivariate_normal(1.0, np.zeros(3), np.eye(3)),
        "multivariate_normal: x must have at least 1 axes",
    ),
    "rows and columns": (
        lambda t: terms.normal(np.zeros(5), np.zeros(3), 1.0),
        r"normal has arguments of shapes that do not fit: x=\(5,\), mean=\(3,\), precision=\(\)",
    ),
    "vectors of two sizes": (
        lambda t: terms.multivariate_normal(np.zeros((4, 2)), t["MultivariateNormal"], np.eye(3)),
        r"multivariate_normal has arguments of shapes that do not fit: x=\(4, 2\), mean=\(2, 3\)",
    ),
    "counts of two sizes": (
        lambda t: terms.multinomial(np.zeros((4, 2)), t["Dirichlet"]),
        r"multinomial has arguments of shapes that do not fit: x=\(4, 2\), probabilities=\(2, 3\)",
    ),
    "a path for labels": (
        lambda t: terms.markov_chain(t["Categorical"], np.ones(3) / 3, np.ones((3, 3)) / 3),
        "markov_chain: x must be a path of states' numbers or .* a MarkovChain factor; got .* a Categorical",
    ),
    "half a state of a path": (
        lambda t: terms.markov_chain([0.5, 1.0], np.ones(3) / 3, np.ones((3, 3)) / 3),
        "markov_chain: x must be whole numbers",
    ),
    "transitions of other states": (
        lambda t: terms.markov_chain(t["MarkovChain"], np.ones(3) / 3, np.ones((2, 2)) / 2),
        r"markov_chain has arguments of shapes that do not fit: pairs_of_x=\(2, 3, 3\), transitions=\(2, 2\)",
    ),
    "a path without a regression": (
        lambda t: terms.gauss_markov(t["GaussMarkov"], np.zeros(2), np.eye(2), np.eye(3), 1.0),
        r"gauss_markov: transitions must be \(2, 2\), as x has vectors of 2; got \(3, 3\)",
    ),
    "a matrix between rows": (
        lambda t: terms.gauss_markov(
            t["GaussMarkov"], np.zeros(2), np.eye(2), t["MultivariateNormal"], np.eye(2)
        ),
        "gauss_markov: precision must be numbers .* where transitions are the statistics of rows",
    ),
    "matmul": (
        lambda t: terms.matmul(t["MultivariateNormal"], np.zeros((4, 2))),
        r"matmul .* weights must be \(p, q\) and z \(..., q\); got weights=\(2, 3\) and z=\(4, 2\)",
    ),
    "a precision that is not square": (
        lambda t: terms.multivariate_normal(np.zeros(3), np.zeros(3), np.ones((3, 2))),
        "multivariate_normal: precision must be square matrices",
    ),
    "a precision of no size": (
        lambda t: terms.multivariate_normal(np.zeros(0), np.zeros(0), np.ones((0, 0))),
        "multivariate_normal: precision must be square matrices",
    ),
    "a state that is none": (
        lambda t: terms.categorical(2, np.ones(2) / 2),
        "categorical: x must be from 0 to 1, .*; got 2",
    ),
    "a path through a state that is none": (
        lambda t: terms.markov_chain(np.array([0, 2]), np.ones(2) / 2, np.ones((2, 2)) / 2),
        r"markov_chain: x must be from -1 to 1, numbers of states; got \[0 2\]",
    ),
    "a location of another size": (
        lambda t: terms.normal_wishart(t["NormalWishart"], np.zeros(2), 1.0, 4.0, np.eye(3)),
        r"normal_wishart has arguments of shapes that do not fit: x=\(2, 3\), location=\(2,\)",
    ),
    "a scale of another size": (
        lambda t: terms.normal_wishart(t["NormalWishart"], np.zeros(3), 1.0, 4.0, np.eye(2)),
        r"normal_wishart: inverse_scale must be \(3, 3\); got shape \(2, 2\)",
    ),
    "dot": (lambda t: terms.dot(t["MultivariateNormal"], np.zeros((4, 3))), r"dot .*x=\(2, 3\), z=\(4, 3\)"),
    "dot of Normals": (lambda t: terms.dot(t["Normal"], np.zeros(2)), "got those of a Normal factor"),
    "linear": (
        lambda t: terms.linear(np.zeros((4, 2)), np.zeros(3)),
        r"linear .* x must be \(n, D\) and weights \(D,\); got x=\(4, 2\) and weights=\(3,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_term_cannot_take_is_refused_by_name(name):
    call, message = REFUSED[name]
    statistics = {name: case.state("float32").expected() for name, case in CASES.items()}
    with pytest.raises(ValueError, match=message):
        call(statistics)
