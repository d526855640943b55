"""Which layers are saturated or dead?"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Suspect, Trace
from bugbench.keras_view import called

# kinds of layers (class names) with two flat ends, and what brings their outputs to -1 ... 1
BOUNDED = {"Tanh": (1.0, 0.0), "Sigmoid": (2.0, -1.0), "Softsign": (1.0, 0.0), "Hardtanh": (1.0, 0.0)}
RECTIFIED = ("ReLU", "ReLU6", "Threshold")


@dataclass
class ActivationHistograms(Detector):
    """Which layers are saturated or dead?

    CS231n and Karpathy's lectures: look at histograms of the activations of every layer. A trace keeps mean, deviation
    and the share of zeros of each, no histogram; so what these prove is reported, and nothing else:

    * *saturated*: Rakitianskaia and Engelbrecht (2015) measure saturation as the mean distance from the centre, on a
      scale from -1 to 1; TheDeepChecker alarms above 0.85. Since no output is farther out than 1, mean |y| >= mean y^2
      = mean^2 + deviation^2, so where that is 0.85 the measure is, too: ``saturating_activation``.
    * *dead*: SageMaker Debugger's DeadRelu calls a unit dead that is active in less than 1 % of cases, and alarms at
      half of a layer. Where more than 99.5 % of a layer's outputs are zero, half of its units must be: ``dead_relu``.

    Reported where it holds in more than half of the recorded steps. The last activation before the outputs may be as
    sure of itself as it likes: only what has a layer of the same model with weights behind it counts, in the order in
    which layers are first called. Functional calls, which are no layers, are not seen, nor the insides of recurrent
    ones. The scale of the inputs and the first weights are the other ways to get there: they are named next.
    """

    access = {"tensors"}
    saturated: float = 0.85  # TheDeepChecker
    zeros: float = 0.995  # 1 - SageMaker's 50 % of units times 1 % of cases

    def diagnose(self, trace: Trace) -> Diagnosis:
        kinds, table = called(trace), trace.layers
        weights = {name.rpartition(".")[0] for name in table.loc[table["kind"] == "weight", "layer"]}
        prefixes = sorted((n.removesuffix("parameters") for n in trace.meta.get("sizes", {})), key=len, reverse=True)
        model = {name: next((p for p in prefixes if name.startswith(p)), "") for name in kinds}
        last = {model[name]: i for i, name in enumerate(kinds) if name in weights}
        active = [(i, name) for i, name in enumerate(kinds) if kinds[name] in (*BOUNDED, *RECTIFIED)]
        hidden = [name for i, name in active if i < last.get(model[name], -1)]
        if not hidden:
            raise NotApplicable("no activation of the model is a layer with weights behind it")
        table = table[(table["kind"] == "activation") & (table["nonfinite"] == 0)]
        rows = {name: table[table["layer"] == name] for name in hidden}
        dead = {n: r for n, r in rows.items() if kinds[n] in RECTIFIED and _mostly(r["zero_share"] > self.zeros)}
        flat = {n: r for n, r in rows.items() if kinds[n] in BOUNDED and _mostly(_square(r, kinds[n]) > self.saturated)}
        for found, faults in ((dead, "dead_relu lr_too_high"), (flat, "saturating_activation missing_normalization")):
            if found:
                layer = next(iter(found))
                share = found[layer]["zero_share"].median() if found is dead else _square(found[layer], kinds[layer])
                seen = f"{len(found)} of {len(hidden)} activations, {layer} first: " + (
                    f"{share:.1%} of its outputs are zero" if found is dead else f"mean square {np.median(share):.2f}"
                )
                return Diagnosis(Suspect(f, 0.7 / (i + 1), seen, layer=layer) for i, f in enumerate(faults.split()))
        return HEALTHY


def _mostly(condition: pd.Series) -> bool:
    return bool(len(condition)) and bool(condition.mean() > 0.5)


def _square(rows: pd.DataFrame, kind: str) -> pd.Series:
    """Return the mean square of the outputs, on a scale from -1 to 1."""
    scale, shift = BOUNDED[kind]
    return (scale * rows["mean"].astype(float) + shift) ** 2 + (scale * rows["std"].astype(float)) ** 2
