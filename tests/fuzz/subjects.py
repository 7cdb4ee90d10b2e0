"""What is called, by area: every public function, and for each argument the kind of its hostile values and a
good one, as `argument=kind:good` (`good` may be left out where it has the kind's name).

What is public and not called is in `EXEMPT`, with the reason.
"""

from __future__ import annotations

# arguments that mean the same wherever they occur; a row may say otherwise
USUAL = dict(
    key="key",
    data="rows:column",
    weights="weights:ones",
    model="other:own",
    params="params:own_params",
    length="length:five",
    parallel="optional_flag:false",
    block="count:eight",
    n_draws="count:two",
    n_steps="count:two",
    n_chains="count:one",
    n_warmup="count_or_zero:two",
    max_iter="count:two",
    tol="tolerance:tolerance",
    progress="flag:false",
    fit="other:fit:GaussianMixture",
    ax="optional_other:axes",
    figure="optional_other:figure",
    columns="names:two_names",
    docs="other:documents",
    vocabulary="vocabulary:vocabulary",
    path="path:csv",
    shape="shape:two",
    plates="shape:two",
    plate="shape:two",
    size="count:two",
    n="count:three",
)

DRIVERS = {
    "fit": "model=other:own data=rows:column params=optional_params:own_params n_restarts=count:two "
    "lanes=count:one "
    "accelerate=flag:false check=flag:false search=flag:false devices=optional_other:devices "
    "checkpoint=optional_folder:nothing",
    "fit_stochastic": "batch_size=count:eight n_epochs=count:one delay=nonnegative:one "
    "forgetting=forgetting:most total_rows=optional_count:nothing params=optional_params:own_params "
    "devices=optional_other:devices checkpoint=optional_folder:nothing",
    "gibbs": "devices=optional_other:devices",
    "elbo": "devices=optional_other:devices",
    "optimum": "params=params:optimum devices=optional_other:devices",
    "linear_response": "params=params:optimum devices=optional_other:devices",
    "replicate": "observed=other:normal_family",
    "sample_posterior": "params=states:own_params n=shape:two",
    "load": "path=path:saved model=optional_other:nothing",
    "log_likelihoods": "draws=other:own_draws",
    "leave_one_out": "fit=other:own_fit n_draws=count:hundred",
    "psis_loo": "log_likelihoods=few_rows:draws_by_rows log_ratios=few_rows:log_ratios",
    "bootstrap": "fit=other:own_fit n=count:two devices=optional_other:devices",
    "likelihood_ratio_test": "null=other:raw:GaussianMixture alternative=other:raw:GaussianMixture "
    "data=rows:table n_restarts=count:two devices=optional_other:devices",
    "select": "constructor=other:maker data=rows:table grid=other:grid criterion=choice:bic "
    "n_restarts=count:two",
    "cross_validate": "folds=count:two n_restarts=count:two devices=optional_other:devices",
}

ENGINE = {
    "statistics": "",
    "merge": "a=other:own_statistics b=other:own_statistics",
    "update": "statistics=other:own_statistics block=count_or_zero:one",
    "objective": "statistics=other:own_statistics",
}

SOURCES = {
    "Memmap": "data=other:table block_rows=count:eight",
}

SUPPORTS = {
    "real": "",
    "positive": "",
    "unit_interval": "",
    "interval": "low=end:zero high=end:one shape=shape:two",
    "simplex": "n_cases=count:two",
    "ordered": "n=count:two low=end_alone:zero",
    "cholesky_factor": "n=count:two",
    "correlation_cholesky": "n=count:two",
    "category": "n_cases=count:two",
}

FAMILIES = {
    "Beta": "",
    "Categorical": "",
    "Delta": "of=other:normal",
    "Dirichlet": "",
    "Gamma": "",
    "GaussMarkov": "steps=optional_count:three",
    "MarkovChain": "steps=optional_count:three",
    "MatrixNormalWishart": "rows=count:two",
    "MultivariateNormal": "",
    "MultivariateNormalGamma": "",
    "Normal": "",
    "NormalGamma": "",
    "NormalWishart": "",
    "PolyaGamma": "concentration=count:one",
    "StickBreaking": "",
    "TruncatedNormal": "",
    "Wishart": "",
}

