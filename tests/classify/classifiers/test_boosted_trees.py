import re

import numpy as np
import pytest

from spk.classify.classifiers.boosted_trees import check_trees
from spk.classify.classifiers.fitted import TrainingSet
from spk.classify.classifiers.linear import principal_axes
from spk.classify.classifiers.registry import fit_path

CLASSES = 3


@pytest.fixture(scope="module")
def text():
    rng = np.random.default_rng(0)
    codes = np.arange(90) % CLASSES
    X = rng.normal(size=(90, 8)) + codes[:, None]
    rotation = principal_axes(X)
    (head,) = fit_path(
        "lightgbm",
        TrainingSet(rotation, codes, CLASSES, rotation.project(X[::2]), codes[::2]),
        [None],
    )
    return head.booster


def edit(text, pattern, replacement):
    """Change the first place, and keep the header's sizes of the trees right."""
    changed = re.sub(pattern, replacement, text, count=1)
    assert changed != text
    trees = re.split(r"(?=^Tree=)", changed.removesuffix("end of trees\n"), flags=re.M)[1:]
    sizes = " ".join(str(len(tree.rstrip("\n")) + 3) for tree in trees)
    return re.sub(r"tree_sizes=[0-9 ]*", f"tree_sizes={sizes}", changed)


def test_what_lightgbm_wrote_passes(text):
    check_trees(text, CLASSES, 8)
    check_trees(edit(text, r"leaf_value=\S+", "leaf_value=0.5"), CLASSES, 8)


def test_one_leaf_passes():
    rotation = principal_axes(np.arange(12.0)[:, None])  # too few rows for a split
    fold = TrainingSet(rotation, np.arange(12) % 3, 3, rotation.train, np.arange(12) % 3)
    check_trees(fit_path("lightgbm", fold, [None])[0].booster, 3, 1)


@pytest.mark.parametrize(
    ("pattern", "replacement", "expected"),
    [
        (r"split_feature=\d+", "split_feature=8", "outside its tree"),
        (r"split_feature=\d+", "split_feature=-1", "outside its tree"),
        (r"left_child=-?\d+", "left_child=99999", "outside its tree"),
        (r"right_child=-?\d+", "right_child=-99999", "outside its tree"),
        (r"left_child=-?\d+", "left_child=0", "outside its tree"),  # a circle
        (r"decision_type=2", "decision_type=1", "outside its tree"),
        (r"num_cat=0", "num_cat=1", "outside its tree"),
        (r"is_linear=0", "is_linear=1", "outside its tree"),
        (r"num_leaves=\d+", "num_leaves=999", "is not 99[89] numbers"),
        (r"threshold=\S+", "threshold=nan", "threshold is not"),
        (r"leaf_value=\S+", "leaf_value=1_0", "leaf_value is not"),
        (r"shrinkage=", "cat_threshold=1\nshrinkage=", "lines are"),
        (r"feature_infos=", "feature_infos==", "lines are"),
        (r"Tree=1\n", "Tree=7\n", "does not start where"),
        (r"num_class=3", "num_class=2", "header is not for 3 classes"),
        (r"max_feature_idx=7", "max_feature_idx=70", "header is not for 3 classes"),
        (r"threshold=(\S+) ", r"threshold=\1\t", "threshold is not"),
    ],
)
def test_a_damaged_line_is_refused(text, pattern, replacement, expected):
    with pytest.raises(ValueError, match=expected):
        check_trees(edit(text, pattern, replacement), CLASSES, 8)


def test_nothing_follows_the_trees(text):
    with pytest.raises(ValueError, match="the last tree is not the end"):
        check_trees(text + "parameters:\n", CLASSES, 8)


@pytest.mark.parametrize("damage", ["", "tree\n", "Tree=0\n"])
def test_what_is_no_model_text_is_refused(damage):
    with pytest.raises(ValueError, match="no tree is found"):
        check_trees(damage, CLASSES, 8)


def test_a_text_of_another_number_of_classes_or_features_is_refused(text):
    with pytest.raises(ValueError, match="header is not for 4 classes"):
        check_trees(text, 4, 8)
    with pytest.raises(ValueError, match="and 7 features"):
        check_trees(text, CLASSES, 7)
