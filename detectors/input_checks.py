"""What the model is fed: holes, blanks and outliers."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from bugbench.detector import Detector, Diagnosis, Suspect, Trace
from bugbench.trace import Batch


@dataclass
class InputChecks(Detector):
    """Looks at the inputs before anything else (Karpathy, A Recipe for Training Neural Networks: step 1).

    - *Holes*: NaN or inf where the loss is not finite either, so that a model that copes with missing values is left in
      peace; or NaN in the predictions for raw training inputs alone.
    - *Blanks*: one and the same sample makes a twentieth of all, five times as much as the next: under several labels
      it is an all-zero sample, or what preprocessing made of it; if it is most of one class, that class is corrupt. If
      it is all there is, it must be one number throughout: a network may be fitted to a single image (Ulyanov et al.
      2018, Deep Image Prior).
    - *Outliers*: a value a thousand times farther out than nine tenths of its feature.

    The scale of features is the matter of `normalization_checks`, the order of samples that of `loader_checks`.
    """

    access = {"tensors", "data"}
    blank_share: float = 0.05  # deepchecks' DataDuplicates default
    lead: float = 5.0  # over the second most frequent sample: a table with few values repeats many rows, not one
    outlier: float = 1000.0  # a log-normal feature with a deviation of 2.5, very long-tailed, comes to 60
    rows: int = 20  # fewer do not show a distribution
    most: int = 1024  # rows, for speed

    def diagnose(self, trace: Trace) -> Diagnosis:
        splits = dict.fromkeys(["train", *trace.steps["split"]])
        batches = [b for split in splits for b in trace.batches(split) if b.inputs.dtype.kind == "f"]
        if not batches:
            return Diagnosis()  # token indices: no value of theirs is missing or too large
        checks = [_holes(trace, batches), self._blanks(trace), self._outliers(batches)]
        return Diagnosis(found for check in checks for found in check)

    def _blanks(self, trace: Trace) -> Iterator[Suspect]:
        seen = trace.samples[trace.samples["split"] == "train"]
        counts = seen["fingerprint"].value_counts()
        if len(seen) < self.rows or counts.iloc[0] < self.blank_share * len(seen):
            return
        if len(counts) > 1 and counts.iloc[0] < self.lead * counts.iloc[1]:
            return
        blank = seen["fingerprint"] == counts.index[0]
        labels = seen.loc[blank, "label"].dropna().unique()
        text = f"one sample makes {counts.iloc[0] / len(seen):.0%} of all that were seen"
        if len(labels) == 1 and seen["label"].nunique() > 1:
            if blank[seen["label"] == labels[0]].mean() > 0.5:
                yield Suspect("corrupt_one_class", 0.9, f"{text}, and most of class {labels[0]:g}")
        elif len(labels) > 1 or (len(counts) == 1 and _constant(trace.batches("train"))):
            yield Suspect("zero_inputs", 0.9, f"{text}, under {len(labels)} labels")

    def _outliers(self, batches: list[Batch]) -> Iterator[Suspect]:
        alike = [b.inputs for b in batches if b.split == "train" and b.inputs.shape[1:] == batches[0].inputs.shape[1:]]
        flat = np.concatenate(alike)[: self.most].reshape(-1, alike[0][0].size) if alike else np.zeros((0, 1))
        if len(flat) < self.rows or flat.shape[1] == 0 or not np.isfinite(flat).all():
            return
        off = np.abs(flat - np.median(flat, axis=0))
        usual, most = np.quantile(off, 0.9, axis=0), off.max(axis=0)
        worst = int(np.argmax(np.divide(most, usual, out=np.zeros_like(most), where=usual > 0)))
        if most[worst] > self.outlier * usual[worst] > 0:
            text = f"feature {worst} lies up to {most[worst]:.3g} off its median, nine tenths up to {usual[worst]:.3g}"
            yield Suspect("inf_inputs", 0.9, text)


def _constant(batches: list[Batch]) -> bool:
    """Tell whether the first sample has several numbers, all of them the same."""
    sample = (batches[0].inputs if batches[0].samples is None else batches[0].samples)[0] if batches else np.zeros(0)
    return bool(sample.size > 1 and (sample == sample.flat[0]).all())


def _holes(trace: Trace, batches: list[Batch]) -> Iterator[Suspect]:
    ill = [b for b in batches if not np.isfinite(b.inputs).all()]
    if ill and not np.isfinite([b.loss for b in ill]).any():
        rows = np.concatenate([b.inputs for b in ill if b.inputs.shape[1:] == ill[0].inputs.shape[1:]])
        never = ~np.isfinite(rows).any(axis=0)
        text = f"inputs not finite, the first in {ill[0].split} at step {ill[0].step}; {never.sum()} positions always"
        if rows.ndim > 2 and never.any() and not never.all() and len(rows) > 1:  # images lack no cells
            yield Suspect("divide_by_zero_std", 0.8, text)
        yield Suspect("nan_inputs" if np.isnan(rows).any() else "inf_inputs", 0.7, text)
    outputs = (trace.predictions or {}).get("outputs", np.zeros(1))
    if not ill and outputs.dtype.kind == "f" and np.isnan(outputs).any() and np.isfinite(trace.steps["loss"]).all():
        yield Suspect("nan_inputs", 0.6, "all losses are finite, but predictions for raw training inputs hold NaN")
