"""Files of fits: `Fit.save` writes one; `load` reads it, in another process, on another device, years later.

A file is a zip archive without compression. Its member `header.json` holds the versions of the format and of
the package, and the fit as a tree. A node of the tree is a number, a string, a truth value or null; or an
object, with its class and the nodes of its fields; or the name of an array, which is a member of the archive
in numpy's own format (`np.load` reads them too); or the name of a function, which a file cannot hold, so that
the reader must be given it; or a place in the model, of a function that the parameters have too. Nothing is
pickled, and reading runs nothing: classes are those of `numerics.stored`.

A field that is new and has a default needs no other number of the format: of older files it has the default.
What older versions would misread needs one. Imported by `result` and the shell command.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import io
import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from vbjax.data.whole_files import replacing
from vbjax.numerics.inputs import is_concrete
from vbjax.numerics.record import Record
from vbjax.numerics.stored import (
    REQUIRED,
    defaults_of,
    is_stored,
    made_of,
    stored_class,
    stored_name,
    structure_of,
)
from vbjax.numerics.types import Given, Tree

if TYPE_CHECKING:
    from vbjax.inference.result import Fit

FORMAT = 1
_HEADER = "header.json"
_FIT = "vbjax.inference.Fit"
_CONTAINERS: dict[str, type] = {"tuple": tuple, "list": list, "dict": dict, "Record": Record}
Json: TypeAlias = Any


def version() -> str:
    """Return the package's version, as installed."""
    try:
        return importlib.metadata.version("vbjax-inference")
    except importlib.metadata.PackageNotFoundError:
        return "unknown (not installed)"


def save(fit: Fit, path: Given) -> None:
    """Write a fit to a file, whole or not at all."""
    with replacing(_read_path(path)) as file:
        pack(fit, file)


def load(path: str | os.PathLike[str], *, model: Any = None) -> Fit:
    """Read a fit that `Fit.save` has written.

    Everything comes back as it was, to the bit: parameters, the model with its hyperparameters, the table of
    the restarts, diagnostics. Arrays come to the default device.

    Args:
        path: the file.
        model: the model that was fitted, or one like it, for the functions of a `Model` or a `BlackBox`,
            which a file cannot hold; other models need none. Its numbers do not matter: the file has those of
            the fit. Of classes of your own, components or families, the module must be imported.

    Returns:
        A `Fit`.

    Raises:
        ValueError: what is no file of a fit, or a damaged one; a file of a newer format; arrays of float64
            where JAX would make float32 of them, which would be another fit; a model that is needed and not
            given, or that has not the factors and shapes of the fit. The message names the file.
        OSError: the file cannot be opened, for example FileNotFoundError.

    >>> import jax, pathlib, tempfile, vbjax as vb
    >>> fit = vb.fit(vb.textbook.GaussianMeanPrecision(), jax.numpy.arange(5.0), key=jax.random.key(0))
    >>> path = pathlib.Path(tempfile.mkdtemp(), "mean.vbjax")
    >>> fit.save(path)
    >>> str(vb.load(path).summary()) == str(fit.summary())
    True
    """
    return unpack(path, model)[0]


def pack(fit: Fit, file: IO[bytes], **about: Json) -> None:
    """Write a fit into an open file, and beside it what is known of its data, such as `vocabulary`."""
    if not is_concrete(fit):
        raise ValueError("fit must hold numbers to be saved; inside jit and vmap it has none yet")
    arrays: dict[str, np.ndarray] = {}
    tree = _node(fit, "", arrays, {})
    header = dict(format=FORMAT, version=version(), model=type(fit.model).__name__, about=about, fit=tree)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_HEADER, json.dumps(header, indent=1))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def unpack(path: Given, model: Any = None) -> tuple[Fit, dict[str, Json]]:
    """Return the fit in a file, and what `pack` was told about its data."""
    path = _read_path(path)
    content = path.read_bytes()
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        header = json.loads(_member(archive, _HEADER))
    except Exception as error:  # whatever zipfile and json raise for bytes that are no such file
        raise ValueError(f"{path}: no file of a fit, or a damaged one: {error}") from error
    match header:
        case {"format": int(number), "version": str(writer)} if number > FORMAT:
            raise ValueError(
                f"{path}: format {number}, written by vbjax {writer}; this is vbjax {version()}, which reads "
                f"formats up to {FORMAT}: install a newer one"
            )
        case {"format": int(), "about": dict(about), "fit": {"class": str(root), "fields": dict(nodes)}} if (
            root == _FIT
        ):
            try:
                reader = _Reader(archive, model)
                return reader.made(stored_class(_FIT), nodes, dict(model=model), "fit"), about
            except Exception as error:
                raise ValueError(f"{path}: {error}") from error
    raise ValueError(f"{path}: no file of a fit, or a damaged one: its header is of something else")


