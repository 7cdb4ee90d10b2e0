"""Estimators: attributes are scikit-learn's at the same optimum; dtypes, weights, minibatches, errors."""

import pickle
import re
import sys

import jax
import numpy as np
import pytest
import sklearn
import sklearn.cluster
import sklearn.decomposition
import sklearn.linear_model
import sklearn.mixture
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

import vbjax as vb
import vbjax.sklearn
from vbjax.sklearn import (
    PPCA,
    ARDRegression,
    BayesianGaussianMixture,
    BayesianLinearRegression,
    BernoulliMixture,
    FactorAnalysis,
    GaussianMixture,
    KMeans,
    LatentDirichletAllocation,
    LinearRegression,
    LogisticRegression,
    MixtureOfFactorAnalyzers,
    PoissonMixture,
)
from vbjax.sklearn.estimator import draw_key, program_rows

RNG = np.random.default_rng(0)
FAITHFUL = np.asarray(vb.datasets.old_faithful(), np.float64)
FACTORS = RNG.normal(size=(120, 2)) @ [[3, 3, 3, 1, 0, 1], [0, 1, -1, 4, 4, -4]] + RNG.normal(size=(120, 6))
COUNTS = RNG.poisson(RNG.gamma(1.0, 2.0, size=(40, 6)))


def sorted_by(means, *attributes):
    """Attributes of components in the order of their means."""
    order = np.argsort(means[:, 0])
    return [x[order] for x in (means, *attributes)]


# -- the same optimum ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["full", *(pytest.param(kind, marks=pytest.mark.again) for kind in ("tied", "diag", "spherical"))]
)
def test_a_gaussian_mixture_has_the_attributes_of_scikit_learn(kind):
    ours = GaussianMixture(2, covariance_type=kind, tol=1e-11, max_iter=1000, random_state=0).fit(FAITHFUL)
    theirs = sklearn.mixture.GaussianMixture(
        2, covariance_type=kind, tol=1e-13, max_iter=9000, reg_covar=0.0, random_state=0
    ).fit(FAITHFUL)
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        got, expected = (
            getattr(x, name)
            if kind == "tied" and name[0] in "cp"
            else getattr(x, name)[np.argsort(x.means_[:, 0])]
            for x in (ours, theirs)
        )
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(ours.lower_bound_, theirs.lower_bound_, rtol=1e-9)
    np.testing.assert_allclose(ours.lower_bounds_[-1], ours.lower_bound_, rtol=1e-12)
    np.testing.assert_allclose(ours.score_samples(FAITHFUL), theirs.score_samples(FAITHFUL), rtol=1e-4)
    for criterion in ("bic", "aic", "score"):
        got, expected = (getattr(x, criterion)(FAITHFUL) for x in (ours, theirs))
        np.testing.assert_allclose(got, expected, rtol=1e-8, err_msg=criterion)


@pytest.mark.parametrize(
    "kind", ["full", *(pytest.param(kind, marks=pytest.mark.again) for kind in ("tied", "diag", "spherical"))]
)
def test_from_the_same_start_each_sweep_is_that_of_scikit_learn(kind):
    means = np.array([[2.0, 55.0], [4.5, 80.0]])
    precisions = dict(full=[np.diag([4.0, 0.01]), np.eye(2)], tied=np.eye(2), diag=np.ones((2, 2)))
    start = dict(weights_init=[0.7, 0.3], means_init=means, precisions_init=precisions.get(kind, [0.1, 0.2]))
    options = dict(covariance_type=kind, reg_covar=0.0, tol=1e-6, **start)
    ours, theirs = (
        module.GaussianMixture(2, **options).fit(FAITHFUL) for module in (vbjax.sklearn, sklearn.mixture)
    )
    n = min(ours.n_iter_, theirs.n_iter_)
    assert n >= 4
    assert len(ours.lower_bounds_) == ours.n_iter_ + 1  # that of the start is among them
    np.testing.assert_allclose(ours.lower_bounds_[:n], theirs.lower_bounds_[:n], rtol=1e-9)
    one = GaussianMixture(2, means_init=means).fit(FAITHFUL)
    assert (one.means_[0] < one.means_[1]).all()


