"""Latent class models: items with answers of their own number, independent of one another in a class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from vbjax.families.base import pytree
from vbjax.models.components import Categorical, Product
from vbjax.models.labels.weights import Weights, weights_of
from vbjax.models.mixtures.mixture import Mixture
from vbjax.numerics.inputs import describe
from vbjax.numerics.types import Given, Hyper


@pytree
class LatentClass(Mixture):
    """A latent class model, by EM: answers to some items that are independent given the class of a row.

        p(x_n) = sum_k weights_k prod_j p_kj,x_nj

    over the items j that row n answered; answers are missing at random. It is
    `vb.Mixture(k, vb.components.Product(...))` of a `vb.components.Categorical` for every item.

    Data: a data frame that has the items as columns, among others, or a dict of (n, 1) by item: answers are
    whole numbers from 0, or labels of a frame; NaN or -1 where they are missing. Rows that agree may be one
    row whose weight is their number. The factors are `weights` and for every item one of its name, the
    probabilities (k, 1, levels) of its answers in each class; points (`Delta`).

    Args:
        n_components: k, the number of classes.
        items: the names of the items, or a dict with the number of each one's levels; by default its largest
            answer plus one.
        weight_concentration: alpha0 of a Dirichlet prior of the weights, a number or (k,), at least 1; None
            for none.

    Raises:
        ValueError: no item; data without one of them, or with an answer that is none of its levels.

    References:
        Goodman (1974), Exploratory latent structure analysis using both identifiable and unidentifiable
        models; Linzer & Lewis (2011), poLCA: an R package for polytomous variable latent class analysis.

    >>> import jax, numpy as np, vbjax as vb
    >>> survey = dict(agree=np.array([[0], [0], [1], [1]]), colour=np.array([[2], [2], [0], [np.nan]]))
    >>> fit = vb.fit(vb.LatentClass(2, ["agree", "colour"]), survey, key=jax.random.key(0), n_restarts=4)
    >>> fit.params.colour.mean.shape, fit.model.n_parameters
    ((2, 1, 3), 7)
    """

    def __init__(self, n_components: int, items: Given, *, weight_concentration: Hyper = None) -> None:
        super().__init__(n_components, _of_items(items), Weights(weight_concentration))

    @property
    def items(self) -> dict[str, int | None]:
        """Number of levels of every item; None where it follows the data."""
        return _levels(self.component)


@pytree
class BayesianLatentClass(Mixture):
    """A latent class model, by variational Bayes: answers that are independent given the class of a row.

    Data: as of `LatentClass`. The factors are `weights` and for every item one of its name, Dirichlet, (k, 1)
    of as many categories as it has levels.

    Args:
        n_components: k, an upper bound.
        items: see `LatentClass`.
        concentration: of the Dirichlet of every item's answers; by default 1.
        weight_prior: "dirichlet", or "dirichlet_process" truncated at k (`vb.labels.StickBreaking`).
        weight_concentration: alpha0, a number, or (k,) of a Dirichlet; by default 1 / k of every class, 1 of
            the process.

    >>> import jax, numpy as np, vbjax as vb
    >>> survey = dict(agree=np.array([[0], [0], [1], [1]]), colour=np.array([[2], [2], [0], [np.nan]]))
    >>> model = vb.BayesianLatentClass(2, dict(agree=2, colour=4))
    >>> fit = vb.fit(model, survey, key=jax.random.key(0), n_restarts=4)
    >>> fit.params.colour.mean.shape
    (2, 1, 4)
    """

    points: ClassVar[bool] = False

    def __init__(
        self,
        n_components: int,
        items: Given,
        *,
        concentration: Hyper = None,
        weight_prior: str = "dirichlet",
        weight_concentration: Hyper = None,
    ) -> None:
        weights = weights_of(weight_prior, weight_concentration)
        super().__init__(n_components, _of_items(items, concentration), weights)

    @property
    def items(self) -> dict[str, int | None]:
        """Number of levels of every item; None where it follows the data."""
        return _levels(self.component)


def _of_items(items: Given, concentration: Hyper = None) -> Product:
    """Return the component of rows of these items, a `Categorical` for each."""
    if not isinstance(items, Mapping):
        if isinstance(items, str) or not isinstance(items, Iterable):
            raise ValueError(f"items must be names, or a dict of numbers of levels; got {describe(items)}")
        items = dict.fromkeys(items)
    if not items or not all(isinstance(name, str) for name in items):
        raise ValueError(f"items must be one name or more; got {describe(items)}")
    parts = {name: Categorical(levels, concentration, missing=True) for name, levels in items.items()}
    return Product(**parts)


def _levels(component: Product) -> dict[str, int | None]:
    """Return the number of levels of every item."""
    return {name: part.n_categories for name, part in component.parts.items()}
