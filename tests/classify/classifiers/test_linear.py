import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from spk.classify.classifiers.linear import lda_path, principal_axes, ridge_path
from spk.classify.classifiers.registry import PENALTIES
from spk.classify.estimator import SpeakerClassifier

EXACT = 1e-6  # two float64 solutions of one linear system; scores are of the order of 1
ITERATIVE = 2e-3  # lbfgs and liblinear stop at a tolerance, not at the optimum
SHAPES = [(60, 300, 4), (300, 40, 4), (50, 200, 2), (200, 20, 2), (64, 64, 3)]


def cloud(rows, dim, classes, seed=0):
    """Return X and y: classes that overlap, features of different scale, one feature constant."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    X = rng.normal(size=(rows, dim)) + 0.6 * rng.normal(size=(classes, dim))[y]
    X = X * rng.uniform(0.1, 20, size=dim) + rng.normal(size=dim)
    X[:, 3] = 0.1
    return X, y


def sides(X, y):
    half = len(X) * 2 // 3
    return X[:half], y[:half], X[half:]


def assert_same(ours, theirs, X, tolerance):
    scores = theirs.decision_function(X)
    np.testing.assert_allclose(ours.decision_function(X), scores, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("penalty", [0.1, 10.0, 1e4])
def test_ridge_equals_scikit_learns_pipeline(shape, penalty):
    train, y, test = sides(*cloud(*shape))
    ours = SpeakerClassifier("ridge", penalty).fit(train, y)
    theirs = make_pipeline(StandardScaler(), RidgeClassifier(alpha=penalty)).fit(train, y)
    scores = theirs.decision_function(test)
    factor = 2 if shape[2] == 2 else 1  # ours is the difference of two columns s and -s
    np.testing.assert_allclose(ours.decision_function(test), factor * scores, atol=EXACT)
    np.testing.assert_array_equal(ours.predict(test), theirs.predict(test))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("solver", ["lsqr", "eigen"])
@pytest.mark.parametrize("shrinkage", [0.01, 0.3, 0.9, 1.0])
def test_lda_equals_scikit_learns_pipeline(shape, solver, shrinkage):
    train, y, test = sides(*cloud(*shape))
    ours = SpeakerClassifier("lda", shrinkage).fit(train, y)
    lda = LinearDiscriminantAnalysis(solver=solver, shrinkage=shrinkage)
    assert_same(ours, make_pipeline(StandardScaler(), lda).fit(train, y), test, EXACT)


def test_lda_knows_unequal_class_sizes():
    X, y = cloud(90, 200, 3)
    keep = (y != 1) | (np.arange(90) % 2 == 0)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2)
    theirs = make_pipeline(StandardScaler(), lda).fit(X[keep], y[keep])
    assert_same(SpeakerClassifier("lda", 0.2).fit(X[keep], y[keep]), theirs, X[~keep], EXACT)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("penalty", [10.0, 1e3])
def test_logistic_on_the_axes_is_logistic_on_the_features(shape, penalty):
    train, y, test = sides(*cloud(*shape))
    ours = SpeakerClassifier("logistic", penalty).fit(train, y)
    model = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=5000)
    assert_same(ours, make_pipeline(StandardScaler(), model).fit(train, y), test, ITERATIVE)


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_svm_on_the_axes_is_the_svm_on_the_features(shape):
    train, y, test = sides(*cloud(*shape))
    ours = SpeakerClassifier("linear-svm", 1e3).fit(train, y)
    model = LinearSVC(C=1e-3, tol=1e-8, max_iter=100000, random_state=1)
    assert_same(ours, make_pipeline(StandardScaler(), model).fit(train, y), test, ITERATIVE)


def test_centroid_names_the_mean_of_smallest_angle():
    train, y, test = sides(*cloud(60, 30, 3))
    Z = StandardScaler().fit(train)
    means = np.stack([Z.transform(train)[y == k].mean(axis=0) for k in range(3)])
    rows = Z.transform(test)
    cosine = rows @ means.T / np.linalg.norm(rows, axis=1)[:, None] / np.linalg.norm(means, axis=1)
    ours = SpeakerClassifier("centroid").fit(train, y)
    np.testing.assert_allclose(ours.decision_function(test), cosine, atol=EXACT)


@pytest.mark.parametrize("shape", [(40, 90, 3), (90, 40, 3)])
def test_the_rotation_keeps_every_inner_product(shape):
    X, _ = cloud(*shape)
    rotation = principal_axes(X)
    Z = StandardScaler().fit_transform(X)
    np.testing.assert_allclose(rotation.train @ rotation.train.T, Z @ Z.T, atol=EXACT)
    np.testing.assert_allclose(rotation.project(X), rotation.train, atol=EXACT)
    np.testing.assert_allclose(rotation.unproject(rotation.train), Z, atol=EXACT)


def test_axes_are_the_principal_components_in_order():
    from sklearn.decomposition import PCA

    X, _ = cloud(40, 90, 3)
    theirs = PCA(5).fit_transform(StandardScaler().fit_transform(X))
    ours = principal_axes(X).train[:, :5]
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=EXACT)


def test_one_decomposition_gives_each_penalty_what_it_gets_alone():
    X, y = cloud(50, 120, 3)
    rotation = principal_axes(X)
    for path, values in ((ridge_path, PENALTIES["ridge"]), (lda_path, PENALTIES["lda"])):
        first = rotation.train if path is ridge_path else rotation
        for value, (weights, intercept) in zip(values, path(first, y, 3, values), strict=True):
            alone = path(first, y, 3, [value])[0]
            np.testing.assert_array_equal(weights, alone[0])
            np.testing.assert_array_equal(intercept, alone[1])


def test_lda_with_one_segment_per_class_stays_finite():
    X, _ = cloud(4, 10, 4)
    scores = SpeakerClassifier("lda", 0.5).fit(X, np.arange(4)).decision_function(X)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores.argmax(axis=1), np.arange(4))


@pytest.mark.parametrize("rows", [[0.0, 2.0], [2.0, 0.0], [0.1, 0.7], [0.7, 0.1], [-3.0, 1e-9]])
def test_the_first_of_equal_entries_is_positive_whichever_rounding_made_larger(rows):
    X = np.array([[value, 1.0] for value in rows])
    np.testing.assert_allclose(principal_axes(X).train, [[1], [-1]], atol=1e-12)


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [0, 0, 1, 2, 3]])
def test_lda_of_few_segments_has_the_features_own_spread(rows):
    """One pseudo-observation of it, and n - K rows that vary freely: by NumPy's solver."""
    codes = np.array(rows)
    X, _ = cloud(len(codes), 10, 4)
    Z = StandardScaler().fit_transform(X)
    means = np.stack([Z[codes == k].mean(axis=0) for k in range(4)])
    within, freedom = (Z - means[codes]).T @ (Z - means[codes]), len(codes) - 4 + 1
    spread = (np.trace(within) + Z.var(axis=0).sum()) / freedom / 10
    weights = np.linalg.solve(0.7 * within / freedom + 0.3 * spread * np.eye(10), means.T)
    prior = np.log(np.bincount(codes) / len(codes))
    expected = Z @ weights - 0.5 * np.einsum("dk,kd->k", weights, means) + prior
    scores = SpeakerClassifier("lda", 0.3).fit(X, codes).decision_function(X)
    np.testing.assert_allclose(scores, expected, atol=EXACT)
    assert 1 < np.abs(scores).max() < 1000