def test_k_means_has_the_attributes_of_scikit_learn():
    ours, theirs = (
        kind(3, n_init=10, tol=0.0, random_state=0).fit(FAITHFUL) for kind in (KMeans, sklearn.cluster.KMeans)
    )
    np.testing.assert_allclose(ours.inertia_, theirs.inertia_, rtol=1e-12)
    centers, other = np.sort(ours.cluster_centers_, 0), np.sort(theirs.cluster_centers_, 0)
    np.testing.assert_allclose(centers, other, rtol=1e-12)
    order = np.argsort(ours.cluster_centers_[:, 0]), np.argsort(theirs.cluster_centers_[:, 0])
    np.testing.assert_allclose(
        ours.transform(FAITHFUL)[:, order[0]], theirs.transform(FAITHFUL)[:, order[1]], rtol=1e-7
    )
    assert (np.argsort(order[0])[ours.labels_] == np.argsort(order[1])[theirs.labels_]).all()
    np.testing.assert_allclose(ours.score(FAITHFUL), theirs.score(FAITHFUL), rtol=1e-12)


def test_factor_analysis_has_the_attributes_of_scikit_learn():
    ours = FactorAnalysis(2, tol=1e-9, max_iter=3000).fit(FACTORS)
    theirs = sklearn.decomposition.FactorAnalysis(2, tol=1e-9, max_iter=30000, svd_method="lapack").fit(
        FACTORS
    )
    sign = np.sign((ours.components_ * theirs.components_).sum(1))
    np.testing.assert_allclose(ours.components_, sign[:, None] * theirs.components_, atol=2e-3)
    np.testing.assert_allclose(ours.noise_variance_, theirs.noise_variance_, atol=2e-3)
    np.testing.assert_allclose(ours.mean_, theirs.mean_, atol=1e-9)
    np.testing.assert_allclose(ours.transform(FACTORS), theirs.transform(FACTORS) * sign, atol=2e-3)
    np.testing.assert_allclose(ours.score(FACTORS), theirs.score(FACTORS), rtol=1e-8)
    np.testing.assert_allclose(ours.get_covariance() @ ours.get_precision(), np.eye(6), atol=1e-12)
    mixture = MixtureOfFactorAnalyzers(1, n_factors=2, tol=1e-12, max_iter=3000, random_state=0).fit(FACTORS)
    np.testing.assert_allclose(mixture.means_[0], theirs.mean_, atol=1e-9)
    np.testing.assert_allclose(mixture.noise_variances_[0], theirs.noise_variance_, atol=2e-3)
    np.testing.assert_allclose(mixture.covariances_[0], theirs.get_covariance(), atol=2e-3)
    loadings = mixture.loadings_[0]
    np.testing.assert_allclose(loadings @ loadings.T, theirs.components_.T @ theirs.components_, atol=2e-3)
    np.testing.assert_allclose(mixture.lower_bound_, theirs.score(FACTORS), rtol=1e-8)


def test_ppca_is_the_model_of_pca():
    ours, theirs = PPCA(2, tol=1e-10).fit(FACTORS), sklearn.decomposition.PCA(2).fit(FACTORS)
    n = len(FACTORS)
    np.testing.assert_allclose(ours.get_covariance() * n / (n - 1), theirs.get_covariance(), atol=1e-4)
    axes = ours.components_ / np.linalg.norm(ours.components_, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs((axes * theirs.components_).sum(1)), 1, atol=1e-8)
    latent = ours.transform(FACTORS)
    again = ours.transform(ours.inverse_transform(latent))  # rows without noise are shrunk once more
    assert (np.abs(again) < np.abs(latent)).all()


def test_regressors_are_those_of_scikit_learn():
    x, y = FACTORS[:, :5], FACTORS[:, 5]
    ours, theirs = (
        kind().fit(x, y, np.arange(120.0))
        for kind in (LinearRegression, sklearn.linear_model.LinearRegression)
    )
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-9)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-9)
    y = x @ [2.0, -1.0, 1.0, 0.5, 3.0] + RNG.normal(size=120)
    priors = dict(tol=1e-10, max_iter=3000, alpha_2=1e-6, lambda_2=1e-6)
    ard, other = (kind(**priors).fit(x, y) for kind in (ARDRegression, sklearn.linear_model.ARDRegression))
    np.testing.assert_allclose(ard.coef_, other.coef_, rtol=1e-3)
    # the intercept is a weight here, so that the noise has a degree of freedom less
    np.testing.assert_allclose(ard.sigma_, other.sigma_, rtol=0.02, atol=1e-6)
    np.testing.assert_allclose(ard.alpha_, other.alpha_ * 113 / 114, rtol=2e-3)
    mean, deviation = BayesianLinearRegression().fit(x, y).predict(x, return_std=True)
    residual = (y - mean) / deviation
    assert 0.8 < residual.std() < 1.2


