"""The manual: the reference has every public name, pages name what exists, the parts they add are right."""

import functools
import importlib
import inspect
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import gammaln
from scipy.stats import norm

import vbjax as vb
from tests.support.tolerances import close

FOLDER = pathlib.Path(__file__).parent.parent / "notebooks"
PAGES = [FOLDER / "index.md", *FOLDER.glob("manual/*.md"), *FOLDER.glob("reference/*.md")]
ADAPTERS = ("vbjax.plots", "vbjax.sklearn")
NAMESPACES = [name for name in vb.__all__ if inspect.ismodule(getattr(vb, name))]
SHOWN_ELSEWHERE = {
    "to_arviz": "its package is no part of the tests' environment: a block without doctest",
    "flow": "its package is no part of the tests' environment: a block without doctest",
    "from_numpyro": "its package is no part of the tests' environment: a block without doctest",
    "from_pymc": "its package is no part of the tests' environment: a block without doctest",
}


def named(path):
    """Return what a dotted name stands for; two packages are not loaded by `import vbjax`."""
    for package in ADAPTERS:
        if path.startswith(package):
            importlib.import_module(package)
    return functools.reduce(getattr, path.split(".")[1:], vb)


def public(module):
    """Return the names of a namespace that its users import: its `__all__`, or what it defines itself."""
    own = (n for n, x in vars(module).items() if getattr(x, "__module__", "") == module.__name__)
    return set(getattr(module, "__all__", None) or [n for n in own if not n.startswith("_")])


def spaces():
    """Return all namespaces whose names users import."""
    return [
        vb,
        *(getattr(vb, name) for name in NAMESPACES),
        *map(named, ADAPTERS),
        vb.plots.chains,
        vb.plots.topics,
    ]


def test_the_reference_has_every_public_name():
    text = "".join(page.read_text("utf-8") for page in FOLDER.glob("reference/*.md"))
    documented = re.findall(r"^\.\. auto\w+:: (\S+)$", text, re.M)
    assert len(set(documented)) == len(documented)
    objects = {id(named(path)) for path in documented}
    for space in spaces():
        left_out = {name for name in public(space) if callable(getattr(space, name))}
        left_out -= {name for name in left_out if id(getattr(space, name)) in objects}
        assert not left_out, f"{space.__name__}: {left_out} are in no page of notebooks/reference"


def test_every_public_name_has_an_example():
    """An estimator may have that of its kind, which says what all have; other classes have their own."""

    def shown(thing):
        kinds = thing.__mro__ if thing.__module__.startswith("vbjax.sklearn") else (thing,)
        return any(">>>" in (kind.__doc__ or "") for kind in kinds if kind.__module__.startswith("vbjax"))

    things = ((name, getattr(space, name)) for space in spaces() for name in public(space))
    without = {name for name, thing in things if callable(thing) and not shown(thing)}
    assert without == set(SHOWN_ELSEWHERE)


def test_pages_name_what_exists():
    text = "".join(page.read_text("utf-8") for page in PAGES)
    for name in re.findall(r"\b(?:vb|vbjax\.plots|vbjax\.sklearn)\.[A-Za-z_][\w.]*", text):
        named(re.sub("^vb[.]", "vbjax.", name.rstrip(".")))
    for code in re.findall(r"```python\n(.*?)```", text, re.S):
        compile(code, "a page", "exec")


@functools.cache
def parts_of_the_page():
    """Run all code of the page on components and families; return its names."""
    text = (FOLDER / "manual" / "extending.md").read_text("utf-8")
    names = {"__name__": "extending"}
    for code in re.findall(r"```python\n(.*?)```", text, re.S):
        assert len(code.splitlines()) <= 60
        exec(code, names)
    return names


def test_the_component_of_the_page_has_the_exact_evidence():
    x, x_new = np.array([0.3, 0.9, 1.7, 2.2]), 1.1
    shape, a = 2.0, 1.0
    model = vb.BayesianMixture(1, parts_of_the_page()["Weibull"](shape))
    fit = vb.fit(model, jnp.asarray(x)[:, None], key=jax.random.key(0))
    b = a * (x**shape).mean()  # the default: the prior's mean of lambda is one over the mean of x^s

    def evidence(x):
        total = gammaln(a + len(x)) - gammaln(a) + a * np.log(b) - (a + len(x)) * np.log(b + (x**shape).sum())
        return total + (np.log(shape) + (shape - 1) * np.log(x)).sum()

    close(fit.objective, evidence(x))
    predictive = fit.log_predictive(jnp.array([[x_new]]))[0]
    close(predictive, evidence(np.append(x, x_new)) - evidence(x))


def test_the_family_of_the_page_has_the_exact_evidence():
    fit, x = parts_of_the_page()["fit"], np.array([1.0, -2.0, 0.5, 3.0])
    a, b = 2.0, 3.0
    a_n, b_n = a + len(x) / 2, b + (x**2).sum() / 2
    exact = gammaln(a_n) - gammaln(a) + a * np.log(b) - a_n * np.log(b_n) - len(x) / 2 * np.log(2 * np.pi)
    close(fit.objective, exact)
    close(fit.params.v.mean, b_n / (a_n - 1))
    # at the statistics of a value, the rows' log densities are those of a normal
    s = vb.Record(v=fit.params.v.statistics(jnp.asarray(1.7)))
    own = fit.model.likelihood(s, jnp.asarray(x, fit.objective.dtype))
    close(own, norm.logpdf(x, 0, np.sqrt(1.7)))
