"""Probabilistic principal components by EM: Tipping & Bishop (1999)."""

from __future__ import annotations

from vbjax.core.hyperparameters import NON_NEGATIVE, POSITIVE, count, flag, hyper
from vbjax.families.base import pytree
from vbjax.models.factor.base import FactorModel
from vbjax.numerics.types import Hyper


@pytree
class PPCA(FactorModel):
    """Rows x_n ~ N(W z_n + mu, I / tau), z_n ~ N(0, I); maximum likelihood by EM.

    E-step, S = (I + tau W'W)^-1: E[z_n] = tau S W'(x_n - mu), E[z_n z_n'] = S + E[z_n] E[z_n]'. M-step:

        W = [sum_n (x_n - mu) E[z_n]'] [sum_n E[z_n z_n']]^-1,   mu = mean of x_n - W E[z_n],
        1 / tau = sum_n E[|x_n - mu - W z_n|^2] / (n p).

    W spans the leading principal axes, and 1 / tau is the mean of the variances left out. The objective is
    the log likelihood. Its noise obeys 1 / tau >= noise_floor x the columns' mean variance; a run that ends
    there (columns that are collinear, fewer rows than axes) is flagged as singular.

    Data: (n, p). The factors are `w` (p, q), `mu` (p,) and `tau`, points.

    Args:
        n_components: q.
        missing: NaN is a missing entry; otherwise it is an error.
        noise_floor: smallest variance of the noise, relative to the columns'.
        scale: (p,), the columns' variances, by default from the data.

    Raises:
        ValueError: more components than columns; NaN without `missing=True`; infinities.

    References:
        Tipping, M. & Bishop, C. (1999), Probabilistic principal component analysis, JRSS B 61, eq. 7, 8
        and appendix B; Bishop (2006), section 12.2, eq. 12.54 to 12.57.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> fit = vb.fit(vb.PPCA(1), x, key=jax.random.key(0))
    >>> print(f"{fit.model.noise_variance(fit.params)[0]:.3f} {fit.model.transform(fit.params, x).shape}")
    0.244 (272, 1)
    """

    n_components: int = count("q")
    missing: bool = flag()
    noise_floor: Hyper = hyper(1e-6, NON_NEGATIVE)
    scale: Hyper = hyper(None, POSITIVE, "p")