# -- dtypes, rows, weights -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_fit_has_the_dtype_of_its_table_whatever_x64_says(dtype):
    assert not jax.config.jax_enable_x64
    mixture = GaussianMixture(2, random_state=0).fit(FAITHFUL.astype(dtype))
    for x in (mixture.means_, mixture.precisions_, mixture.predict_proba(FAITHFUL.astype(dtype))):
        assert x.dtype == dtype
    again = pickle.loads(pickle.dumps(mixture))
    assert again.means_.dtype == dtype
    assert (again.means_ == mixture.means_).all()
    assert not jax.config.jax_enable_x64


def test_rows_that_fill_up_a_table_change_nothing():
    for n in (1, 255, 257, 1000, 10**6 + 1):
        assert n <= program_rows(n) <= max(256, n + n // 8)
    assert len({program_rows(n) for n in range(1, 2**20, 111)}) < 8 * 13
    mixture = GaussianMixture(2, random_state=0, tol=1e-6).fit(FAITHFUL)
    with jax.enable_x64(True):
        fit = vb.fit(vb.GaussianMixture(2), FAITHFUL, key=draw_key(0))
        np.testing.assert_allclose(mixture.fit_.objective, fit.objective, rtol=1e-12)
        np.testing.assert_allclose(mixture.means_, fit.means(), rtol=1e-9)


def test_weights_count_rows():
    weights = np.arange(272) % 4
    weighted = GaussianMixture(2, random_state=0).fit(FAITHFUL, sample_weight=weights)
    repeated = GaussianMixture(2, random_state=0).fit(FAITHFUL.repeat(weights, 0))
    np.testing.assert_allclose(weighted.means_, repeated.means_, rtol=1e-9)
    np.testing.assert_allclose(weighted.lower_bound_, repeated.lower_bound_, rtol=1e-10)


def test_weights_are_routed_and_frames_keep_their_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(FAITHFUL, columns=["eruption", "waiting"])
    weights = np.arange(272) % 4
    with sklearn.config_context(enable_metadata_routing=True):
        scale = StandardScaler().set_fit_request(sample_weight=False)
        reduce = KMeans(3, random_state=0).set_fit_request(sample_weight=True).set_output(transform="pandas")
        pipe = Pipeline([("scale", scale), ("means", reduce)]).fit(frame, sample_weight=weights)
    scaled = StandardScaler().fit_transform(frame)
    plain = KMeans(3, random_state=0).fit(scaled, sample_weight=weights)
    np.testing.assert_allclose(pipe["means"].inertia_, plain.inertia_, rtol=1e-12)
    assert list(pipe.transform(frame).columns) == ["kmeans0", "kmeans1", "kmeans2"]
    mixture = GaussianMixture().fit(frame)
    assert list(mixture.feature_names_in_) == ["eruption", "waiting"]


# -- the jobs of people ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Best performing initialization did not converge")
def test_a_pipeline_and_a_grid_search():
    options = dict(weight_concentration_prior_type="dirichlet_distribution", weight_concentration_prior=1e-3)
    mixture = BayesianGaussianMixture(4, random_state=0, tol=1e-6, max_iter=1000, **options)
    steps = [("scale", StandardScaler()), ("mixture", mixture)]
    labels = Pipeline(steps).fit(FAITHFUL).predict(FAITHFUL)
    assert len(np.unique(labels)) == 2
    other = sklearn.mixture.BayesianGaussianMixture(n_components=4, max_iter=1, **options).fit(
        steps[0][1].transform(FAITHFUL)
    )
    for name in ("mean_precision_prior_", "mean_prior_", "degrees_of_freedom_prior_", "covariance_prior_"):
        expected = getattr(other, name)
        np.testing.assert_allclose(getattr(mixture, name), expected, rtol=1e-12, atol=1e-12, err_msg=name)
    assert mixture.weight_concentration_prior_ == pytest.approx(1e-3)
    searches = [
        GridSearchCV(kind(random_state=0, tol=1e-8), dict(n_components=[1, 2]), cv=2).fit(FAITHFUL)
        for kind in (GaussianMixture, sklearn.mixture.GaussianMixture)
    ]
    assert [search.best_params_["n_components"] for search in searches] == [2, 2]
    got, expected = (search.cv_results_["mean_test_score"] for search in searches)
    np.testing.assert_allclose(got, expected, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:objective .* stopped at max_iter")
def test_a_fit_that_did_not_converge_warns_and_goes_on_where_it_ended():
    mixture = GaussianMixture(2, random_state=0, tol=1e-12, max_iter=3, warm_start=True)
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        mixture.fit(FAITHFUL)
    assert not mixture.converged_
    first = mixture.lower_bounds_
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        mixture.fit(FAITHFUL)
    assert mixture.lower_bounds_[0] == pytest.approx(first[-1], rel=1e-12)
    assert mixture.lower_bound_ > first[-1]
    mixture.set_params(max_iter=1, tol=1e-3)  # one sweep at a time
    while not mixture.fit(FAITHFUL).converged_:
        assert mixture.n_iter_ == 1
    start = mixture.set_params(max_iter=0, warm_start=False, means_init=FAITHFUL[:2]).fit(FAITHFUL)
    np.testing.assert_allclose(start.means_, FAITHFUL[:2], rtol=1e-12)


def test_draws_are_of_the_mixture():
    mixture = GaussianMixture(2, random_state=0, covariance_type="diag").fit(FAITHFUL)
    x, labels = mixture.sample(4000)
    for k in range(2):
        own = x[labels == k]
        error = np.sqrt(mixture.covariances_[k] / len(own))
        assert (np.abs(own.mean(0) - mixture.means_[k]) < 5 * error).all()


def test_classes_may_be_any_two():
    y = np.where(FAITHFUL[:, 0] + 0.5 * RNG.normal(size=272) > 3, "long", "short")
    ours = LogisticRegression(precision=1e-3, intercept_precision=1e-3).fit(FAITHFUL[:, 1:], y)
    theirs = sklearn.linear_model.LogisticRegression(C=1e3).fit(FAITHFUL[:, 1:], y)
    assert list(ours.classes_) == ["long", "short"]
    assert (ours.predict(FAITHFUL[:, 1:]) == theirs.predict(FAITHFUL[:, 1:])).mean() > 0.98
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=0.1)
    np.testing.assert_allclose(ours.predict_proba(FAITHFUL[:, 1:]).sum(1), 1, rtol=1e-12)


# -- minibatches -----------------------------------------------------------------------------------------


def test_minibatches_move_centres_to_the_means_of_all_their_rows():
    batches = FAITHFUL[:80], FAITHFUL[80:120], FAITHFUL[120:250]
    start = np.array([[2.0, 55.0], [4.0, 80.0]])
    ours = KMeans(2, init=start, random_state=0)
    centers, total, count = start, np.zeros((2, 2)), np.zeros(2)
    for batch in batches:
        ours.partial_fit(batch)
        labels = ((batch[:, None] - centers) ** 2).sum(-1).argmin(1)
        for k in range(2):
            total[k] += batch[labels == k].sum(0)
            count[k] += (labels == k).sum()
        centers = total / count[:, None]
        np.testing.assert_allclose(ours.cluster_centers_, centers, rtol=1e-10)
    assert ours.n_steps_ == 3


def test_minibatches_of_documents_are_those_of_fit_stochastic():
    topics = LatentDirichletAllocation(2, total_samples=40, batch_size=20, random_state=0)
    topics.partial_fit(COUNTS[:20]).partial_fit(COUNTS[20:])
    assert topics.n_batch_iter_ == 3
    with jax.enable_x64(True):
        batches = (vb.Documents.of(x) for x in (COUNTS[:20], COUNTS[20:]))
        model = vb.LatentDirichletAllocation(2)
        rates = dict(delay=10.0, forgetting=0.7, total_rows=40)
        fit = vb.fit_stochastic(model, batches, key=draw_key(0), **rates)
        # documents turn until all of their part have settled, and parts are not the same
        np.testing.assert_allclose(topics.components_, fit.params.topics.concentration, rtol=1e-4)


def test_topics_are_scored_by_their_documents_alone():
    topics = LatentDirichletAllocation(2, random_state=0).fit(COUNTS)
    shares = topics.transform(COUNTS)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-12)
    by_document = [topics.score(COUNTS[i : i + 1]) for i in range(40)]
    np.testing.assert_allclose(topics.score(COUNTS), sum(by_document), rtol=1e-5)
    assert topics.bound_ == pytest.approx(np.exp(-topics.score(COUNTS) / COUNTS.sum()), rel=1e-12)
    online = LatentDirichletAllocation(
        2, learning_method="online", batch_size=10, max_iter=30, random_state=0
    )
    assert online.fit(COUNTS).bound_ < 1.02 * topics.bound_
    assert online.components_.dtype == topics.components_.dtype == np.float64


