"""Options of programs that run once are those that this XLA has, and that the environment leaves open."""

import jax

from vbjax.numerics import compilation


def test_options_of_programs_that_run_once_are_known_to_xla(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    options = compilation.quick_options()
    assert options["xla_backend_optimization_level"] == 1
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1.0) == 2
    assert not compilation._is_known("xla_of_no_version", True)


def test_what_the_environment_says_stands(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=3")
    assert "xla_backend_optimization_level" not in compilation.quick_options()
