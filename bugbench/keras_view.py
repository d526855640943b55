"""A trace as a callback of Keras sees a run: epochs with their logs, layers in the order called, kernels.

For ports of published rules that were made for Keras. Their callbacks hold the model itself, run it again on the first
batch of the data and read whole tensors. A trace has six statistics of each tensor, in training mode, on the batch at
hand, at the first ten steps and at every tenth thereafter; the functions here say what stands for what.
"""

import math
from bisect import bisect_right
from functools import lru_cache

import numpy as np
import pandas as pd
from bugbench.detector import NotApplicable
from bugbench.trace import Trace

# class names, or how they begin; Keras has activations as arguments of layers, PyTorch as layers of their own
ACTIVATIONS = (
    *("ReLU", "LeakyReLU", "PReLU", "RReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Tanh", "Sigmoid"),
    *("Hardtanh", "Hardsigmoid", "Hardswish", "Softplus", "Softsign", "Softmax", "LogSoftmax", "LogSigmoid"),
)
WEIGHTED = ("Linear", "Bilinear", "Conv", "Embedding", "RNN", "LSTM", "GRU", "NonDynamicallyQuantizableLinear")
DENSE = ("Linear", "NonDynamicallyQuantizableLinear")  # what Keras calls Dense
FLATTEN = ("Flatten", "Unflatten")  # the same values in another shape
NORMS = {"gradient": "grad_norm", "weight": "weight_norm", "update": "update_norm"}


def epoch_logs(trace: Trace) -> pd.DataFrame:
    """Return the logs of each epoch that was evaluated: loss, acc, val_loss, val_acc, and ``until``, its last step + 1.

    As reported by the program, else the mean of the batches' losses; a column is missing where there is neither. The
    splits other than "train" are taken together. An accuracy is what is called "accuracy" or "acc"; where nothing is,
    what has "acc" in its name, but no top-k or balanced accuracy. Percent are turned into shares.
    """
    metrics, steps = trace.metrics, trace.steps
    names = metrics["name"].str.lower()
    plain, other = names.isin(["accuracy", "acc"]), names.str.contains("acc") & ~names.str.contains(r"top|\bbal|_bal")
    kind = metrics["name"].mask(plain if plain.any() else other, "acc")
    parts = [_named(metrics.assign(name=kind), "value"), _named(steps.assign(name="loss"), "loss")]
    logs = parts[0].combine_first(parts[1]).astype(float)
    for name in logs.columns.intersection(["acc", "val_acc"]):
        logs[name] /= 100 if logs[name].max() > 1 else 1
    evaluated = metrics.loc[metrics["split"] != "train", "epoch"]
    train = steps[steps["split"] == "train"]
    logs["until"] = train.groupby("epoch")["step"].max() + 1
    return logs[logs.index.isin(evaluated)].dropna(subset="until").astype({"until": int})


def swings(curve: np.ndarray, least: float) -> int:
    """Count the falls of a curve from its i-th peak to its i-th dip that are ``least`` or more.

    As AutoTrainer and DeepFD do (ol_judge in utils/monitor.py and Callbacks/Monitor.py); a plateau is peak and dip.
    """
    rise, inner = np.diff(curve), curve[1:-1]
    peaks, dips = (inner[(sign * rise[:-1] >= 0) & (sign * rise[1:] <= 0)] for sign in (1, -1))
    return sum(peak - dip >= least for peak, dip in zip(peaks, dips, strict=False))


def evaluated_epochs(trace: Trace) -> pd.DataFrame:
    """Return :func:`epoch_logs`; raises NotApplicable if there are none, for rules that look at nothing else."""
    logs = epoch_logs(trace)
    if logs.empty:
        raise NotApplicable("no epoch was evaluated, and the rules are asked at the end of each")
    return logs


