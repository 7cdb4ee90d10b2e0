"""What would do where a log joint is not conjugate: an augmentation that its operations tell, or a value.

Imported by check.py alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from vbjax.families.base import Family
from vbjax.families.delta import Delta


def operations(jaxpr: Jaxpr) -> Iterator[str]:
    """Give the names of all operations of a program, those of programs within it too."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        is_program = lambda x: isinstance(x, (Jaxpr, ClosedJaxpr))
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=is_program):
            if is_program(inner):
                yield from operations(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)


def remedy(name: str, family: Family, made_of: set[str], is_local: bool) -> str:
    """Return advice about a factor in whose statistics the log joint is not affine.

    Args:
        name, family: of the factor.
        made_of: the operations of the log joint in which the factor's statistics are.
        is_local: whether there is one for each row, which cannot be `NonConjugate`.
    """
    advice = "Use the terms of vbjax.terms, or statistics as they are and no functions of them"
    if family.curvature and ("logistic" in made_of or {"log1p", "exp"} <= made_of):
        advice = "A logistic likelihood is terms.logistic, with a local vb.PolyaGamma()"
    elif family.curvature and made_of & {"erf", "erfc", "erf_inv"}:
        advice = "A probit likelihood is that of a local vb.TruncatedNormal()"
    elif family.curvature and "log1p" in made_of:
        advice = "Student's t is a normal whose precision is multiplied by a local vb.Gamma()"
    support = _support(family)
    if is_local or support is None:
        return advice
    declared = f"{name}=vb.NonConjugate({support})"
    return f"{advice}; or declare {declared}, which is a value in the log joint, free to be used"


def _support(family: Family) -> str | None:
    """Say which support has the values of a family, None where that is not known here."""
    family = family.of if isinstance(family, Delta) else family
    plate, size = family.plate, getattr(family, "size", 0)
    supports = {
        "Normal": f"vb.real({plate})",
        "MultivariateNormal": f"vb.real({(*plate, size)})",
        "Gamma": f"vb.positive({plate})",
        "Beta": f"vb.unit_interval({plate})",
        "Dirichlet": f"vb.simplex({size}, {plate})",
    }
    return supports.get(type(family).__name__)