# log densities: what is no number, or of no shape that fits; numbers out of their range give NaN
TERMS = {
    "normal": "x=value:one mean=value:zero precision=value:one",
    "gamma": "x=value:one concentration=value:two rate=value:one",
    "beta": "x=value:third concentration1=value:two concentration0=value:one",
    "categorical": "x=statistics:case probabilities=value:simplex2",
    "dirichlet": "x=value:simplex2 concentration=value:two",
    "stick_breaking": "x=value:simplex2 concentration1=value:one concentration0=value:two",
    "logistic": "y=value:one logit=value:zero omega=statistics:omega",
    "multivariate_normal": "x=array_value:zeros2 mean=array_value:zeros2 precision=matrix_term:eye2",
    "wishart": "x=matrix_term:eye2 degrees_of_freedom=value:three inverse_scale=matrix_term:eye2",
    "normal_gamma": "x=statistics:joint_gamma location=value:zero mean_precision=value:one "
    "concentration=value:two rate=value:one",
    "normal_wishart": "x=statistics:joint_wishart location=array_value:zeros2 mean_precision=value:one "
    "degrees_of_freedom=value:three inverse_scale=matrix_term:eye2",
    "multivariate_normal_gamma": "x=statistics:vector_gamma location=array_value:zeros2 "
    "mean_precision=matrix_term:eye2 "
    "concentration=value:two rate=value:one",
    "matrix_normal_wishart": "x=statistics:matrix_wishart location=array_value:eye2 "
    "mean_precision=matrix_term:eye2 "
    "degrees_of_freedom=value:three inverse_scale=matrix_term:eye2",
    "linear": "x=array_value:table weights=array_value:zeros2",
    "matmul": "weights=statistics:weight_rows z=statistics:location_vector",
    "poisson": "x=value:two rate=value:one",
    "bernoulli": "x=value:one probability=value:third",
    "multinomial": "x=value:multinomial_counts probabilities=value:simplex2",
    "dot": "x=array_value:table z=array_value:zeros2",
    "markov_chain": "x=statistics:path_of_states initial=value:simplex2 transitions=array_value:transitions",
    "gauss_markov": "x=statistics:path_of_vectors initial_mean=array_value:zeros2 "
    "initial_precision=matrix_term:eye2 transitions=array_value:eye2 precision=value:one",
}

METRICS = {
    "silhouette": "x=few_rows:table labels=labels n_clusters=optional_count:two",
    "silhouette_samples": "x=few_rows:table labels=labels n_clusters=optional_count:two",
    "centroid_silhouette": "x=few_rows:table labels=labels centers=few_rows:centers",
    "centroid_silhouette_samples": "x=few_rows:table labels=labels centers=few_rows:centers",
    "silhouette_reading": "score=score:third",
    "silhouette_table": "x=few_rows:table labellings=other:labellings",
}

_CHAIN = "initial=log_weights:initial transitions=log_weights:transitions "
_CHAIN += "log_likelihood=log_likelihood"
CHAINS = {
    "entropy": _CHAIN,
    "filter": _CHAIN,
    "log_normalizer": _CHAIN,
    "predict": _CHAIN,
    "sample_paths": _CHAIN,
    "smoother": _CHAIN,
    "viterbi": _CHAIN,
}
_GAUSSIAN = "precision=matrix_value:precision coupling=matrix_value:coupling pull=array_value:table"
GAUSSIAN_CHAINS = {
    "entropy": _GAUSSIAN,
    "log_normalizer": _GAUSSIAN,
    "sample_paths": _GAUSSIAN,
    "smoother": _GAUSSIAN,
    "kalman_filter": "y=few_holed_rows:table initial_mean=array_value:zeros2 "
    "initial_covariance=matrix_value:eye2 "
    "transition_matrix=array_value:eye2 transition_covariance=matrix_value:eye2 "
    "emission_matrix=array_value:eye2 "
    "emission_covariance=matrix_value:eye2",
}

TOPICS = {
    "top_ids": "scores=array_value:topic_table",
    "top_words": "scores=array_value:topic_table",
    "relevance": "topics=array_value:topic_table word_probabilities=probabilities_value:probabilities "
    "weight=share:third",
    "halves": "",
    "log_completion": "model=other:model:LatentDirichletAllocation "
    "params=params:params:LatentDirichletAllocation "
    "observed=documents held_out=documents",
    "held_out_perplexity": "model=other:model:LatentDirichletAllocation "
    "params=params:params:LatentDirichletAllocation docs=documents",
    "umass": "top_ids=indices:top_ids",
    "npmi": "top_ids=indices:top_ids",
    "align": "topics_a=array_value:topic_table topics_b=array_value:topic_table",
}

DATASETS = {
    "earthquakes": "",
    "old_faithful": "",
    "read_ldac": "path=path:ldac n_words=optional_count:five",
    "read_series": "sequence=column_name:who columns=names:csv_names",
    "read_series_table": "sequence=column_name:who columns=names:csv_names",
    "read_table": "columns=names:csv_names missing=flag:false",
    "read_vocabulary": "path=path:words",
    "stream_ldac": "path=path:ldac n_words=count:five batch_size=count:two",
}

