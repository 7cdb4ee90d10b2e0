"""What the tests of the shell command share: a fit that is only looked at, and what a bad command must do."""

import os

from vbjax.cli import commands
from vbjax.cli.main import main


def stopped_fits(monkeypatch):
    """A list of the (model, data, settings) with which a fit is called; it ends there, with status 2."""
    seen = []

    def look(model, data, **settings):
        seen.append((model, data, settings))
        raise ValueError("enough")

    monkeypatch.setattr(commands, "fit", look)
    return seen


def check_refused(arguments, message, files, capsys, monkeypatch):
    """Status 2 before a fit begins, one line on stderr that has the message; no file is made or changed.

    Args:
        files: names and texts, which are written into the current directory first.
    """
    fits = stopped_fits(monkeypatch)
    for name, text in files.items():
        with open(name, "w") as file:
            file.write(text)
    before = contents()
    try:
        status = main(arguments)
    except SystemExit as stopped:  # argparse
        status = stopped.code
    assert (status, fits) == (2, [])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vbjax: ")
    assert err.count("\n") == 1
    assert message in err
    assert contents() == before


def contents():
    """The files of the current directory."""
    found = {}
    for name in os.listdir():
        with open(name, "rb") as file:
            found[name] = file.read()
    return found