def _read_path(path: Given) -> Path:
    """Return the name of a file as a path; raise a ValueError for anything else."""
    if not isinstance(path, (str, os.PathLike)) or not str(path).strip() or "\0" in str(path):
        raise ValueError(f"path must be the name of a file; got {path!r}")
    return Path(path)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a member of the archive; zipfile compares its checksum."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")  # a few bytes could stand for all the memory
    return archive.read(name)


def _parts(x: Tree) -> dict[str, Any]:
    """Return what an object holds, by name."""
    if type(x) in (tuple, list):
        return {str(i): part for i, part in enumerate(x)}
    if type(x) in (dict, Record):
        return dict(x)
    return {name: getattr(x, name) for name in defaults_of(type(x))}


# -- writing -------------------------------------------------------------------------------------------


def _node(x: Tree, place: str, arrays: dict[str, np.ndarray], of_model: dict[int, str]) -> Json:
    """Return an object of a fit as a node.

    Its arrays are added to `arrays`; the places of functions of the model, which comes first, to `of_model`.
    """
    kind = type(x)
    if x is None or kind in (bool, int, float, str):
        return x
    if callable(x) and place.startswith(".model."):
        of_model.setdefault(id(x), place.removeprefix(".model."))
    elif id(x) in of_model:
        return {"model": of_model[id(x)]}
    if kind in _CONTAINERS.values() or is_stored(kind):
        parts = _parts(x)
        if unfit := [name for name in parts if not isinstance(name, str)]:
            raise ValueError(f"fit{place} must have strings for names to be saved; got {unfit[0]!r}")
        name = kind.__name__ if kind in _CONTAINERS.values() else stored_name(kind)
        fields = {name: _node(part, f"{place}.{name}", arrays, of_model) for name, part in parts.items()}
        return {"class": name, "fields": fields}
    if isinstance(x, (jax.Array, np.ndarray, np.generic)):
        return _array_node(x, place, arrays)
    if callable(x) and place.startswith(".model."):
        return {"function": getattr(x, "__qualname__", kind.__qualname__)}
    raise ValueError(f"fit{place} is a {kind.__qualname__}, which a file of a fit cannot hold")


def _array_node(
    x: jax.Array | np.ndarray | np.generic, place: str, arrays: dict[str, np.ndarray]
) -> dict[str, str]:
    """Add an array to `arrays`, called by its place, and return the node that names it."""
    name = re.sub(r"[^\w.]", "_", place[1:])  # keys of a dict may be any text
    while name in arrays:
        name += "_"
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        arrays[name] = np.asarray(jax.random.key_data(x))
        return {"key": name, "kind": str(jax.random.key_impl(x))}
    array = np.asarray(x)
    if array.dtype.kind not in "biufcU":
        raise ValueError(f"fit{place} is an array of {array.dtype}, which a file of a fit cannot hold")
    arrays[name] = array
    return {"array" if isinstance(x, jax.Array) else "numpy": name}


