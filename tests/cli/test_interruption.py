"""Ctrl-C at any moment ends the shell command with one line and status 130, and leaves no file half-written.

The interrupt comes from a thread inside the process: during the imports, or a moment after the start of a
function that is watched for it, inside XLA's compiler or after the fit. No thread looks at the frames of
another one: in Python 3.11 that reads memory which has been freed.
"""

import os
import subprocess
import sys

import pytest

from vbjax.cli import interrupt

# what the interpreter runs at its start, before `python -m vbjax` looks for the package
WATCH = """
import os, signal, sys, threading, time

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

def callers():
    frame = sys._getframe(1)
    while frame is not None:
        yield frame.f_code.co_name
        frame = frame.f_back

def watch(module, name, caller):
    while not hasattr(sys.modules.get(module), name):
        time.sleep(0.001)
    if caller is None:
        return interrupt()
    function = getattr(sys.modules[module], name)
    def watched(*args, **options):
        if caller in callers():
            setattr(sys.modules[module], name, function)
            threading.Timer(0.01, interrupt).start()
        return function(*args, **options)
    setattr(sys.modules[module], name, watched)

threading.Thread(target=watch, args={where}, daemon=True).start()
"""
MOMENTS = {  # a function, and who calls it at that moment; None is the moment at which it is there
    "import": ("vbjax.families", "__name__", None),
    "compilation": ("jax._src.compiler", "backend_compile_and_load", "_advance_in_slices"),
    "afterwards": ("vbjax.cli.commands", "describe", "run"),
}


# an exception in a callback of the garbage collector is printed and dropped, whoever waits for it
IN_A_COLLECTION = """
import gc, os, signal, sys

def interrupt_once(phase, info):
    works = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if "vbjax.cli.commands" in sys.modules and works and interrupt_once in gc.callbacks:
        gc.callbacks.remove(interrupt_once)
        os.kill(os.getpid(), signal.SIGINT)

gc.callbacks.append(interrupt_once)
"""
SCRIPTS = {moment: WATCH.format(where=where) for moment, where in MOMENTS.items()}
SCRIPTS["collection"] = IN_A_COLLECTION


def environment_of(folder):
    """Variables with which a process runs the script, and compiles: its cache of programs is empty."""
    return dict(PYTHONPATH=f"{folder}:{os.getcwd()}", JAX_COMPILATION_CACHE_DIR=str(folder / "cache"))


@pytest.mark.parametrize("moment", SCRIPTS)
def test_ctrl_c_is_one_line(moment, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SCRIPTS[moment])
    (tmp_path / "work").mkdir()
    environment = os.environ | environment_of(tmp_path)
    command = [sys.executable, "-m", "vbjax", "--quiet", "--plot", "picture.png"]
    done = subprocess.run(
        command, cwd=tmp_path / "work", env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (130, "vbjax: interrupted\n")
    assert done.stdout == ""
    assert os.listdir(tmp_path / "work") == []


FITS = """
import jax, sys, vbjax as vb

x, key = vb.datasets.old_faithful(), jax.random.key(0)
try:
    vb.fit(vb.KMeans(2), x, key=key)
except KeyboardInterrupt as error:
    assert error.__context__ is error.__cause__ is None
    jax.clear_caches()
    sys.exit(0 if vb.fit(vb.KMeans(2), x, key=key).status == vb.Status.CONVERGED else 2)
sys.exit(1)
"""


def test_ctrl_c_in_a_compilation_is_raised_and_does_no_harm(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SCRIPTS["compilation"])
    environment = os.environ | environment_of(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FITS], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_that_is_not_the_command_keeps_its_handler():
    code = "import signal, vbjax; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_command_knows_that_it_is_the_command(monkeypatch):
    """Else it takes neither all cores nor the cache of compiled programs."""
    for program, expected in {
        "/lib/vbjax/__main__.py": True,
        "/bin/vbjax": True,
        "/bin/pytest": False,
    }.items():
        monkeypatch.setattr("sys.argv", [program])
        assert interrupt.is_command() is expected