CONTAINERS = {
    "Documents.of": "corpus=corpus n_words=optional_count:five dtype=dtype:float32",
    "Documents.from_tokens": "texts=tokens vocabulary=optional_vocabulary:some_words dtype=dtype:float32",
    "Sequences.of": "data=number_sequences:table lengths=lengths",
}
# methods of objects that are made from data
METHODS = {
    "documents": dict(
        take="rows=indices:two_rows", sharded="devices=optional_other:devices", tokens="", word_counts=""
    ),
    "sequences": dict(
        take="rows=indices:two_sequences",
        sharded="devices=optional_other:devices",
        windows="length=count:two",
        steps="",
    ),
    "fit:GaussianMixture": dict(
        verdict="",
        summary="",
        certificate="data=rows:table",
        plot="data=few_rows:table",
        save="path=path:new_file",
    ),
    "fit:BlackBox": dict(verdict=""),
    "black_box_params": dict(sample="key=key n=count:three", quantile="p=quantile:third"),
}

PLOTS = {
    "plots.components": "model=other:model:GaussianMixture params=params:params:GaussianMixture "
    "x=few_rows:table "
    "features=indices:features",
    "plots.pairs": "model=other:model:GaussianMixture params=params:params:GaussianMixture x=few_rows:table",
    "plots.criterion": "choice=other:choice",
    "plots.trace": "",
    "plots.restarts": "",
    "plots.overview": "x=few_rows:table",
    "plots.page": "data=few_rows:table",
    "plots.parameters": "",
    "plots.chains.state_colors": "n_states=count:two",
    "plots.chains.series": "model=other:model:GaussianHMM params=params:params:GaussianHMM "
    "data=few_sequence_rows:table sequence=number_of:zero_count",
    "plots.chains.state_probabilities": "table=few_rows:shares",
    "plots.chains.transitions": "table=probabilities_value:transitions states=indices:features",
    "plots.chains.segments": "paths=other:paths names=names:two_names",
    "plots.chains.overview": "fit=other:fit:GaussianHMM data=few_sequence_rows:table "
    "sequences=title:one_name",
    "plots.topics.top_words": "topics=other:topics which=indices:features n=count:three",
    "plots.topics.document_topics": "shares=few_rows:shares documents=indices:features",
    "plots.topics.overview": "fit=other:fit:LatentDirichletAllocation n=count:three",
}

_BOX = "model=other:black_box params=params:black_box_params data=anything:nothing"
BLACK_BOX = {
    "Approximation": "=exempt",
    "amortized": "encoder=other:encoder of=choice:mean_field",
    "FixedDraws": "=fitted",
    "NaturalAscent": "=fitted",
    "ScoreMatching": "=fitted",
    "StochasticAscent": "=fitted",
    "NonConjugate": "=fitted",
    "gradient_estimates": f"{_BOX} estimator=choice:sticking draws=choice:independent n_estimates=count:two",
    "low_rank": "rank=count:one",
    "mixture": "n_components=count:two of=choice:mean_field",
    "pareto_smoothed": "log_ratios=few_rows:log_ratios",
    "pathfinder": "model=other:black_box data=anything:nothing",
    "structured": "sparsity=matrix_value:eye2",
    "summed_out": "=fitted",
}

# what is judged by a fit with it, by the data of the fit
FITTED = {
    "AcceleratedAscent": "model=other:own tol=tolerance:tolerance check=flag:false",
    "CoordinateAscent": "model=other:own tol=tolerance:tolerance check=flag:false",
    "blackbox.FixedDraws": "model=other:black_box tol=tolerance:tolerance",
    "blackbox.NaturalAscent": "model=other:black_box tol=tolerance:tolerance",
    "blackbox.ScoreMatching": "model=other:black_box tol=tolerance:tolerance",
    "blackbox.StochasticAscent": "model=other:black_box optimizer=other:optimizer estimator=choice:sticking "
    "draws=choice:independent n_draws=count:two batch_size=optional_count:nothing n_steps=count:three "
    "tol=tolerance:tolerance",
    "summed_out": "log_density=function:log_density_of_case discrete=other:discrete",
    "NonConjugate": "support=other:positive_support family=choice:full_rank n_draws=optional_count:even",
}

