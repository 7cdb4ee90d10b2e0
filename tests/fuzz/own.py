"""Hostile parts of a model of one's own: kinds of arguments, as in `values`."""

from __future__ import annotations

from typing import Any

import numpy as np

import vbjax as vb

from .values import Value, never, perhaps


def factors(good: Any) -> list[Value]:
    mu, tau = vb.Normal(), vb.Gamma()
    return never(
        none=None,
        text="mu",
        number=3,
        list=lambda: [mu, tau],
        empty=lambda: {},
        type=lambda: dict(mu=vb.Normal, tau=tau),
        state=lambda: dict(mu=mu.neutral("float32"), tau=tau),
        word=lambda: dict(mu="normal", tau=tau),
        missing=lambda: dict(mu=mu),
        more=lambda: dict(mu=mu, tau=tau, nobody=vb.Normal()),
        number_name=lambda: {1: mu, "mu": mu, "tau": tau},
        others=lambda: dict(mu=vb.Gamma(), tau=vb.Gamma()),
        none_among=lambda: dict(mu=mu, tau=None),
        swapped=lambda: dict(mu=tau, tau=mu),
        plates=lambda: dict(mu=vb.Normal((7,)), tau=tau),
        a_hyper=lambda: dict(mu=mu, tau=tau, mu0=mu),
        support=lambda: dict(mu=vb.real(), tau=tau),
        private=lambda: {"mu": mu, "tau": tau, "a b": mu},
    )


def hyper(good: Any) -> list[Value]:
    own = dict(mu0=0.0, tau0=0.1, a=2.0, b=1.0)
    return never(
        text="mu0",
        number=3,
        list=[1],
        missing=dict(mu0=0.0),
        texts=own | dict(a="2"),
        nones=own | dict(a=None),
        nan=own | dict(a=float("nan")),
        inf=own | dict(a=float("inf")),
        minus=own | dict(a=-1.0),
        complex=own | dict(a=1j),
        objects=lambda: own | dict(a=object()),
        a_factor=own | dict(mu=1.0),
        types=own | dict(a=float),
        strange={1: 2.0, **own},
        shapes=own | dict(a=np.ones(7)),
        masked=own | dict(a=np.ma.masked_array(2.0, True)),
        none=None,
    ) + perhaps(
        more=own | dict(nobody=1.0), int8=own | dict(a=np.int8(2)), float16=own | dict(a=np.float16(2))
    )


def local(good: Any) -> list[Value]:
    return never(
        text="c",
        number=3,
        list=lambda: [vb.Categorical(2)],
        type=lambda: dict(c=vb.Categorical),
        a_factor=lambda: dict(mu=vb.Normal()),
        unused=lambda: dict(c=vb.Categorical(2)),
        word=lambda: dict(c="categorical"),
        nones=lambda: dict(c=None),
    ) + perhaps(empty=lambda: {})


def blocks(good: Any) -> list[Value]:
    return never(
        text="mu",
        number=3,
        texts=("mu", "tau"),
        unknown=(("mu", "tau", "nobody"),),
        missing=(("mu",),),
        twice=(("mu",), ("mu", "tau")),
        objects=lambda: object(),
        numbers=((1, 2),),
        empty=(),
        nones=(None,),
        interacting=(("mu", "tau"),),
    ) + perhaps(right=(("mu",), ("tau",)), lists=[["tau"], ["mu"]])
