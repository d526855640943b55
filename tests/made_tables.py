"""A trace of tables alone, whose every number a test chooses: for rules that compare statistics with limits."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from bugbench.trace import Trace

LAYERS = {"first": "Linear", "act": "ReLU", "last": "Linear"}
STEPS = 4  # in an epoch


def made_trace(
    folder: Path, *, acc, loss=None, val_loss=None, val_acc=None, task="classification", layers=LAYERS, **own
):
    """Write a trace of tables alone, a row of statistics for each step; ``own`` overrides single tensors.

    ``first={…}`` is of the output of ``first``, ``first_weight`` of its kernel, ``first_gradient`` of the kernel's
    gradient. Values may be functions of the step.
    """
    epochs = len(acc)
    loss = loss or [1 / (epoch + 1) for epoch in range(epochs)]
    (folder / "batches").mkdir(parents=True)
    meta = {"task": task, "classes": 3, "layers": layers, "sizes": {"parameters": 30}}
    (folder / "meta.json").write_text(json.dumps(meta))
    rows, steps, metrics = [], [], []
    for step in range(epochs * STEPS):
        usual = {"mean": 0.1 + 0.001 * step, "std": 0.5, "min": -1.0, "max": 2.0, "zero_share": 0.0, "nonfinite": 0.0}
        names = [(name, "activation", name) for name in layers]
        for kind in ("gradient", "weight"):
            names += [(f"{name}.weight", kind, f"{name}_{kind}") for name in layers if layers[name] == "Linear"]
        for layer, kind, key in names:
            changed = {k: v(step) if callable(v) else v for k, v in own.get(key, {}).items()}
            rows.append({"step": step, "layer": layer, "kind": kind, **usual, **changed})
        number = own.get("losses", lambda step: loss[step // STEPS])(step)
        steps.append(
            {"split": "train", "step": step, "epoch": step // STEPS, "loss": number, "lr": own.get("lr", 0.001)}
        )
        low, high = own.get("inputs", (-1.0, 1.0))
        steps[-1] |= {"input_min": low, "input_max": high, "input_nonfinite": float(np.isnan(low))}
    for epoch in range(epochs):
        reported = {"accuracy": acc[epoch], "loss": loss[epoch]}
        held_out = {"accuracy": (val_acc or acc)[epoch], "loss": (val_loss or loss)[epoch]}
        for split, values in (("train", reported), ("val", held_out)):
            metrics += [
                {"split": split, "epoch": epoch, "step": (epoch + 1) * STEPS, "name": name, "value": value}
                for name, value in values.items()
                if value is not None
            ]
    pd.DataFrame(rows).to_parquet(folder / "layers.parquet")
    pd.DataFrame(steps).to_parquet(folder / "steps.parquet")
    pd.DataFrame(metrics, columns=["split", "epoch", "step", "name", "value"]).to_parquet(folder / "metrics.parquet")
    (folder / "program.py").write_text(own.get("program", "loss = F.cross_entropy(outputs, targets)"))
    (folder / "config.yaml").write_text("dropout: 0.6\n")
    return Trace(folder)


def answers(detector, trace):
    return [s.fault for s in detector.diagnose(trace).suspects]


LEARNS = [0.5, 0.7, 0.75, 0.8, 0.84, 0.87, 0.89, 0.9]
STUCK = [0.3, 0.302, 0.301, 0.303, 0.302, 0.304, 0.302, 0.303]
TWELVE = [0.5 + 0.03 * epoch for epoch in range(12)]
