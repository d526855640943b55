"""Do the labels belong to the inputs at all?"""

from dataclasses import dataclass

import numpy as np
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace, suspect
from bugbench.trace import Batch
from scipy.special import log_softmax
from scipy.stats import f as f_distribution


@dataclass
class LabelAlignment(Detector):
    """Asks whether inputs and labels have anything to do with each other: not so, if one of them was reordered.

    Three times the same question, with independence as the null hypothesis, and all three must fail to reject it:

    - does any single feature differ between the classes (one-way analysis of variance, Bonferroni), or correlate with
      the target;
    - does the nearest training sample have the same label, or a similar target, more often than a random one;
    - does the model, in its last recorded evaluation, score the right answer higher than that of another sample
      ("pairing the labels at random makes the loss no worse", the lecture's test of corrupted labels)?

    A run that learnt anything answers yes to the third, so a task that is merely hard for features and neighbours
    (parity, audio) is no alarm; a run that failed for another reason has data that answers yes to the first two.
    Constant inputs or labels tell nothing either way, and blank ones are the matter of `input_checks`.
    """

    access = {"data"}
    level: float = 0.05  # of the test of the features
    sigma: float = 2.0  # of the other two
    rows: int = 150  # with fewer, a weak relation does not show
    most: int = 600  # for speed

    def diagnose(self, trace: Trace) -> Diagnosis:
        others = [split for split in dict.fromkeys(trace.steps["split"]) if "train" not in split][:1]
        x, y = _pairs(trace.batches("train"), self.most)
        evaluations = [b for split in others for b in trace.batches(split) if b.targets.size == len(b.inputs)]
        last = [b for b in evaluations if b.step == evaluations[-1].step]
        if len(y) < self.rows or sum(len(b.inputs) for b in last) < self.rows / 3:
            raise NotApplicable("too few recorded samples with numbers as inputs and one target each")
        varied = x.std(axis=0) > 1e-6 * max(np.abs(x).max(), 1e-9)
        if not varied.any() or np.ptp(y) == 0:
            return HEALTHY
        x = (x[:, varied] - x[:, varied].mean(axis=0)) / x[:, varied].std(axis=0)
        classes = len(np.unique(y)) <= 0.2 * len(y) and not (y % 1).any()
        p_value = _best_feature(x, y, classes)
        neighbours = _neighbours(x, y, classes)
        answers = np.concatenate([_answers(b) for b in last])
        model = (
            answers.mean() / max(answers.std() / len(answers) ** 0.5, 1e-12) if np.isfinite(answers).all() else np.inf
        )
        if p_value < self.level or neighbours > self.sigma or model > self.sigma:
            return HEALTHY
        text = (
            f"inputs tell nothing of their labels in {len(y)} samples: best feature p = {p_value:.2f} of {x.shape[1]}"
        )
        return suspect("misaligned_labels", f"{text}, neighbours {neighbours:.1f} sigma, the model {model:.1f} sigma")


def _best_feature(x: np.ndarray, y: np.ndarray, classes: bool) -> float:
    """Return the p value of the feature that tells most of the target, times the number of features."""
    if classes:
        groups = [x[y == value] for value in np.unique(y)]
        between = sum(len(g) * g.mean(axis=0) ** 2 for g in groups) / len(y)  # x is standardised
        degrees = len(groups) - 1, len(y) - len(groups)
    else:
        between, degrees = np.mean(x * ((y - y.mean()) / y.std())[:, None], axis=0) ** 2, (1, len(y) - 2)
    ratio = (between / degrees[0]) / (np.maximum(1 - between, 1e-12) / degrees[1])
    return float(f_distribution.sf(ratio, *degrees).min() * x.shape[1])


def _neighbours(x: np.ndarray, y: np.ndarray, classes: bool) -> float:
    """Return by how many standard deviations nearest neighbours are more alike in their target than random pairs."""
    squares = (x**2).sum(axis=1)
    distance = squares[:, None] - 2 * x @ x.T + squares
    distance[distance < 1e-6 * x.shape[1]] = np.inf  # the sample itself, in another epoch, too
    nearest = y[distance.argmin(axis=1)]
    if classes:
        chance = float((np.unique(y, return_counts=True)[1] ** 2).sum() / len(y) ** 2)
        return ((nearest == y).mean() - chance) / (chance * (1 - chance) / len(y)) ** 0.5
    return float(np.corrcoef(nearest, y)[0, 1] * len(y) ** 0.5) if np.ptp(nearest) else 0.0


def _answers(b: Batch) -> np.ndarray:
    """Return how much higher each sample's own target scores than the batch's targets do on average, (N,)."""
    y, outputs = b.targets.reshape(-1), b.outputs.reshape(len(b.outputs), -1).astype(np.float64)
    if outputs.shape[1] == 1:
        return (outputs[:, 0] - outputs.mean()) * (y - y.mean())
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= outputs.shape[1]:
        return np.full(len(y), np.nan)
    scores = log_softmax(outputs, axis=1)
    return scores[np.arange(len(y)), y] - scores @ (np.bincount(y, minlength=outputs.shape[1]) / len(y))


def _pairs(batches: list[Batch], most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return up to ``most`` distinct finite inputs (N, D), before augmentation where logged, and targets (N,)."""
    rows: dict[bytes, tuple[np.ndarray, float]] = {}
    for b in batches:
        inputs = b.inputs if b.samples is None else b.samples
        if inputs.dtype.kind == "f" and b.targets.size == len(inputs):
            rows |= {x.tobytes(): (x.ravel(), float(t)) for x, t in zip(inputs, b.targets.reshape(-1), strict=True)}
    width = next(iter(rows.values()))[0].size if rows else 0
    kept = [(x, t) for x, t in rows.values() if x.size == width and np.isfinite(x).all() and np.isfinite(t)][:most]
    return np.array([x for x, _ in kept], np.float64).reshape(len(kept), width), np.array([t for _, t in kept])
