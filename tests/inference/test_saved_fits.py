"""A file of a fit gives back what it was given, to the bit; of anything else it says what is wrong.

What comes back is compared as a tree: classes, structure, dtypes and every bit of the arrays, for models of
every kind in the registry and parameters of their shapes. A file that is damaged in any byte, of another
kind, of a newer format or made to do harm is a ValueError that names the file; nothing of it is run.
"""

import dataclasses
import io
import json
import os
import pickle
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.made_fits import of, started
from tests.support.registry import MODELS
from vbjax.data.frames import Columns
from vbjax.families.base import pytree
from vbjax.inference import saved_fits

OWN = [name for name in MODELS if name.startswith(("own", "black box"))]


def require_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert type(one) is type(other)
        if isinstance(other, jax.Array) and jnp.issubdtype(other.dtype, jax.dtypes.prng_key):
            assert one.dtype == other.dtype
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        if not hasattr(other, "dtype"):
            assert one == other
            continue
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fit.vbjax"


# -- what comes back ---------------------------------------------------------------------------------


def test_every_model_comes_back(path):
    for name, entry in MODELS.items():
        fit = of(entry.model)
        fit.save(path)
        require_same(vb.load(path, model=entry.model if name in OWN else None), fit)


@pytest.mark.parametrize(
    "name",
    [
        "k-means",
        "VB full, holes",
        "VB of a product",
        "VB of classes and noise",
        "EM of positive",
        "process of VB tied",
        "relevance",
        "Bayesian PCA",
        "own, local, points",
        "own, not conjugate",
        "black box",
        "black box, low rank",
        "HMM of a hierarchical process",
        "VB state space",
        "topics, a hierarchical process",
    ],
)
def test_parameters_of_every_kind_come_back(path, name):
    fit = started(name)
    fit.save(path)
    require_same(vb.load(path, model=MODELS[name].model if name in OWN else None), fit)


def test_values_of_every_type_come_back(path):
    fit = of(
        vb.KMeans(2, scale=np.float64(2.0)),
        keys=jax.random.split(jax.random.key(3, impl="rbg"), 2),
        old_key=jax.random.PRNGKey(0),
        numbers=[True, 3, 10**30, 0.1, float("inf"), None, "text\0\u00e9"],
        host=(np.float64(1 / 3), np.arange(3, dtype="int8"), np.array(["a", "bc"]), np.zeros((0, 2))),
        named={"a.b": jnp.zeros(2), "a": {"b": jnp.ones(3)}, "/c\0d": jnp.zeros(1), "": vb.Record()},
        nothing=(),
        joint=vb.LocationPrecision(jnp.ones(2), vb.families.NormalState(jnp.zeros(2), 3.0)),
    )
    columns = Columns(("a", "kind"), (None, ("no", "yes")))
    fit = dataclasses.replace(fit, diagnostics=vb.blackbox.Diagnostics(*jnp.arange(9.0)), columns=columns)
    fit.save(path)
    require_same(vb.load(path), fit)


def test_arrays_are_there_for_numpy_too(path):
    of(vb.KMeans(2), mu=vb.families.NormalState(jnp.arange(2.0), jnp.ones(2))).save(path)
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["params.mu.mean"], [0, 1])
        np.testing.assert_array_equal(arrays["runs.objective"], [1, np.nan, -np.inf])


def test_float64_is_not_made_float32(path):
    with jax.enable_x64(True):
        fit = of(vb.KMeans(2), a=jnp.asarray([1 / 3]))
        fit.save(path)
        require_same(vb.load(path), fit)
    with pytest.raises(ValueError, match=r"fit.vbjax: fit.params.a is of float64, .*jax_enable_x64"):
        vb.load(path)


@pytree
class Mine:
    """A class of the user's."""

    value: jax.Array


def test_a_class_of_the_users_comes_back_where_it_is_known(path, monkeypatch):
    fit = of(vb.KMeans(2), own=Mine(jnp.ones(2)))
    fit.save(path)
    require_same(vb.load(path), fit)
    known = saved_fits.stored_class
    monkeypatch.setattr(saved_fits, "stored_class", lambda name: None if "Mine" in name else known(name))
    with pytest.raises(ValueError, match=r"fit.params.own is a .*test_saved_fits.Mine, .*import its module"):
        vb.load(path)


