"""What a run's inputs, weights, learning rate and targets say for or against a cause: the questions of DeepDiagnosis.

Each answers with faults and words for what was seen, or None. Thresholds are the caller's.
"""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from bugbench.keras_view import DENSE, kernels, latest
from bugbench.trace import Trace

RANGES = {"Sigmoid": (0.0, 1.0), "Tanh": (-1.0, 1.0), "ReLU": (0.0, math.inf), "ELU": (-1.0, math.inf)}
Answer = tuple[str, str] | None


def first_cause(trace: Trace, step: int, questions: str, limits: dict[str, tuple[float, float]]) -> Answer:
    """Answer the questions ("inputs", "weights", "rate") one after the other, and return the first answer."""
    asked: dict[str, Callable[[float, float], Answer]] = {
        "inputs": lambda low, high: inputs_beyond(trace, low, high),
        "weights": lambda low, high: variance_beyond(trace, step, low, high),
        "rate": lambda low, high: rate_beyond(trace, step, low, high),
    }
    answers = (asked[question](*limits[question]) for question in questions.split())
    return next((answer for answer in answers if answer), None)


def inputs_beyond(trace: Trace, least: float, most: float) -> Answer:
    """Inputs of training leave [least, most]; token indices are numbers like others, as in Keras."""
    seen = trace.train_steps().reindex(columns=["input_min", "input_max"])
    low, high = seen["input_min"].min(), seen["input_max"].max()
    return ("missing_normalization", f"inputs in [{low:.3g}, {high:.3g}]") if low < least or high > most else None


def variance_beyond(trace: Trace, step: int, low: float, high: float) -> Answer:
    """A kernel's variance leaves [low, high]: it began there, or in training a penalty or large steps took it there."""
    small, large = "zero_init excess_weight_decay regulariser_dominates", "large_init lr_too_high"
    rows = latest(trace, "weight", step)
    return _beyond(rows["std"] ** 2, kernels(trace), low, high, small, large, "the variance")


def rate_beyond(trace: Trace, step: int, low: float, high: float) -> Answer:
    """The norm of a kernel's gradient over that of the kernel, times the learning rate, leaves [low, high]."""
    rate = float(trace.train_steps().set_index("step")["lr"].get(step, math.nan))
    ratio = rate * latest(trace, "gradient", step)["rms"] / latest(trace, "weight", step)["rms"]
    return _beyond(ratio, kernels(trace), low, high, "lr_too_low", "lr_too_high", "lr * |g| / |w|")


def _beyond(values: pd.Series, names: list[str], low: float, high: float, below: str, above: str, what: str) -> Answer:
    off = values[(values < low) | (values > high)].reindex(names).dropna()  # in the order of the model
    if off.empty:
        return None
    return above if off.iloc[0] > high else below, f"{what} of {off.index[0]} is {off.iloc[0]:.2g}"


def out_of_range(trace: Trace, last: pd.Series) -> str:
    """Say so if the targets lie beyond what the last layer, of which ``last`` has the statistics, puts out.

    A ReLU is wrong before class scores, whatever the targets. A linear layer's outputs are too wide if they spread ten
    times as far as the targets of a regression. Targets that are not finite are left to others.
    """
    kind, regression = trace.meta.get("layers", {}).get(last.name, ""), trace.meta.get("task") == "regression"
    targets = np.concatenate([np.zeros(0), *(b.targets.ravel() for b in trace.batches("train"))])
    targets = targets[np.isfinite(targets)]
    if not len(targets):
        return ""
    low, high = float(targets.min()), float(targets.max())
    least, most = RANGES.get(kind, (-math.inf, math.inf))
    wide = kind in DENSE and regression and last["max"] - last["min"] > 10 * (high - low)
    if not wide and least <= low <= high <= most and (kind != "ReLU" or regression):
        return ""
    return (
        f"{last.name} ({kind}) puts out [{last['min']:.3g}, {last['max']:.3g}], targets are in [{low:.3g}, {high:.3g}]"
    )
