"""Topics of a hierarchical Dirichlet process: as many of them as the documents need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import gammaln
from jaxtyping import Bool, Float

from vbjax.core.hyperparameters import POSITIVE, count, hyper
from vbjax.core.rows import Expectation, float_dtype
from vbjax.data.documents import Documents
from vbjax.data.moments import fill_defaults
from vbjax.families.base import State, pytree
from vbjax.families.dirichlet import DirichletState
from vbjax.families.shared_sticks import SharedSticks, SharedSticksStatistics
from vbjax.families.stick_breaking import StickBreakingState
from vbjax.models.labels.weights import stick_prior
from vbjax.models.topics.topic_model import TopicModel
from vbjax.numerics.record import Record
from vbjax.numerics.special import digamma_remainder
from vbjax.numerics.types import Hyper, Tree

_TRIES, _LEFT = 3, 0.01  # of the start: attempts to merge, for each topic; what a topic keeps of its weight


@pytree
class HDPTopics(TopicModel):
    """Latent Dirichlet allocation with topics of unequal weight, which finds how many are used.

        weights ~ GEM(gamma), pieces of a stick:  weights_k = v_k prod_{j<k} (1 - v_j),  v_k ~ Beta(1, gamma),
        theta_d ~ Dirichlet(alpha weights),   beta_k ~ Dirichlet(eta),   z_di ~ theta_d,   w_di ~ beta_z,

    the process truncated at `n_topics`. q is that of `LatentDirichletAllocation` times prod_k q(v_k), Beta.
    The weights are not conjugate to the documents. In place of their prior's log density, the bound has

        log Dirichlet(theta | alpha w) >= (K - 1) log alpha + sum_k [log w_k + (alpha w_k - 1) log theta_k],

    which is tight where alpha is small: the objective stays a lower bound of the evidence, and may be
    compared over truncations and concentrations. A sweep updates topics and documents as LDA does with
    E[alpha weights] for the documents' concentration, then climbs in q(v), no step of which may lower the
    bound. Topics that nothing is left for keep their prior: `used_topics` says which hold words.

    Data: `vb.Documents`, or what `Documents.of` takes. The factors are `topics` (Dirichlet, (K, V)) and
    `weights` (StickBreaking, (K,)).

    Args:
        n_topics: K, at least 2, where the process is truncated: more than are expected. Every topic that is
            not used costs the bound a few nats.
        topic_concentration: eta, a number or (V,); by default 0.1.
        doc_concentration: alpha; by default 1.
        weight_concentration: gamma; by default 1.
        document_sweeps: see `LatentDirichletAllocation`.

    Raises:
        ValueError: what is no corpus of counts; a concentration that is not positive.

    References:
        Teh, Jordan, Beal & Blei (2006), Hierarchical Dirichlet processes; Hughes, Kim & Sudderth (2015),
        Reliable and scalable variational inference for the hierarchical Dirichlet process (the bound; there
        what is beyond the truncation has a weight of its own).

    >>> import jax, vbjax as vb
    >>> corpus = [[(0, 9), (1, 8)], [(0, 7), (1, 9)], [(2, 9), (3, 5)], [(2, 8), (3, 9)]] * 5
    >>> fit = vb.fit(vb.HDPTopics(6), corpus, key=jax.random.key(0))
    >>> int(fit.model.used_topics(fit.params).sum())
    2
    """

    n_topics: int = count("k", least=2)
    topic_concentration: Hyper = hyper(None, POSITIVE, "v")
    doc_concentration: Hyper = hyper(1.0, POSITIVE, kw_only=True)
    weight_concentration: Hyper = hyper(1.0, POSITIVE, kw_only=True)
    document_sweeps: int = count(default=1, kw_only=True)

    @property
    def factors(self) -> Record:
        return super().factors | dict(weights=SharedSticks(self.n_topics))

    def resolve(self, data: Documents, weights: Array | None = None) -> HDPTopics:
        return fill_defaults(self, float_dtype(data), topic_concentration=np.full(data.n_words, 0.1))

    @property
    def shared(self) -> str:
        return "weights"

    def alpha(self, params: Record) -> Float[Array, " k"]:
        return self.doc_concentration * params.weights.mean

    def slack(self, params: Record) -> Float[Array, ""]:
        """Return the excess over log Dirichlet(alpha E[w]) of the density with log Gamma at its chords."""
        q, alpha = params.weights, self.doc_concentration
        # E[log w_k] - log E[w_k], without cancellation
        total = digamma_remainder(q.concentration1 + q.concentration0)
        rest = jnp.cumsum(digamma_remainder(q.concentration0) - total)
        excess = jnp.pad(digamma_remainder(q.concentration1) - total, (0, 1)) + jnp.pad(rest, (1, 0))
        return (excess + gammaln(1 + alpha * q.mean) - q.mean * gammaln(1 + alpha)).sum()

    def neutral_prior(self) -> Record:
        return Record(weights=SharedSticks(self.n_topics).neutral(self.topic_concentration.dtype))

    def init(self, key: Array, data: Documents, weights: Array | None = None) -> Record:
        """Start as every topic model, then merge topics, which coordinate ascent seldom achieves.

        The lightest topic is joined to the one whose words are likeliest to be drawn together with its own.
        Both ways are given two passes in which documents begin anew, and the better one by the bound goes on,
        until every topic has been tried.
        """
        params = super().init(key, data, weights)

        def trained(params: Record) -> tuple[Record, Array]:
            """Make a pass; return also the bound before it."""
            total = self.anew(params, data, weights)
            return self.m_step(params, total.statistics, self.factors), self.objective(params, total)

        def twice(params: Record) -> tuple[Record, Array]:
            none = jnp.zeros((), params.topics.concentration.dtype)
            return lax.fori_loop(0, 2, lambda _, carry: trained(carry[0]), (params, none))

        def unfinished(carry: tuple[Record, Array, Array]) -> Array:
            return carry[1].any() & (carry[2] < _TRIES * self.n_topics)

        def attempt(carry: tuple[Record, Array, Array]) -> tuple[Record, Array, Array]:
            params, untried, number = carry
            light = jnp.where(untried, self.words_of_topics(params), jnp.inf).argmin()
            ways = jax.tree.map(lambda *x: jnp.stack(x), params, self._joined(params, light))
            ways, bounds = lax.map(twice, ways)
            params = jax.tree.map(lambda x: x[bounds.argmax()], ways)
            untried = jnp.where(bounds[1] > bounds[0], True, untried.at[light].set(False))
            return params, untried & self.used_topics(params), number + 1

        params = _heavy_first(trained(params)[0])
        start = (params, self.used_topics(params), jnp.asarray(0))
        return _heavy_first(lax.while_loop(unfinished, attempt, start)[0])

    def _joined(self, params: Record, light: Array) -> Record:
        """Return the parameters with the words of one topic in another."""
        eta, topics = self.topic_concentration, params.topics.concentration
        both = topics + topics[light] - eta
        gain = _log_beta(both) - _log_beta(topics)
        other = jnp.arange(self.n_topics) != light
        heir = jnp.where(other & self.used_topics(params), gain, -jnp.inf).argmax()
        share = jnp.where(other, params.weights.mean, _LEFT * params.weights.mean)
        share = share.at[heir].add((1 - _LEFT) * params.weights.mean[light])
        topics = topics.at[heir].set(both[heir]).at[light].set(eta)
        return params | dict(topics=DirichletState(topics), weights=_with_mean(params.weights, share))

    def propose(
        self, key: Array, params: Record, other: Record, data: Documents, weights: Array | None
    ) -> Record:
        return _heavy_first(super().propose(key, params, other, data, weights))

    def with_topics(self, params: Record, topics: DirichletState, share: Callable[[Array], Array]) -> Record:
        mean = share(params.weights.mean)
        least = _LEFT * params.weights.mean.min()  # no piece of a stick is nothing
        return params | dict(topics=topics, weights=_with_mean(params.weights, jnp.maximum(mean, least)))

    @property
    def weights_prior(self) -> StickBreakingState:
        """The prior of the topics' weights."""
        return stick_prior(self.n_topics, self.weight_concentration)

    def log_prior(self, s: Record) -> Float[Array, ""]:
        return super().log_prior(s) + self.weights_prior.log_density(s.weights) + s.weights.base

    def m_step(self, params: Record, statistics: Mapping[str, Tree], block: Iterable[str]) -> Record:
        """Update the topics, then climb in q(v) (Hughes, Kim & Sudderth 2015, eq. 9)."""
        moved = super().m_step(params, statistics, block)
        if "weights" not in block:
            return moved
        family, (log, n) = SharedSticks(self.n_topics), statistics["weights"]
        t = family.expected(moved.weights)

        def energy(t: SharedSticksStatistics) -> Array:
            own = self.weights_prior.log_density(t) + t.base
            return own + n * t.log.sum() + self.doc_concentration * (t.value @ log)

        return moved | dict(weights=family.from_gradient(t, jax.grad(energy)(t)))

    def global_terms(self, params: Mapping[str, State], expectation: Expectation) -> dict[str, Array]:
        own = {"weights": -params["weights"].kl(self.weights_prior)}
        return super().global_terms(params, expectation) | own

    # -- use -----------------------------------------------------------------------------------------

    def words_of_topics(self, params: Record) -> Float[Array, " k"]:
        """Return the expected number of words in each topic, of those it was fitted to."""
        return (params.topics.concentration - self.topic_concentration).sum(-1)

    def used_topics(self, params: Record) -> Bool[Array, " k"]:
        """Return which topics hold more than one word."""
        return self.words_of_topics(params) > 1


def _heavy_first(params: Record) -> Record:
    """Return the topics in the order of their weight, as pieces of a stick are on average."""
    mean = params.weights.mean
    order = jnp.argsort(-mean)
    topics = DirichletState(params.topics.concentration[order])
    return params | dict(topics=topics, weights=_with_mean(params.weights, mean[order]))


def _with_mean(q: StickBreakingState, mean: Float[Array, " k"]) -> StickBreakingState:
    """Return a stick whose pieces have this mean, with the shares' precisions kept."""
    left = jnp.cumsum(mean[::-1])[::-1]
    total = q.concentration1 + q.concentration0
    return StickBreakingState(total * mean[:-1] / left[:-1], total * left[1:] / left[:-1])


def _log_beta(concentration: Float[Array, "k v"]) -> Float[Array, " k"]:
    """Return the logarithm of the multivariate beta function."""
    return gammaln(concentration).sum(-1) - gammaln(concentration.sum(-1))
