"""The shell command: every option with hostile words, and hostile files for every model."""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
from collections.abc import Iterator
from typing import Any

from vbjax.cli.main import _parser

from .goods import fitted
from .judge import shell

_FILES = {
    "good.csv": "a,b\n"
    + "".join(f"{i % 5 + 0.25 * (i % 3)},{(i % 2) * 4 + 0.1 * (i % 7)}\n" for i in range(24)),
    "counts.csv": "a,b\n" + "".join(f"{i % 5},{(i % 2) * 4}\n" for i in range(24)),
    "good.ldac": "2 0:1 3:2\n1 1:4\n3 0:1 2:2 4:1\n2 1:1 2:2\n",
    "words.txt": "a\nb\nc\nd\ne\n",
}
BAD_TABLES = dict(
    empty="",
    header="a,b\n",
    one_row="a,b\n1,2\n",
    words="a,b\nx,y\nz,w\n",
    ragged="a,b\n1,2\n3\n4,5,6\n",
    holes="a,b\n1,2\n,4\n5,6\n7,8\n",
    nan="a,b\n1,2\nnan,4\n5,6\n7,8\n",
    inf="a,b\n1,2\ninf,4\n5,6\n7,8\n",
    decimal_commas="a;b\n1,5;2\n3;4\n5;6\n",
    twice="a,a\n1,2\n3,4\n5,6\n",
    huge="a,b\n1e300,2\n3,4\n5,6\n",
    binary="\0\1\2\3",
    quotes='"a,b\n1,2\n',
    nothing_but_lines="\n\n\n",
)
NEVER_TABLES = (
    "empty",
    "header",
    "words",
    "ragged",
    "decimal_commas",
    "binary",
    "quotes",
    "nothing_but_lines",
    "inf",
)
BAD_CORPORA = dict(
    empty="",
    words="the cat\n",
    count="2 0:1\n",
    minus="1 0:-1\n",
    half="1 0:0.5\n",
    minus_word="1 -1:2\n",
    huge_word="1 999999999:1\n",
    beyond="1 99999999999999999999:1\n",
    no_count="1 0\n",
    nan="1 0:nan\n",
    lines="\n\n",
    colons="1 0:1:2\n",
    binary="\0\1",
)
HOSTILE_WORDS = dict(
    empty="",
    minus="-1",
    zero="0",
    nan="nan",
    inf="inf",
    half="2.5",
    word="nonsense",
    big="1e400",
    beyond="9" * 30,
    comma=",",
    spaces="  ",
    dashes="--",
    nul="a\0b",
)
_ALWAYS_RIGHT = {
    "--seed": ("zero",),
    "--tol": ("zero", "half", "beyond"),
    "--weight-concentration": ("half", "beyond"),
    "--columns": ("zero",),
    "--sequence": ("zero",),
    "--checkpoint": ("minus", "zero", "nan", "inf", "half", "word", "big", "beyond", "comma", "spaces"),
    "--out": ("minus", "zero", "nan", "inf", "half", "word", "big", "beyond", "comma"),  # names of files
}
_ALSO_NAMED = {"--vocab": "vocabulary", "--plot": "picture"}


@functools.cache
def _folder() -> str:
    """A folder with the files, the current one from then on."""
    folder = tempfile.mkdtemp(prefix="fuzz")
    for name, text in _FILES.items():
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)
    for name, text in {
        **{f"{k}.csv": v for k, v in BAD_TABLES.items()},
        **{f"{k}.ldac": v for k, v in BAD_CORPORA.items()},
    }.items():
        with open(os.path.join(folder, f"bad_{name}"), "w") as file:
            file.write(text)
    os.makedirs(os.path.join(folder, "folder.csv"), exist_ok=True)
    fitted("KMeans").save(os.path.join(folder, "good.vbjax"))
    return folder


def _base(model: str) -> list[str]:
    data = "good.ldac" if model in ("lda", "hdp-topics") else "good.csv"
    return ["fit", model, data, "--components", "2", "--restarts", "1", "--max-iter", "3", "--quiet"]


def _run(arguments: list[str]) -> Any:
    os.chdir(_folder())
    return shell(arguments)()


def _options(command: str) -> list[str]:
    """The options of a command, as the parser has them."""
    parser = _parser()
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    actions = commands.choices[command]._actions
    return [a.option_strings[0] for a in actions if a.option_strings and a.dest != "help" and a.nargs != 0]


def shell_calls() -> Iterator[Any]:
    from .grid import Call

    def call(label: str, arguments: list[str], names: tuple[str, ...], legitimate: bool) -> Any:
        group = f"shell: {label.split(' ')[0]}"
        return Call(group, f"shell {label}", names, legitimate, lambda: _run(arguments))

    for model in ("kmeans", "gmm", "bayesian-gmm", "mfa", "lda", "hdp-topics", "hmm", "bayesian-hmm"):
        base = _base(model)
        yield call(f"{model}", base, (), True)
        bad = BAD_CORPORA if model in ("lda", "hdp-topics") else BAD_TABLES
        ending = "ldac" if model in ("lda", "hdp-topics") else "csv"
        for name in bad:
            data = f"bad_{name}.{ending}"
            never = ending == "ldac" or name in NEVER_TABLES
            yield call(f"{model} {data}", [*base[:2], data, *base[3:]], (data,), not never)
        for data in ("absent.csv", "folder.csv", "", "nul\0.csv"):
            yield call(f"{model} {data!r}", [*base[:2], data, *base[3:]], (data, "file", "path"), False)
        for option in _options("fit"):
            for label, word in HOSTILE_WORDS.items():
                chosen = model in ("bayesian-gmm", "lda", "hmm") or label in ("minus", "word")
                if not chosen:
                    continue
                right = label in _ALWAYS_RIGHT.get(option, ())
                wanted = [*base, f"{option}={word}"]
                names = option, option[2:], word.strip() or option, _ALSO_NAMED.get(option, option)
                yield call(f"{model} {option}={label}", wanted, names, right)
    base = ["predict", "good.vbjax", "good.csv"]
    yield call("predict", base, (), True)
    for name in BAD_TABLES:
        file = f"bad_{name}.csv"
        yield call(f"predict {file}", [*base[:2], file], (file, "data"), name not in NEVER_TABLES)
        yield call(f"predict of {file}", ["predict", file, "good.csv"], (file,), False)
    for option in _options("predict"):
        for label, word in HOSTILE_WORDS.items():
            right = label in _ALWAYS_RIGHT[option]
            names = option, option[2:], word.strip() or option
            yield call(f"predict {option}={label}", [*base, f"{option}={word}"], names, right)
    for label, arguments in dict(
        nothing=["fit"],
        no_data=["fit", "gmm"],
        no_model=["fit", "nonsense", "good.csv"],
        no_command=["fly"],
        unknown=["fit", "gmm", "good.csv", "--nonsense", "1"],
        twice=["fit", "gmm", "good.csv", "good.csv"],
    ).items():
        yield call(f"usage {label}", arguments, ("MODEL", "DATA", "COMMAND", "command", "arguments"), False)
