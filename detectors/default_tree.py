"""After DEFault: is the run faulty, in which family, by which fault? A forest for each question."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bugbench.detector import HEALTHY, Detector, Diagnosis, Label, NotApplicable, Suspect, Trace
from bugbench.plain_trees import forest_shares, plain_forest
from bugbench.run_statistics import run_statistics, table


@dataclass
class DefaultTree(Detector):
    """Is it faulty? Of which family? By which fault? Forests on statistics of the run (after DEFault). It learns.

    In the spirit of DEFault (Jahan et al., ICSE 2025), which asks in three levels too. From ``Fault_Detection.py`` and
    ``default_tool/trainer.py``: missing numbers become the mean, each statistic is clipped to its first and 99th
    percentile, a first forest of 100 trees chooses the 20 statistics that matter most, classes are balanced by
    weight, and the size of the forests is of its search grid (50 trees, depth 10, 4 runs in a leaf), fixed for once.

    Changed: the statistics are those of :mod:`bugbench.run_statistics`; what DEFault measures of the machine (CPU, GPU
    and memory in use) is no part of a trace. One forest tells the families apart, where DEFault has one for each of
    seven categories. Its third level explains a layer by static features of a Keras model; here it names the fault,
    among those of the family, from the same statistics. The threshold is one half, where its tool tunes one.
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
        known = np.isfinite(raw).any(axis=0)
        names, raw = [name for name, some in zip(names, known, strict=True) if some], raw[:, known]
        mean, (low, high) = np.nanmean(raw, axis=0), np.nanpercentile(raw, [1, 99], axis=0)
        rows = _cleaned(raw, mean, low, high)
        faulty = np.array([not label.control for _, label in examples])
        if faulty.all() or not faulty.any():
            raise NotApplicable(f"all {len(rows)} runs of other workloads are {'faulty' if faulty[0] else 'healthy'}")
        best = np.argsort(-self._grown(rows, faulty, self.first_trees).feature_importances_, kind="stable")[: self.kept]
        rows = rows[:, best]
        families = np.array([label.family for _, label in examples])
        faults = np.array([label.fault for _, label in examples])
        return {
            **{"names": [names[i] for i in best], "runs": len(rows), "mean": mean[best].tolist()},
            **{"low": low[best].tolist(), "high": high[best].tolist()},
            "faulty": self._level(rows, np.where(faulty, "faulty", "healthy")),
            "family": self._level(rows[faulty], families[faulty]),
            "fault": {f: self._level(rows[families == f], faults[families == f]) for f in np.unique(families[faulty])},
        }

    def diagnose(self, trace: Trace) -> Diagnosis:
        model = self.model
        raw = table([self.extract(trace)], model["names"])
        row = _cleaned(raw, *(np.array(model[name]) for name in ("mean", "low", "high")))[0]
        faulty = _answer(model["faulty"], row)["faulty"]
        if faulty < self.threshold:
            return HEALTHY
        families = _answer(model["family"], row)
        family = max(families, key=lambda name: (families[name], name))
        faults = _answer(model["fault"][family], row)
        ranked = sorted(faults, key=lambda name: (-faults[name], name))[: self.most]
        seen = f"{faulty:.0%} faulty by {model['runs']} runs of other workloads, {families[family]:.0%} of the family "
        return Diagnosis(
            Suspect(fault, faulty * families[family] * faults[fault], f"{seen}{family}, {faults[fault]:.0%} {fault}")
            for fault in ranked
            if faults[fault] > 0
        )

    def _grown(self, rows: np.ndarray, target: np.ndarray, trees: int) -> Any:
        from sklearn.ensemble import RandomForestClassifier

        forest = RandomForestClassifier(
            trees, max_depth=self.depth, min_samples_leaf=self.leaf, class_weight="balanced", random_state=self.seed
        )
        return forest.fit(rows, target)

    def _level(self, rows: np.ndarray, target: np.ndarray) -> dict[str, Any]:
        classes, numbers = np.unique(target, return_inverse=True)
        return {"classes": classes.tolist(), "forest": plain_forest(self._grown(rows, numbers, self.trees))}


def _cleaned(raw: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.clip(np.where(np.isfinite(raw), raw, mean), low, high)


def _answer(level: dict[str, Any], row: np.ndarray) -> dict[str, float]:
    classes = level["classes"]
    return dict(zip(classes, map(float, forest_shares(level["forest"], row, len(classes))), strict=True))
