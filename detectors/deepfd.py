"""DeepFD: which faults do a table of neighbours, a decision tree or a random forest see in the statistics of a run?"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bugbench.detector import HEALTHY, Detector, Diagnosis, Label, NotApplicable, Suspect, Trace
from bugbench.plain_trees import forest_shares, plain_forest, plain_tree, tree_shares
from bugbench.run_statistics import monitor_statistics, table

FARTHEST = 1e6  # ranges from what was learned, beyond which all is equally far


@dataclass
class Deepfd(Detector):
    """Three classifiers say yes or no to each fault, on statistics of a run (DeepFD, Cao et al., ICSE 2022). It learns.

    Ported from ArabelaTso/DeepFD; its statistics are :func:`bugbench.run_statistics.monitor_statistics`. As in
    ``MultiLabelClassifier.py``: what is not finite is 0, each statistic is scaled to its range, a class is cut down at
    random to 50 runs (or to the smallest fault's, if that has more); the classifiers are 5 nearest neighbours (as many
    as DeepFD has faults), a tree of depth 5, and 32 trees of depth 10 on 60 features each, of 148 there and 172 here.
    Each says yes to a fault that more than half of its neighbours have, of its leaf, or of its leaves in the mean.

    The diagnosis is the union: what any of the three says yes to (README.md, "Fault Diagnosis"; ``analysis_utils.py``:
    cal_metrics_voting). Those named more often come first, then those with the larger mean share.

    Changed: the faults are all that harm another workload, not five. Statistics are scaled by the range that was
    learned, DeepFD's by that of the runs to be diagnosed. ``predictClassifier.py`` adds up the yeses of nine runs and
    takes 0 (optimizer), 2 (learning rate), 3 (activation), 6 (loss) and 5 (epochs) off them, by hand, against a bias of
    its training; here one run is diagnosed, and a yes is a yes.
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
        return monitor_statistics(trace)

    def fit(self, examples: Sequence[tuple[Any, Label]]) -> dict[str, Any]:
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.tree import DecisionTreeClassifier

        faults = np.array([label.fault for _, label in examples])
        classes, counts = np.unique(faults, return_counts=True)
        if len(classes) < 2:
            raise NotApplicable(f"all {len(faults)} runs of other workloads are {classes[0]}: nothing to tell apart")
        labels = classes[classes != "none"]
        most = max(self.most, counts[classes != "none"].min())
        generator = np.random.default_rng(self.seed)
        kept = np.sort(np.concatenate([generator.permutation(np.flatnonzero(faults == c))[:most] for c in classes]))
        answers = (faults[kept][:, None] == labels).astype(int)
        names = sorted({name for run, _ in examples for name in run})
        raw = np.nan_to_num(table([examples[i][0] for i in kept], names))
        low, high = raw.min(axis=0), raw.max(axis=0)
        rows = _scaled(raw, low, high)
        tree = DecisionTreeClassifier(criterion="gini", max_depth=self.depth, random_state=self.seed)
        few = min(self.features, len(names))
        forest = RandomForestClassifier(
            self.trees, max_depth=self.forest_depth, max_features=few, random_state=self.seed
        )
        one = answers if len(labels) > 1 else answers[:, 0]  # what scikit-learn asks for where there is one fault
        return {
            **{"labels": labels.tolist(), "names": names, "low": low.tolist(), "high": high.tolist()},
            **{"rows": rows.tolist(), "answers": answers.tolist()},
            "tree": plain_tree(tree.fit(rows, one), labels=True),
            "forest": plain_forest(forest.fit(rows, one), labels=True),
        }

    def diagnose(self, trace: Trace) -> Diagnosis:
        model, labels = self.model, self.model["labels"]
        raw = np.nan_to_num(table([self.extract(trace)], model["names"]))
        row = _scaled(raw, np.array(model["low"]), np.array(model["high"]))[0]
        distance = np.linalg.norm(np.array(model["rows"]) - row, axis=1)
        nearest = np.argsort(distance, kind="stable")[: self.neighbors]
        shares = {
            "neighbours": np.array(model["answers"])[nearest].mean(axis=0),
            "tree": tree_shares(model["tree"], row, len(labels)),
            "forest": forest_shares(model["forest"], row, len(labels)),
        }
        yes = {name: [labels[i] for i in np.flatnonzero(share > 0.5)] for name, share in shares.items()}
        votes = Counter(fault for found in yes.values() for fault in found)
        if not votes:
            return HEALTHY
        mean = dict(zip(labels, np.mean(list(shares.values()), axis=0), strict=True))
        ranked = sorted(votes, key=lambda fault: (-votes[fault], -mean[fault], fault))
        said = ", ".join(f"{name}: {' and '.join(found) or 'none'}" for name, found in yes.items())
        seen = f"of {len(model['rows'])} runs of other workloads the most alike are ({said})"
        return Diagnosis(Suspect(fault, min(float(mean[fault]), 1.0), seen) for fault in ranked)


def _scaled(raw: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return columns scaled to the range that was learned, to four digits; one that had a single value there is 0."""
    width = np.where(high > low, high - low, np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (raw - low) / width
    return np.round(np.clip(np.nan_to_num(scaled), -FARTHEST, FARTHEST), 4)
