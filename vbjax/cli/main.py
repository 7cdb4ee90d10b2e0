"""The shell command: `python -m vbjax`, or `vbjax`. It reads the arguments; `commands` does the work.

Exit status: 0 when it did what was asked, 2 for bad input (one line on stderr, nothing written), 130 when
interrupted before there was a result.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from vbjax.cli.chains import OUTPUTS
from vbjax.cli.commands import MODELS, Options, UserError, run
from vbjax.cli.interrupt import MESSAGE, STATUS, raising
from vbjax.cli.predictions import predict
from vbjax.inference.configure import MOST_DEVICES
from vbjax.inference.saved_fits import version
from vbjax.models.components.covariance import STRUCTURES

_ABOUT = """\
Fits clusterings, mixtures, topics and hidden Markov models by expectation
maximisation and variational Bayes, each from many random starts, and says how
far to trust the result.

Without a command it fits a mixture of up to 6 Gaussians to the eruptions of the
Old Faithful geyser, which come with the package, prints the components it found
and draws them in old_faithful.png. The command 'fit' fits data of your own, and
'predict' says what such a fit makes of new ones.
"""

_ABOUT_EXAMPLE = """\
examples:
  python -m vbjax
  python -m vbjax fit kmeans flowers.csv --components 3
  python -m vbjax predict flowers.vbjax new.csv
  python -m vbjax fit --help
"""

_FIT = """\
Fits a model to a table, to sequences or to documents, and prints what it found.

  DATA.csv     one row for each observation, one column for each measurement; a
               first line of names is optional; with --missing, cells may be
               blank, NA or NaN
  SERIES.csv   one line for each step of a sequence, in order, and a first line
               of names; cells that are blank, NA or NaN are missing
  CORPUS.ldac  one line `M id:count id:count ...` for each document: how many
               different words are in it, then the number of each, from 0, and
               how often it is there

Cells are separated by tabs, semicolons or commas: the first of these that is in
the first line. Files whose names end in .gz are unpacked. Tables and sequences
may be in .npy files too, whose columns are called x0, x1, ..., and in .parquet
files or folders (with pyarrow); a table of more than 2^27 numbers stays there
and is read block by block. MODEL is one of

  kmeans        K clusters: each row belongs to the nearest of K centres
  gmm           K Gaussian components, by maximum likelihood (EM)
  bayesian-gmm  at most K Gaussian components, by variational Bayes: those not
                needed empty themselves, and every number has an uncertainty
  mfa           K Gaussian components whose covariances come from a few factors,
                by maximum likelihood, for many columns: a mixture of factor
                analysers
  lda           K topics of the documents of CORPUS.ldac, by variational Bayes
                (latent Dirichlet allocation)
  hdp-topics    the same with at most K topics, of which those not needed empty
                themselves (a hierarchical Dirichlet process)
  hmm           a chain of K states behind the steps of SERIES.csv, by maximum
                likelihood (EM): a hidden Markov model
  bayesian-hmm  the same with at most K states, by variational Bayes
"""

_FIT_EXAMPLE = """\
examples:
  python -m vbjax fit bayesian-gmm flowers.csv --columns length,width \\
      --components 6 --out flowers.vbjax --plot flowers.png
  python -m vbjax fit gmm survey.csv.gz --missing --covariance diag
  python -m vbjax fit kmeans pixels.npy --columns x0,x1,x2
  python -m vbjax fit gmm trips.parquet --columns miles,fare --components 20
  python -m vbjax fit mfa spectra.npy --components 4 --factors 3
  python -m vbjax fit lda news.ldac --vocab words.txt --components 50 \\
      --out topics.vbjax --plot topics.png
  python -m vbjax fit hmm visits.csv --columns visits --output poisson \\
      --sequence person --states 3 --out states.vbjax --plot states.png
