"""After DEFault: is the run faulty, in which family, by which fault? A forest for each question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bugbench.detector import HEALTHY, Detector, Diagnosis, Label, NotApplicable, Suspect, Trace
from bugbench.plain_trees import forest_shares, plain_forest
from bugbench.run_statistics import run_statistics, table

LARGEST = float(np.finfo(np.float32).max)  # that scikit-learn's forests take: runs that explode go beyond


@dataclass
class DefaultTree(Detector):
    """Is it faulty? Of which family? By which fault? Forests on statistics of the run (after DEFault). It learns.

    In the spirit of DEFault (Jahan et al., ICSE 2025), which asks in three levels too. As in ``Fault_Detection.py``,
    the ``Fault_Diagnosis_*.py`` beside it and ``default_tool/trainer.py``, each question has runs of its own to learn
    from: missing numbers become their mean, each statistic is clipped to its first and 99th percentile, and a first
    forest of 100 trees without limits chooses the 20 statistics that matter most to this question. Classes are balanced
    by weight, as in its tool. The size of the second forest is of ``Fault_Detection.py``'s search grid (50 trees, depth
    10, 4 runs in a leaf), fixed for once.

    Changed: the statistics are those of :func:`bugbench.run_statistics.run_statistics`, a row for a run, where DEFault
    has one for each epoch and takes the mean of what it says to them; what it measures of the machine (CPU, GPU and
    memory in use) is no part of a trace. One forest tells the families apart, and the likeliest is taken, where DEFault
    has a forest for each of seven categories, which it holds against healthy runs, and names all above a threshold. Its
    third level explains a layer by static features of a Keras model; here it names the fault, among those of the
    family, from the same statistics. The threshold is one half, where its tool tunes one. Statistics are not scaled to
    unit variance, which forests do not feel.
    """

    access = {"tensors"}
    origin = "published"
    first_trees: int = 100
    kept: int = 20  # statistics
    trees: int = 50
    depth: int = 10
    leaf: int = 4  # runs, at least
    seed: int = 42
    threshold: float = 0.5
    most: int = 3  # suspects

    def extract(self, trace: Trace) -> dict[str, float | None]:
        if trace.train_steps().empty:
            raise NotApplicable("no training step was recorded")
        return run_statistics(trace)

    def fit(self, examples: Sequence[tuple[Any, Label]]) -> dict[str, Any]:
        names = sorted({name for run, _ in examples for name in run})
        raw = table([run for run, _ in examples], names)
        faulty = np.array([not label.control for _, label in examples])
        if faulty.all() or not faulty.any():
            raise NotApplicable(f"all {len(raw)} runs of other workloads are {'faulty' if faulty[0] else 'healthy'}")
        families = np.array([label.family for _, label in examples])
        faults = np.array([label.fault for _, label in examples])
        each = {family: families == family for family in np.unique(families[faulty])}
        return {
            "runs": len(raw),
            "faulty": self._level(raw, names, np.where(faulty, "faulty", "healthy")),
            "family": self._level(raw[faulty], names, families[faulty]),
            "fault": {family: self._level(raw[of], names, faults[of]) for family, of in each.items()},
        }

    def diagnose(self, trace: Trace) -> Diagnosis:
        model, run = self.model, self.extract(trace)
        faulty = _answer(model["faulty"], run)["faulty"]
        if faulty < self.threshold:
            return HEALTHY
        families = _answer(model["family"], run)
        family = max(families, key=lambda name: (families[name], name))
        faults = _answer(model["fault"][family], run)
        ranked = sorted(faults, key=lambda name: (-faults[name], name))[: self.most]
        seen = f"{faulty:.0%} faulty by {model['runs']} runs of other workloads, {families[family]:.0%} of the family "
        return Diagnosis(
            Suspect(fault, faulty * families[family] * faults[fault], f"{seen}{family}, {faults[fault]:.0%} {fault}")
            for fault in ranked
            if faults[fault] > 0
        )

    def _level(self, raw: np.ndarray, names: Sequence[str], target: np.ndarray) -> dict[str, Any]:
        """Learn to answer one question: choose its statistics, then grow a forest on them."""
        from sklearn.ensemble import RandomForestClassifier

        raw = np.where(np.isfinite(raw), np.clip(raw, -LARGEST, LARGEST), np.nan)
        known = np.flatnonzero(np.isfinite(raw).any(axis=0))
        mean, (low, high) = np.nanmean(raw[:, known], axis=0), np.nanpercentile(raw[:, known], [1, 99], axis=0)
        rows = _cleaned(raw[:, known], mean, low, high)
        classes, numbers = np.unique(target, return_inverse=True)
        first = RandomForestClassifier(self.first_trees, class_weight="balanced_subsample", random_state=self.seed)
        best = np.argsort(-first.fit(rows, numbers).feature_importances_, kind="stable")[: self.kept]
        forest = RandomForestClassifier(
            self.trees,
            max_depth=self.depth,
            min_samples_leaf=self.leaf,
            class_weight="balanced_subsample",
            random_state=self.seed,
        )
        return {
            **{"classes": classes.tolist(), "names": [names[i] for i in known[best]], "mean": mean[best].tolist()},
            **{"low": low[best].tolist(), "high": high[best].tolist()},
            "forest": plain_forest(forest.fit(rows[:, best], numbers)),
        }


def _cleaned(raw: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.clip(np.where(np.isfinite(raw), raw, mean), low, high)


def _answer(level: Mapping[str, Any], run: Mapping[str, float | None]) -> dict[str, float]:
    """Return how likely each answer is."""
    raw, classes = table([run], level["names"]), level["classes"]
    row = _cleaned(raw, *(np.array(level[name]) for name in ("mean", "low", "high")))[0]
    return dict(zip(classes, map(float, forest_shares(level["forest"], row, len(classes))), strict=True))
