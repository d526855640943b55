"""The samples of validation: shared with training, changing, or few."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.detector import Detector, Diagnosis, Suspect, Trace


@dataclass
class SplitChecks(Detector):
    """Compares the samples of validation with those of training, and those of evaluations with each other.

    - *Overlap*: fingerprints of validation that training has. All: validation is a slice of training. Some: a leak.
      Where training repeats itself in every epoch, the rows were doubled before the split; or they have few values and
      repeat by nature: then half of the features do not tell any two samples apart, and an overlap below twice that
      of training with itself is no alarm.
    - *Changing inputs*: two evaluations of a split have the same targets in the same order, but other inputs: what is
      random in training is so in validation, too. Another random part of the data in each evaluation is no alarm.
    - *Few samples*: fewer than 20 in validation, and less than a tenth of training: one of them moves accuracy by 5 %.
      Where a sample has many targets, as an image has pixels, fewer than 6: of so few not even a sign test, were all of
      them better, tells two models apart (Demsar 2006; 2 * 0.5**5 is above 5 %).

    Overlap shows only if both sides log their samples in the same form: inputs after random augmentation never match.
    Whether both have all classes is the matter of `label_coverage`.
    """

    access = {"data"}
    overlap: float = 0.05  # deepchecks' TrainTestSamplesMix default
    slice: float = 0.99  # of validation: the rest may be a twin that was cleaned away
    few: int = 20  # samples with one target each
    fewest: int = 6  # samples with many

    def diagnose(self, trace: Trace) -> Diagnosis:
        split = trace.samples["split"].astype(str)
        train, others = trace.samples[split == "train"], trace.samples[~split.str.contains("train")]
        if train.empty or others.empty:
            return Diagnosis()
        # several evaluations see the same samples, and several epochs do
        held_out = others[others["split"] == others["split"].iloc[0]].drop_duplicates("fingerprint")
        checks = [self._overlap(trace, train, held_out), self._inputs_change(others)]
        many = any(b.targets.size > len(b.targets) for b in trace.batches(others["split"].iloc[0])[:1])
        if len(held_out) < min(self.fewest if many else self.few, train["fingerprint"].nunique() / 10):
            checks.append(iter([Suspect("tiny_validation", 0.8, f"validation has {len(held_out)} samples")]))
        return Diagnosis(found for check in checks for found in check)

    def _inputs_change(self, others: pd.DataFrame) -> Iterator[Suspect]:
        for _, evaluations in others.groupby("split"):
            first, *later = [part for _, part in evaluations.groupby("epoch")]
            if later and len(first) >= self.few and first["label"].nunique() > 1:
                again = later[0]["fingerprint"].isin(first["fingerprint"]).mean()
                if again < 0.5 and np.array_equal(first["label"], later[0]["label"]):
                    text = f"two evaluations have the same {len(first)} targets in order, but {again:.0%} of the inputs"
                    yield Suspect("augmentation_in_eval", 0.9, text)
                    return

    def _overlap(self, trace: Trace, train: pd.DataFrame, held_out: pd.DataFrame) -> Iterator[Suspect]:
        shared = held_out["fingerprint"].isin(train["fingerprint"])
        share = shared.mean()
        if share < self.overlap or shared.sum() < 3:
            return
        epochs = [part["fingerprint"].value_counts() for _, part in train.groupby("epoch")][:2]
        often = [counts.index[counts >= 2 * counts.quantile(0.1)] for counts in epochs]
        twins = often[0].intersection(often[-1])  # draws with replacement vary, twins come twice in every epoch
        doubled = epochs[0][twins].sum() / epochs[0].sum()
        if share < 2 * doubled and not _told_by_half(trace):
            return
        text = f"{shared.sum()} of {len(held_out)} samples of validation are among those of training"
        if doubled > self.overlap and share < self.slice:
            yield Suspect("duplicates_across_split", 0.8, f"{text}, of whose rows {doubled:.0%} have a twin")
        faults = ["validation_is_train", "train_in_validation"]
        yield from (Suspect(fault, 0.7, text) for fault in (faults if share >= self.slice else faults[1:]))


def _told_by_half(trace: Trace) -> bool:
    """Tell whether half of the features are enough to tell any two different samples apart."""
    arrays = [b.inputs if b.samples is None else b.samples for b in trace.batches("train")]
    distinct = {row.tobytes(): row.ravel() for array in arrays for row in array}
    return all(len({row[i::2].tobytes() for row in distinct.values()}) > 0.99 * len(distinct) for i in (0, 1))
