"""The grid of ready-made models and hostile data in float32, each judged beside float64.

Data are cast to float32 first, so that both dtypes see the same numbers. As a script, `python
-m tests.support.float32_grid [MODEL ...]` prints what every fit found, and what is wrong with it.
"""

import dataclasses
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np

import vbjax as vb
from vbjax.core.rows import expectation

N_ROWS, K = 60, 3
HOW = dict(max_iter=300)
AGREE = 1e-4  # of the objective and a nat a row

# ---------------------------------------------------------------- data


def table():
    """Rows around three centres, (n, d)."""
    c = np.arange(N_ROWS) % K
    centres = np.array([[0.0, 0, 0], [4, 1, 2], [1, 5, -3]])
    return centres[c] + np.random.default_rng(0).normal(size=(N_ROWS, 3))


def series():
    """Steps (n, d) that follow a slow latent."""
    rng, z = np.random.default_rng(0), np.zeros(N_ROWS)
    for t in range(1, N_ROWS):
        z[t] = 0.9 * z[t - 1] + rng.normal()
    return z[:, None] * [1.0, -0.5, 2.0] + rng.normal(size=(N_ROWS, 3))


def hostile(x):
    """A table moved, scaled and spoilt, by what is wrong with it."""
    rng, spoilt = np.random.default_rng(1), {}
    for offset in (0.0, 1e4):
        for scale in (1e-6, 1.0, 1e6):
            spoilt[f"offset {offset:g}, scale {scale:g}"] = (x + offset) * scale
    for name in ("collinear columns", "a constant column", "an outlier", "outliers on both sides"):
        spoilt[name] = x.copy()
    spoilt["collinear columns"][:, 1] = x[:, 0] + 1e-4 * rng.normal(size=len(x))
    spoilt["a constant column"][:, 1] = 3.3
    spoilt["an outlier"][7] = [1e6, 2, -1]
    spoilt["outliers on both sides"][[7, 20]] = [[1e6, -1e6, 1e6], [-1e6, 1e6, 1e6]]
    return in_float32(spoilt)


def in_float32(cases):
    return {
        name: jax.tree.map(lambda v: v.astype("float32" if v.dtype.kind == "f" else "int32"), case)
        for name, case in cases.items()
    }


def counts():
    """Counts of three kinds of rows, from ones to hundreds of millions."""
    rates = np.array([[1.0, 3, 2], [3, 1, 1], [1, 1, 4]])[np.arange(N_ROWS) % K]
    rng = np.random.default_rng(1)
    return {f"counts of {size:g}": rng.poisson(rates * size).astype("float32") for size in (1, 1e3, 1e6, 1e8)}


def positive():
    x = np.exp(np.clip(table() - table().mean(0), -3, 3))
    cases = {f"scale {scale:g}": scale * x for scale in (1e-6, 1.0, 1e6)}
    return in_float32(cases | {"far from zero": 1e4 + x, "an outlier": np.where(x == x.max(), 1e6, x)})


def columns():
    """The first column of a table that is spoilt otherwise."""
    return {
        name: x[:, 0] for name, x in TABLES.items() if name not in ("collinear columns", "a constant column")
    }


def measured():
    error = np.random.default_rng(3).uniform(0.5, 2, N_ROWS)
    return in_float32({name: (y, error * y.std()) for name, y in columns().items()})


def grouped():
    return {name: (y, (np.arange(N_ROWS) % 5).astype("int32")) for name, y in columns().items()}


def responses(n):
    """Tables, and n columns that depend on them."""
    noise, cases = np.random.default_rng(5).normal(size=(N_ROWS, n)), {}
    for name, x in TABLES.items():
        x = x.astype(float)
        y = ((x - x.mean(0)) @ [1.0, -0.5, 0.25])[:, None] * (1 + np.arange(n)) + x[:, 0].std() * noise
        cases[name] = (x, (y + x[:, 0].mean()) if n > 1 else (y + x[:, 0].mean())[:, 0])
    return in_float32(cases)


def labelled():
    noise, cases = np.random.default_rng(6).normal(size=N_ROWS), {}
    for name, x in TABLES.items():
        x = x.astype(float)
        sd = np.where(x.std(0) > 0, x.std(0), 1)
        cases[name] = (x, (((x - x.mean(0)) / sd) @ [1.0, -0.5, 0.25] + noise > 0).astype("int32"))
    return in_float32(cases)


TABLES, SERIES = hostile(table()), hostile(series())

# ---------------------------------------------------------------- models

