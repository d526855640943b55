"""A run in numbers: series of what was recorded of it, and eight statistics of each, as learned detectors take them.

The series are those of DeepFD's monitor (Cao et al., ICSE 2022; ``CodeBook/Callbacks/Monitor.py``) that a trace holds,
with its thresholds, and the learning rate and the activations of DEFault (Jahan et al., ICSE 2025;
``default_tool/config.py``). The statistics are DeepFD's.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from bugbench.trace import Trace

STATISTICS = ("mean", "std", "skew", "median", "var", "sem", "max", "min")
VANISHED, SMALL = 1e-3, 1e-4  # ratio of the first to the last layer's gradient, and the first one's own size
EXPLODED = 70.0  # the same ratio
DIED = 0.7  # share of gradients that are zero
LARGE = 5.0  # a weight
GAPS = {0.9: 0.07, 0.0: 0.1}  # training accuracy less validation accuracy, by the training accuracy
Series = Mapping[str, Sequence[float] | np.ndarray | pd.Series]


def run_statistics(trace: Trace) -> dict[str, float | None]:
    """Return each statistic of each series by name; None where it is not defined, as of a series that is empty."""
    found: dict[str, float | None] = {}
    for name, values in {**_curves(trace), **_reports(trace), **_layers(trace)}.items():
        column = pd.Series(np.asarray(values, dtype=np.float64)).replace([np.inf, -np.inf], np.nan)
        with np.errstate(all="ignore"):
            numbers = {what: float(getattr(column, what)()) for what in STATISTICS}
        found |= {f"{name}_{what}": number if np.isfinite(number) else None for what, number in numbers.items()}
    return found


def table(runs: Iterable[Mapping[str, float | None]], names: Sequence[str]) -> np.ndarray:
    """Return a row per run and a column per name; NaN where a run has no such number."""
    rows = [[np.nan if (value := run.get(name)) is None else value for name in names] for run in runs]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(names))


def _curves(trace: Trace) -> Series:
    steps = trace.train_steps()
    loss = steps["loss"].to_numpy(dtype=np.float64)
    return {"loss": loss, "nan_loss": ~np.isfinite(loss), "lr": steps["lr"]}


def _reports(trace: Trace) -> Series:
    """Return what the program reported: losses, and as accuracy the first other metric that both or one of them has."""
    names = [name for name in dict.fromkeys(trace.metrics["name"]) if not name.endswith("loss")]
    name = next(iter(names), "accuracy")
    train, val = (trace.metric(split, name).groupby(level=0).last() for split in ("train", "val"))
    train_loss, val_loss = trace.metric("train", "loss"), trace.metric("val", "loss")
    both = pd.concat({"train": train, "val": val}, axis=1) if len(train) and len(val) else pd.DataFrame()
    gap = [t - v >= _allowed(t) for t, v in both.to_numpy(dtype=np.float64)]
    return {
        **{"acc": train, "val_acc": val, "train_loss": train_loss, "val_loss": val_loss, "test_not_well": gap},
        "increase_loss": train_loss.diff().dropna() > 0,
        "decrease_acc": train.diff().dropna() < 0,
    }


def _allowed(accuracy: float) -> float:
    return next((gap for above, gap in GAPS.items() if accuracy > above), GAPS[0.0])


def _layers(trace: Trace) -> Series:
    """Return series over the closely recorded steps."""
    layers = trace.layers
    if layers.empty:  # no model was watched
        return {}
    gradients, weights = (layers[layers["kind"] == kind] for kind in ("gradient", "weight"))
    activations = layers[layers["kind"] == "activation"]
    kinds = trace.meta.get("layers", {})
    relus = activations[activations["layer"].map(lambda name: "ReLU" in kinds.get(name, ""))]
    kernels = gradients[~gradients["layer"].str.endswith("bias")]
    size = np.hypot(kernels["mean"], kernels["std"])
    by_step = pd.DataFrame({"step": kernels["step"], "size": size}).groupby("step")["size"]
    first, last = by_step.first(), by_step.last()
    ratio = first / last
    zero = gradients.groupby("step")["zero_share"].mean()
    largest = weights[["min", "max"]].abs().max(axis=1).groupby(weights["step"]).max()
    change = weights.groupby("layer")[["mean", "std"]].diff().dropna()
    return {
        **{"gradient": by_step.mean(), "gradient_ratio": ratio, "gradient_zeros": zero, "died_relu": zero >= DIED},
        **{"vanish_gradient": (ratio < VANISHED) & (first < SMALL), "explode_gradient": ratio > EXPLODED},
        "nan_gradient": gradients.groupby("step")["nonfinite"].max() > 0,
        **{"weight": largest, "large_weight": largest > LARGE},
        "nan_weight": weights.groupby("step")["nonfinite"].max() > 0,
        **{"cons_mean_weight": change["mean"] == 0, "cons_std_weight": change["std"] == 0},
        "dead_relu": relus.groupby("step")["zero_share"].max(),
        "activation_mean": activations.groupby("step")["mean"].mean(),
        "activation_std": activations.groupby("step")["std"].mean(),
    }
