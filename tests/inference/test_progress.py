"""Progress is a bar drawn again and again in a terminal, whole lines in a log, nothing where nobody asked."""

import io
import subprocess
import sys

from vbjax.inference.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def written(stream, monkeypatch, shown=True):
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(shown, "fit", 50) as show:
        for done in range(51):
            show(done, f"best objective {done}" if done else "")
    return stream.getvalue()


def test_a_log_has_whole_lines_and_few(monkeypatch):
    first, last = written(io.StringIO(), monkeypatch).splitlines()
    assert "0/50" in first
    assert "50/50" in last
    assert "best objective 50" in last


def test_a_terminal_has_one_line_that_is_drawn_again(monkeypatch):
    text = written(Terminal(), monkeypatch)
    assert text.count("\n") == 1
    assert text.count("\r") > 1
    assert "50/50" in text


def test_what_is_not_shown_is_nothing_and_imports_nothing(monkeypatch):
    assert written(Terminal(), monkeypatch, shown=False) == ""
    code = "import sys, vbjax; assert not {'tqdm', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