# -- reading -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reader of nodes, beside a given model.

    Attributes:
        archive: the file, in which the arrays are.
        model: the given model, or None.
    """

    archive: zipfile.ZipFile
    model: Any

    def value(self, node: Json, given: Any, place: str, fixed: bool) -> Any:
        """Return what a node stands for.

        Args:
            node: the node.
            given: what the given model has in its place; None where it has nothing, or none was given.
            place: of the node, for errors.
            fixed: whether it is structure, in which the given model must agree.
        """
        match node:
            case {"class": str(name), "fields": dict(fields)}:
                kind = _CONTAINERS.get(name) or stored_class(name)
                if kind is None:
                    raise ValueError(
                        f"{place} is a {name}, a class that this version of vbjax does not know; if it is "
                        "one of your own, import its module first"
                    )
                if given is not None and type(given) is not kind:
                    raise _disagreement(place, f"a {kind.__name__}", type(given).__name__)
                return self.made(kind, fields, {} if given is None else _parts(given), place, fixed)
            case {"function": str(name)}:
                self.require_model(place, name)
                if not callable(given):
                    raise _disagreement(place, f"the function {name}", repr(given))
                return given
            case {"model": str(path)}:
                self.require_model(place, path)
                return functools.reduce(lambda part, name: _parts(part)[name], path.split("."), self.model)
            case {"key": str(name), "kind": str(kind)}:
                return jax.random.wrap_key_data(_on_device(self.array(name), place), impl=kind)
            case {"array": str(name)} | {"numpy": str(name)}:
                array = self.array(name)
                if given is not None and np.shape(given) not in ((), array.shape):
                    raise _disagreement(place, f"of shape {array.shape}", f"shape {np.shape(given)}")
                return _on_device(array, place) if "array" in node else array[()]
            case None | bool() | int() | float() | str():
                if fixed and given is not None and given != node:
                    raise _disagreement(place, repr(node), repr(given))
                return node
        raise ValueError(f"{place} is nothing that a fit holds")

    def require_model(self, place: str, name: str) -> None:
        """Raise a ValueError where a function is needed and no model was given."""
        if self.model is None:
            raise ValueError(
                f"{place} is the function {name}, which a file cannot hold: give the model that was fitted, "
                "load(path, model=model)"
            )

    def array(self, name: str) -> np.ndarray:
        """Return an array of the file."""
        member = io.BytesIO(_member(self.archive, f"{name}.npy"))
        return np.lib.format.read_array(member, allow_pickle=False)

    def made(
        self, kind: Any, nodes: Mapping[str, Json], given: Mapping[str, Any], place: str, fixed: bool = False
    ) -> Any:
        """Return an object of a class from the nodes of its fields; a field without one has its default."""
        container = kind in _CONTAINERS.values()
        if container and given and set(given) != set(nodes):
            raise _disagreement(place, f"of {', '.join(nodes)}", ", ".join(given))
        values = {} if container else defaults_of(kind)
        structure = set() if container else structure_of(kind)
        if not container and (unknown := nodes.keys() - values.keys()):
            raise ValueError(f"{place} has {min(unknown)!r}, which a {kind.__name__} of this version has not")
        for name, node in nodes.items():
            values[name] = self.value(node, given.get(name), f"{place}.{name}", fixed or name in structure)
        if lacking := [name for name, value in values.items() if value is REQUIRED]:
            raise ValueError(f"{place} has no {lacking[0]!r}, which a {kind.__name__} of this version has")
        if not container:
            return made_of(kind, values)
        return kind(values.values()) if kind in (tuple, list) else kind(values)


def _on_device(array: np.ndarray, place: str) -> jax.Array:
    """Return the array as one of JAX's, of its dtype."""
    placed = jnp.asarray(array)
    if placed.dtype != array.dtype:
        raise ValueError(
            f"{place} is of {array.dtype}, of which JAX would make {placed.dtype} here: enable it by "
            "jax.config.update('jax_enable_x64', True), or JAX_ENABLE_X64=1 in the environment"
        )
    return placed


def _disagreement(place: str, found: str, given: str) -> ValueError:
    return ValueError(f"model must be that of the fit, in which {place} is {found}; the given has {given}")
