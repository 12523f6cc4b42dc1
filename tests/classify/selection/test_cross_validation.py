import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spk.classify.classifiers import fold_sums
from spk.classify.classifiers.fold_sums import GramSums
from spk.classify.classifiers.linear import unit
from spk.classify.selection.cross_validation import cross_validate
from spk.common.errors import InputError

EXACT = 1e-6  # two float64 solutions of one linear system; scores are of the order of 1
ITERATIVE = 2e-3  # lbfgs stops at a tolerance, not at the optimum
FOLDS = 4
PENALTIES = {"ridge": (0.1, 10.0, 1e4), "lda": (0.01, 0.3, 0.9, 1.0)}
# n learnt < d, n learnt > d, few of many classes, two classes; the corpus task and a session's
SHAPES = [(60, 90, 4), (300, 40, 4), (200, 20, 30), (200, 20, 2), (50, 200, 2)]


def cloud(rows, dim, classes, seed=0):
    """Return X, y: unbalanced classes that overlap, of uneven scale, feature 3 constant."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(classes, 2.0)) + 0.5 / classes
    y = np.concatenate(
        [np.arange(classes), rng.choice(classes, rows - classes, p=share / sum(share))]
    )
    X = rng.normal(size=(rows, dim)) + 0.6 * rng.normal(size=(classes, dim))[y]
    X = X * rng.uniform(0.1, 20, size=dim) + 5 * rng.normal(size=dim)
    X[:, 3] = 0.1
    return X.astype(np.float32), y


def blocks(rows, folds=FOLDS, gap=1):
    """Return cuts into blocks of rows; `gap` rows beside a block are not learnt."""
    cuts = []
    for held in np.array_split(np.arange(rows), folds):
        near = np.arange(held[0] - gap, held[-1] + gap + 1)
        cuts.append((np.setdiff1d(np.arange(rows), near), held))
    return cuts


def pipeline(name, penalty):
    """Return a function that fits what a user would write."""

    def fit(X, y):
        model = {
            "ridge": lambda: RidgeClassifier(alpha=penalty),
            "lda": lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage=penalty),
            "logistic": lambda: LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=5000),
        }[name]()
        return make_pipeline(StandardScaler(), model).fit(X, y)

    return fit


def fold_by_fold(X, y, classes, cuts, fit):
    """Return scikit-learn's scores and predictions of each held-out row, -inf: class not learnt."""
    scores, names = np.full((len(X), classes), -np.inf), np.full(len(X), -1)
    for learnt, held in cuts:
        model = fit(X[learnt].astype(np.float64), y[learnt])
        found = model.decision_function(X[held].astype(np.float64))
        if found.ndim == 1:  # two classes: one column for the second
            found = np.stack([-found, found], axis=1) / (1 if "ridge" in str(model).lower() else 2)
        scores[np.ix_(held, model.classes_)] = found
        names[held] = model.predict(X[held].astype(np.float64))
    return scores, names


def assert_same(ours, scores, names, tolerance=EXACT):
    if scores.shape[1] == 2:  # of two classes only the difference tells
        ours, scores = (np.diff(block, axis=1) for block in (ours, scores))
        np.testing.assert_array_equal(ours[:, 0] > 0, names == 1)
    else:
        np.testing.assert_array_equal(ours.argmax(axis=1), names)
    np.testing.assert_allclose(ours, scores, rtol=tolerance, atol=tolerance)


@pytest.mark.filterwarnings("ignore:Only one sample:UserWarning")  # scikit-learn's, class of one
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["ridge", "lda"])
def test_folds_equal_a_pipeline_fitted_fold_by_fold(shape, name):
    X, y = cloud(*shape)
    cuts = blocks(len(X))
    found, _ = cross_validate(X, y, shape[2], cuts, {name: PENALTIES[name]})
    for penalty, ours in zip(PENALTIES[name], found[name], strict=True):
        assert_same(ours, *fold_by_fold(X, y, shape[2], cuts, pipeline(name, penalty)))


