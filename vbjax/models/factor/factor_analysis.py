"""Factor analysis by EM: a noise variance for each column."""

from __future__ import annotations

from vbjax.core.hyperparameters import NON_NEGATIVE, POSITIVE, count, flag, hyper
from vbjax.families.base import pytree
from vbjax.models.factor.base import FactorModel
from vbjax.numerics.types import Hyper


@pytree
class FactorAnalysis(FactorModel):
    """Rows x_n ~ N(W z_n + mu, Psi), z_n ~ N(0, I), Psi = diag(1 / tau); maximum likelihood by EM.

    E-step, S = (I + W' Psi^-1 W)^-1: E[z_n] = S W' Psi^-1 (x_n - mu), E[z_n z_n'] = S + E[z_n] E[z_n]'.
    M-step:

        W = [sum_n (x_n - mu) E[z_n]'] [sum_n E[z_n z_n']]^-1,   mu = mean of x_n - W E[z_n],
        1 / tau_j = sum_n E[(x_nj - mu_j - w_j'z_n)^2] / n.

    Other units of a column change its loadings and noise and nothing else. The objective is the log
    likelihood. The noise obeys 1 / tau_j >= noise_floor x the column's variance; a run that ends there (a
    Heywood case) is flagged as singular.

    Data: (n, p). The factors are `w` (p, q), `mu` (p,) and `tau` (p,), points.

    Args:
        n_components: q.
        missing: NaN is a missing entry; otherwise it is an error.
        noise_floor: smallest variance of the noise, relative to its column's.
        scale: (p,), the columns' variances, by default from the data.

    Raises:
        ValueError: more components than columns; NaN without `missing=True`; infinities.

    References:
        Rubin, D. & Thayer, D. (1982), EM algorithms for ML factor analysis, Psychometrika 47; Bishop
        (2006), section 12.2.4, eq. 12.64 to 12.70.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> fit = vb.fit(vb.FactorAnalysis(1), x, key=jax.random.key(0))
    >>> fit.model.loadings(fit.params).shape
    (2, 1)
    """

    n_components: int = count("q")
    missing: bool = flag()
    noise_floor: Hyper = hyper(1e-6, NON_NEGATIVE)
    scale: Hyper = hyper(None, POSITIVE, "p")
    noise_per_column = True