GRID = {
    "k-means": (vb.KMeans(K), TABLES),
    **{f"EM {kind}": (vb.GaussianMixture(K, kind), TABLES) for kind in ("full", "tied", "diag", "spherical")},
    "MAP full": (vb.GaussianMixture(K, weight_concentration=2.0, mean_precision=0.5), TABLES),
    **{
        f"VB {kind}": (vb.BayesianGaussianMixture(K, kind), TABLES)
        for kind in ("full", "tied", "diag", "spherical")
    },
    "Gaussian HMM": (vb.GaussianHMM(K), TABLES),
    "diagonal HMM": (vb.GaussianHMM(K, "diag"), TABLES),
    "Bayesian HMM": (vb.BayesianGaussianHMM(K), TABLES),
    "mixture HMM": (vb.MixtureHMM(2, 2), TABLES),
    "autoregressive HMM": (vb.AutoregressiveHMM(2), SERIES),
    "Bayesian autoregressive HMM": (vb.BayesianAutoregressiveHMM(2), SERIES),
    "state space": (vb.LinearGaussianStateSpace(1), SERIES),
    "state space, full": (vb.LinearGaussianStateSpace(1, "full"), SERIES),
    "Bayesian state space": (vb.BayesianLinearGaussianStateSpace(1), SERIES),
    "PPCA": (vb.PPCA(1), TABLES),
    "factor analysis": (vb.FactorAnalysis(1), TABLES),
    "factor analysers": (vb.MixtureOfFactorAnalyzers(K, 1), TABLES),
    "factor analysers, spherical": (vb.MixtureOfFactorAnalyzers(K, 1, "spherical"), TABLES),
    "Bayesian PCA": (vb.BayesianPCA(2), TABLES),
    "Poisson": (vb.BayesianPoissonMixture(K), counts()),
    "Poisson, EM": (vb.PoissonMixture(K), counts()),
    "Poisson HMM": (vb.PoissonHMM(K), counts()),
    "Bayesian Poisson HMM": (vb.BayesianPoissonHMM(K), counts()),
    "multinomial": (vb.BayesianMultinomialMixture(K), counts()),
    "gamma": (vb.BayesianGammaMixture(K), positive()),
    "gamma, shapes": (vb.BayesianGammaMixture(K, learn_shape=True), positive()),
    "gamma HMM": (vb.GammaHMM(K), positive()),
    "mean and precision": (vb.textbook.GaussianMeanPrecision(), columns()),
    "unit variance": (vb.textbook.UnitVarianceMixture(K), columns()),
    "Student-t": (vb.textbook.RobustNormal(3.0), columns()),
    "hierarchical": (vb.textbook.HierarchicalNormal(), measured()),
    "random effects": (vb.textbook.RandomEffects(6), grouped()),
    "least squares": (vb.LinearRegression(), responses(1)),
    "linear regression": (vb.BayesianLinearRegression(), responses(1)),
    "relevance": (vb.ARDRegression(), responses(1)),
    "lines": (vb.BayesianRegressionMixture(2, concentration=0.5), responses(1)),
    "planes": (vb.BayesianMultivariateRegressionMixture(2, degrees_of_freedom=4.0), responses(2)),
    "logistic": (vb.BayesianLogisticRegression(), labelled()),
    "probit": (vb.BayesianProbitRegression(), labelled()),
}

REMAINS = {  # what is wrong and known: a regressor of 1e6 among others of 1, 0.2 nats of 1,100
    "autoregressive HMM": ("outliers on both sides",),
}

# ---------------------------------------------------------------- judgement


@jax.jit
def score(model, params, data):
    data = model.annotate(data)
    return model.objective(params, expectation(model, params, data))


def cast(tree, dtype):
    """Floating leaves in a dtype; by way of numpy, so that float64 may come out of where there is none."""
    read = lambda x: jnp.asarray(x, dtype if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype)
    return jax.tree.map(read, jax.tree.map(np.asarray, tree))


@dataclasses.dataclass(frozen=True)
class Found:
    """A fit in float32 from its own start, one from where float64 ended, and what float64 says of both.

    `again` is float64's score of what the first one found.
    """

    exact: tuple[vb.Status, float]
    own: tuple[vb.Status, float]
    warm: tuple[vb.Status, float]
    again: float

    @property
    def wrong(self):
        """What is wrong: a fall, a number that is not finite, an objective that float64 does not confirm."""
        allowed, words = (vb.Status.CONVERGED, vb.Status.MAX_ITER), []
        near = lambda x, y: abs(x - y) <= AGREE * (abs(y) + N_ROWS)
        if self.exact[0] not in (*allowed, vb.Status.ILL_CONDITIONED):
            words.append(f"float64 ends {self.exact[0].name}")
        for name, (status, objective), desired in (
            ("own", self.own, self.again),
            ("warm", self.warm, self.exact[1]),
        ):
            if status == vb.Status.ILL_CONDITIONED:
                continue  # which says that its objective is not to be trusted
            if status not in allowed:
                words.append(f"{name} ends {status.name}")
            elif name == "warm" and self.exact[0] != vb.Status.CONVERGED:
                continue  # float64 had not arrived either
            elif not near(objective, desired):
                words.append(f"{name}: {objective:.6g} is {desired:.6g}")
        return words


def judge(name, case, seed=0):
    """Fit a model of the grid to one of its data in both dtypes."""
    model, values, key = GRID[name][0], GRID[name][1][case], jax.random.key(seed)
    found = lambda fit: (vb.Status(int(fit.status)), float(fit.objective))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fits that did not converge: their status is what is looked at
        with jax.enable_x64(True):
            exact = vb.fit(model, cast(values, "float64"), key=key, **HOW)
        data, start = cast(values, "float32"), cast(exact.params, "float32")
        own = vb.fit(model, data, key=key, **HOW)
        warm = vb.fit(model, data, key=key, params=start, **HOW)
        with jax.enable_x64(True):
            resolved = cast(own.model, "float64")
            read = resolved.read(cast(values, "float64"))
            again = score(resolved, cast(own.params, "float64"), read)
    return Found(found(exact), found(own), found(warm), float(again))


if __name__ == "__main__":
    for name in sys.argv[1:] or GRID:
        for case in GRID[name][1]:
            found = judge(name, case)
            print(
                f"{name}; {case}: {found} {'WRONG: ' + '; '.join(found.wrong) if found.wrong else ''}",
                flush=True,
            )
        jax.clear_caches()
