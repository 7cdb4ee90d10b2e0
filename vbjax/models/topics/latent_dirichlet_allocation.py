"""Latent Dirichlet allocation: documents as mixtures of topics, topics as distributions of words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from vbjax import terms
from vbjax.core.hyperparameters import POSITIVE, count, flag, hyper
from vbjax.core.rows import float_dtype
from vbjax.data.documents import Documents
from vbjax.data.moments import fill_defaults
from vbjax.families.base import pytree
from vbjax.families.delta import Delta
from vbjax.families.gamma import Gamma
from vbjax.families.newton import point, step_concentration, step_symmetric_concentration
from vbjax.models.topics.topic_model import TopicModel
from vbjax.numerics.record import Record
from vbjax.numerics.types import Hyper, Tree


@pytree
class LatentDirichletAllocation(TopicModel):
    """Topic model in which word i of document d comes from topic z_di ~ theta_d, and is w_di ~ beta_z.

        theta_d ~ Dirichlet(alpha),   beta_k ~ Dirichlet(eta),   q(beta) prod_d q(theta_d) prod_i q(z_di):

    with psi the digamma function, gamma_d and lambda_k the concentrations of q(theta_d) and q(beta_k), and a
    word of count c standing for c words,

        phi_dik proportional to exp(psi(gamma_dk) + psi(lambda_kw) - psi(sum_v lambda_kv)),
        gamma_dk = alpha_k + sum_i c_di phi_dik,   lambda_kw = eta_w + sum_d sum_{i: w_di = w} c_di phi_dik.

    A sweep is one pass over the corpus. By default it makes one update of each; with `document_sweeps` those
    of a document are repeated before its words go into the topics. Documents' gamma begin ten updates after
    even ones, are carried from sweep to sweep, so that the bound never falls, and are not part of the
    parameters. Nothing of the size of documents x vocabulary or tokens x topics is ever made.

    Data: `vb.Documents`, or what `Documents.of` takes. Empty documents and words that never occur are legal.
    A row is a document; the tolerance of a fit is per token, not per row. The factor is `topics` (Dirichlet,
    (K, V)); with learned concentrations also `doc_concentration` (K,) and `topic_concentration`, points that
    maximise the bound (`.mean`).

    Args:
        n_topics: K.
        doc_concentration: alpha, a number or (K,); by default 1 / K.
        topic_concentration: eta, a number or (V,); by default 1 / K. Topics of many words want more, 0.1 to
            1: compare the bound, or held-out perplexity.
        document_sweeps: updates of a document's topics in one pass over the corpus. More of them need fewer
            passes, and as a rule end at a lower bound.
        learn_doc_concentration: whether alpha is learned, one number for each topic.
        learn_topic_concentration: whether eta is learned, one number for all words: it starts at the mean.

    Raises:
        ValueError: what is no corpus of counts; a concentration that is not positive.

    References:
        Blei, Ng & Jordan (2003), Latent Dirichlet allocation, JMLR 3, section 5.4 and appendix A.3; Hoffman,
        Blei & Bach (2010), Online learning for LDA, eq. 1 to 5; Wallach, Mimno & McCallum (2009), Rethinking
        LDA: why priors matter, on which concentrations to learn.

    >>> import jax, vbjax as vb
    >>> corpus = [[(0, 5), (1, 4)], [(0, 3), (1, 6)], [(2, 5), (3, 5)], [(2, 4), (3, 7)]]
    >>> fit = vb.fit(vb.LatentDirichletAllocation(2), corpus, key=jax.random.key(0), n_restarts=4)
    >>> shares = fit.model.document_topics(fit.params, corpus).mean
    >>> bool((shares.argmax(1)[:2] != shares.argmax(1)[2:]).all())
    True
    """

    n_topics: int = count("k")
    doc_concentration: Hyper = hyper(None, POSITIVE, "k")
    topic_concentration: Hyper = hyper(None, POSITIVE, "v")
    document_sweeps: int = count(default=1, kw_only=True)
    learn_doc_concentration: bool = flag(kw_only=True)
    learn_topic_concentration: bool = flag(kw_only=True)

    @property
    def factors(self) -> Record:
        learned = dict(doc_concentration=Delta(Gamma((self.n_topics,)))) if self.shared else {}
        if self.learn_topic_concentration:
            learned["topic_concentration"] = Delta(Gamma())
        return super().factors | learned

    def resolve(self, data: Documents, weights: Array | None = None) -> LatentDirichletAllocation:
        sizes = dict(doc_concentration=self.n_topics, topic_concentration=data.n_words)
        even = {name: np.full(size, 1 / self.n_topics) for name, size in sizes.items()}
        return fill_defaults(self, float_dtype(data), **even)

    @property
    def shared(self) -> str | None:
        return "doc_concentration" if self.learn_doc_concentration else None

    def alpha(self, params: Record) -> Float[Array, " k"]:
        return params.doc_concentration.mean if self.learn_doc_concentration else self.doc_concentration

    def eta(self, params: Record) -> Float[Array, " v"]:
        if not self.learn_topic_concentration:
            return self.topic_concentration
        return jnp.full_like(self.topic_concentration, params.topic_concentration.mean)

    def neutral_prior(self) -> Record:
        priors = {}
        if self.learn_doc_concentration:
            priors["doc_concentration"] = point(self.doc_concentration)
        if self.learn_topic_concentration:
            priors["topic_concentration"] = point(self.topic_concentration.mean())
        return Record(priors)

    def m_step(self, params: Record, statistics: Mapping[str, Tree], block: Iterable[str]) -> Record:
        """Update the topics, then the concentrations, each by a Newton step (Minka 2000)."""
        moved = super().m_step(params, statistics, block)
        if "doc_concentration" in block:
            log, n = statistics["doc_concentration"]
            alpha = step_concentration(log / n, moved.doc_concentration.mean)
            moved |= dict(doc_concentration=point(alpha))
        if "topic_concentration" in block:
            log = moved.topics.expected().log
            eta = step_symmetric_concentration(log, moved.topic_concentration.mean)
            moved |= dict(topic_concentration=point(eta))
        return moved

    def log_prior(self, s: Record) -> Float[Array, ""]:
        if not self.learn_topic_concentration:
            return super().log_prior(s)
        return terms.dirichlet(s.topics, s.topic_concentration.value).sum()
