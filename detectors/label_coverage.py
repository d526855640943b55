"""Classes and targets that training or validation lacks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from bugbench.detector import Detector, Diagnosis, Suspect, Trace
from bugbench.trace import Batch


@dataclass
class LabelCoverage(Detector):
    """Asks whether a random split can have given training and validation the labels they have.

    - *Missing in validation*: classes that it should have got 20 times (p = e**-20), at least five times each, and did
      not. If a class that it has is missing in training, or rarer than half of the mean, the end of sorted data was
      held out; if training has them all, only the first samples are evaluated.
    - *Missing in training*: a class that validation has, and nothing else: it was dropped.
    - *Scarce in training*: less than a fifth of what validation leads to expect, and less than half of the mean of all
      classes, so that no sampler balances them: dropped for the most part. What is rare in both is rare by nature.
    - *Separate targets*: continuous targets of validation all above, or all below, those of training, with inputs that
      are not (as those of a trend are): the end of data sorted by target was held out.
    """

    access = {"data"}
    expected: float = 20.0  # samples of what is missing
    each: float = 5.0  # of one class: of many classes, some rare ones are missed by chance
    scarce: float = 0.2  # of what is due

    def diagnose(self, trace: Trace) -> Diagnosis:
        split, samples = trace.samples["split"].astype(str), trace.samples
        train, others = samples[split == "train"], samples[~split.str.contains("train")]
        held_out = others[others["split"] == others["split"].iloc[0]] if len(others) else others
        ours, theirs = (part.drop_duplicates("fingerprint")["label"].to_numpy(float) for part in (train, held_out))
        if len(ours) == 0 or len(theirs) == 0 or np.isnan(ours).any() or np.isnan(theirs).any():
            return Diagnosis()
        values, index = np.unique(np.concatenate([ours, theirs]), return_inverse=True)
        if len(values) > 0.2 * len(index) or (values % 1).any():
            name = str(held_out["split"].iloc[0])
            return Diagnosis(_separate(ours, theirs, trace.batches("train"), trace.batches(name)))
        drawn = train["label"].value_counts(normalize=True).reindex(values, fill_value=0).to_numpy() * len(ours)
        known, held = (np.bincount(part, minlength=len(values)) for part in np.split(index, [len(ours)]))
        return Diagnosis(self._classes(values, known, held, np.maximum(known, drawn)))

    def _classes(self, values: np.ndarray, known: np.ndarray, held: np.ndarray, most: np.ndarray) -> Iterator[Suspect]:
        """Compare the distinct samples of each class; ``most``: those of training, or more if some are drawn often."""
        share, due = (known + held) / (known + held).sum(), held / held.sum() * known.sum()
        lacking = (held == 0) & (share * held.sum() >= self.each)
        unknown = (known == 0) & (due >= self.each)
        scarce = (due >= self.expected) & (most < self.scarce * due) & (most < known.sum() / len(values) / 2)
        if share[lacking].sum() * held.sum() >= self.expected:
            text = f"validation has no sample of {lacking.sum()} of {len(values)} classes, {held.sum()} of the others"
            rare = known[held > 0].min() < known[lacking].mean() / 2
            faults = ["unshuffled_split", "eval_on_subset"] if rare else ["eval_on_subset", "unshuffled_split"]
            yield from (Suspect(fault, 0.8 / (i + 1), text) for i, fault in enumerate(faults))
        elif due[unknown].sum() >= self.expected:
            text = f"training has no sample of class {values[unknown][0]:g}, validation has {held[unknown][0]}"
            yield Suspect("dropped_class", 0.8, text)
        elif scarce.any():
            k = int(np.argmin(np.where(scarce, most / np.maximum(due, 1), np.inf)))
            text = (
                f"training has {known[k]} samples of class {values[k]:g}; its share of validation promises {due[k]:.0f}"
            )
            yield Suspect("class_imbalance", 0.8, text)


def _separate(ours: np.ndarray, theirs: np.ndarray, train: list[Batch], held_out: list[Batch]) -> Iterator[Suspect]:
    if min(len(ours), len(theirs)) < 10 or not (theirs.min() >= ours.max() or theirs.max() <= ours.min()):
        return
    if np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return
    shape = train[0].inputs.shape[1:]  # of variable lengths, that of the first
    alike = [
        [b.inputs.reshape(len(b.inputs), -1) for b in part if b.inputs.shape[1:] == shape] for part in (train, held_out)
    ]
    if not alike[1]:
        return
    x, y = map(np.concatenate, alike)
    if not ((y.min(axis=0) >= x.max(axis=0)) | (y.max(axis=0) <= x.min(axis=0))).any():
        text = f"targets of training lie in [{ours.min():.3g}, {ours.max():.3g}], those of validation in "
        yield Suspect("unshuffled_split", 0.8, f"{text}[{theirs.min():.3g}, {theirs.max():.3g}]")
