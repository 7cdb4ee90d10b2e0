"""Programs: options that XLA knows, and their end before they take all memory maps."""

import jax
import pytest

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


@pytest.mark.skipif(not compilation._MAPS.exists(), reason="Linux alone counts maps")
def test_programs_are_forgotten_before_they_take_all_memory_maps(monkeypatch, tmp_path):
    function = jax.jit(lambda x: x + 1)
    function(1.0)
    most = tmp_path / "max_map_count"
    monkeypatch.setattr(compilation, "_MOST_MAPS", most)
    for number, kept in ((10**9, 1), (100, 0)):  # of which 100 are taken by any process
        most.write_text(f"{number}\n")
        monkeypatch.setattr(compilation, "_new_programs", [compilation._OFTEN])
        if kept:
            compilation.forget_programs()
        else:
            with pytest.warns(RuntimeWarning, match="compiled programs are forgotten, as they hold"):
                compilation.forget_programs()
        assert function._cache_size() == kept
