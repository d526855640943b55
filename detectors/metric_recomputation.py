"""Are the reported metrics what the recorded outputs and targets of the evaluation give?"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from bugbench.detector import Detector, Diagnosis, Suspect, Trace
from bugbench.trace import Batch

Tally = tuple[float, float]  # what a batch adds to the sum, and to the number by which the sum is divided


@dataclass
class MetricRecomputation(Detector):
    """Are the reported metrics what the recorded outputs and targets of the evaluation give?

    Accuracy, MAE, MSE and RMSE of the evaluations whose batches were all recorded, computed anew. A fault is named only
    if the report never equals the right number and always equals the same wrong one:

    * ``metric_wrong_dim``: argmax over the batch, the time or all of the outputs instead of the classes;
    * ``logit_threshold``: binary outputs cut at 0.5 though they are logits (some lie outside [0, 1]), or at 0 though
      they are probabilities;
    * ``mean_of_batch_means``: batches of different sizes, or their roots, averaged alike, where that changes the number
      visibly. The loss is left out: PyTorch's own quick start averages it so.

    A metric of another name or in another unit, which none of the numbers explains, is not judged.
    """

    access = {"data"}
    visible: float = 0.01  # a percentage point of accuracy or a hundredth of an error: less is lost in the noise
    tolerance: float = 1e-5  # relative; float32 means agree with float64 ones to 1e-6
    most: int = 3  # evaluations looked at, the last ones, for speed

    def diagnose(self, trace: Trace) -> Diagnosis:
        suspects = []
        steps = trace.steps
        for split in steps.loc[steps["split"] != "train", "split"].unique():
            sizes = steps[steps["split"] == split].groupby("step").size()
            batches = trace.batches(split)
            complete = [s for s in sizes.index if sum(b.step == s for b in batches) == sizes[s]][-self.most :]
            rows = trace.metrics[(trace.metrics["split"] == split) & trace.metrics["step"].isin(complete)]
            for name, reports in rows.groupby("name"):
                answers = [
                    self._explain(str(name).lower(), value, [b for b in batches if b.step == step])
                    for step, value in zip(reports["step"], reports["value"], strict=True)
                ]
                if answers and answers[0] and len(set(answers)) == 1 and answers[0] != "right":
                    numbers = ", ".join(f"{value:.4g}" for value in reports["value"])
                    evidence = (
                        f"{split} {name} ({numbers}) is not what the recorded outputs give, but what the mistake does"
                    )
                    suspects.append(Suspect(answers[0], evidence=evidence))
        return Diagnosis(suspects[:1])

    def _explain(self, name: str, value: float, batches: list[Batch]) -> str | None:
        """Return "right", the fault whose number is the reported one, or None."""
        scale = 0.01 if "acc" in name and value > 1 else 1.0  # percent
        right = np.nan
        for fault, tallies in _countings(name, batches):
            sums, counts = np.array(tallies).T
            if not counts.all():  # a batch in which every target is ignored
                return None
            total, mean = sums.sum() / counts.sum(), (sums / counts).mean()
            if name == "rmse":
                total, mean = np.sqrt(total), np.sqrt(sums / counts).mean()
            if fault == "right":
                right = total
            if np.isclose(value * scale, right, rtol=self.tolerance, atol=1e-9):
                return "right"
            clear = abs(right - value * scale) > self.visible * (1.0 if "acc" in name else abs(right))
            if clear and 0 < total < 1 and np.isclose(value * scale, total, rtol=self.tolerance, atol=1e-9):
                return fault
            if clear and fault == "right" and np.isclose(value * scale, mean, rtol=self.tolerance, atol=1e-9):
                return "mean_of_batch_means"
        return None


def _countings(name: str, batches: list[Batch]) -> Iterator[tuple[str, list[Tally]]]:
    """Yield "right" or a fault, and what each batch adds to the metric: the right way of counting comes first."""
    first = batches[0]
    if name in ("mae", "mse", "rmse") and all(b.outputs.size == b.targets.size for b in batches):
        away = [b.outputs.astype(np.float64).ravel() - b.targets.ravel() for b in batches]
        yield "right", [(float((np.abs(d) if name == "mae" else d**2).sum()), d.size) for d in away]
    elif "acc" not in name:
        return
    elif all(b.outputs.size == b.targets.size and np.isin(b.targets, (0, 1)).all() for b in batches):
        logits = any(b.outputs.min() < 0 or b.outputs.max() > 1 for b in batches)
        for fault, cut in (("right", 0.0 if logits else 0.5), ("logit_threshold", 0.5 if logits else 0.0)):
            hits = [(b.outputs.ravel() > cut) == b.targets.ravel() for b in batches]
            yield fault, [(float(h.sum()), h.size) for h in hits]
    elif np.issubdtype(first.targets.dtype, np.integer) and first.outputs.ndim == first.targets.ndim + 1:
        shape = first.outputs.shape
        axes = [a for a in (first.outputs.ndim - 1, 1) if shape[:a] + shape[a + 1 :] == first.targets.shape]
        if not axes:
            return
        yield "right", [_hits(b.outputs.argmax(axis=axes[0]), b.targets) for b in batches]
        for axis in [None, *(a for a in range(first.outputs.ndim) if a not in axes)]:
            yield "metric_wrong_dim", [_hits(b.outputs.argmax(axis=axis), b.targets) for b in batches]


def _hits(predicted: np.ndarray | np.intp, targets: np.ndarray) -> Tally:
    """Return hits, as far as the shapes can be compared, and the number of targets that are not ignored (negative)."""
    if np.ndim(predicted) == targets.ndim and np.shape(predicted) != targets.shape:
        least = tuple(slice(min(sizes)) for sizes in zip(np.shape(predicted), targets.shape, strict=True))
        predicted, counted = np.asarray(predicted)[least], targets[least]
    else:
        counted = targets
    return float((predicted == counted).sum()), int((targets >= 0).sum())
