"""What a test compiles: counted, or kept as text."""

import contextlib
import re

import jax
from jax._src import compiler

PASSES = {}  # of a program's name: its text


def keep_texts():
    """Keep the text of every program that is compiled from now on, or found in a cache."""
    compiled = compiler.compile_or_get_cached

    def keeping(*args, **options):
        program = compiled(*args, **options)
        text = program.hlo_modules()[0].to_string()
        PASSES[re.match(r"HloModule jit_(\w+)", text)[1]] = text
        return program

    compiler.compile_or_get_cached = keeping


_LISTS = []  # of the blocks that are being run


def _listen(event, seconds, **kwargs):
    if event == "/jax/core/compile/backend_compile_duration":
        for seen in _LISTS:
            seen.append(kwargs)


jax.monitoring.register_event_duration_secs_listener(_listen)  # for good: JAX 0.8 cannot take one back


@contextlib.contextmanager
def compilations():
    """A list to which every compilation inside the block is added."""
    _LISTS.append(seen := [])
    try:
        yield seen
    finally:
        _LISTS.pop()