# -- a model of the user's, given again ----------------------------------------------------------------


def own(mu=(), log_likelihood=lambda s, x: x, **hyper):
    factors = dict(mu=vb.Normal(mu), tau=vb.Gamma())
    return vb.Model(factors=factors, log_likelihood=log_likelihood, hyper=dict(a=jnp.ones(2)) | hyper)


def black_box(shape=2, family="full_rank"):
    return vb.BlackBox(lambda s: s.w.sum(), dict(w=vb.real(shape)), family)


GIVEN = {
    "nothing": (
        own(),
        None,
        r"fit.model.structure.log_likelihood is the function .*load\(path, model=model\)",
    ),
    "no function": (own(), own(log_likelihood=None), "log_likelihood is the function .* the given has None"),
    "another class": (own(), vb.KMeans(2), "fit.model is a Model; the given has KMeans"),
    "another shape": (own(), own(mu=(3,)), "fit.model.structure.factors.mu.plate"),
    "another hyperparameter": (own(), own(b=1.0), "fit.model.hyper is of a; the given has a, b"),
    "a hyperparameter's shape": (own(), own(a=jnp.ones(3)), r"fit.model.hyper.a is of shape \(2,\)"),
    "ours": (vb.KMeans(2), vb.KMeans(3), "fit.model.n_clusters is 2; the given has 3"),
    "a support": (black_box(), black_box(3), "fit.model.support.w.shape"),
    "a family": (black_box(), black_box(family="blocks"), "fit.model.family is 'full_rank'"),
    "a rank": (
        black_box(family=vb.blackbox.low_rank(1)),
        black_box(family=vb.blackbox.low_rank(2)),
        "fit.model.family.rank is 1; the given has 2",
    ),
}


@pytest.mark.parametrize("case", GIVEN)
def test_a_given_model_must_be_that_of_the_fit(path, case):
    model, given, message = GIVEN[case]
    of(model).save(path)
    with pytest.raises(ValueError, match=f"fit.vbjax: .*{message}"):
        vb.load(path, model=given)


def test_what_fit_found_of_a_model_comes_back(path):
    model = MODELS["own, two blocks"].model
    fit = of(model.inspect(jnp.arange(5.0)))
    fit.save(path)
    require_same(vb.load(path, model=model), fit)
    assert vb.load(path, model=model).model.structure.inspection.blocks == (("mu",), ("tau",))


def test_numbers_are_those_of_the_file(path):
    of(own(a=jnp.full(2, 5.0))).save(path)
    np.testing.assert_array_equal(vb.load(path, model=own(a=1.0)).model.hyper.a, [5, 5])


# -- what is no whole file of ours ---------------------------------------------------------------------


def small(path):
    fit = of(vb.KMeans(2), a=jnp.arange(2.0))
    fit.save(path)
    return fit, path.read_bytes()


def test_a_file_damaged_in_any_byte_is_refused_or_gives_the_same_fit(path):
    fit, content = small(path)
    refusals = []
    for place in range(0, len(content), 11):
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :])
        try:
            require_same(vb.load(path), fit)
        except ValueError as error:
            refusals.append(str(error).startswith(f"{path}: "))
    assert all(refusals)
    assert len(refusals) > len(content) / 22


def test_a_file_cut_anywhere_is_refused(path):
    _, content = small(path)
    for length in range(0, len(content), 50):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"fit.vbjax: no file of a fit, or a damaged one"):
            vb.load(path)


def altered(path, alter, **members):
    """Write the file of a fit with another header, and with other members."""
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(kept["header.json"])
    alter(header)
    text = json.dumps(header).replace('"deep"', 3000 * '{"class": "tuple", "fields": {"0": ' + 3000 * "}}")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (kept | members | {"header.json": text}).items():
            archive.writestr(name, content)


