"""NaN and infinity: where does the first one arise?"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.detector import HEALTHY, Detector, Diagnosis, Suspect, Trace, suspect

EXP, LOG, SIGMOID = 88.7, 103.2, 16.6  # float32: exp(x) is inf, exp(-x) is 0, 1 - sigmoid(x) is 0 beyond these


@dataclass
class FiniteChecks(Detector):
    """Names where the first non-finite value arises: inputs, a layer, the loss, the backward pass, or by growth.

    The order is the lecture's (inputs before arithmetic, forward before backward), the limits are those of IEEE 754.
    While losses and weights stay finite nothing is said: masks hold -inf, models cope with missing values, a gradient
    scaler skips steps that overflow.

    - *Inputs* that are not finite, and neither is their loss. A position that is so in every sample but not in all
      positions may be a constant feature divided by its deviation, above all in images, which have no missing cells.
    - *Growth*: a loss ten times its start, or an update as large as the weights (SageMaker Debugger's
      WeightUpdateRatio alarms at 10, DeepDiagnosis at 0.1): training diverged, the step size comes first.
    - *Forward*: the first layer in order whose output is not finite; inf from an affine layer with moderate inputs is
      half precision. Where all layers are finite, the range of the logits tells which function left its domain.
    - *Backward only*: gradients are not finite, the loss is: the derivative of sqrt, norm or acos at the edge of its
      domain. The last layer hit is nearest to it (torch.autograd.set_detect_anomaly names the function).
    """

    growth: float = 10.0  # a loss that bounces on its way down does not come to ten times its start
    update_ratio: float = 1.0  # such an update replaces what was learnt

    access = {"tensors", "data"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        train, layers = trace.train_steps(), trace.layers
        lost = train.loc[~np.isfinite(train["loss"].astype(float)), "step"]
        harmed = layers.loc[layers["kind"].isin(["weight", "update"]) & (layers["nonfinite"] > 0), "step"]
        if suspects := _inputs(trace):
            return Diagnosis(suspects)
        if lost.empty and harmed.empty:
            return _after_training(trace)
        first = int(min([*lost[:1], *harmed[:1]]))
        now = layers[layers["step"] == first]
        ill = now[now["nonfinite"] > 0]
        where = f"at step {first} (loss {float(train.set_index('step')['loss'].get(first, np.nan)):.3g})"
        if grown := self._growth(train[train["step"] <= first], where):
            return grown
        healthy = layers[(layers["kind"] == "activation") & (layers["nonfinite"] == 0) & (layers["step"] <= first)]
        last = healthy[healthy["step"] == healthy["step"].max()].iloc[-1:]
        low, high = (float(last["min"].iloc[0]), float(last["max"].iloc[0])) if len(last) else (0.0, 0.0)
        arithmetic = _by_range(low, high, bool(np.isinf(train.loc[train["step"] == first, "loss"]).any()))
        if (ill["kind"] == "activation").any():
            layer = ill[ill["kind"] == "activation"].iloc[0]
            kind = trace.meta.get("layers", {}).get(layer["layer"], "")
            overflowed = np.isinf(layer[["min", "max"]].astype(float)).any() and kind.startswith(("Linear", "Conv"))
            faults = ["fp16_overflow"] if overflowed else ["divide_by_zero_std"] if "Norm" in kind else []
            text = f"the output of {layer['layer']} ({kind}) is the first that is not finite, {where}"
            return _ranked([*faults, *arithmetic, "fp16_overflow"], text, layer["layer"])
        if len(lost) == 0 or first < lost.iloc[0]:
            order = list(dict.fromkeys(now.loc[now["kind"] == "activation", "layer"]))
            hit = ill.loc[ill["kind"] == "gradient", "layer"].str.rpartition(".")[0].drop_duplicates()
            place = max(hit, key=lambda name: order.index(name) if name in order else -1, default=None)
            whole = set(hit) == set(now.loc[now["kind"] == "gradient", "layer"].str.rpartition(".")[0])
            certain = ["log_of_zero"] if whole and (high - low > LOG or (low, high) == (0, 1)) else []
            text = f"gradients are not finite up to {place}, loss and activations are, {where}"
            return _ranked([*certain, "sqrt_grad_at_zero", "log_of_zero"], text, place)
        seen = f"every layer is finite, its output in [{low:.3g}, {high:.3g}], the loss is not" if len(now) else "the loss"
        return _ranked([*arithmetic, "sqrt_grad_at_zero"], f"{seen} {where}")

    def _growth(self, before: pd.DataFrame, where: str) -> Diagnosis | None:
        """Return the suspects of a divergence, if losses or updates grew before the first non-finite value."""
        losses = before["loss"].astype(float).abs().to_numpy()
        losses = losses[np.isfinite(losses)]
        ratios = before.get("update_ratio", pd.Series(dtype=float)).dropna()
        ratio = float(ratios.replace(np.inf, np.nan).max()) if len(ratios) else np.nan
        factor = losses[-3:].max() / max(losses[0], 1e-8) if len(losses) else np.nan
        if not (factor >= self.growth or ratio >= self.update_ratio):
            return None
        text = f"not finite {where} after the loss grew {factor:.3g}-fold; updates up to {ratio:.2g} of the weights"
        scale = float(before.get("input_max", pd.Series([0.0])).abs().max())
        raw = ["missing_normalization"] if scale > 100 else []
        return _ranked(["lr_too_high", *raw, "flipped_sign", "missing_zero_grad"], text)


def _ranked(faults: list[str], evidence: str, layer: str | None = None) -> Diagnosis:
    """Return the faults in this order, the first with a confidence of 0.8."""
    faults = list(dict.fromkeys(faults))
    return Diagnosis(Suspect(f, 0.8 / (i + 1), evidence, layer=layer) for i, f in enumerate(faults))


def _by_range(low: float, high: float, infinite: bool) -> list[str]:
    """Return which function can leave its domain on values from low to high; ``infinite``: the loss is, and not NaN."""
    if (high > EXP and not infinite) or (max(-low, high) < SIGMOID and not (low >= 0 and high <= 1) and not infinite):
        return ["exp_overflow", "log_of_zero"]
    return ["log_of_zero", "exp_overflow"]
