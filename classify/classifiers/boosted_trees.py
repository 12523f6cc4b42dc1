"""Gradient-boosted trees on principal components, and validation of LightGBM's model text.

LightGBM does not validate the text it loads: a damaged line aborts the process, and a node that
points outside its tree reads out of bounds. `check_trees` therefore accepts only the form written
here: a header, trees of numerical splits whose children come after their parent, and
``end of trees``.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.counts import counted
from ...common.errors import InputError
from .fitted import TREE_AXES, AxisWeights, TrainingSet

if TYPE_CHECKING:
    import lightgbm

END = "end of trees\n"
HEADER = {"version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx"}
HEADER |= {"objective", "feature_names", "feature_infos", "tree_sizes"}
NODES = {"split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child"}
NODES |= {"internal_value", "internal_weight", "internal_count"}
LEAVES = {"leaf_value", "leaf_weight", "leaf_count"}
SINGLE = {"num_leaves", "num_cat", "is_linear", "shrinkage"}
NUMBER = re.compile(r"[-+0-9.e]+")
WHOLE = re.compile(r"-?[0-9]{1,9}")


def check_trees(text: str, classes: int, axes: int) -> None:
    """Raise `ValueError` unless `text` holds trees for `classes` on at most `axes` features."""
    start = text.find("\nTree=0\n") + 1
    if not start or not text.isascii() or "\r" in text:
        raise ValueError("trees: no tree is found")
    header = _pairs(text[:start].removeprefix("tree\n"), HEADER)
    features = _whole(header["max_feature_idx"])[0] + 1
    expected = {
        "num_class": str(classes),
        "num_tree_per_iteration": str(classes),
        "label_index": "0",
        "objective": f"multiclass num_class:{classes}",
    }
    wrong = [key for key, value in expected.items() if header[key] != value]
    counts = {len(header[key].split(" ")) for key in ("feature_names", "feature_infos")}
    if wrong or counts != {features} or not 0 < features <= axes:
        raise ValueError(
            f"trees: header is not for {counted(classes, 'class')} and {counted(axes, 'feature')}"
        )
    sizes = _whole(header["tree_sizes"])
    for number, size in enumerate(sizes):
        block, name = text[start : start + size], f"Tree={number}\n"
        if not block.startswith(name):
            raise ValueError(f"trees: tree {number} does not start where the header says")
        _check_tree(_pairs(block.removeprefix(name), NODES | LEAVES | SINGLE), features)
        start += size
    if len(sizes) % classes or text[start:].lstrip("\n") != END:
        raise ValueError("trees: the last tree is not the end")


def _pairs(text: str, keys: set[str]) -> dict[str, str]:
    lines = [line.partition("=") for line in text.split("\n") if line]
    values = {key: value for key, _, value in lines}
    if len(lines) > len(values) or values.keys() != keys or "=" in "".join(values.values()):
        raise ValueError(f"trees: lines are {[line[0] for line in lines]}, not {sorted(keys)}")
    return values


def _whole(text: str) -> list[int]:
    if not all(WHOLE.fullmatch(number) for number in text.split(" ") if text):
        raise ValueError(f"trees: {text[:40]!r} are not whole numbers")
    return [int(number) for number in text.split(" ") if text]


def _check_tree(tree: dict[str, str], features: int) -> None:
    """Check lengths, numbers and features, and that children come after their parent."""
    leaves = _whole(tree["num_leaves"])[0]
    for keys, length in ((NODES, leaves - 1), (LEAVES, leaves), (SINGLE, 1)):
        for key in keys:
            numbers = tree[key].split(" ") if tree[key] else []
            valid = all(NUMBER.fullmatch(n) and math.isfinite(float(n)) for n in numbers)
            untold = leaves == 1 and key in ("leaf_weight", "leaf_count") and not numbers
            if not untold and (len(numbers) != length or not valid):
                raise ValueError(f"trees: {key} is not {counted(length, 'number')}")
    children = [_whole(tree[key]) for key in ("left_child", "right_child")]
    if (
        (tree["num_cat"], tree["is_linear"]) != ("0", "0")
        or not all(0 <= feature < features for feature in _whole(tree["split_feature"]))
        or any(kind & 1 for kind in _whole(tree["decision_type"]))  # a split by category
        or not all(-leaves <= c < leaves - 1 for side in children for c in side)
        or not all(c < 0 or c > node for side in children for node, c in enumerate(side))
    ):
        raise ValueError("trees: a node points outside its tree")


TREE_ROUNDS = 300  # at most; each grows one tree per class
TREE_PATIENCE = 20  # rounds without a better validation log-loss


def _trees(fold: TrainingSet) -> AxisWeights:
    """Grow trees on the first principal components until validation log-loss stops falling."""
    import lightgbm

    if not fold.rounds and (fold.valid_codes is None or not np.any(fold.valid_codes >= 0)):
        raise InputError(
            "lightgbm: 0 validation segments are given, expected at least 1 for early stopping; "
            "leave lightgbm out of --classifiers"
        )
    if not fold.rotation.train.shape[1]:  # all rows are equal, which LightGBM does not accept
        note = "lightgbm has nothing to split by, since all training rows are the same"
        return AxisWeights("linear", np.zeros((fold.classes, 0)), np.zeros(fold.classes), note=note)
    axes = min(TREE_AXES, fold.rotation.train.shape[1])
    train = lightgbm.Dataset(fold.rotation.train[:, :axes], fold.codes)
    steered = {} if fold.rounds else _early_stopping(fold, train, axes)
    rounds = fold.rounds or TREE_ROUNDS
    model = lightgbm.train(_tree_settings(fold), train, num_boost_round=rounds, **steered)
    text = model.model_to_string(num_iteration=model.best_iteration)
    text = text[: text.index(END)] + END  # without LightGBM's own settings
    return AxisWeights("trees", np.zeros((0, 0)), np.zeros(fold.classes), booster=text)


def _early_stopping(fold: TrainingSet, train: lightgbm.Dataset, axes: int) -> dict[str, Any]:
    """Return the arguments that stop LightGBM once validation log-loss no longer falls."""
    import lightgbm

    if fold.valid is None or fold.valid_codes is None:
        return {}
    labelled = fold.valid_codes >= 0
    valid = lightgbm.Dataset(
        fold.valid[labelled, :axes], fold.valid_codes[labelled], reference=train
    )
    stop = lightgbm.early_stopping(TREE_PATIENCE, verbose=False)
    return {"valid_sets": [valid], "callbacks": [stop]}


def count_rounds(text: str, classes: int) -> int:
    """Return the number of boosting rounds in a model's text; each is one tree per class."""
    return text.count("\nTree=") // classes


def _tree_settings(fold: TrainingSet) -> dict[str, object]:
    return {
        "objective": "multiclass",
        "num_class": fold.classes,
        "learning_rate": 0.1,
        "num_leaves": 15,
        "min_data_in_leaf": 5,  # a meeting gives a speaker some fifty segments
        "max_bin": 63,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "seed": fold.seed,
        "verbosity": -1,
    }
