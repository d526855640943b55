"""The samples of validation: shared with training, missing, or changing."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.detector import Detector, Diagnosis, Suspect, Trace


@dataclass
class SplitChecks(Detector):
    """Compares the samples and the labels of validation with those of training.

    - *Overlap*: fingerprints of validation that training has, too. All of them: validation is a slice of training; a
      part: a leak. Where training repeats itself in epoch after epoch, the rows were doubled before the split; or they have
      few values and repeat by nature: then half of the features do not tell any two samples apart, and an overlap
      below twice that of training with itself is no alarm.
    - *Missing classes*: classes that a random split would have given to validation 20 times (p = e**-20), at least five
      times each, are not there. If a class of validation is missing in training, or rarer than half of the mean, the
      end of sorted data was held out; if training is complete, only the first samples are evaluated.
    - *Scarce classes*: training has a fifth of what validation has of them, and half of the mean: dropped afterwards.
    - *Separate targets*: continuous targets of validation all above, or all below, those of training: the end of data
      sorted by target was held out.
    - *Few samples*: fewer than 20 in validation, and less than a tenth of training: one of them moves accuracy by 5 %.

    - *Changing inputs*: two evaluations have the same targets in the same order, but other inputs: what is random in
      training is so in validation, too.

    Overlap shows only if both sides log their samples in the same form: inputs after random augmentation never match.
    """

    access = {"data"}
    overlap: float = 0.05  # deepchecks' TrainTestSamplesMix default
    slice: float = 0.99  # of validation: the rest may be a twin that was cleaned away
    expected: float = 20.0  # samples of what is missing
    few: int = 20

    def diagnose(self, trace: Trace) -> Diagnosis:
        split = trace.samples["split"].astype(str)
        train, others = trace.samples[split == "train"], trace.samples[~split.str.contains("train")]
        if train.empty or others.empty:
            return Diagnosis()
        # several evaluations see the same samples, and several epochs do
        held_out = others[others["split"] == others["split"].iloc[0]].drop_duplicates("fingerprint")
        distinct = train.drop_duplicates("fingerprint")
        checks = [self._inputs_change(others), self._overlap(trace, train, held_out), self._labels(distinct, held_out)]
        if len(held_out) < min(self.few, len(distinct) / 10):
            checks.append(iter([Suspect("tiny_validation", 0.8, f"validation has {len(held_out)} samples")]))
        return Diagnosis(found for check in checks for found in check)

    def _inputs_change(self, others: pd.DataFrame) -> Iterator[Suspect]:
        first, *later = [part for _, part in others.groupby(["split", "epoch"])]
        if later and len(first) >= self.few and first["label"].nunique() > 1:
            again = later[0]["fingerprint"].isin(first["fingerprint"]).mean()
            if again < 0.5 and np.array_equal(first["label"], later[0]["label"]):
                text = f"two evaluations have the same {len(first)} targets in order, but {again:.0%} of the inputs"
                yield Suspect("augmentation_in_eval", 0.9, text)

    def _overlap(self, trace: Trace, train: pd.DataFrame, held_out: pd.DataFrame) -> Iterator[Suspect]:
        shared = held_out["fingerprint"].isin(train["fingerprint"])
        share = shared.mean()
        if share < self.overlap or shared.sum() < 3:
            return
        epochs = [part["fingerprint"].value_counts() for _, part in train.groupby("epoch")][:2]
        often = [counts.index[counts >= 2 * counts.quantile(0.1)] for counts in epochs]
        doubled = len(often[0].intersection(often[-1])) / len(epochs[0])  # draws with replacement vary, twins do not
        if share < 2 * doubled and not _told_by_half(trace):
            return
        text = f"{shared.sum()} of {len(held_out)} samples of validation are among those of training"
        if doubled > self.overlap and share < self.slice:
            yield Suspect("duplicates_across_split", 0.8, f"{text}, where {doubled:.0%} come twice as often as others")
        faults = ["validation_is_train", "train_in_validation"]
        yield from (Suspect(fault, 0.7, text) for fault in (faults if share >= self.slice else faults[1:]))

    def _labels(self, train: pd.DataFrame, held_out: pd.DataFrame) -> Iterator[Suspect]:
        ours, theirs = train["label"].to_numpy(), held_out["label"].to_numpy()
        if np.isnan(ours).any() or np.isnan(theirs).any():
            return
        values, index = np.unique(np.concatenate([ours, theirs]), return_inverse=True)
        if len(values) > 0.2 * len(index) or (values % 1).any():
            if len(theirs) >= 10 and (theirs.min() >= ours.max() or theirs.max() <= ours.min()) and len(values) > 2:
                text = f"targets of training lie in [{ours.min():.3g}, {ours.max():.3g}]"
                text += f", of validation in [{theirs.min():.3g}, {theirs.max():.3g}]"
                yield Suspect("unshuffled_split", 0.8, text)
            return
        known, held = (np.bincount(part, minlength=len(values)) for part in np.split(index, [len(ours)]))
        share = (known + held) / len(index)
        lacking = (held == 0) & (share * len(theirs) >= 5)  # of many classes, some rare ones are missed by chance
        unknown = (known == 0) & (share * len(ours) >= 5)
        if share[lacking].sum() * len(theirs) >= self.expected:
            text = f"validation has no sample of {lacking.sum()} of {len(values)} classes, {len(theirs)} of the others"
            rare = known[held > 0].min() < known[lacking].mean() / 2
            yield Suspect("unshuffled_split" if rare else "eval_on_subset", 0.8, text)
            yield Suspect("eval_on_subset" if rare else "unshuffled_split", 0.4, text)
        elif share[unknown].sum() * len(ours) >= self.expected:
            text = f"training has no sample of class {values[unknown][0]:g}, validation has {held[unknown][0]}"
            yield Suspect("dropped_class", 0.8, text)
        else:
            due = held / len(theirs) * len(ours)
            scarce = (due >= self.expected) & (known < due / 5) & (known < len(ours) / len(values) / 2)
            if scarce.any():
                k = int(np.argmin(np.where(scarce, known / np.maximum(due, 1), np.inf)))
                text = (
                    f"training has {known[k]} samples of class {values[k]:g}, by its share of validation {due[k]:.0f}"
                )
                yield Suspect("class_imbalance", 0.8, text)


def _told_by_half(trace: Trace) -> bool:
    """Tell whether half of the features are enough to tell any two different samples apart."""
    arrays = [b.inputs if b.samples is None else b.samples for b in trace.batches("train")]
    distinct = {row.tobytes(): row.ravel() for array in arrays for row in array}
    return all(len({row[i::2].tobytes() for row in distinct.values()}) > 0.99 * len(distinct) for i in (0, 1))