ALTERED = {
    "newer": (
        lambda h: h.update(format=2, version="9.1"),
        "format 2, written by vbjax 9.1; .*install a newer",
    ),
    "no fit": (lambda h: h.update(fit=[1]), "its header is of something else"),
    "nothing about": (lambda h: h.update(about=[]), "its header is of something else"),
    "another root": (lambda h: h["fit"].update({"class": "Record"}), "its header is of something else"),
    "a new field": (lambda h: h["fit"]["fields"].update(color=1), "fit has 'color', which a Fit of this"),
    "an old field": (lambda h: h["fit"]["fields"].pop("n_iter"), "fit has no 'n_iter', which a Fit of this"),
    "no array": (lambda h: h["fit"]["fields"].update(n_iter={"array": "none"}), "no item named 'none.npy'"),
    "no node": (
        lambda h: h["fit"]["fields"].update(n_iter={"arrays": 1}),
        "fit.n_iter is nothing that a fit",
    ),
    "too deep": (lambda h: h["fit"]["fields"].update(n_iter="deep"), "no file of a fit"),
    "a program": (lambda h: call(h, "os.system"), "fit.params is a os.system, a class that this version"),
    "a builtin": (lambda h: call(h, "builtins.eval"), "fit.params is a builtins.eval"),
    "a module": (lambda h: call(h, "antigravity.Nothing"), "fit.params is a antigravity.Nothing"),
}


def call(header, name):
    header["fit"]["fields"]["params"] = {"class": name, "fields": {"0": "touch harm"}}


@pytest.mark.parametrize("case", ALTERED)
def test_a_file_of_something_else_is_refused(path, case):
    alter, message = ALTERED[case]
    small(path)
    altered(path, alter)
    with pytest.raises(ValueError, match=message) as caught:
        vb.load(path)
    assert str(caught.value).startswith(str(path))
    assert "antigravity" not in sys.modules


def test_a_field_that_was_not_yet_there_has_its_default(path):
    fit, _ = small(path)
    altered(path, lambda h: [h["fit"]["fields"].pop(name) for name in ("diagnostics", "columns")])
    require_same(vb.load(path), fit)


class Harm:
    """What a pickle would run."""

    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_nothing_of_a_file_is_run_or_unpacked(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    small(path)
    array = io.BytesIO()
    np.save(array, np.array([Harm()], object))
    altered(path, lambda h: None, **{"params.a.npy": array.getvalue()})
    with pytest.raises(ValueError, match=r"fit.vbjax: Object arrays cannot be loaded"):
        vb.load(path)
    for content in (pickle.dumps(Harm()), b"", b"a,b\n1,2\n"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"fit.vbjax: no file of a fit, or a damaged one"):
            vb.load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", "0" * 10**6)
    with pytest.raises(ValueError, match=r"no file of a fit, .*: header.json is compressed"):
        vb.load(path)
    assert os.listdir() == ["fit.vbjax"]


@pytest.mark.parametrize("given", ["", " ", "a\0b", 3, None, b"fit.vbjax"])
def test_a_path_must_be_the_name_of_a_file(given):
    for use in (of(vb.KMeans(2)).save, vb.load):
        with pytest.raises(ValueError, match="path must be the name of a file; got"):
            use(given)


# -- writing -------------------------------------------------------------------------------------------


def test_what_cannot_be_written_is_said_and_the_older_file_stays(path, monkeypatch):
    fit, content = small(path)
    for params, message in {
        "function": (dict(f=np.sin), "fit.params.f is a ufunc, which a file of a fit cannot hold"),
        "object": (dict(a=(object(),)), "fit.params.a.0 is a object, which"),
        "names": (dict(a={3: 1}), "fit.params.a must have strings for names to be saved; got 3"),
        "dtype": (dict(a=jnp.zeros(2, "bfloat16")), "fit.params.a is an array of bfloat16, which"),
    }.values():
        with pytest.raises(ValueError, match=message):
            of(vb.KMeans(2), **params).save(path)
    with pytest.raises(ValueError, match="inside jit and vmap it has none yet"):
        jax.jit(lambda a: of(vb.KMeans(2), a=a).save(path))(1.0)

    def full(*args, **how):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="No space left"):
        fit.save(path)
    with pytest.raises(FileNotFoundError):
        fit.save(path.parent / "none" / "fit.vbjax")
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["fit.vbjax"]
