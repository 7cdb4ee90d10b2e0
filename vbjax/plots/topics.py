"""Pictures of a topic model: words of its topics, topics of documents, and a page on the fit.

The module needs matplotlib and is imported by name: `from vbjax.plots import topics`. The trace and the
restarts of a fit are drawn by `plots.fits`. The command line imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from vbjax.families.dirichlet import DirichletState
from vbjax.inference.result import Fit
from vbjax.models.topics import use
from vbjax.models.topics.hdp_topics import HDPTopics
from vbjax.models.topics.topic_model import TopicModel
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import describe, read_count
from vbjax.plots.fits import restarts, trace
from vbjax.plots.inputs import read_axes, read_choice, read_figure, read_fit, read_shares
from vbjax.plots.style import INK, PALETTE, TITLE, tidy

_MOST_PANELS = 12
_MOST_ROWS = 30


def top_words(
    topics: DirichletState,
    vocabulary: Sequence[str],
    n: int = 8,
    figure: Figure | SubFigure | None = None,
    *,
    which: Sequence[int] | None = None,
) -> Figure | SubFigure:
    """Draw the most probable words of every topic, with their posterior sd, a panel for each.

    Args:
        topics: `fit.params.topics`.
        vocabulary: V words; `vocabulary[i]` is word number i.
        n: number of words in a panel.
        figure: the figure to draw on; by default a new one.
        which: numbers of the topics to draw, in this order; by default the twelve with most words, the
            largest first.

    Returns:
        The figure.

    Raises:
        ValueError: a vocabulary that does not have V words; `n` or `which` out of range.

    >>> topics = DirichletState(jnp.array([[8.0, 2.0, 1.0], [1.0, 3.0, 9.0]]))
    >>> [ax.get_title(loc="left") for ax in top_words(topics, ["ball", "game", "vote"], 2).axes]
    ['topic 1', 'topic 0']
    """
    if not isinstance(topics, DirichletState):
        raise TypeError(f"topics must be a DirichletState, fit.params.topics; got {describe(topics)}")
    words = use.top_words(topics, vocabulary, n)
    concentration = np.asarray(topics.concentration)
    if which is None:
        which = np.argsort(-concentration.sum(1), kind="stable")[:_MOST_PANELS].tolist()
    which = read_choice(which, len(words), "which must be some of the topics")
    mean, sd = (np.asarray(value, float) for value in _top_moments(topics, use.top_ids(topics, n)))
    across = min(4, len(which))
    down = -(-len(which) // across)
    figure = read_figure(figure, 2.7 * across, down * (0.22 * n + 0.8))
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for ax in panels[len(which) :]:
        ax.remove()
    bars = np.arange(n)
    for ax, k in zip(panels, which, strict=False):
        ax.barh(bars, mean[k], xerr=sd[k], color=PALETTE[0], alpha=0.75, error_kw=dict(ecolor=INK, lw=1))
        ax.set_title(f"topic {k}", **TITLE)
        ax.xaxis.set_major_locator(MaxNLocator(3))
        tidy(ax).set_yticks(bars, words[k], parse_math=False)
        ax.set(xlim=(0, None), ylim=(n - 0.4, -0.6))
        ax.tick_params(axis="y", length=0)
    figure.supxlabel("probability, with posterior sd", fontsize=9)
    return figure


def document_topics(
    shares: DirichletState | ArrayLike, ax: Axes | None = None, *, documents: Sequence[int] | None = None
) -> Axes:
    """Draw a heat map of the topics' shares in some documents, a row for each.

    Args:
        shares: `model.document_topics(params, docs)`, whose mean is drawn, or a table of shares, (n, K).
        ax: the axes to draw on; by default those of a new figure, `ax.figure`.
        documents: numbers of the documents to draw, from the top down; by default the first 30.

    Returns:
        The axes.

    Raises:
        ValueError: `shares` of another form than a table; `documents` out of range.

    >>> document_topics(jnp.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]), documents=[2, 0]).get_ylabel()
    'document'
    """
    given = shares.mean if isinstance(shares, DirichletState) else shares
    table = read_shares(given, "shares", "documents, topics")
    first = range(min(len(table), _MOST_ROWS))
    rows = read_choice(
        first if documents is None else documents, len(table), "documents must be some of the rows of shares,"
    )
    ax = tidy(read_axes(ax))
    image = ax.imshow(table[rows], cmap="Blues", vmin=0, aspect="auto", interpolation="nearest")
    ticks = np.arange(0, len(rows), -(-len(rows) // _MOST_ROWS))
    ax.set_yticks(ticks, [str(rows[i]) for i in ticks])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=20))
    ax.set(xlabel="topic", ylabel="document")
    bar: Any = ax.figure.colorbar(image, ax=ax)
    bar.set_label("share of the document")
    bar.ax.tick_params(labelsize=9)
    bar.outline.set_visible(False)
    return ax


def overview(
    fit: Fit, vocabulary: Sequence[str], n: int = 8, *, figure: Figure | SubFigure | None = None
) -> Figure | SubFigure:
    """Draw a page on a fit: the words of its largest topics, the best run's trace, and the restarts.

    The topics drawn are those of more than one token, at most twelve; where there are none, the largest
    topic.

    Args:
        fit: a `Fit` of `LatentDirichletAllocation` or `HDPTopics`.
        vocabulary: V words; `vocabulary[i]` is word number i.
        n: number of words in a panel, at most V.
        figure: the figure to draw on; by default a new one.

    Returns:
        The figure. A new one belongs to no window; save it with `figure.savefig("topics.png")`.

    Raises:
        ValueError: arguments that `top_words` or `trace` refuse.

    >>> import jax, vbjax as vb
    >>> docs, words = vb.Documents.from_tokens([["cat", "dog", "cat"], ["bond", "stock"]])
    >>> fit = vb.fit(vb.LatentDirichletAllocation(2), docs, key=jax.random.key(0))
    >>> overview(fit, words, n=2).axes[-1].get_xlabel()
    'restart, from the best down'
    """
    fit = read_fit(fit)
    if not isinstance(fit.model, TopicModel):
        raise TypeError(f"fit must be of a topic model; got one of {type(fit.model).__name__}")
    sizes = np.asarray(fit.params.topics.concentration - fit.model.eta(fit.params)).sum(1, dtype=float)
    n = min(read_count(n, "n"), fit.model.topics_family.size)
    shown = min(max(1, (sizes > 1).sum()), _MOST_PANELS)
    which = np.argsort(-sizes, kind="stable")[:shown].tolist()
    above = -(-shown // 4) * (0.22 * n + 0.8)
    figure = read_figure(figure, 11, above + 3.6, dpi=150)
    upper, lower = cast(Any, figure.subfigures(2, 1, height_ratios=[above, 3.2]))
    top_words(fit.params.topics, vocabulary, n, upper, which=which)
    left, right = lower.subplots(1, 2)
    trace(fit, left)
    restarts(fit, right)
    some = f"the {shown} largest of " if shown < len(sizes) else ""
    process = isinstance(fit.model, HDPTopics)
    kind = "Topics of a hierarchical Dirichlet process" if process else "Latent Dirichlet allocation"
    what = f"{kind}: {some}{len(sizes)} topic{'s' * (len(sizes) != 1)}"
    figure.suptitle(what, x=0.01, ha="left", fontsize=12)
    return figure


@jit
def _top_moments(
    topics: DirichletState, ids: Int[Array, "k n"]
) -> tuple[Float[Array, "k n"], Float[Array, "k n"]]:
    """Compute means and standard deviations of the probabilities of words `ids`."""
    take = lambda table: jnp.take_along_axis(table, ids, 1)
    return take(topics.mean), take(topics.sd)