# calls that offended: they stay in the choice
KEPT = [
    "fit(tol: text)",
    "fit(max_iter: vast)",
    "fit_stochastic(delay: inf)",
    "fit_stochastic(total_rows: minus)",
    "interval(*: nan)",
    "interval(low: text)",
    "interval(low: beyond_the_other)",
    "Documents.of(dtype: int8)",
    "Documents.of(dtype: complex)",
    "*HDPTopics.document_topics(data: *)",
    "*(component: mixture)",
    "*(component: type)",
    "*(weights: type)",
    "*(weight_prior: array)",
    "MixtureHMM(n_states: function)",
    "*(missing: object)",
    "KMeans(scale: nan)",
    "textbook.RobustNormal(degrees_of_freedom: text)",
    "*(stickiness: object)",
    "*(covariance_floor: five_axes)",
    "GaussianMixture(inverse_scale: nan)",
    "BayesianLogisticRegression(relevance_concentration: empty)",
    "BayesianProbitRegression(relevance_rate: five_axes)",
    "fit(model: type)",
    "fit(model: array)",
    "*.predict(params: fewer)",
    "real(shape: half)",
    "Model(factors: list)",
    "Model(factors: type)",
    "metrics.silhouette(labels: vast)",
    "*(data: masked)",
    "*(x: masked)",
    "gibbs(data: huge)",
    "linear_response(data: huge)",
    "Model(log_prior: gives_nan)",
    "Model.replace(*: minus)",
    "*Ascent(tol: int8)",
    "*(precision: empty)",
    "terms.categorical(x: number)",
    "blackbox.mixture(of: type)",
    "blackbox.pareto_smoothed(log_ratios: nan)",
    "*.params_at(covariances: nan)",
    "*.sample(given: inf)",
    "LinearGaussianStateSpace(scale: tiny)",
]

# methods of models that are for users; others are the engine's
USE = dict(
    x="x",
    params="params",
    data="data",
    n="count:three",
    rows="data",
    states="indices:states",
    start="optional_other:nothing",
    given="optional_other:nothing",
    centers="array_value:centers",
    means="array_value:centers",
    covariances="matrix_value:covariances",
    u="value:free_draws",
    z="other:a_normal",
)
USED = str.split("""
    aic bic centers coefficients covariance covariances decode document_topics
    durations effects elbo_terms exact_posterior factor_means filtered forecast icl inertia
    intercept intercepts kl_from kl_to loadings log_evidence log_predictive marginals
    matrices mean means moment_matched noise_variance noise_variances params_at posterior_predictive predict
    predict_states probabilities reconstruct resample responsibilities sample sample_posterior
    smoothed state_probabilities total_log_likelihood transform used_states used_topics weights
    words_of_topics
""")

# public, and called otherwise or not at all
EXEMPT = dict(
    Algorithm="a protocol",
    configure="for a process that has computed nothing yet; tests/inference/test_configure.py",
    Bootstrap="a record that bootstrap gives",
    Certificate="a record that a fit gives",
    Candidate="a record that select gives",
    Choice="a record that select gives",
    CrossValidation="a record that cross_validate gives",
    ConjugateModel="the base of models; its methods are the engine's",
    Expectation="a record that the engine gives",
    expectation="the engine's pass over rows; it takes what a model's `read` and `resolve` give",
    Fit="a record that fit gives; its methods are called",
    FitWarning="a class of warnings",
    Info="a record of the engine's",
    Labelled="stands in the place of data; fits with it are called",
    LeaveOneOut="a record that leave_one_out gives",
    LikelihoodRatioTest="a record that likelihood_ratio_test gives",
    LinearResponse="a record that linear_response gives",
    LocationPrecision="a record",
    Record="a record",
    Runs="a record",
    Status="an enumeration",
    blackbox="a module",
    chains="a module",
    components="a module",
    core="a module",
    datasets="a module",
    engine="a module",
    families="a module",
    gaussian_chains="a module",
    labels="a module",
    metrics="a module",
    sources="a module",
    supports="a module",
    terms="a module",
    textbook="a module",
    topics="a module",
)
EXEMPT |= {
    "chains.gaussian": "a module",
    "components.Component": "the base of components",
    "labels.Labels": "the base of labels",
    "plots.chains": "a module",
    "plots.topics": "a module",
    "metrics.SilhouetteRow": "a record",
    "metrics.SilhouetteTable": "a record",
    "chains.Filtered": "a record",
    "chains.Path": "a record",
    "chains.Posterior": "a record",
    "gaussian_chains.Filtered": "a record",
    "gaussian_chains.Posterior": "a record",
    "topics.Alignment": "a record",
    "datasets.Series": "a record that read_series_table gives",
    "blackbox.Diagnostics": "a record",
    "blackbox.LocationScale": "a family's state; its methods are called",
    "blackbox.LowRank": "a family's state",
    "blackbox.Mixture": "a family's state",
    "blackbox.NonConjugateState": "a family's state",
    "blackbox.flow": "needs an extra",
    "blackbox.from_numpyro": "needs an extra",
    "blackbox.from_pymc": "needs an extra",
    "sources.Arrow": "needs an extra",
    "sources.Blocks": "takes any function or iterable; what it gives is read by a fit",
    "sources.Parquet": "needs an extra",
    "sources.Source": "the base of sources",
    "to_arviz": "needs an extra",
}