@pytest.mark.parametrize("shape", [(60, 90, 4), (300, 40, 4)])
@pytest.mark.parametrize("name", ["ridge", "lda"])
def test_a_fold_without_a_class_does_not_name_it(shape, name):
    X, y = cloud(*shape)
    y = np.where(np.arange(len(y)) < len(y) // FOLDS, y, y % 3)  # class 3 in the first block only
    cuts = blocks(len(X))
    found, _ = cross_validate(X, y, 4, cuts, {name: PENALTIES[name]})
    first = cuts[0][1]
    assert (y[first] == 3).any()
    for penalty, ours in zip(PENALTIES[name], found[name], strict=True):
        assert np.isneginf(ours[first, 3]).all()
        assert_same(ours, *fold_by_fold(X, y, 4, cuts, pipeline(name, penalty)))


@pytest.mark.parametrize("wild", [0.0, 1e-5], ids=["constant", "nearly constant"])
@pytest.mark.parametrize("name", ["ridge", "lda"])
def test_a_feature_that_varies_in_one_block_only_is_exact_all_the_same(name, wild):
    X, y = cloud(300, 40, 4)
    late = np.arange(300) >= 75
    X[late, 7] = 2.0 + wild * np.random.default_rng(1).normal(size=late.sum())
    cuts = blocks(300)
    sums = GramSums(X, y, 4, cuts).fold_sums(0)
    assert (sums is None) == (wild > 0)  # then the rows themselves are fitted
    found, _ = cross_validate(X, y, 4, cuts, {name: PENALTIES[name]})
    for penalty, ours in zip(PENALTIES[name], found[name], strict=True):
        assert_same(ours, *fold_by_fold(X, y, 4, cuts, pipeline(name, penalty)))


@pytest.mark.parametrize("most", [1e9, 0], ids=["kept", "taken twice"])
def test_rows_that_are_never_held_out_or_purged_are_summed_rightly(monkeypatch, most):
    monkeypatch.setattr(fold_sums, "MOST_BYTES", most)
    X, y = cloud(300, 40, 4)
    cuts = [(np.r_[:80, 130:300], np.arange(90, 120)), (np.r_[:200, 260:300], np.arange(200, 250))]
    total = GramSums(X, y, 4, cuts)
    for number, (learnt, _) in enumerate(cuts):
        rows = X[learnt].astype(np.float64)
        sums, Z = total.fold_sums(number), StandardScaler().fit_transform(rows)
        np.testing.assert_allclose(sums.gram, Z.T @ Z, atol=EXACT)
        np.testing.assert_allclose(sums.sums[2], Z[y[learnt] == 2].sum(axis=0), atol=EXACT)
        np.testing.assert_allclose(sums.standardise(X[learnt]), Z, atol=EXACT)
        np.testing.assert_array_equal(sums.counts, np.bincount(y[learnt]))


def test_lda_with_hardly_any_spread_within_classes_is_exact_all_the_same():
    X, y = cloud(300, 10, 4)
    X = X[:4][y].astype(np.float64) + 1e-6 * X
    cuts = blocks(300)
    found, _ = cross_validate(X, y, 4, cuts, {"lda": (0.5,)})
    scores, names = fold_by_fold(X, y, 4, cuts, pipeline("lda", 0.5))
    np.testing.assert_array_equal(found["lda"][0].argmax(axis=1), names)
    np.testing.assert_allclose(found["lda"][0], scores, rtol=EXACT)


def test_scores_stand_in_the_order_of_rows_whichever_fold_held_them_out():
    X, y = cloud(300, 40, 4)
    parts = np.array_split(np.random.default_rng(3).permutation(300), FOLDS)
    cuts = [(np.setdiff1d(np.arange(300), part), part) for part in parts]
    found, _ = cross_validate(X, y, 4, cuts, {"ridge": (10.0,)})
    assert_same(found["ridge"][0], *fold_by_fold(X, y, 4, cuts, pipeline("ridge", 10.0)))


@pytest.mark.parametrize("shape", [(60, 90, 3), (300, 40, 3)])
def test_logistic_regression_and_centroid_are_cross_validated_too(shape):
    X, y = cloud(*shape)
    cuts, paths = blocks(len(X)), {"logistic": (10.0, 1e3), "centroid": (None,)}
    found, notes = cross_validate(X, y, 3, cuts, paths)
    for penalty, ours in zip((10.0, 1e3), found["logistic"], strict=True):
        theirs, names = fold_by_fold(X, y, 3, cuts, pipeline("logistic", penalty))
        np.testing.assert_array_equal(ours.argmax(axis=1), names)
        np.testing.assert_allclose(ours - ours.mean(1, keepdims=True), theirs, atol=ITERATIVE)
    assert notes == {"logistic": ["", ""], "centroid": [""]}
    for learnt, held in cuts:
        scaler = StandardScaler().fit(X[learnt].astype(np.float64))
        Z, rows = (scaler.transform(X[part].astype(np.float64)) for part in (learnt, held))
        means = np.stack([Z[y[learnt] == k].mean(axis=0) for k in range(3)])
        np.testing.assert_allclose(
            found["centroid"][0][held], unit(rows) @ unit(means).T, atol=EXACT
        )


def test_all_classifiers_together_score_as_each_alone():
    X, y = cloud(300, 40, 4)
    paths = {**PENALTIES, "centroid": (None,), "linear-svm": (1e3,)}
    together, _ = cross_validate(X, y, 4, blocks(300), paths)
    for name, path in paths.items():
        alone, _ = cross_validate(X, y, 4, blocks(300), {name: path})
        for one, other in zip(together[name], alone[name], strict=True):
            np.testing.assert_allclose(one, other, atol=EXACT)


def test_a_row_that_no_fold_holds_out_has_no_score():
    X, y = cloud(60, 10, 3)
    cuts = blocks(60)[1:]
    found, _ = cross_validate(X, y, 3, cuts, {"ridge": (1.0,)})
    assert found["ridge"][0].shape == (45, 3)


def test_a_fold_that_learns_one_class_names_it():
    X, y = cloud(60, 90, 2)
    y = (np.arange(60) < 15).astype(int)
    found, _ = cross_validate(X, y, 2, blocks(60, gap=0), {"logistic": (1.0,), "ridge": (1.0,)})
    for name in ("logistic", "ridge"):
        assert (found[name][0][:15].argmax(axis=1) == 0).all()


def test_trees_have_nothing_to_stop_by():
    X, y = cloud(60, 10, 3)
    with pytest.raises(InputError, match="0 validation segments are given"):
        cross_validate(X, y, 3, blocks(60), {"lightgbm": (None,)})
