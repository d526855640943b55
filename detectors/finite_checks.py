"""NaN and infinity: where does the first one arise?"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.detector import HEALTHY, Detector, Diagnosis, Suspect, Trace
from bugbench.trace import Batch

EXP, LOG, SIGMOID, HALF = (
    88.7,
    103.2,
    16.6,
    65504.0,
)  # exp(x) is inf, exp(-x) 0, 1 - sigmoid(x) 0, float16(x) inf beyond


@dataclass
class FiniteChecks(Detector):
    """Names where the first non-finite value arises: inputs, a layer, the loss, the backward pass, or by growth.

    The order is the lecture's (inputs before arithmetic, forward before backward), the limits are those of IEEE 754.
    While losses and weights stay finite nothing is said: masks hold -inf, models cope with missing values, gradient
    scalers skip steps that overflow.

    - *Inputs* that are not finite where the loss is not either. A position that is so in every sample, in some
      positions only, may be a constant feature divided by its deviation: in images, which lack no cells, it is.
    - *Growth*: values near float32's end, or, where nobody looked, a loss ten times its start or updates half as
      large as the weights (DeepDiagnosis alarms at 0.1, SageMaker at 10): training diverged, the step size comes first.
    - *Forward*: the first layer in order whose output is not finite; an affine layer that makes inf of finite inputs
      computes in half precision. Else the range of the values before tells which function can have left its domain.
    - *Backward only* (the loss is finite): the derivative of sqrt, norm or acos at the edge of its domain. The last
      layer hit is nearest to it (torch.autograd.set_detect_anomaly names the function).
    """

    access = {"tensors", "data"}
    growth: float = 10.0  # a loss that bounces on its way down does not come to ten times its start
    update_ratio: float = 0.5  # such an update replaces what was learnt
    magnitude: float = 1e15  # no sum or product of a few values below this overflows float32, which ends at 3.4e38

    def diagnose(self, trace: Trace) -> Diagnosis:
        train, layers = trace.train_steps(), trace.layers
        splits = dict.fromkeys(["train", *trace.steps["split"]])
        if suspects := _inputs([b for split in splits for b in trace.batches(split)], train):
            return suspects
        losses = train.set_index("step")["loss"].astype(float)
        lost = losses.index[~np.isfinite(losses)]
        spoilt = layers.loc[layers["kind"].isin(["weight", "update"]) & (layers["nonfinite"] > 0), "step"]
        if lost.empty and spoilt.empty:
            return _evaluation(trace)
        first = int(min([*lost[:1], *spoilt[:1]]))
        where = f"at step {first}, where the loss is {losses.get(first, np.nan):.3g}"
        now = layers[layers["step"] == first]
        ill = now[now["nonfinite"] > 0]
        before = layers[(layers["kind"] == "activation") & (layers["nonfinite"] == 0) & (layers["step"] <= first)]
        before = before[before["step"] == before["step"].max()].iloc[-1:]  # the last healthy output: mostly the logits
        low, high = (float(before["min"].iloc[0]), float(before["max"].iloc[0])) if len(before) else (0.0, 0.0)
        if now.empty or max(-low, high) > self.magnitude:
            if grown := self._growth(train[train["step"] < first], where):
                return grown
        if (ill["kind"] == "activation").any():
            layer = ill[ill["kind"] == "activation"].iloc[0]
            kind = trace.meta.get("layers", {}).get(layer["layer"], "layer")
            made_inf = np.isinf(layer[["min", "max"]].astype(float)).any() and kind.startswith(("Linear", "Conv"))
            product = max(-low, high) ** 2  # what two such values make, as queries and keys do
            known = (
                ["fp16_overflow"] if made_inf or product > HALF else ["divide_by_zero_std"] if "Norm" in kind else []
            )
            faults = [*known, *(["exp_overflow"] if product > EXP else []), *_by_range(low, high), "fp16_overflow"]
            text = f"the output of {layer['layer']} ({kind}) is the first that is not finite, {where}"
            return _ranked(faults, text, layer["layer"])
        if first not in lost:
            order = list(now.loc[now["kind"] == "activation", "layer"])
            hit = dict.fromkeys(ill.loc[ill["kind"] == "gradient", "layer"].str.rpartition(".")[0])
            place = max(hit, key=lambda name: order.index(name) if name in order else -1, default=None)
            # the gradient of log at a probability of 0 that was not asked for is 0 / 0
            log = ["log_of_zero"] if (low, high) == (0, 1) or high - low > LOG else []
            text = f"gradients of {place} and what lies before are not finite, outputs and loss are, {where}"
            return _ranked([*log, "sqrt_grad_at_zero", "log_of_zero"], text, place)
        text = f"all layers are finite, the last in [{low:.3g}, {high:.3g}]," if len(now) else "layers not looked at"
        return _ranked([*_by_range(low, high, bool(np.isinf(losses[first]))), "sqrt_grad_at_zero"], f"{text} {where}")

    def _growth(self, before: pd.DataFrame, where: str) -> Diagnosis | None:
        """Return the suspects of a divergence, if losses or updates grew before the first non-finite value."""
        losses, ratios = before["loss"].to_numpy(float), before.get("update_ratio", pd.Series(dtype=float))
        factor = np.abs(losses[-3:]).max() / max(abs(losses[0]), 1e-8) if len(losses) else 0.0
        ratio = ratios[np.isfinite(ratios)][1:].max()  # the first one is 1 by nature where weights start at zero
        if not (factor >= self.growth or ratio >= self.update_ratio):
            return None
        text = (
            f"not finite {where}, after the loss grew {factor:.3g}-fold, with updates up to {ratio:.2g} of the weights"
        )
        if losses[-1] < 0:  # only a loss without a lower bound falls this far
            return _ranked(["flipped_sign", "nll_on_logits"] if losses[0] < -0.5 else ["nll_on_logits"], text)
        return _ranked(["lr_too_high", "flipped_sign", "missing_zero_grad"], text)


def _inputs(batches: list[Batch], train: pd.DataFrame) -> Diagnosis | None:
    """Return the suspects if inputs were not finite, with a loss that never was finite then."""
    ill = [b for b in batches if b.inputs.dtype.kind == "f" and not np.isfinite(b.inputs).all()]
    noted = train[train["input_nonfinite"] > 0] if "input_nonfinite" in train else train[:0]
    if np.isfinite([*(b.loss for b in ill), *noted["loss"]]).any() or (not ill and noted.empty):
        return None  # finite, or the model copes with it
    if not ill:
        nan = bool(noted["input_min"].isna().any())
        text = f"{'NaN' if nan else 'inf'} among the inputs of step {noted['step'].iloc[0]} and {len(noted) - 1} others"
        return _ranked(["nan_inputs" if nan else "inf_inputs"], text)
    rows = np.concatenate(
        [b.inputs.reshape(len(b.inputs), -1) for b in ill if b.inputs.shape[1:] == ill[0].inputs.shape[1:]]
    )
    nan, inf = np.isnan(rows), np.isinf(rows)
    always = (nan | inf).all(axis=0)
    faults = ["inf_inputs" if inf.sum() > nan.sum() else "nan_inputs"]
    if len(rows) > 1 and always.any() and not always.all():
        sure = ill[0].inputs.ndim > 2 or (nan[:, always].any() and inf[:, always].any())  # 0 / 0, elsewhere x / 0
        faults.insert(0 if sure else 1, "divide_by_zero_std")
    text = f"{nan.sum()} NaN and {inf.sum()} inf in {(nan | inf).any(axis=1).mean():.0%} of the inputs of such batches"
    return _ranked(
        faults, f"{text}, first {ill[0].split} {ill[0].step}; {always.sum()} of {len(always)} positions always"
    )


def _evaluation(trace: Trace) -> Diagnosis:
    """Return the suspects where training stayed finite: evaluation and prediction may not have."""
    losses = trace.steps.loc[trace.steps["split"] != "train", "loss"].to_numpy(float)
    if not np.isfinite(losses).all():
        text = f"{(~np.isfinite(losses)).mean():.0%} of the losses in evaluation are not finite, all in training are"
        return _ranked(["log_of_zero" if np.isinf(losses).any() else "numerics"], text)
    outputs = (trace.predictions or {}).get("outputs", np.zeros(1))
    if outputs.dtype.kind == "f" and np.isnan(outputs).any():
        text = "predictions for raw training inputs hold NaN, though all losses were finite"
        return _ranked(["nan_inputs", "train_only_normalization"], text)
    return HEALTHY


def _by_range(low: float, high: float, infinite: bool = False) -> list[str]:
    """Return which functions leave their domain on values from low to high; ``infinite``: the result is not NaN."""
    if high > EXP and not (infinite and high - low > LOG):
        return ["exp_overflow", "log_of_zero"]
    log = infinite or high - low > LOG or max(-low, high) > SIGMOID or low == 0
    return ["log_of_zero", "exp_overflow"] if log else ["numerics", "divide_by_zero_std", "log_of_zero"]


def _ranked(faults: Iterable[str], evidence: str, layer: str | None = None) -> Diagnosis:
    """Return the faults in this order, the surer the fewer they are."""
    faults = list(dict.fromkeys(faults))
    return Diagnosis(Suspect(f, 1 / (i + len(faults)), evidence, layer=layer) for i, f in enumerate(faults))