# -- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("VEV", (2, 2, 2)),
        pytest.param("EEI", (2, 2), marks=pytest.mark.again),
        pytest.param("EII", (2,), marks=pytest.mark.again),
    ],
)
def test_covariances_have_the_shapes_of_their_model(kind, shape):
    ours = sklearn.base.clone(GaussianMixture(2, random_state=0).set_params(covariance_type=kind))
    assert ours.get_params()["covariance_type"] == kind
    ours.fit(FAITHFUL)
    assert ours.covariances_.shape == ours.precisions_.shape == ours.precisions_cholesky_.shape == shape
    again = GaussianMixture(2, covariance_type=kind)
    again.weights_, again.means_, again.covariances_ = ours.weights_, ours.means_, ours.covariances_
    np.testing.assert_allclose(again.predict_proba(FAITHFUL), ours.predict_proba(FAITHFUL), atol=1e-12)
    if kind == "EII":  # one variance, of all components
        np.testing.assert_allclose(ours.covariances_, ours.covariances_[0], rtol=1e-12)
    elif kind == "EEI":
        np.testing.assert_allclose(ours.covariances_[0], ours.covariances_[1], rtol=1e-12)
    else:  # one shape, of ellipsoids of their own volumes
        values = np.linalg.eigvalsh(ours.covariances_)
        np.testing.assert_allclose(*(values[:, 1] / values[:, 0]), rtol=1e-6)


