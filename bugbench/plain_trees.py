"""Decision trees and forests as plain lists, so that a model is JSON: made of scikit-learn's, evaluated with numpy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DIGITS = 4  # of a share in a leaf


def plain_tree(fitted: Any, labels: bool = False) -> dict[str, Any]:
    """Return a fitted ``DecisionTreeClassifier``: per node a feature, a threshold and two children, or a leaf's shares.

    In a leaf ``left`` is -1, and its shares are [class, share] of all classes that it holds. With ``labels``, of a tree
    that answers no (0) or yes (1) to each of several, they are [label, share of yes].
    """
    tree = fitted.tree_
    counts = tree.value[:, :, 1] if labels else tree.value[:, 0, :]  # nodes, outputs, classes
    shares = counts / tree.value.sum(axis=2)
    leaf = tree.children_left < 0
    return {
        "feature": np.where(leaf, -1, tree.feature).tolist(),
        "threshold": [None if end else float(number) for end, number in zip(leaf, tree.threshold, strict=True)],
        "left": tree.children_left.tolist(),
        "right": tree.children_right.tolist(),
        "shares": [
            [[int(c), round(float(row[c]), DIGITS)] for c in np.flatnonzero(row)] if end else None
            for end, row in zip(leaf, shares, strict=True)
        ],
    }


def plain_forest(fitted: Any, labels: bool = False) -> list[dict[str, Any]]:
    """Return the trees of a fitted ``RandomForestClassifier``."""
    return [plain_tree(tree, labels) for tree in fitted.estimators_]


def tree_shares(tree: Mapping[str, Any], row: np.ndarray, classes: int) -> np.ndarray:
    """Return the shares of the classes, or labels, in the leaf that ``row`` falls into."""
    row = row.astype(np.float32).astype(np.float64)  # scikit-learn rounds the numbers, but not the thresholds
    node = 0
    while tree["left"][node] >= 0:
        node = tree["left" if row[tree["feature"][node]] <= tree["threshold"][node] else "right"][node]
    shares = np.zeros(classes)
    for number, share in tree["shares"][node]:
        shares[number] = share
    return shares


def forest_shares(forest: Sequence[Mapping[str, Any]], row: np.ndarray, classes: int) -> np.ndarray:
    """Return the mean of the trees' shares."""
    return np.mean([tree_shares(tree, row, classes) for tree in forest], axis=0)
