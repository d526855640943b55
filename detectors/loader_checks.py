"""The order in which training samples come, and how often."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.detector import HEALTHY, Detector, Diagnosis, Trace, suspect


@dataclass
class LoaderChecks(Detector):
    """Follows the fingerprints and labels of the training samples through the run.

    - *One batch for ever*: all steps between two evaluations, three at least, have the same samples. Full-batch
      training has that too, so there must be more: other samples later, or among the predictions for training inputs.
      Where all samples are one, that is the matter of `input_checks`.
    - *Sorted by class*: two samples of a batch share their label far more often than two samples of the run. The excess
      (a kappa: 0 after a shuffle, 1 in one-class batches) counts, or a tenth of the runs of equal labels that a shuffle
      leaves (Wald and Wolfowitz 1940; cleanlab's non_iid asks the same of the order). The order within a batch does not
      matter, so full-batch training and balanced batches are no alarm.
    - *Sorted by target*: continuous targets that hardly ever fall, or rise. A time series in its own order does both.
    - *Text in order*: each window begins with the token that the window before it had to predict last, and every epoch
      repeats the order of the first. A single pass over a stream is no alarm.
    - *Repeated rows*: the same samples come twice as often as others in one epoch after another (draws with replacement
      do not repeat themselves), though half of the features suffice to tell any two samples apart, so that chance makes
      no such twins. What is repeated in the rarer classes only is oversampling and meant to be.
    """

    access = {"data"}
    kappa: float = 0.5  # half-way from shuffled to one-class batches
    runs: float = 0.1  # of the runs of equal labels expected; sorted data has one a class and epoch
    in_order: float = 0.98  # of neighbouring targets; half after a shuffle. Ours: all, but for a border of files or two
    repeated: float = 0.1  # of the rows; deepchecks' DataDuplicates alarms at 0.05
    chunk: int = 8  # samples: smaller batches are joined to that many
    rows: int = 50  # fewer say nothing about an order

    def diagnose(self, trace: Trace) -> Diagnosis:
        training = trace.samples["split"] == "train"
        train, others = trace.samples[training].reset_index(drop=True), trace.samples[~training]
        if len(train) < self.rows:
            return HEALTHY
        if text := _one_batch(train, len((trace.predictions or {}).get("outputs", ()))):
            return suspect("same_batch", text)
        if text := self._sorted(train["label"].to_numpy(), train["step"].to_numpy()) or _text_in_order(trace, train):
            return suspect("unshuffled_loader", text)
        if text := self._repeated_rows(trace, train):
            shared = np.isin(others["fingerprint"].unique(), train["fingerprint"]).mean() if len(others) else 0
            return suspect("duplicates_across_split" if shared > self.repeated else "duplicate_rows", text)
        return HEALTHY

    def _sorted(self, labels: np.ndarray, step: np.ndarray) -> str | None:
        values = np.unique(labels)
        if np.isnan(labels).any() or len(values) < 2:
            return None
        chunk = step // -(-self.chunk * len(np.unique(step)) // len(step))
        if len(values) > 0.2 * len(labels) or (values % 1).any():
            changes, means = np.diff(labels), pd.Series(labels).groupby(chunk).transform("mean")
            share = max((changes >= 0).mean(), (changes <= 0).mean())
            if share < self.in_order or means.var() < self.kappa * labels.var():
                return None
            return f"{share:.0%} of neighbouring targets are in order"
        table = pd.crosstab(chunk, labels).to_numpy()
        size, classes = table.sum(axis=1), table.sum(axis=0)
        if (size > 1).sum() < 3:
            return None
        inside = (table * (table - 1)).sum() / (size * (size - 1)).sum()
        overall = (classes * (classes - 1)).sum() / (len(labels) * (len(labels) - 1))
        kappa = (inside - overall) / (1 - overall)
        runs = 1 + np.count_nonzero(np.diff(labels))
        expected = 1 + len(labels) * (1 - ((classes / len(labels)) ** 2).sum())
        if kappa < self.kappa and not (runs < self.runs * expected and kappa > self.runs and expected > 20):
            return None
        text = f"samples of a batch share their label in {inside:.0%} of pairs, of the run in {overall:.0%}"
        return f"{text}; {runs} runs of equal labels where a shuffle leaves {expected:.0f}"

    def _repeated_rows(self, trace: Trace, train: pd.DataFrame) -> str | None:
        epochs = [part for _, part in train.groupby("epoch")][:2]
        if len(epochs) < 2 or len(epochs[0]) < self.rows:
            return None
        first, second = (part["fingerprint"].value_counts() for part in epochs)
        extra = (first - float(first.quantile(0.1))).clip(lower=0)
        share, same = extra.sum() / first.sum(), (first == second.reindex(first.index)).mean()
        if share < self.repeated or extra.max() > 0.5 * extra.sum() or same < 0.7:  # a last batch may be dropped
            return None
        label = train.drop_duplicates("fingerprint").set_index("fingerprint")["label"].reindex(first.index)
        by_class = (extra > 0).groupby(label).mean()
        common = by_class.reindex(label.value_counts().index[:1]).max()  # of the most frequent class
        if len(by_class) > 1 and common < 0.2 * by_class.max():
            return None
        return f"{share:.0%} of the rows of an epoch repeat others" if _told_by_half(trace) else None


def _one_batch(train: pd.DataFrame, known: int) -> str | None:
    batches = train.groupby(["epoch", "step"])["fingerprint"].agg(["sum", "size"])  # the sum does not ask for the order
    epochs = batches.groupby("epoch").agg(steps=("sum", "size"), distinct=("sum", "nunique"))
    epochs = epochs[epochs["steps"] >= 3]
    distinct = train["fingerprint"].nunique()
    everything = (batches["sum"].nunique() == 1 and distinct >= known) or distinct == 1 < batches["size"].max()
    if len(epochs) == 0 or (epochs["distinct"] > 1).any() or everything:
        return None
    return f"all {epochs['steps'].max()} batches of an epoch hold the same {batches['size'].max()} samples"


def _text_in_order(trace: Trace, train: pd.DataFrame) -> str | None:
    batches = [b for b in trace.batches("train") if b.inputs.dtype.kind in "iu" and b.inputs.ndim == 2]
    batches = [b for b in batches if b.targets.shape == b.inputs.shape and len(b.inputs) > 3]
    orders = [part["fingerprint"].to_numpy() for _, part in train.groupby("epoch")][:2]
    common = min(map(len, orders))
    follows = len(batches) >= 3 and all((b.inputs[1:, 0] == b.targets[:-1, -1]).all() for b in batches)
    if not follows or len(orders) < 2 or not np.array_equal(orders[0][:common], orders[1][:common]):
        return None
    return "the windows of a batch follow one another in the text, and every epoch repeats the order of the first"


def _told_by_half(trace: Trace) -> bool:
    """Tell whether half of the features are enough to tell any two different samples apart."""
    arrays = [b.inputs if b.samples is None else b.samples for b in trace.batches("train")]
    distinct = {row.tobytes(): row.ravel() for array in arrays for row in array}
    return all(len({row[i::2].tobytes() for row in distinct.values()}) > 0.99 * len(distinct) for i in (0, 1))
