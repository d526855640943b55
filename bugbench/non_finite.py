"""Values that are not finite in the inputs and in evaluations, and suspects of them, for ``finite_checks``."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from bugbench.detector import HEALTHY, Diagnosis, Suspect, Trace


def of_inputs(trace: Trace, train: pd.DataFrame) -> Diagnosis | None:
    """Return the suspects if inputs were not finite, with a loss that never was finite then."""
    batches = [b for split in dict.fromkeys(["train", *trace.steps["split"]]) for b in trace.batches(split)]
    ill = [b for b in batches if b.inputs.dtype.kind == "f" and not np.isfinite(b.inputs).all()]
    noted = train[train["input_nonfinite"] > 0] if "input_nonfinite" in train else train[:0]
    if np.isfinite([*(b.loss for b in ill), *noted["loss"]]).any() or (not ill and noted.empty):
        return None  # all is finite, or the model copes with it
    if not ill:
        fault = "nan_inputs" if noted["input_min"].isna().any() else "inf_inputs"
        return ranked([fault], f"inputs of step {noted['step'].iloc[0]} and {len(noted) - 1} others are not finite")
    shape = ill[0].inputs.shape[1:]
    rows = np.concatenate([b.inputs for b in ill if b.inputs.shape[1:] == shape])
    nan, always = np.isnan(rows), ~np.isfinite(rows).any(axis=0)
    faults = ["nan_inputs" if nan.any() else "inf_inputs"]
    if len(rows) > 1 and always.any() and not always.all():  # 0 / 0, and x / 0 where another split's value differs
        certain = len(shape) > 1 or (nan.any() and np.isinf(rows[:, always]).any())
        faults.insert(0 if certain else 1, "divide_by_zero_std")
    text = f"{nan.sum()} NaN, {np.isinf(rows).sum()} inf in {len(rows)} inputs from {ill[0].split} {ill[0].step} on"
    return ranked(faults, f"{text}; {always.sum()} positions are never finite")


def of_evaluations(trace: Trace) -> Diagnosis:
    """Return the suspects if losses of evaluations are not finite, though they were computed."""
    steps = trace.steps
    computed = [split for split in pd.unique(steps["split"]) if _computed(trace, split, steps)]
    losses = steps.loc[steps["split"].isin(computed), "loss"].to_numpy(float)
    bad, fault = ~np.isfinite(losses), "log_of_zero" if np.isinf(losses).any() else "numerics"
    return ranked([fault], f"{bad.sum()} losses in evaluation are not finite") if bad.any() else HEALTHY


def _computed(trace: Trace, split: str, steps: pd.DataFrame) -> bool:
    """Tell whether a split has losses: not where all are NaN and all outputs kept of it are finite."""
    absent = steps.loc[steps["split"] == split, "loss"].isna().all()
    kept = [batch.outputs for batch in trace.batches(split)] if absent else []
    return not kept or not all(np.isfinite(outputs).all() for outputs in kept)


def ranked(faults: Iterable[str], evidence: str, layer: str | None = None) -> Diagnosis:
    """Return the faults in this order, the surer the fewer they are."""
    faults = list(dict.fromkeys(faults))
    return Diagnosis(Suspect(f, 1 / (i + len(faults)), evidence, layer=layer) for i, f in enumerate(faults))
