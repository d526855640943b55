"""DeepDiagnosis's rules: eight symptoms in tensors and curves, and the fix that the state of the run speaks for."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.detector import HEALTHY, Detector, Diagnosis, Suspect, Trace
from bugbench.keras_view import DENSE, epoch_logs, kernels, latest, readings

# symptom: what is asked of the run before a fix is named, in this order, and the faults that the last fix would undo
FIXES = {
    "out of range": ("", "activation_on_logits"),  # change the activation of the last layer
    "numerical error": ("weights inputs rate", "saturating_activation numerics"),  # change the activation
    "numerical error in gradients": ("", "saturating_activation loss"),  # change the loss or the activation
    "dead node": ("inputs weights rate", "dead_relu missing_nonlinearity"),  # dropout, or an activation that is missing
    "saturated activation": ("inputs weights rate", "saturating_activation missing_nonlinearity"),  # likewise
    "unchanged tensor": ("weights rate", "optimizer training_loop"),  # change the optimizer
    "vanishing gradient": ("rate", "saturating_activation"),  # add or delete layers, change sigmoid
    "loss not decreasing": ("weights inputs rate", "optimizer training_loop"),  # change the optimizer
    "accuracy not increasing": ("weights inputs rate", "optimizer training_loop"),
    "invalid loss": ("rate", "optimizer numerics"),
    "invalid accuracy": ("rate", "optimizer numerics"),
}
RANGES = {"Sigmoid": (0.0, 1.0), "Tanh": (-1.0, 1.0), "ReLU": (0.0, math.inf), "ELU": (-1.0, math.inf)}
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
    - unchanged tensor, loss not decreasing: the same mean or loss in all of five epochs; accuracy: in twenty.
    - vanishing gradient: mean |gradient| < ``vanishing`` in a Dense layer. Loss not finite; accuracy not finite or 0.

    A symptom is put down to inputs outside [-1, 1]; to a kernel with a variance outside [1e-5, 10]; to lr * |g| / |w|
    above 100 or below 1/100 of ``rate``; else to the symptom's own fix. That order differs by symptom (the ...Analysis
    functions). The source looks at the means of the weights where whole weights are meant, which makes the second
    question void: here they are whole. About a third of healthy models are flagged in the authors' data (68 of 188).

    Changed: outputs and gradients are those of the last training step looked at in an epoch, not of the first batch,
    so that an output differs from epoch to epoch unless a layer is stuck. What sigmoid gets is taken to be normal with
    the mean and deviation of the layer before; for mean |g| stands the root mean square, which is no less. The last
    epoch is the last in the trace. Scores without a softmax are out of range to Keras, and right for PyTorch's losses:
    left out, and so is the change of a last linear layer where the loss is not finite. Token indices count as inputs.
    """

    access = {"tensors", "data"}
    window: int = 5  # epochs: N
    patience: int = 20  # epochs of the same accuracy: FRQ
    dead: float = 0.7
    saturation: float = 5.0
    share: float = 0.5
    vanishing: float = 1e-7
    low_variance: float = 1e-5
    high_variance: float = 10.0
    rate: float = 1e-3

    def diagnose(self, trace: Trace) -> Diagnosis:
        logs, means = epoch_logs(trace), {kind: readings(trace, kind) for kind in ("activation", "gradient", "weight")}
        ends = [int(means["activation"].index[means["activation"].index < until].max()) for until in logs["until"]]
        means = {kind: table.reindex(ends) for kind, table in means.items()}
        for epoch, step in enumerate(ends):
            past = {kind: table[: epoch + 1] for kind, table in means.items()}
            forward = self._forward(trace, step, epoch, epoch == len(ends) - 1)
            for name, text, layer in (
                *forward,
                *self._curves(logs[: epoch + 1], past),
                *self._kernels(trace, step, past),
            ):
                questions, last = FIXES[name]
                answers = [self._ask(trace, question, step) for question in questions.split()]
                faults, why = next((answer for answer in answers if answer), (last, ""))
                seen = f"{name} at epoch {epoch}: {text}{why}"
                return Diagnosis(Suspect(f, 1 / (i + 1), seen, layer=layer) for i, f in enumerate(faults.split()))
        return HEALTHY

    def _forward(self, trace: Trace, step: int, epoch: int, last: bool) -> Iterator[Symptom]:
        rows, kinds = latest(trace, "activation", step), trace.meta["layers"]
        for (name, row), following in zip(rows.iterrows(), [*rows.index[1:], ""], strict=True):
            if not following and epoch == 0 and (text := _out_of_range(trace, kinds[name], row)):
                yield "out of range", f"{name} ({kinds[name]}) {text}", name
            if not np.isfinite(row["mean"]) or row["mean"] == 0:
                yield "numerical error", f"the output of {name} has mean {row['mean']:g}", name
            if kinds[name] == "ReLU" and last and row["zero_share"] >= self.dead:
                yield "dead node", f"{row['zero_share']:.0%} of the outputs of {name} are 0", name
            if kinds.get(following) in ("Sigmoid", "Tanh") and (epoch + 1) % self.window == 0:
                if (share := _beyond(self.saturation, row["mean"], row["std"])) > self.share:
                    yield "saturated activation", f"{share:.0%} of what {following} gets is large", following

    def _curves(self, logs: pd.DataFrame, means: dict[str, pd.DataFrame]) -> Iterator[Symptom]:
        outputs = means["activation"].iloc[:, :-1]
        yield from self._unchanged(outputs[[name for name in outputs if "flatten" not in name.lower()]])
        for name, window in (("loss", self.window), ("acc", self.patience)):
            values = logs.get(name, pd.Series(dtype=float)).to_numpy()
            if len(values) and (not np.isfinite(values[-1]) or (name == "acc" and values[-1] == 0)):
                yield ("invalid loss" if name == "loss" else "invalid accuracy"), f"it is {values[-1]:g}", None
            if len(values) and len(values) % window == 0 and np.ptp(values[-window:]) == 0:
                symptom = "loss not decreasing" if name == "loss" else "accuracy not increasing"
                yield symptom, f"{values[-1]:.6g} for {window} epochs", None

    def _kernels(self, trace: Trace, step: int, means: dict[str, pd.DataFrame]) -> Iterator[Symptom]:
        dense, gradients, weights = (
            kernels(trace, DENSE),
            latest(trace, "gradient", step),
            latest(trace, "weight", step),
        )
        for name in reversed(kernels(trace)):
            layer = name.rpartition(".")[0]
            for rows, what in ((gradients[gradients.index.isin(dense)], "gradient"), (weights, "weight")):
                if name in rows.index and not 0 < abs(rows["mean"][name]) < math.inf:
                    symptom = "numerical error" + " in gradients" * (what == "gradient")
                    yield symptom, f"the {what} of {layer} has mean {rows['mean'][name]:g}", layer
            if name in dense and name in gradients.index and gradients["size"][name] < self.vanishing:
                yield "vanishing gradient", f"{gradients['size'][name]:.2g} in {layer}", layer
        for kind in ("gradient", "weight"):
            yield from self._unchanged(means[kind][[name for name in reversed(dense) if name in means[kind]]])

    def _unchanged(self, means: pd.DataFrame) -> Iterator[Symptom]:
        if len(means) and len(means) % self.window == 0:
            same = np.ptp(means.to_numpy()[-self.window :], axis=0) == 0
            for name in means.columns[same]:
                yield "unchanged tensor", f"the mean of {name} for {self.window} epochs", name.removesuffix(".weight")

    def _ask(self, trace: Trace, question: str, step: int) -> tuple[str, str] | None:
        """Return the faults and the words for them, if inputs, weights or the learning rate are to blame."""
        rows = latest(trace, "weight", step)
        rows = rows[rows.index.isin(kernels(trace))]
        if question == "inputs":
            inputs = trace.train_steps()[["input_min", "input_max"]]
            low, high = inputs["input_min"].min(), inputs["input_max"].max()
            return ("missing_normalization", f"; inputs in [{low:.3g}, {high:.3g}]") if low < -1 or high > 1 else None
        values, low, high = rows["std"] ** 2, self.low_variance, self.high_variance
        faults = ("zero_init", "large_init")
        if question == "rate":
            rate = trace.train_steps().set_index("step")["lr"][step]
            values, low, high = (
                rate * latest(trace, "gradient", step)["rms"] / rows["rms"],
                self.rate / 100,
                self.rate * 100,
            )
            faults = ("lr_too_low", "lr_too_high")
        off = values[(values < low) | (values > high)]
        what = "lr * |g| / |w|" if question == "rate" else "the variance"
        return (
            (faults[int(off.iloc[0] > high)], f"; {what} of {off.index[0]} is {off.iloc[0]:.2g}") if len(off) else None
        )


def _out_of_range(trace: Trace, kind: str, row: pd.Series) -> str:
    targets = np.concatenate([b.targets.ravel() for b in trace.batches("train")])
    low, high = float(targets.min()), float(targets.max())
    least, most = RANGES.get(kind, (-math.inf, math.inf))
    scores = kind == "ReLU" and trace.meta.get("task") != "regression"
    wide = kind in DENSE and trace.meta.get("task") == "regression" and row["max"] - row["min"] > 10 * (high - low)
    return f"and targets in [{low:.3g}, {high:.3g}]" if scores or wide or low < least or high > most else ""


def _beyond(size: float, mean: float, std: float) -> float:
    """Return the share of a normal distribution that is ``size`` or more from 0."""
    if not std > 0:
        return float(abs(mean) >= size)
    return sum(0.5 * math.erfc((size + sign * mean) / (std * math.sqrt(2))) for sign in (-1, 1))