def _named(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    chosen = rows[rows["name"].isin(["loss", "acc"])]
    names = np.where(chosen["split"] == "train", "", "val_") + chosen["name"]
    # a mean in pandas leaves NaN out
    return chosen.groupby(["epoch", names])[value].agg(lambda values: values.to_numpy().mean()).unstack()


def readings(trace: Trace, kind: str, statistic: str = "mean") -> pd.DataFrame:
    """Return a statistic of each tensor of a kind: a row per step looked at, columns in the order of the model.

    NaN is where a tensor was not seen; where the statistic itself is NaN, as among values that are, it is inf here.
    """
    rows = trace.layers[trace.layers["kind"] == kind]
    values = rows[statistic].astype(float).fillna(np.inf).set_axis(pd.MultiIndex.from_frame(rows[["step", "layer"]]))
    return values.unstack()[list(pd.unique(rows["layer"]))] if len(rows) else pd.DataFrame()


def states(trace: Trace, kind: str) -> pd.DataFrame:
    """Number the states of each tensor of a kind, in a table as :func:`readings`: the same if all four statistics are.

    The means alone are not enough: in double precision one may stay within the single precision that a trace has.
    """
    rows = trace.layers[trace.layers["kind"] == kind]
    number = rows.groupby(["mean", "std", "min", "max"], dropna=False).ngroup().astype(float)
    return number.set_axis(pd.MultiIndex.from_frame(rows[["step", "layer"]])).unstack() if len(rows) else pd.DataFrame()


def compared(trace: Trace) -> dict[str, pd.DataFrame]:
    """Return what says whether a tensor has changed: :func:`states` of weights and gradients, means of outputs.

    Outputs but of the last layer and of those that only flatten; batches differ, so that means of outputs do.
    """
    kinds, outputs = trace.meta.get("layers", {}), readings(trace, "activation").iloc[:, :-1]
    moving = [name for name in outputs if kinds.get(name) not in FLATTEN]
    return {"activation": outputs[moving], **{kind: states(trace, kind) for kind in ("gradient", "weight")}}


def latest(trace: Trace, kind: str, step: int) -> pd.DataFrame:
    """Return all statistics of the tensors of a kind, by name, at the last step looked at that is not after ``step``.

    ``rms``, the root mean square, is the norm over the root of the size. ``size`` is the mean absolute value: that of
    the mean where all values have one sign, else what it is of normal values with this mean and deviation.
    """
    steps, tables = _by_step(trace, kind)
    return tables[bisect_right(steps, step)]


@lru_cache(maxsize=8)  # rules ask for every epoch
def _by_step(trace: Trace, kind: str) -> tuple[list[float], list[pd.DataFrame]]:
    """Return the steps looked at, and :func:`latest` before the first of them, at it, at the second, ..."""
    rows = trace.layers[trace.layers["kind"] == kind].set_index("layer").drop(columns="kind").astype(float)
    rows["rms"] = np.hypot(rows["mean"], rows["std"])
    rows["size"] = _folded_mean(rows["mean"], rows["std"]).where(
        (rows["min"] < 0) & (rows["max"] > 0), rows["mean"].abs()
    )
    steps = sorted(set(rows["step"]))
    at = rows.drop(columns="step").groupby(rows["step"])
    return steps, [rows.iloc[:0].drop(columns="step"), *(at.get_group(step) for step in steps)]


def _folded_mean(mean: pd.Series, std: pd.Series) -> pd.Series:
    """Return the mean absolute value of values that are normal with this mean and deviation."""
    z = mean / (std * math.sqrt(2))
    folded = std * math.sqrt(2 / math.pi) * np.exp(-(z**2)) + mean * z.map(math.erf)
    return folded.where(std > 0, mean.abs())


def share_beyond(size: float, mean: float, std: float) -> float:
    """Return the share of values that are ``size`` or more from 0, if they are normal with this mean and deviation."""
    if not std > 0:
        return float(abs(mean) >= size)
    return sum(0.5 * math.erfc((size + sign * mean) / (std * math.sqrt(2))) for sign in (-1, 1))


def unchanged(means: pd.DataFrame, window: int) -> list[str]:
    """Return the columns of which the last ``window`` rows are all the same; none unless rows are a multiple of it."""
    if not len(means) or len(means) % window:
        return []
    last = means.to_numpy(dtype=float)[-window:]
    return list(means.columns[(last == last[0]).all(axis=0)])


def called(trace: Trace) -> dict[str, str]:
    """Return name and class of each layer in the order of their first call; a function such as F.relu is no layer."""
    kinds = trace.meta.get("layers", {})
    rows = trace.layers.loc[trace.layers["kind"] == "activation", "layer"]
    return {name: kinds.get(name, "") for name in pd.unique(rows)}


def by_model(trace: Trace) -> list[dict[str, str]]:
    """Return :func:`called` for each model that is watched: a layer follows another in one model only."""
    layers = called(trace)
    prefixes = [name.removesuffix("parameters") for name in trace.meta.get("sizes", {"": 0})]
    return [{name: kind for name, kind in layers.items() if name.startswith(prefix)} for prefix in prefixes]


def kernels(trace: Trace, kinds: tuple[str, ...] = ()) -> list[str]:
    """Return the names of all parameters that Keras calls kernels: weights of layers (of ``kinds``), but of no norm."""
    return list(_kernels(trace, kinds))


@lru_cache(maxsize=8)
def _kernels(trace: Trace, kinds: tuple[str, ...]) -> tuple[str, ...]:
    parameters = trace.layers.loc[trace.layers["kind"].isin(NORMS), "layer"]
    layers, found = trace.meta.get("layers", {}), []
    for name in pd.unique(parameters):
        layer, _, role = name.rpartition(".")
        kind = layers.get(layer, "")
        if "weight" in role and "Norm" not in kind and kind != "PReLU" and kind.startswith(kinds or ("",)):
            found.append(name)
    return tuple(found)


def sizes(trace: Trace) -> dict[str, float]:
    """Return how many elements each parameter has; all 1 where the trace does not tell.

    A trace has the squared norm over all parameters, which is the sum of size * (mean^2 + std^2), at each step looked
    at and for gradients, weights and updates: linear equations with the sizes as unknowns. They are solved if the
    solution is whole and adds up to the model's size; where nothing moves, equations are too few.
    """
    names, equations = list(pd.unique(trace.layers.loc[trace.layers["kind"].isin(NORMS), "layer"])), []
    train = trace.train_steps().set_index("step")
    for kind, column in NORMS.items():
        squares = readings(trace, kind) ** 2 + readings(trace, kind, "std") ** 2
        squares = squares.reindex(columns=names, fill_value=0.0).fillna(0.0)
        if column in train:
            equations.append(squares.div(train[column].reindex(squares.index) ** 2, axis=0))
    rows = np.concatenate([part.to_numpy() for part in equations]) if equations else np.zeros((0, len(names)))
    rows = rows[np.isfinite(rows).all(axis=1)]
    solution = np.linalg.lstsq(rows, np.ones(len(rows)), rcond=None)[0] if len(rows) else np.zeros(len(names))
    whole = np.round(solution)
    known = np.abs(solution - whole).max(initial=0) < 0.01 and whole.min(initial=1) > 0
    known &= whole.sum() == trace.meta.get("sizes", {}).get("parameters")
    return dict(zip(names, whole if known else np.ones(len(names)), strict=True))


def gradient_norms(trace: Trace, step: int, size: dict[str, float]) -> tuple[np.ndarray, float]:
    """Return the norms of the kernels' gradients, first to last, and the share of zeros in all gradients.

    Embeddings are left out: Keras has their gradients in another format, which AutoTrainer skips.
    """
    rows = latest(trace, "gradient", step)
    rows = rows[~rows.index.isin(kernels(trace, ("Embedding",)))]
    count = rows.index.map(size).to_numpy(dtype=float)
    norms = (rows["rms"] * np.sqrt(count))[rows.index.isin(kernels(trace))].to_numpy(dtype=float)
    return norms, float((rows["zero_share"] * count).sum() / count.sum()) if len(rows) else 0.0
