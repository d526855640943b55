"""What the samples are said to be: labels that are missing, constant, out of scale or permuted."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from bugbench.detector import Detector, Diagnosis, Suspect, Trace
from bugbench.trace import Batch


@dataclass
class LabelChecks(Detector):
    """Asks of recorded inputs, targets and outputs whether the targets can be right.

    - *Missing*: NaN among the targets, and in the loss of their batches: tables with holes have a loss that leaves them
      out. Where all are NaN, a constant target was divided by its deviation.
    - *Constant*: every training sample has the same target, over a whole epoch and more.
    - *Unscaled*: continuous targets mostly above 100 in size, where a network starts near 0.
    - *Permuted*: the nearest training sample of a validation sample has, as a rule, another label, and mostly the one
      that a permutation of the classes gives. The nearest neighbour errs at most twice as often as the best rule (Cover
      and Hart 1967), and no honest error of it is a permutation: that the labels of one split are shifted is certain.

    Labels that belong to other samples altogether are not seen: inputs that tell little of their label look the same.
    A class index out of range raises in PyTorch's losses, unless it is their ``ignore_index``, which may be any number.
    """

    access = {"data"}
    large: float = 100.0  # median size of an unscaled target; ours: an age or a temperature, below, is still learnt
    agreement: float = 0.6  # of labels and permuted neighbours, five times as much as without; ours: a clear majority
    rows: int = 50  # fewer say nothing

    def diagnose(self, trace: Trace) -> Diagnosis:
        others = [split for split in dict.fromkeys(trace.steps["split"]) if "train" not in split][:1]
        train, held_out = trace.batches("train"), [b for split in others for b in trace.batches(split)]
        checks = [self._constant(trace, train), self._unscaled(trace, train)]
        return Diagnosis(found for check in [*checks, self._permuted(train, held_out)] for found in check)

    def _constant(self, trace: Trace, train: list[Batch]) -> Iterator[Suspect]:
        ill = [b for b in train if b.targets.dtype.kind == "f" and np.isnan(b.targets).any()]
        values = _numbers(train)
        if ill and not np.isfinite([b.loss for b in ill]).any():
            text = f"{1 - len(values) / sum(b.targets.size for b in train):.0%} of the recorded targets are NaN"
            yield Suspect("labels" if len(values) else "constant_labels", 0.7, text)
            return
        seen = trace.samples[trace.samples["split"] == "train"]
        labels = seen["label"] if seen["label"].notna().all() else values
        whole_epoch = len(labels) >= self.rows and len(seen) < len(trace.samples)
        if trace.meta.get("task") in ("classification", "regression") and whole_epoch and len(np.unique(labels)) == 1:
            yield Suspect("constant_labels", 0.9, f"all {len(labels)} targets of training are {np.unique(labels)[0]:g}")

    def _unscaled(self, trace: Trace, train: list[Batch]) -> Iterator[Suspect]:
        values = _numbers([b for b in train if b.targets.dtype.kind == "f"])
        if len(values) and trace.meta.get("task") == "regression":
            size = np.median(np.abs(values))
            if size >= self.large:
                yield Suspect("unscaled_targets", 0.8, f"targets have a median size of {size:.3g}")

    def _permuted(self, train: list[Batch], held_out: list[Batch]) -> Iterator[Suspect]:
        x, y = _labelled(train)
        u, v = _labelled(held_out)
        classes = int(max([*y[:], *v[:]], default=0)) + 1
        if min(len(y), len(v)) < self.rows or x.shape[1:] != u.shape[1:] or not 2 <= classes <= 100:
            return
        nearest = y[_squares(u, x).argmin(axis=1)]
        table = np.zeros((classes, classes), int)
        np.add.at(table, (v, nearest), 1)
        image = table.argmax(axis=1)
        present = np.flatnonzero(table.sum(axis=1))
        same, permuted = np.trace(table) / len(v), table.max(axis=1).sum() / len(v)
        known = len(present) > 1 and set(present) <= set(y) and len(set(image[present])) == len(present)
        if permuted < self.agreement or same > permuted / 5 or not known:
            return
        shifts = set((image[present] - present) % classes)
        faults = ["label_off_by_one", "class_map_mismatch"]
        text = f"nearest samples of training and validation share their label in {same:.0%}, permuted in {permuted:.0%}"
        yield from (Suspect(f, 0.9, text) for f in (faults if shifts in ({1}, {classes - 1}) else faults[::-1]))


def _numbers(batches: list[Batch]) -> np.ndarray:
    """Return all targets, one after the other, without those that are missing."""
    values = np.concatenate([np.zeros(0), *(b.targets.ravel() for b in batches)])
    return values[~np.isnan(values)]


def _labelled(batches: list[Batch], most: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Return up to ``most`` inputs (N, D) with one class index each (N,), before augmentation where that was logged."""
    x, y = [np.zeros((0, 0))], [np.zeros(0, int)]
    for b in batches:
        inputs = b.inputs if b.samples is None else b.samples
        single = b.targets.dtype.kind in "iu" and b.targets.shape in {(len(inputs),), (len(inputs), 1)}
        if single and inputs.dtype.kind == "f" and np.isfinite(inputs).all() and (b.targets >= 0).all():
            x.append(inputs.reshape(len(inputs), -1))
            y.append(b.targets.reshape(-1))
    alike = [i for i in range(1, len(x)) if x[i].shape[1:] == x[-1].shape[1:]]
    return np.concatenate([x[i] for i in alike or [0]])[:most], np.concatenate([y[i] for i in alike or [0]])[:most]


def _squares(u: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the squared Euclidean distances of all rows, (len(u), len(x))."""
    return (u**2).sum(axis=1)[:, None] - 2 * u @ x.T + (x**2).sum(axis=1)
