"""How large are the updates, measured by the weights?"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Suspect, Trace


@dataclass
class UpdateRatio(Detector):
    """How large are the updates, measured by the weights?

    CS231n: the norm of an update should be "somewhere around 1e-3" of that of the weights; if it is lower the learning
    rate might be too low, if it is higher too high. How far off is too far, TheDeepChecker says: the decimal logarithm
    is to lie in [-4, -1]. Taken for each weight (biases start at zero, so theirs have no scale) as the median over the
    recorded steps whose rate is at least a tenth of the highest, for a schedule that ends near zero is no fault. Where
    the median weight is outside, it is the rate first: ``lr_too_low`` or ``lr_too_high``, next to it gradients that are
    clipped, or weights that start at next to nothing. Where no weight moves at all, the ways in which a step comes to
    nothing. One layer that is out alone says nothing of the rate and is not reported.

    Where half of the weights stand still and others do not, they may be meant to, as in fine-tuning: whoever trained
    them freezes them, or gives the optimizer the rest. Nobody needs to keep weights as they were drawn. PyTorch's
    layers draw them from U(-b, b), whose largest value is sqrt(3) deviations, or set them to a constant; trained ones
    have longer tails. So only where most of the still ones look like that are they suspected: those that get gradients
    are not in the optimizer, ``optimizer_partial_params``; the way from the loss to the others is cut or barred, family
    ``model``. Else the moving ones alone are judged. Frozen random features on purpose are an alarm, and so wrong.
    """

    access = {"tensors"}
    low: float = 1e-4  # TheDeepChecker
    high: float = 0.1  # TheDeepChecker
    drawn: float = 0.15  # off from sqrt(3): nineteen of twenty uniform draws of 50 values are not, normal ones are
    steps: int = 10  # Adam's first ones are larger than all that follow, as its averages start from nothing

    def diagnose(self, trace: Trace) -> Diagnosis:
        ratios = _ratios(trace)
        if ratios["step"].nunique() < self.steps:
            raise NotApplicable(f"updates were recorded of {ratios['step'].nunique()} steps only")
        by_weight = ratios.groupby("layer")["ratio"].median()
        if by_weight.median() == 0 < by_weight.max():
            if self._as_drawn(trace.layers, still := list(by_weight.index[by_weight == 0])):
                seen = f"{len(still)} of {len(by_weight)} weights stay as they were drawn, {still[0]} first"
                gradients = trace.layers[(trace.layers["kind"] == "gradient") & (trace.layers["zero_share"] < 1)]
                if np.isin(still, gradients["layer"]).mean() > 0.5:
                    return _ranked(["optimizer_partial_params", "model"], seen + ", in spite of gradients")
                return _ranked(["model", "frozen_layers", "detached_features"], seen + ", without a gradient")
            by_weight = by_weight[by_weight > 0]
        middle = float(by_weight.median())
        seen = f"an update is {middle:.2g} of the weights it changes (median of {len(by_weight)}; usual is 1e-3)"
        if not np.isfinite(middle) or self.low <= middle <= self.high:
            return HEALTHY
        if middle == 0:
            return _ranked(["missing_step", "optimizer_wrong_params", "zero_grad_after_backward", "lr_too_low"], seen)
        return _ranked(["lr_too_low", "clip_too_small"] if middle < self.low else ["lr_too_high", "zero_init"], seen)

    def _as_drawn(self, layers: pd.DataFrame, names: list[str]) -> bool:
        """Tell whether most of these weights look as PyTorch's layers start with them."""
        first = layers[(layers["kind"] == "weight") & layers["layer"].isin(names)].groupby("layer").first()
        peak = first[["min", "max"]].abs().max(axis=1)
        uniform = (peak / (math.sqrt(3) * first["std"]) - 1).abs() < self.drawn
        return bool((uniform | (first["std"] == 0)).mean() > 0.5)


def _ratios(trace: Trace) -> pd.DataFrame:
    """Return columns step, layer and ratio of the norms, of update to weights, for each weight and recorded step."""
    table, steps = trace.layers, trace.train_steps()
    rates = steps.set_index("step")["lr"].fillna(1.0)
    used = rates.index[rates >= 0.1 * rates.max()]
    table = table[table["step"].isin(used) & ~table["layer"].str.contains("bias")]
    square = (table["mean"].astype(float) ** 2 + table["std"].astype(float) ** 2).rename("square")
    parts = pd.concat([table[["step", "layer", "kind"]], square], axis=1)
    wide = parts.pivot_table(index=["step", "layer"], columns="kind", values="square").reset_index()
    if not {"weight", "update"} <= set(wide.columns):
        return pd.DataFrame({"step": [], "layer": [], "ratio": []})
    wide = wide[wide["weight"] > 0]
    ratio = np.sqrt(wide["update"] / wide["weight"])
    return pd.DataFrame({"step": wide["step"], "layer": wide["layer"], "ratio": ratio}).dropna()


def _ranked(faults: list[str], evidence: str) -> Diagnosis:
    return Diagnosis(Suspect(fault, 0.5 / (i + 1), evidence) for i, fault in enumerate(faults))
