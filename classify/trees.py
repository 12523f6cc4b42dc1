"""LightGBM's model text, checked before LightGBM reads it.

LightGBM trusts the text: one damaged line ends the whole process, and a node that points outside
its tree reads foreign memory. So only a text as `classifiers` writes it passes: a header, trees of
numerical splits whose nodes point forward, and ``end of trees``.
"""

from __future__ import annotations

import math
import re

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
        raise ValueError(f"trees: header is not for {classes} classes and {axes} features")
    sizes = _whole(header["tree_sizes"])
    for number, size in enumerate(sizes):
        block, name = text[start : start + size], f"Tree={number}\n"
        if not block.startswith(name):
            raise ValueError(f"trees: tree {number} does not stand where the header says")
        _check_tree(_pairs(block.removeprefix(name), NODES | LEAVES | SINGLE), features)
        start += size
    if len(sizes) % classes or text[start:].lstrip("\n") != END:
        raise ValueError("trees: the last tree is not the end")


def _pairs(text: str, keys: set[str]) -> dict[str, str]:
    lines = [line.partition("=") for line in text.split("\n") if line]
    found = {key: value for key, _, value in lines}
    if len(lines) > len(found) or found.keys() != keys or "=" in "".join(found.values()):
        raise ValueError(f"trees: lines are {[line[0] for line in lines]}, not {sorted(keys)}")
    return found


def _whole(text: str) -> list[int]:
    if not all(WHOLE.fullmatch(number) for number in text.split(" ") if text):
        raise ValueError(f"trees: {text[:40]!r} are not whole numbers")
    return [int(number) for number in text.split(" ") if text]


def _check_tree(tree: dict[str, str], features: int) -> None:
    """Check lengths, numbers, features, and that children lie behind their node."""
    leaves = _whole(tree["num_leaves"])[0]
    for keys, length in ((NODES, leaves - 1), (LEAVES, leaves), (SINGLE, 1)):
        for key in keys:
            numbers = tree[key].split(" ") if tree[key] else []
            valid = all(NUMBER.fullmatch(n) and math.isfinite(float(n)) for n in numbers)
            untold = leaves == 1 and key in ("leaf_weight", "leaf_count") and not numbers
            if not untold and (len(numbers) != length or not valid):
                raise ValueError(f"trees: {key} is not {length} numbers")
    children = [_whole(tree[key]) for key in ("left_child", "right_child")]
    if (
        (tree["num_cat"], tree["is_linear"]) != ("0", "0")
        or not all(0 <= feature < features for feature in _whole(tree["split_feature"]))
        or any(kind & 1 for kind in _whole(tree["decision_type"]))  # a split by category
        or not all(-leaves <= c < leaves - 1 for side in children for c in side)
        or not all(c < 0 or c > node for side in children for node, c in enumerate(side))
    ):
        raise ValueError("trees: a node points outside its tree")
