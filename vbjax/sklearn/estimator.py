"""What all estimators share: parameters in, `fit`, attributes out.

The correspondence of an estimator and a model is data: `_model` is the model, `_names` says how parameters
are called there that have another name, and every attribute that ends in an underscore is a `Fitted`, a
function of the fit. The kinds (mixtures, chains, regressions, ...) add what their data and uses are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    check_non_negative,
    validate_data,
)

from vbjax.core.contracts import Status
from vbjax.inference.fit import fit
from vbjax.inference.result import Fit, FitWarning
from vbjax.inference.stochastic import fit_stochastic
from vbjax.numerics.inputs import read_count, read_number
from vbjax.numerics.types import Data, Given, Params, Tree
from vbjax.sklearn.settable import Settable

RandomState: TypeAlias = int | np.random.RandomState | None
C = TypeVar("C")

_LEAST_ROWS = 256  # tables of fewer rows cost next to nothing, and share one program
_PART = re.compile(r" of the (component|weights|chain)(?= must)")  # in the errors of models that hold some
_ARGUMENTS = dict(data="X", weights="sample_weight", n_restarts="n_init")


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(dataclasses.field,))
def estimator(cls: type[C]) -> type[C]:
    """Return the class with an `__init__` that sets its parameters, the annotated ones, and does no more."""
    return dataclasses.dataclass(cls, eq=False, repr=False, kw_only=True)


class Fitted:
    """Attribute of a fitted estimator: what a function reads from its fit, an array or a number of numpy."""

    def __init__(self, read: Callable[[Fit], Tree]) -> None:
        self.read = read

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Estimator | None, owner: type) -> Any:
        if instance is None:
            return self
        if self.name in instance._given:
            return instance._given[self.name]
        with instance._fitted() as found:  # a NotFittedError before, which is an AttributeError
            return np.asarray(self.read(found))[()]

    def __set__(self, instance: Estimator, value: Given) -> None:
        instance._set(self.name, value)


class Estimator(BaseEstimator):
    """Estimator of scikit-learn on a model of this package.

    Attributes:
        fit_: the `vb.Fit`, its arrays on the host, so that pickles hold the digits of their dtype.
    """

    _model: ClassVar[Any]
    _names: ClassVar[Mapping[str, str]] = {}
    """Parameters that the model calls otherwise."""

    _whole: ClassVar[bool] = False
    """Whether entries are whole numbers."""

    _positive: ClassVar[bool] = False
    """Whether no entry may be negative."""

    _settable: ClassVar[Settable | None] = None
    """How attributes that are set make a fit; None where they cannot be set."""

    _given: Mapping[str, np.ndarray] = MappingProxyType({})
    """Attributes that were set, as long as some others are lacking."""

    fit_: Fit
    n_features_in_: int
    n_iter_: int
    converged_ = Fitted(lambda fit: fit.status == Status.CONVERGED)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self._positive
        tags.input_tags.categorical = self._whole
        return tags

    # -- in ------------------------------------------------------------------------------------------

    def _read(self, X: Given, y: Given = "no_validation", *, reset: bool = False, **options: Given) -> Any:
        """Return X, or X and y, as arrays of floats; `reset` in a fit, which sets columns and dtype.

        Raises:
            NotFittedError: before a fit.
            ValueError: what scikit-learn refuses; a negative number where there may be none.
        """
        if not reset:
            check_is_fitted(self)
        dtypes = [np.float64, np.float32] if reset else [self.fit_.objective.dtype]
        read = validate_data(self, X, y, reset=reset, dtype=dtypes, **options)
        if self._positive:
            check_non_negative(read, type(self).__name__)
        return read

    def _hyperparameters(self) -> dict[str, Given]:
        """Return the arguments of the model."""
        named = {self._names.get(name, name): value for name, value in self.get_params(deep=False).items()}
        accepted = inspect.signature(self._model).parameters
        return {name: value for name, value in named.items() if name in accepted}

    def _run(
        self,
        data: Data,
        weights: np.ndarray | None = None,
        *,
        tol: float,
        max_iter: int,
        key: Array,
        n_restarts: int = 1,
        params: Params = None,
        progress: bool = False,
    ) -> None:
        """Fit the model, warn as scikit-learn does where the fit did not converge, and keep it."""
        with self._translated(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FitWarning)
            found = fit(
                self._model(**self._hyperparameters()),
                data,
                key=key,
                weights=weights,
                params=jax.tree.map(jnp.asarray, params),
                n_restarts=n_restarts,
                max_iter=1 + read_count(max_iter, "max_iter", least=0),  # a sweep scores, then moves
                tol=read_number(tol, "tol"),
                progress=progress,
            )
        if found.status != Status.CONVERGED and max_iter > 0:
            warnings.warn(found.verdict(), ConvergenceWarning, stacklevel=3)
        else:
            found.warn(stacklevel=3)
        self._keep(found)
        self.n_iter_ = int(found.n_iter) - 1

    def _step(self, data: Data, start: Params = None, **options: Given) -> None:
        """Go on by minibatches from the fit so far, or begin, and keep it."""
        with self._translated():
            so_far = jax.tree.map(jnp.asarray, vars(self).get("fit_"))
            model = self._model(**self._hyperparameters()) if so_far is None else so_far.model
            params = start if so_far is None else so_far.params
            self._keep(fit_stochastic(model, data, params=params, **options))
        self.n_iter_ = int(self.fit_.n_iter)

    def _keep(self, found: Fit) -> None:
        self.fit_ = jax.tree.map(np.asarray, found)
        self.__dict__.pop("_given", None)

    def _set(self, name: str, value: Given) -> None:
        """Set an attribute; with the last of those that a model needs there is a fit, of no sweeps."""
        names = () if self._settable is None else self._settable.names
        if name not in names:
            raise AttributeError(f"{name} is read from the fit, and cannot be set")
        known = {own: getattr(self, own) for own in names} if "fit_" in vars(self) else self._given
        given = {**known, name: np.array(value, float)}
        if self._settable is None or set(given) < set(names):
            self._given = given
            return
        with self._translated():
            self.n_features_in_, found = self._settable.fit(self._model(**self._hyperparameters()), given)
        self._keep(found)
        self.n_iter_ = 0

    # -- out -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Let float64 be float64, and errors name arguments as they are called here."""
        names = {ours: theirs for theirs, ours in self._names.items()} | _ARGUMENTS
        try:
            with jax.enable_x64(True):
                yield
        except ValueError as error:
            name, _, rest = _PART.sub("", str(error), count=1).partition(" ")
            if name not in names:
                raise
            raise ValueError(f"{names[name]} {rest}") from error

    @contextlib.contextmanager
    def _fitted(self) -> Iterator[Fit]:
        """Give the fit, for its uses."""
        check_is_fitted(self)
        with self._translated():
            yield jax.tree.map(jnp.asarray, self.fit_)

    def _of_rows(self, use: Callable[[Fit, Data], Tree], X: np.ndarray) -> np.ndarray:
        """Return what a use of the fit says of every row."""
        with self._fitted() as found:
            return np.asarray(use(found, filled(X)))[: len(X)]


def draw_key(random_state: RandomState) -> Array:
    """Return a PRNG key from what scikit-learn calls a random state."""
    return jax.random.key(int(check_random_state(random_state).randint(np.iinfo(np.int32).max)))


def read_sample_weight(sample_weight: Given, X: Given) -> np.ndarray:
    """Return the weights of all rows, of rows that fill a table up too.

    Raises:
        ValueError: weights of another number, negative ones, or none that is not zero.
    """
    weights = _check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True)
    if not weights.any():
        raise ValueError("sample_weight must have a weight that is not zero")
    return np.pad(weights, (0, program_rows(len(weights)) - len(weights)))


def filled(X: np.ndarray) -> np.ndarray:
    """Return a table, filled up with copies of its first row to the length of its program."""
    n = len(X)
    return np.concatenate([X, np.broadcast_to(X[:1], (program_rows(n) - n, *X.shape[1:]))])


def program_rows(n: int, least: int = _LEAST_ROWS) -> int:
    """Return the length, of n or an eighth more at most, or `least`, whose programs n rows share."""
    step = 2 ** max((n - 1).bit_length() - 4, 0)
    return max(least, -(-n // step) * step)
