"""Is the model better than one that always says the same?"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.detector import Detector, Diagnosis, NotApplicable, Suspect, Trace
from bugbench.reported import accuracy_name, evaluation_split, r2_name


@dataclass
class ZeroRule(Detector):
    """Is the model better than one that always says the same?

    The zero rule (0-R; Holte 1993): always the most frequent class, or the mean. Who is not better has learnt nothing
    from the inputs. Accuracy as reported for the first evaluation split (balanced or top-5 accuracy is another thing),
    the median of the last third of the reports, against the share of the most frequent label among the samples of the
    last one: not better means at most 1.645 standard errors above (a binomial test at 5 %), or 0.05 above where that is
    less. R2 as reported, likewise: not above 0.

    The symptom has many causes, so families are named:

    * one class makes nine tenths of the labels or more: ``accuracy_on_imbalance``, since accuracy cannot tell;
    * training is better than the zero rule by far: what was learnt does not carry over; the inputs or the labels of
      validation are others: ``preprocessing``, ``labels``, ``split``, ``evaluation``;
    * training is no better: ``optimizer``, ``training_loop``, ``labels``, ``model``, ``data``.
    """

    access = {"data"}
    errors: float = 1.645  # standard errors: one side of 5 %
    rare: float = 0.9  # a share from which on accuracy is not the metric to look at

    def diagnose(self, trace: Trace) -> Diagnosis:
        for name, judge in ((accuracy_name(trace), self._accuracy), (r2_name(trace), _of_the_mean)):
            values = trace.metric(str(evaluation_split(trace)), str(name))
            if len(values) >= 3 and np.isfinite(values).all():
                return Diagnosis(judge(trace, str(name), values))
        raise NotApplicable("the program reports neither accuracy nor R2 of three evaluations")

    def _accuracy(self, trace: Trace, name: str, values: pd.Series) -> Iterator[Suspect]:
        labels = _labels(trace)
        if labels.empty:
            raise NotApplicable("the labels of the evaluations are no classes")
        share, percent = float(labels.value_counts(normalize=True).iloc[0]), 100 if values.max() > 1 else 1
        late = float(values.tail(max(len(values) // 3, 1)).median()) / percent
        margin = min(self.errors * math.sqrt(share * (1 - share) / len(labels)), 0.05)
        if late > share + margin:
            return
        seen = f"validation {name} ends at {late:.3f}, and the most frequent of {labels.nunique()} classes has a share"
        seen += f" of {share:.3f}"
        if share >= self.rare:
            yield Suspect("accuracy_on_imbalance", 0.6, seen)
            return
        train = trace.metric("train", name)
        ahead = len(train) > 0 and train.iloc[-1] / percent > share + 0.5 * (1 - share)
        yield from _suspects(bool(ahead), seen)


def _of_the_mean(trace: Trace, name: str, values: pd.Series) -> Iterator[Suspect]:
    late, train = float(values.tail(max(len(values) // 3, 1)).median()), trace.metric("train", name)
    if late <= 0:
        ahead = len(train) > 0 and train.iloc[-1] > 0.1
        yield from _suspects(bool(ahead), f"R2 ends at {late:.3g}: the mean does as well")


def _suspects(ahead: bool, seen: str) -> Iterator[Suspect]:
    """Name families: ``ahead``, training is far better than evaluation."""
    seen += "; training is far ahead" if ahead else "; training is no better, or not reported"
    families = "preprocessing labels split evaluation" if ahead else "optimizer training_loop labels model data"
    yield from (Suspect(family, 0.5 / (i + 1), seen) for i, family in enumerate(families.split()))


def _labels(trace: Trace) -> pd.Series:
    """Return the labels of the last evaluation: of its samples, or of its batches where a sample has several."""
    split = str(evaluation_split(trace))
    steps = trace.steps[trace.steps["split"] == split]
    if steps.empty:
        return pd.Series(dtype=float)
    step = steps["step"].iloc[-1]
    samples = trace.samples
    labels = samples[(samples["split"] == split) & (samples["step"] == step)]["label"]
    if len(labels) == 0 or labels.isna().any():
        last = [b.targets.ravel() for b in trace.batches(split) if b.step == step]
        labels = pd.Series(np.concatenate(last) if last else [], dtype=float)
    return labels if len(labels) and not (labels % 1).any() else pd.Series(dtype=float)
