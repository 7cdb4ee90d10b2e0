"""Topic models, and what to do with them: `vb.topics`."""

from vbjax.models.topics.use import (
    Alignment,
    align,
    halves,
    held_out_perplexity,
    log_completion,
    npmi,
    relevance,
    top_ids,
    top_words,
    umass,
)

__all__ = [
    "Alignment",
    "align",
    "halves",
    "held_out_perplexity",
    "log_completion",
    "npmi",
    "relevance",
    "top_ids",
    "top_words",
    "umass",
]
