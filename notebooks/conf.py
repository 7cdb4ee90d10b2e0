"""Sphinx: the manual of `manual/`, the notebooks as they were executed, the reference from the docstrings.

`python -m sphinx -W -b html notebooks OUT`, with the extra `docs`.
"""

from __future__ import annotations

import base64
import importlib.metadata
import inspect
import json
import pathlib
import re
from typing import Any

import vbjax as vb
from vbjax.models.labels.labels import Labels

here = pathlib.Path(__file__).parent

project = "vbjax"
author = "the vbjax authors"
release = importlib.metadata.version("vbjax-inference")
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_design", "myst_nb"]
exclude_patterns = ["README.md", "data", "**.ipynb_checkpoints"]
templates_path: list[str] = []

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # they are stored as they were executed

html_theme = "pydata_sphinx_theme"
html_title = f"vbjax {release}"
html_theme_options = {
    "show_prev_next": False,
    "navbar_align": "left",
    "secondary_sidebar_items": ["page-toc"],
}

default_role = "code"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # what a method only overrides is documented where it is declared
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_use_ivar = True
napoleon_use_rtype = False

SECTION = re.compile(r"(Args|Attributes|Raises|References|Returns|Warns|Yields):$")
CONTRACTS = (vb.core.ConjugateModel, vb.components.Component, Labels)


def linked(text: str, role: str) -> str:
    """Return the text with public names in backticks, `vb.fit`, as links to the reference."""
    return re.sub(r"(?<![`\w])`vb\.([\w.]+)`(?!`)", rf"{role}`vb.\1 <vbjax.\1>`", text)


def in_prose(line: str, of: str) -> str:
    """Return a line of the docstring of a name, what looks like markup escaped."""
    parts = re.split(r"(`[^`]*`)", line)
    parts[::2] = [re.sub(r"([|*]|_(?!\w))", r"\\\1", part) for part in parts[::2]]
    parts[0] = re.sub(r"(: )(?=\w\.)", r"\1\\", parts[0])  # "n_components: k." is no enumeration
    text = "".join(parts)
    if not of.startswith("vbjax.sklearn"):  # where a Mixture is another
        text = re.sub(r"`([A-Z]\w+)`", lambda m: f"`vb.{m[1]}`" if m[1] in vb.__all__ else m[0], text)
    return linked(text, ":py:obj:")


def read_docstring(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Turn the indented equations of a docstring into literal blocks, and escape its prose."""
    lines[:] = re.sub(r"(?m)^( {4}[\w, ]+,)\n {8}(?=[\w, ]+:)", r"\1 ", "\n".join(lines)).split("\n")  # Args
    read: list[str] = []
    section = equation = doctest = attributes = False
    for before, line in zip(["", *lines], lines, strict=False):
        if line and not line.startswith("    "):
            section, equation, attributes = bool(SECTION.match(line)), False, line == "Attributes:"
        elif line and not before and not section and not equation:
            equation = True
            read += [".. code-block:: text", ""]
        if attributes and (names := re.match(r" {4}\w+(, \w+)+:", line)):  # a space would end a name
            line = names[0].replace(", ", ",") + line[names.end() :]
        doctest = bool(line) and (doctest or line.lstrip().startswith(">>>"))
        read.append(line if equation or doctest else in_prose(line, name))
    typed = what in ("attribute", "property")  # a colon in the first line of which would end a type
    lines[:] = ["\\ ", *read] if typed else read


def shorten(app: Any, env: object, node: Any, shown: object) -> object | None:
    """Show a class of another package, such as an array of JAX, by its last name."""
    return shown if node.get("reftype") == "class" else None


def skip_member(app: Any, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave out what a model says to the engine, whose contract has a page, and what scikit-learn adds."""
    if name.endswith("_request"):
        return True
    function = inspect.unwrap(getattr(obj, "fget", obj))
    owner = getattr(inspect.getmodule(function), getattr(function, "__qualname__", "").split(".")[0], None)
    of_engine = inspect.isclass(owner) and owner not in CONTRACTS and issubclass(owner, CONTRACTS)
    return True if of_engine and any(hasattr(contract, name) for contract in CONTRACTS) else None


def read_page(app: Any, page: str, source: list[str]) -> None:
    """Make links of the names in pages, and the cards of the gallery from the notebooks and their README."""
    if page.startswith(("manual/", "index")):
        parts = re.split(r"(?s)(```.*?```)", source[0])
        parts[::2] = [linked(part, "{py:obj}") for part in parts[::2]]
        source[0] = "".join(parts)
    if page == "gallery":
        listed = re.findall(r"^- `(\w+)\.ipynb`: (.*)$", (here / "README.md").read_text("utf-8"), re.M)
        others = {path.stem for path in here.glob("*.ipynb")} - {name for name, _ in listed}
        listed += [(name, "") for name in sorted(others)]
        source[0] += "\n".join(card(name, text) for name, text in listed) + "\n::::\n"
        source[0] += "\n```{toctree}\n:hidden:\n\n" + "\n".join(name for name, _ in listed) + "\n```\n"


def card(name: str, text: str) -> str:
    """Return the card of a notebook, with the first of its pictures."""
    notebook = json.loads((here / f"{name}.ipynb").read_text("utf-8"))
    title = "".join(notebook["cells"][0]["source"]).splitlines()[0].lstrip("# ")
    options = f":link: {name}\n:link-type: doc"
    data = (output.get("data", {}) for cell in notebook["cells"] for output in cell.get("outputs", ()))
    if picture := next((shown["image/png"] for shown in data if "image/png" in shown), None):
        (here / "_thumbnails").mkdir(exist_ok=True)
        (here / "_thumbnails" / f"{name}.png").write_bytes(base64.b64decode("".join(picture)))
        options += f"\n:img-top: _thumbnails/{name}.png"
    return f":::{{grid-item-card}} {title}\n{options}\n\n{text[:1].upper()}{text[1:]}\n:::\n"


def setup(app: Any) -> None:
    """Connect the functions above."""
    app.connect("autodoc-process-docstring", read_docstring, priority=400)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("missing-reference", shorten)
    app.connect("source-read", read_page)