"""

_PREDICT = """\
Reads a fit from the file that 'fit --out' or Fit.save has written, and prints a
table of what it says of new data, one line for each row, step or document: the
cluster and the probability of each, the state, the shares of the topics, or the
mean of a regression.
"""

_PREDICT_EXAMPLE = """\
example:
  python -m vbjax fit bayesian-gmm flowers.csv --out flowers.vbjax
  python -m vbjax predict flowers.vbjax new.csv --out labels.csv
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, by default those of the shell.

    Args:
        arguments: the arguments, without the program's name.

    Returns:
        The exit status.

    Raises:
        SystemExit: after --help (status 0), and for arguments that cannot be read (status 2).
    """
    with raising():
        try:
            parser = _parser()
            given = vars(parser.parse_args(arguments))
            for name, value in given.items():
                if value == []:  # what argparse makes of `--option=--`
                    parser.error(f"--{name.replace('_', '-')}: expected a value; got '--'")
            if given.pop("command") == "predict":
                takes = ("out", "columns", "sequence")
                predict(given["fit"], given["data"], **{name: given[name] for name in takes})
            else:
                run(Options(**given))
        except UserError as error:
            print(f"vbjax: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(MESSAGE, file=sys.stderr)
            return STATUS
        except BrokenPipeError:  # the reader of a pipe has ended, as in `python -m vbjax | head -3`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class _Parser(argparse.ArgumentParser):
    """Parser whose errors are one line, not a page of usage."""

    def error(self, message: str) -> NoReturn:
        line = " ".join(message.split())
        self.exit(2, f"vbjax: {line} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="python -m vbjax", description=_ABOUT, epilog=_ABOUT_EXAMPLE, formatter_class=as_written
    )
    parser.add_argument(
        "--plot",
        metavar="PATH",
        default="old_faithful.png",
        help="where the picture goes: .png, .pdf or .svg (default: %(default)s)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--version", action="version", version=f"vbjax {version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    fit = commands.add_parser(
        "fit",
        help="fit a model to data of your own",
        description=_FIT,
        epilog=_FIT_EXAMPLE,
        formatter_class=as_written,
    )
    fit.add_argument("model", metavar="MODEL", choices=list(MODELS), help=", ".join(MODELS))
    fit.add_argument("data", metavar="DATA", help="DATA.csv, .npy or .parquet, for topics CORPUS.ldac")
    _add_what_to_fit(fit.add_argument_group("what to fit"))
    _add_how_to_fit(fit.add_argument_group("how to fit it"))
    output = fit.add_argument_group("output")
    output.add_argument(
        "--out", metavar="PATH", help="save the fit, for predict and vb.load, for example as fit.vbjax"
    )
    output.add_argument("--plot", metavar="PATH", default=None, help="draw the fit: .png, .pdf or .svg")
    output.add_argument("--quiet", action="store_true", default=argparse.SUPPRESS, help="no progress bar")
    _add_predict(commands)
    return parser


def _add_predict(commands: argparse._SubParsersAction) -> None:
    """Add the command that reads a saved fit."""
    predict = commands.add_parser(
        "predict",
        help="what a saved fit says of new data",
        description=_PREDICT,
        epilog=_PREDICT_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    predict.add_argument("fit", metavar="FIT", help="the file of the fit, such as fit.vbjax")
    predict.add_argument("data", metavar="DATA", help="new data, in a file like that of the fit")
    predict.add_argument("--out", metavar="PATH", help="write the table there (default: print it)")
    predict.add_argument(
        "--columns", metavar="A,B,...", type=_columns, help="the columns to use (default: those of the fit)"
    )
    predict.add_argument(
        "--sequence",
        metavar="COLUMN",
        type=_column,
        help="the column that says which sequence a line belongs to (default: that of the fit)",
    )


def _add_what_to_fit(group: argparse._ArgumentGroup) -> None:
    """Add the options that choose the model and its data."""
    group.add_argument(
        "--components",
        "--states",
        metavar="K",
        type=_whole(1),
        default=6,
        help="number of clusters, components, topics or states; an upper bound for bayesian-gmm, "
        "hdp-topics and bayesian-hmm (default: %(default)s)",
    )
    group.add_argument(
        "--columns",
        metavar="A,B,...",
        type=_columns,
        help="the columns to use: names, or numbers counted from 0 (default: all, for a chain all of "
        "numbers; not for topics)",
    )
    group.add_argument(
        "--covariance",
        choices=list(STRUCTURES),
        metavar="TYPE",
        help="the shape of the components: any ellipse (full), one ellipse for all (tied), along the axes "
        "(diag) or round (spherical); of gmm and hmm also EII, VEV or another of the models of mclust "
        "(default: full; not for kmeans, mfa, topics, and output but gaussian and mixture)",
    )
    group.add_argument(
        "--factors",
        metavar="Q",
        type=_whole(1),
        help="the factors of every component, at most the number of columns, mfa only (default: 1)",
    )
    group.add_argument(
        "--missing",
        action="store_true",
        help="entries are missing at random where a cell is blank, NA or NaN, gmm and bayesian-gmm only "
        "(default: such a cell is an error; in sequences it always is missing)",
    )
    group.add_argument(
        "--weight-concentration",
        metavar="A",
        type=_number(above=0),
        help="prior of the weights, bayesian-gmm only: the smaller, the sooner a component empties itself "
        "(default: 1/K)",
    )
    group.add_argument(
        "--vocab",
        metavar="WORDS.txt",
        help="the words of the corpus, one a line in the order of their numbers, lda and hdp-topics only "
        "(default: words are shown by their numbers)",
    )
    group.add_argument(
        "--output",
        metavar="KIND",
        choices=list(OUTPUTS),
        help="what the columns hold, hmm and bayesian-hmm only: numbers (gaussian), with a mixture in every "
        "state (mixture), or that depend on the steps before them (autoregressive), counts (poisson), "
        "categories, 0, 1, 2, ... or the text of columns that --columns names (categorical), 0 and 1 "
        "(bernoulli), waiting times (exponential) or numbers above 0 of any shape (gamma) "
        "(default: gaussian)",
    )
    group.add_argument(
        "--parts",
        metavar="M",
        type=_whole(1),
        help="Gaussian components of every state, mixture output only (default: 2)",
    )
    group.add_argument(
        "--order",
        metavar="L",
        type=_whole(1),
        help="how many steps before it a step depends on, autoregressive output only (default: 1)",
    )
    group.add_argument(
        "--sequence",
        metavar="COLUMN",
        type=_column,
        help="the column that says which sequence a line belongs to, hmm and bayesian-hmm only (default: all "
        "lines are one sequence)",
    )


def _add_how_to_fit(group: argparse._ArgumentGroup) -> None:
    """Add the options of the fit itself."""
    group.add_argument(
        "--restarts",
        metavar="R",
        type=_whole(1),
        help="random starts, of which the best wins (default: 64; 4 for topics, 16 for hmm and bayesian-hmm)",
    )
    group.add_argument(
        "--seed",
        metavar="S",
        type=_whole(0, 2**32 - 1),
        default=0,
        help="of the random starts; the same seed gives the same fit (default: %(default)s)",
    )
    group.add_argument(
        "--max-iter",
        metavar="N",
        type=_whole(1),
        default=1000,
        help="sweeps over the data at most, for each start (default: %(default)s)",
    )
    group.add_argument(
        "--tol",
        metavar="T",
        type=_number(least=0),
        default=1e-6,
        help="converged when a sweep gains less than this per row (topics: token; hmm: step); kmeans: less "
        "than this share of the inertia (default: %(default)s)",
    )
    group.add_argument(
        "--devices",
        metavar="N",
        type=_whole(1, MOST_DEVICES),
        help="cores that the fit is divided over (default: all)",
    )
    group.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="keep what the fit has reached in this directory, and go on from there if it was interrupted",
    )


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a reader of whole numbers in a range."""
    words = f"of at least {least}" if most is None else f"from {least} to {most}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {words}")
        return value

    return read


def _number(*, least: float | None = None, above: float | None = None) -> Callable[[str], float]:
    """Return a reader of numbers in a range."""
    words = f"above {above}" if least is None else f"of at least {least}"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        in_range = (least is None or value >= least) and (above is None or value > above)
        if not (math.isfinite(value) and in_range):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {words}")
        return value

    return read


def _columns(text: str) -> list[str | int]:
    """Read a list of columns, separated by commas."""
    names = [name.strip() for name in text.split(",")]
    if "" in names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different columns, as in a,b,c or 0,2")
    return [_column(name) for name in names]


def _column(text: str) -> str | int:
    """Read a column: its number, or its name."""
    return int(text) if text.isdecimal() else text
