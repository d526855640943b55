"""NaN and infinity: where does the first one arise?"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.detector import Detector, Diagnosis, Trace
from bugbench.non_finite import of_evaluations, of_inputs, ranked

EXP, LOG, SIGMOID, HALF = 88.7, 103.2, 16.6, 65504.0  # beyond: exp(x) inf, exp(-x) 0, 1 - sigmoid(x) 0, float16(x) inf


@dataclass
class FiniteChecks(Detector):
    """Names where the first non-finite value arises: inputs, a layer, the loss, the backward pass, or by growth.

    The order is the lecture's (inputs before arithmetic, forward before backward), the limits are those of IEEE 754.
    While losses and weights stay finite nothing is said: masks hold -inf, gradient scalers skip steps that overflow.

    - *Inputs*, if their loss is not finite either. A position that never is, while others are, may be a constant
      feature divided by its deviation: in images, which lack no cells, it is.
    - *Growth*: values near float32's end, or, where nobody looked, a loss ten times its start or updates half as
      large as the weights (DeepDiagnosis alarms at 0.1, SageMaker at 10): training diverged, the step size comes first.
    - *Forward*: the first layer whose output is not finite; one that makes inf of finite inputs by multiplying computes
      in half precision. Else the range of the values before tells which function can have left its domain.
    - *Evaluation only*: its losses. One that is NaN throughout, of outputs that are finite, was not computed at all.
    - *Backward only* (the loss is finite): the derivative of sqrt, norm or acos at the edge of its domain. The last
      layer hit is nearest to it (torch.autograd.set_detect_anomaly names the function).
    """

    access = {"tensors", "data"}
    growth: float = 10.0  # a loss that bounces on its way down does not come to ten times its start
    update_ratio: float = 0.5  # such an update replaces what was learnt
    magnitude: float = 1e15  # no sum or product of a few values below this overflows float32, which ends at 3.4e38

    def diagnose(self, trace: Trace) -> Diagnosis:
        train, layers = trace.train_steps(), trace.layers
        losses = train.set_index("step")["loss"].astype(float)
        lost = losses.index[~np.isfinite(losses)]
        spoilt = layers.loc[layers["kind"].isin(["weight", "update"]) & (layers["nonfinite"] > 0), "step"]
        if suspects := of_inputs(trace, train):
            return suspects
        if lost.empty and spoilt.empty:
            return of_evaluations(trace)
        first = int(min([*lost[:1], *spoilt[:1]]))
        where = f"at step {first}, where the loss is {losses.get(first, np.nan):.3g}"
        now = layers[layers["step"] == first]
        ill = now[now["nonfinite"] > 0]
        before = layers[(layers["kind"] == "activation") & (layers["nonfinite"] == 0) & (layers["step"] <= first)]
        before = before[before["step"] == before["step"].max()]  # its last row: mostly the logits
        low, high = before[["min", "max"]].to_numpy(float)[-1] if len(before) else (0.0, 0.0)
        overflow = now.empty or max(-low, high) > self.magnitude
        if overflow and (grown := self._growth(train[train["step"] < first], where)):
            return grown
        if (ill["kind"] == "activation").any():
            layer = ill[ill["kind"] == "activation"].iloc[0]
            kind = trace.meta.get("layers", {}).get(layer["layer"], "layer")
            made_inf = bool(np.isinf([layer["min"], layer["max"]]).any()) and kind.startswith(("Linear", "Conv"))
            product = max(-low, high) ** 2  # what two such values make, as queries and keys do
            guess = ["fp16_overflow"] if made_inf or product > HALF else ["exp_overflow"] if product > EXP else []
            text = f"the output of {layer['layer']} ({kind}) is the first that is not finite, {where}"
            return ranked([*guess, *_by_range(low, high), "fp16_overflow"], text, layer["layer"])
        if first not in lost:
            order = list(now.loc[now["kind"] == "activation", "layer"])
            hit = dict.fromkeys(name.rpartition(".")[0] for name in ill.loc[ill["kind"] == "gradient", "layer"])
            if not hit and len(now):  # the optimizer's own arithmetic
                return ranked(["numerics"], f"the update is not finite, gradients and loss are, {where}")
            place = max(hit, key=lambda name: order.index(name) if name in order else -1, default=None)
            text = f"gradients of {place} and what lies before are not finite, outputs and loss are, {where}"
            unasked = (low, high) == (0, 1) or high - low > LOG  # log's gradient at a probability of 0 is 0 / 0
            return ranked([*["log_of_zero"] * bool(unasked), "sqrt_grad_at_zero", "log_of_zero"], text, place)
        text = f"all layers are finite, the last in [{low:.3g}, {high:.3g}]," if len(now) else "layers not looked at"
        return ranked([*_by_range(low, high, bool(np.isinf(losses[first]))), "sqrt_grad_at_zero"], f"{text} {where}")

    def _growth(self, before: pd.DataFrame, where: str) -> Diagnosis | None:
        """Return the suspects of a divergence, if losses or updates grew before the first non-finite value."""
        losses, ratios = before["loss"].to_numpy(float), before.get("update_ratio", pd.Series(dtype=float))
        factor = np.abs(losses[-3:]).max() / max(abs(losses[0]), 1e-8) if len(losses) else 0.0
        ratio = ratios[np.isfinite(ratios)][1:].max()  # the first one is 1 by nature where weights start at zero
        if not (factor >= self.growth or ratio >= self.update_ratio):
            return None
        text = f"not finite {where}; before, the loss grew {factor:.3g}-fold, updates to {ratio:.2g} of the weights"
        bottomless = ["flipped_sign", "nll_on_logits"] if losses[0] < -0.5 else ["nll_on_logits"]
        return ranked(bottomless if losses[-1] < 0 else ["lr_too_high", "flipped_sign", "missing_zero_grad"], text)


def _by_range(low: float, high: float, infinite: bool = False) -> list[str]:
    """Return which functions leave their domain on values from low to high; ``infinite``: the result is not NaN."""
    if high > EXP and not (infinite and high - low > LOG):
        return ["exp_overflow", "log_of_zero"]
    log = infinite or high - low > LOG or max(-low, high) > SIGMOID or low == 0
    return ["log_of_zero", "exp_overflow"] if log else ["numerics", "divide_by_zero_std", "log_of_zero"]
