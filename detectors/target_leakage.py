"""Is the answer among the columns of the input?"""

from dataclasses import dataclass

import numpy as np
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace, suspect
from bugbench.trace import Batch
from scipy.stats import rankdata


@dataclass
class TargetLeakage(Detector):
    """Looks for one column of a table that tells the target: an illegitimate feature (Kapoor and Narayanan 2023).

    Strength alone is no proof: deepchecks' FeatureLabelCorrelation alarms at a predictive power of 0.8, others at an
    AUC of 0.95, which `worst_perimeter` of the breast cancer table and the petals of iris reach by nature. But natural
    features are strong in company, and their classes overlap; a column made from the label stands alone and encodes it:

    - *One value*: nearly all samples of a class, or of all but one, have one and the same value in it, and hardly any
      other has (a label, a flag, the number of treatments, which is 0 without the disease).
    - *Clusters*: the classes are tight clusters in it; correlation ratio (between classes to total variance) 0.97.
    - *Rank*: for a continuous target, it explains 0.85 of the target's rank variance (Spearman's correlation 0.92;
      leakcheck-ml alarms near 1), and either all of it, or repeats what other columns tell: together they come to
      more than 1, as independent causes cannot. The lags of a time series do so in company.

    Several columns may leak, if the rest is far from it. Images, signals and tokens are no tables.
    """

    access = {"data"}
    inside: float = 0.98  # of a class at one value …
    outside: float = 0.1  # … and at most so many of all others
    cluster: float = 0.97  # the petals of iris have 0.94
    explained: float = 0.85  # of the rank variance
    company: float = 0.75  # of the same measure in any further column speaks for strong features
    rows: int = 50  # at least 20 of a class and 20 others, too
    columns: int = 512  # more are no table

    def diagnose(self, trace: Trace) -> Diagnosis:
        splits = dict.fromkeys(["train", *trace.steps["split"]])
        x, y = _table([b for split in splits for b in trace.batches(split)])
        if x.shape[1] < 3 or x.shape[1] > self.columns:
            raise NotApplicable("no table of several columns with one target a row")
        if len(y) < self.rows or np.ptp(y) == 0:
            return HEALTHY
        continuous = len(np.unique(y)) > 20 or bool((y % 1).any())
        if continuous:
            measures = [("of the rank variance", self.explained, _rank_variance(x, y))]
        else:
            measures = [("between the classes", self.cluster, _ratio(x, y))]
            measures.insert(0, ("of a class at one value", self.inside, _one_value(x, y, self.outside)))
        for name, limit, measure in measures:
            leaks, rest = np.flatnonzero(measure >= limit), measure[measure < limit]
            if len(leaks) == 0 or len(rest) < 2 or rest.max() >= self.company * limit:
                continue
            if not continuous or measure.max() > 0.99 or measure.max() + rest.max() > 1:
                text = f"input column {', '.join(map(str, leaks[:5]))} tells the target: {measure.max():.3f} {name}"
                return suspect("label_leakage", f"{text}, the next column {rest.max():.3f}, in {len(y)} rows")
        return HEALTHY


def _one_value(x: np.ndarray, y: np.ndarray, outside: float) -> np.ndarray:
    """Return, per column, the largest share of a class (or of all but one) at its middle value, less others' excess."""
    best = np.zeros(x.shape[1])
    for own in (one for value in np.unique(y) for one in (y == value, y != value)):
        if own.sum() >= 20 and (~own).sum() >= 20:
            middle = np.sort(x[own], axis=0)[own.sum() // 2]
            others = (x[~own] == middle).mean(axis=0)
            best = np.maximum(best, (x[own] == middle).mean(axis=0) - np.maximum(others - outside, 0))
    return best


def _ratio(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the correlation ratio of every column: variance between the classes to all variance."""
    total = x.var(axis=0)
    between = sum((y == value).mean() * (x[y == value].mean(axis=0) - x.mean(axis=0)) ** 2 for value in np.unique(y))
    return np.divide(between, total, out=np.zeros_like(total), where=total > 0)


def _rank_variance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the squared rank correlation of every column with the target."""
    ranks, target = rankdata(x, axis=0), rankdata(y)
    ranks, target = ranks - ranks.mean(axis=0), target - target.mean()
    scale = (ranks**2).sum(axis=0) * (target**2).sum()
    return np.divide((target @ ranks) ** 2, scale, out=np.zeros_like(scale), where=scale > 0)


def _table(batches: list[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct recorded rows (N, F) of a table with their targets (N,); (0, 0) where there is no table."""
    rows: dict[bytes, tuple[np.ndarray, float]] = {}
    for b in batches:
        single = b.targets.shape in {(len(b.inputs),), (len(b.inputs), 1)}
        if b.inputs.ndim == 2 and b.inputs.dtype.kind == "f" and single and np.isfinite(b.inputs).all():
            rows |= {row.tobytes(): (row, float(t)) for row, t in zip(b.inputs, b.targets.reshape(-1), strict=True)}
    width = next(iter(rows.values()))[0].size if rows else 0
    kept = [(row, target) for row, target in rows.values() if row.size == width and np.isfinite(target)]
    x = np.array([row for row, _ in kept], dtype=np.float64).reshape(len(kept), width)
    return x, np.array([target for _, target in kept])
