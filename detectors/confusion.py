"""Which classes are taken for which? Permuted, mirrored, one for all, never named."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from bugbench.class_view import class_view
from bugbench.detector import Detector, Diagnosis, NotApplicable, Suspect, Trace
from bugbench.trace import Batch
from bugbench.whole_evaluations import fair_evaluations


@dataclass
class Confusion(Detector):
    """Which classes are taken for which? Permuted, mirrored, one for all, never named.

    The confusion matrix of the last evaluation recorded whole (of text, in part), and that of the predictions for raw
    training inputs, with a row for each true class (Kohavi and Provost 1998). Patterns that no honest mistake makes:

    * *permuted*: two or more classes each have more than half of their samples taken for another of these classes, no
      two for the same. One further or one back, round or not: ``label_off_by_one``; else, as mirrored
      (c to C - 1 - c) or swapped, ``class_map_mismatch``;
    * *one for all*: nothing but one class is ever said. If it makes most of the training labels it is
      ``class_imbalance``; if the last training batches say others, evaluation has other inputs, the family
      ``preprocessing``; else the model did not learn: ``optimizer``, ``labels``, ``model``;
    * *never named*: a class is never said, the others are mostly right, and it is not rare in the evaluation itself. By
      its share of the training labels, where twenty were due, it is a ``dropped_class`` (none) or ``class_imbalance``
      (less than a fifth of the mean, as in label_coverage); if it has its share, the families ``data`` and ``labels``,
      for its samples may be corrupt, or the training too short.

    Where samples have no single label, as in text, the training labels are those of the recorded batches. More than
    half is what a majority is; it and the numbers of samples are the only limits.
    """

    access = {"data"}
    each: int = 5  # samples of a class, for its row to count
    many: int = 10  # of a class that is never named; 20 in all
    rare: float = 0.2  # of the mean of all classes: label_coverage
    expected: float = 20.0  # training labels of a class, for their lack to be none of chance's: label_coverage

    def diagnose(self, trace: Trace) -> Diagnosis:
        splits = [s for s in dict.fromkeys(trace.steps["split"]) if s != "train"]
        fair = [batches for split in splits[:1] for batches in fair_evaluations(trace, split).values()]
        matrices = {"the last evaluation": _matrix(fair[-1] if fair else [], trace)}
        if trace.predictions is not None and "targets" in trace.predictions:
            outputs, targets = trace.predictions["outputs"], trace.predictions["targets"]
            made = Batch("train", 0, 0, "eval", outputs, targets, outputs, 0.0)
            matrices["the predictions for raw inputs"] = _matrix([made], trace)
        known = {words: m for words, m in matrices.items() if m is not None and m.sum() >= 20}
        if not known:
            raise NotApplicable("no twenty samples with a class and an output for each class")
        late = _matrix(trace.batches("train")[-3:], trace)
        for words, matrix in known.items():
            if found := list(self._read(matrix, late, _labels(trace, len(matrix)), f"in {words} ")):
                return Diagnosis(found)
        return Diagnosis()

    def _read(self, m: np.ndarray, late: np.ndarray | None, labels: np.ndarray, seen: str) -> Iterator[Suspect]:
        rows, said = m.sum(axis=1), m.sum(axis=0)
        clear = np.flatnonzero((rows >= self.each) & (m.max(axis=1) > 0.5 * rows))
        to = m.argmax(axis=1)
        moved = [int(c) for c in clear if to[c] != c]
        if len(set(to[moved])) == len(moved) > 1:
            shift = _shift({c: int(to[c]) for c in moved}, len(m))
            if set(to[moved]) == set(moved) or (shift and len(moved) == len(clear)):
                seen += ", ".join(f"{c} is taken for {to[c]}" for c in moved[:10])
                faults = ["class_map_mismatch", "label_off_by_one"]
                yield from _ranked(faults[::-1] if shift and len(m) > 2 else faults, seen)
                return
        share = labels / labels.sum() if labels.any() else np.full(len(m), np.nan)
        if (said > 0).sum() == 1 and (rows >= self.each).sum() > 1:
            c = int(said.argmax())
            seen += f"all {m.sum()} samples are taken for class {c}, which makes {share[c]:.0%} of the training labels"
            if share[c] > 0.5 and share[c] > 2 / len(m):
                yield from _ranked(["class_imbalance", "missing_class_weights"], seen)
            elif late is not None and late.trace() > 0.5 * late.sum() and (late.sum(axis=0) > 0).sum() > 1:
                yield from _ranked(["preprocessing", "evaluation"], seen + ", though training tells classes apart")
            else:
                yield from _ranked(["optimizer", "labels", "model"], seen)
            return
        usual = rows >= max(self.many, self.rare * m.sum() / len(m))
        never, named = (said == 0) & usual, said > 0
        if never.any() and m.trace() > 0.5 * m[named].sum():
            c = int(np.argmax(np.where(never, rows, 0)))
            seen += f"class {c} is never named, with {rows[c]} samples; it makes {share[c]:.2%} of the training labels"
            rare = ["dropped_class"] if share[c] == 0 else ["class_imbalance"] if share[c] < self.rare / len(m) else []
            due = rows[c] / m.sum() * labels.sum() >= self.expected
            yield from _ranked(rare if rare and due else ["data", "labels"], seen)


def _labels(trace: Trace, classes: int) -> np.ndarray:
    """Return how many training labels each class has, of the recorded batches where samples have no single one."""
    labels = trace.samples.loc[trace.samples["split"] == "train", "label"].to_numpy(float)
    counts = np.array([(labels == c).sum() for c in range(classes)])
    matrix = None if counts.any() else _matrix(trace.batches("train"), trace)
    return counts if matrix is None or len(matrix) != classes else matrix.sum(axis=1)


def _matrix(batches: list[Batch], trace: Trace) -> np.ndarray | None:
    """Return how many samples of each class (rows) were taken for which; None if there are none with a class."""
    counts = None
    for batch in batches:
        view = class_view(batch, trace.meta) if np.isfinite(batch.outputs).all() else None
        if view is not None:
            classes = view.z.shape[-1]
            counts = np.zeros((classes, classes), dtype=np.int64) if counts is None else counts
            hard = view.y.max(axis=-1) > 0.5
            if counts.shape[0] == classes:
                np.add.at(counts, (view.y.argmax(axis=-1)[hard], view.z.argmax(axis=-1)[hard]), 1)
    return counts


def _shift(to: dict[int, int], classes: int) -> bool:
    """Tell whether all classes are taken for the next, or all for the one before."""
    return any(all((c + step) % classes == other for c, other in to.items()) for step in (1, -1))


def _ranked(faults: list[str], evidence: str) -> Iterator[Suspect]:
    yield from (Suspect(fault, 0.7 / (i + 1), evidence) for i, fault in enumerate(faults))