@pytest.mark.parametrize(
    ("estimator", "x", "message"),
    [
        (GaussianMixture(2, covariance_type="VEX"), FAITHFUL, "covariance_type .* must be one of .* 'VEX'"),
        (BayesianGaussianMixture(2, covariance_type="VEV"), FAITHFUL, "covariance_type .* by EM; got 'VEV'"),
        (GaussianMixture(0), FAITHFUL, "n_components must"),
        (GaussianMixture(2, reg_covar=-1.0), FAITHFUL, "reg_covar must"),
        (GaussianMixture(2, n_init=0), FAITHFUL, "n_init must"),
        (GaussianMixture(2, tol=-1.0), FAITHFUL, "tol must"),
        (BayesianGaussianMixture(2, mean_precision_prior=-1.0), FAITHFUL, "mean_precision_prior must"),
        (MixtureOfFactorAnalyzers(2, n_factors=3), FAITHFUL, "n_factors must be at most the 2 columns"),
        (PoissonMixture(2), FAITHFUL, "X must be counts"),
        (PoissonMixture(2), -FAITHFUL, "Negative values"),
        (BernoulliMixture(2, binarize=None), FAITHFUL, "X must be 0 or 1"),
        (KMeans(300), FAITHFUL, "n_clusters=300"),
        (KMeans(2, init=lambda x, k, _: x[: k + 1]), FAITHFUL, "init must have shape"),
        (KMeans(2, init="far"), FAITHFUL, "init must be one of"),
        (LatentDirichletAllocation(2, learning_method="both"), COUNTS, "learning_method must"),
        (LatentDirichletAllocation(2, doc_topic_prior=-1.0), COUNTS, "doc_topic_prior must"),
    ],
)
def test_errors_name_the_argument_as_it_is_called_here(estimator, x, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit(x)


def test_without_scikit_learn_an_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "vbjax.sklearn")
    with pytest.raises(ImportError, match=re.escape("vbjax-inference[sklearn]")):
        import vbjax.sklearn  # noqa: F401


def test_a_mixture_whose_parameters_are_set_predicts():
    given = dict(weights_=[0.3, 0.7], means_=[[2.0, 55.0], [4.3, 80.0]], covariances_=[20.0, 40.0])
    own, scikit_learn = GaussianMixture, sklearn.mixture.GaussianMixture
    ours, theirs = (kind(2, covariance_type="spherical") for kind in (own, scikit_learn))
    for model in (ours, theirs):
        for name, value in given.items():
            setattr(model, name, np.array(value))
    theirs.precisions_cholesky_ = 1 / np.sqrt(theirs.covariances_)
    np.testing.assert_allclose(ours.covariances_, theirs.covariances_, rtol=1e-12)
    np.testing.assert_allclose(ours.score_samples(FAITHFUL), theirs.score_samples(FAITHFUL), rtol=1e-10)
    np.testing.assert_array_equal(ours.predict(FAITHFUL), theirs.predict(FAITHFUL))
    with pytest.raises(ValueError, match="covariances_ must be positive"):
        ours.covariances_ = np.array([1.0, 0.0])
    with pytest.raises(AttributeError, match="precisions_ is read from the fit, and cannot be set"):
        ours.precisions_ = 1.0


def test_attributes_are_read_from_a_fit():
    mixture = BayesianGaussianMixture(n_components=2)
    with pytest.raises(AttributeError, match="not fitted yet"):
        _ = mixture.means_
    with pytest.raises(AttributeError, match="cannot be set"):
        mixture.means_ = FAITHFUL[:2]
