"""DeepFD: do a table of neighbours, a decision tree and a random forest agree on what the statistics of a run mean?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bugbench.detector import HEALTHY, Detector, Diagnosis, Label, NotApplicable, Suspect, Trace
from bugbench.plain_trees import forest_shares, plain_forest, plain_tree, tree_shares
from bugbench.run_statistics import run_statistics, table

FARTHEST = 1e6  # ranges from what was learned, beyond which all is equally far


@dataclass
class Deepfd(Detector):
    """Three classifiers on eight statistics of each series of a run vote (DeepFD, Cao et al., ICSE 2022). It learns.

    Mean, standard deviation, skewness, median, variance, standard error, maximum and minimum of losses, accuracies,
    gradients, weights and dead ReLUs (:mod:`bugbench.run_statistics`). As in ``MultiLabelClassifier.py``: what is not
    finite is 0, each statistic is scaled to its range, a class is cut down at random to 50 runs; the classifiers are 5
    nearest neighbours (as many as DeepFD has faults), a tree of depth 5, and 32 trees of depth 10 on 60 features each.

    Changed: DeepFD knows five faults and gives a yes or no to each, here the classes are "healthy" and every fault that
    harms another workload; statistics are scaled by the range that was learned, since one run has none; one run is
    diagnosed and not the sum of nine. A run is faulty where two of the three say so, as the paper has it (its
    ``analysis_utils.py`` takes the union), and the suspects are the faults that they name, most votes first. Its subset
    of 60 features is of about 200 here.
    """

    access = {"tensors"}
    origin = "published"
    neighbors: int = 5
    depth: int = 5
    trees: int = 32
    forest_depth: int = 10
    features: int = 60  # that a tree of the forest chooses from at each node
    most: int = 50  # runs of a class that are learned from
    seed: int = 0

    def extract(self, trace: Trace) -> dict[str, float | None]:
        if trace.train_steps().empty:
            raise NotApplicable("no training step was recorded")
        return run_statistics(trace)

    def fit(self, examples: Sequence[tuple[Any, Label]]) -> dict[str, Any]:
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.tree import DecisionTreeClassifier

        faults = np.array([label.fault for _, label in examples])
        generator = np.random.default_rng(self.seed)
        chosen = [generator.permutation(np.flatnonzero(faults == f))[: self.most] for f in np.unique(faults)]
        kept = np.sort(np.concatenate(chosen))
        classes, target = np.unique(faults[kept], return_inverse=True)
        if len(classes) < 2:
            raise NotApplicable(f"all {len(kept)} runs of other workloads are {classes[0]}: nothing to tell apart")
        names = sorted({name for run, _ in examples for name in run})
        raw = np.nan_to_num(table([examples[i][0] for i in kept], names))
        low, high = raw.min(axis=0), raw.max(axis=0)
        rows = _scaled(raw, low, high)
        tree = DecisionTreeClassifier(criterion="gini", max_depth=self.depth, random_state=self.seed)
        few = min(self.features, len(names))
        forest = RandomForestClassifier(
            self.trees, max_depth=self.forest_depth, max_features=few, random_state=self.seed
        )
        return {
            **{"classes": classes.tolist(), "names": names, "low": low.tolist(), "high": high.tolist()},
            **{"rows": rows.tolist(), "target": target.tolist()},
            "tree": plain_tree(tree.fit(rows, target)),
            "forest": plain_forest(forest.fit(rows, target)),
        }

    def diagnose(self, trace: Trace) -> Diagnosis:
        model, classes = self.model, self.model["classes"]
        raw = np.nan_to_num(table([self.extract(trace)], model["names"]))
        row = _scaled(raw, np.array(model["low"]), np.array(model["high"]))[0]
        distance = np.linalg.norm(np.array(model["rows"]) - row, axis=1)
        nearest = np.array(model["target"])[np.argsort(distance, kind="stable")[: self.neighbors]]
        shares = {
            "neighbours": np.bincount(nearest, minlength=len(classes)) / len(nearest),
            "tree": tree_shares(model["tree"], row, len(classes)),
            "forest": forest_shares(model["forest"], row, len(classes)),
        }
        votes = {name: classes[int(share.argmax())] for name, share in shares.items()}
        named = [fault for fault in votes.values() if fault != "none"]
        if len(named) < 2:
            return HEALTHY
        mean = dict(zip(classes, np.mean(list(shares.values()), axis=0), strict=True))
        ranked = sorted(set(named), key=lambda fault: (-named.count(fault), -mean[fault], fault))
        said = ", ".join(f"{name}: {fault}" for name, fault in votes.items())
        seen = f"of {len(model['rows'])} runs of other workloads the most alike are ({said})"
        return Diagnosis(Suspect(fault, min(float(mean[fault]), 1.0), seen) for fault in ranked)


def _scaled(raw: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return columns scaled to the range that was learned, to four digits; one that had a single value there is 0."""
    width = np.where(high > low, high - low, np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (raw - low) / width
    return np.round(np.clip(np.nan_to_num(scaled), -FARTHEST, FARTHEST), 4)
