"""DeepDiagnosis's rules: eight symptoms in tensors and curves, and the fix that the state of the run speaks for."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.detector import HEALTHY, Detector, Diagnosis, Suspect, Trace
from bugbench.keras_causes import first_cause, out_of_range
from bugbench.keras_view import DENSE, compared, evaluated_epochs, kernels, latest, share_beyond, unchanged

# symptom: what is asked of the run before a fix is named, in this order, and the faults that the last fix would undo
FIXES = {
    "out of range": ("", "activation_on_logits"),  # change the activation of the last layer
    "numerical error": ("weights inputs rate", "saturating_activation numerics"),  # change the activation
    "numerical error in gradients": ("", "saturating_activation loss"),  # change the loss or the activation
    "dead node": ("inputs weights rate", "dead_relu missing_nonlinearity"),  # dropout, or an activation that is missing
    "saturated activation": ("inputs weights rate", "saturating_activation missing_nonlinearity"),  # likewise
    "unchanged tensor": ("weights rate", "optimizer training_loop"),  # change the optimizer
    "vanishing gradient": ("rate", "saturating_activation"),  # add or delete layers, change sigmoid
    "loss stands still": ("weights inputs rate", "optimizer training_loop"),  # likewise
    "acc stands still": ("weights inputs rate", "optimizer training_loop"),  # likewise
    "invalid loss or accuracy": ("rate", "optimizer numerics"),  # likewise
}
Symptom = tuple[str, str, str | None]  # a key of FIXES, what was seen, the layer


@dataclass
class Deepdiagnosis(Detector):
    """DeepDiagnosis (Wardat, Cruz, Le & Rajan, ICSE 2022), ported from DeepDiagnosis/ICSE2022, callback/callbacks.py.

    The symptoms of mapFaluireToFix (on_epoch_end), in its order, at the end of each epoch; the first ends training.

    - out of range (identifyRange, first epoch): targets beyond the last activation's range; a ReLU before class scores;
      a linear layer that spreads ten times as far as the targets of a regression.
    - numerical error: the mean of an output, a weight or a gradient is NaN, infinite or 0.
    - dead node (last epoch): a share >= ``dead`` of a ReLU's outputs is 0. Saturated (each fifth epoch): more than
      ``share`` of what sigmoid or tanh gets is ``saturation`` or more in size.
    - unchanged tensor, loss: the same mean (but Flatten's) or loss in all of five epochs; accuracy: in twenty. Loss not
      finite; accuracy not finite or 0. Vanishing gradient: mean |gradient| < ``vanishing`` in a Dense layer.

    A symptom is put down to inputs outside [-1, 1]; a kernel's variance outside [1e-5, 10] (void in the source: of its
    mean); lr * |g| / |w| beyond 100 or 1/100 of ``rate``; or its own fix. 68 of the authors' 188 healthy models fail.

    Changed: outputs and gradients are those of the last training step looked at in an epoch, not of the first batch in
    test mode: an output differs from epoch to epoch unless a layer is stuck, and norms may have a mean of 0. Weights
    and gradients are unchanged if deviation and extremes are, too. What sigmoid gets and gradients of both signs are
    taken to be normal. The source's |w| is of another layer, and it raises at layers without just a kernel and a bias.
    The last epoch is the trace's. Left out: scores without a softmax, right for PyTorch; a last linear layer's change.
    """

    access = {"tensors", "data"}
    origin = "published"
    window: int = 5  # epochs: N
    patience: int = 20  # epochs of the same accuracy: FRQ
    dead: float = 0.7
    saturation: float = 5.0
    share: float = 0.5
    bound: float = 1.0
    vanishing: float = 1e-7
    low_variance: float = 1e-5
    high_variance: float = 10.0
    rate: float = 1e-3

    def diagnose(self, trace: Trace) -> Diagnosis:
        logs, tables = evaluated_epochs(trace), compared(trace)
        looked, rate = trace.layers["step"], (self.rate / 100, self.rate * 100)
        limits = {"inputs": (-self.bound, self.bound), "weights": (self.low_variance, self.high_variance), "rate": rate}
        ends = [int(looked[looked < until].max()) for until in logs["until"] if (looked < until).any()]
        for epoch, step in enumerate(ends):
            past = {kind: table.reindex(ends[: epoch + 1]) for kind, table in tables.items()}
            forward = self._forward(trace, step, epoch, epoch == len(ends) - 1)
            for symptom in (forward, self._curves(logs[: epoch + 1], past), self._kernels(trace, step, past)):
                for name, text, layer in symptom:
                    faults, cause = first_cause(trace, step, FIXES[name][0], limits) or (FIXES[name][1], "fix as such")
                    text = f"{name} at epoch {epoch}: {text}; {cause}"
                    return Diagnosis(Suspect(f, 1 / (i + 1), text, layer=layer) for i, f in enumerate(faults.split()))
        return HEALTHY

    def _forward(self, trace: Trace, step: int, epoch: int, last: bool) -> Iterator[Symptom]:
        rows, kinds = latest(trace, "activation", step), trace.meta.get("layers", {})
        names = [str(name) for name in rows.index]
        for (_, row), name, after in zip(rows.iterrows(), names, [*names, ""][1:], strict=True):
            if not after and epoch == 0 and (text := out_of_range(trace, row)):
                yield "out of range", text, name
            if not np.isfinite(row["mean"]) or (row["mean"] == 0 and "Norm" not in kinds.get(name, "")):
                yield "numerical error", f"the output of {name} has mean {row['mean']:g}", name
            if kinds.get(name) == "ReLU" and last and row["zero_share"] >= self.dead:
                yield "dead node", f"{row['zero_share']:.0%} of the outputs of {name} are 0", name
            large = share_beyond(self.saturation, row["mean"], row["std"])
            if kinds.get(after) in ("Sigmoid", "Tanh") and (epoch + 1) % self.window == 0 and large > self.share:
                yield "saturated activation", f"{large:.0%} of what {after} gets is large", after

    def _curves(self, logs: pd.DataFrame, past: dict[str, pd.DataFrame]) -> Iterator[Symptom]:
        for name in unchanged(past["activation"], self.window):
            yield "unchanged tensor", f"the output of {name}", name
        for what, window in (("loss", self.window), ("acc", self.patience)):
            if what in logs and not (what == "acc" and np.isnan(logs[what].iloc[-1])):  # an epoch may have no accuracy
                value = float(logs[what].iloc[-1])
                if not np.isfinite(value) or (what == "acc" and value == 0):
                    yield "invalid loss or accuracy", f"{what} {value:g}", None
                if unchanged(logs[[what]], window):
                    yield f"{what} stands still", f"{value:.6g} for {window} epochs", None

    def _kernels(self, trace: Trace, step: int, past: dict[str, pd.DataFrame]) -> Iterator[Symptom]:
        dense, gradients = kernels(trace, DENSE)[::-1], latest(trace, "gradient", step)
        for name in kernels(trace)[::-1]:
            layer, weight = name.rpartition(".")[0], float(latest(trace, "weight", step)["mean"].get(name, 1.0))
            if name in dense and name in gradients.index:
                mean, size = gradients.loc[name, ["mean", "size"]].to_numpy()
                if not 0 < abs(mean) < math.inf:
                    yield "numerical error in gradients", f"{layer} has mean {mean:g}", layer
                if size < self.vanishing:
                    yield "vanishing gradient", f"{size:.2g} in {layer}", layer
            if weight == 0 or not np.isfinite(weight):
                yield "numerical error", f"the weight of {layer} has mean {weight:g}", layer
        for kind in ("gradient", "weight"):
            for name in unchanged(past[kind][[name for name in dense if name in past[kind]]], self.window):
                yield "unchanged tensor", f"the {kind} of {name}", name.rpartition(".")[0]
