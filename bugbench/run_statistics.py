"""A run in numbers, as detectors that learn take it: series of what was recorded of it, and statistics of each.

:func:`monitor_statistics` has the features of DeepFD (Cao et al., ICSE 2022; ArabelaTso/DeepFD, folder CodeBook), and
:func:`run_statistics` has more beside them. DeepFD's ``Callbacks/Monitor.py`` writes a row of 22 numbers at each look;
``Utils/cal_stats.py`` takes eight statistics of each column, what is NaN being 0, and what ``log.csv`` has last.
Thresholds are those of ``Config.py`` (its ``run_all.py`` takes them from there), else of ``Monitor.py``.

Changed:

- A look is at the end of an epoch that was evaluated, at the epochs until then, as in AutoTrainer, of which the monitor
  was made. DeepFD looks at each epoch's first batch and every 256th thereafter (``run_all.py``), at a history that has
  batches and epochs in one list (``LossHistory.py``): 30 % of the epochs are over after as many entries, and Keras does
  not validate after a batch, so that not_converge, sc_accuracy, test_not_well, test_turn_bad, val_loss and val_acc can
  only be 0. Its acc is of batches, which a trace has not.
- DeepFD's rows have four fields more than its table has headings, and pandas takes the first four of them for the
  index. So its summary.csv lacks not_converge, unstable_loss, nan_loss and test_not_well, and the rest has the names
  of others. Here each has its own.
- Gradients are of a training batch, the last one looked at before the end of the epoch, not of the first batch in test
  mode. Norms and shares of zeros ask for the sizes of tensors, which are solved for (``keras_view.sizes``). Where that
  fails, as with two models, all count the same: norms are root mean squares then, and shares have no weights.
- Weights are those that are trained, without the running statistics of norms, after the same step. An epoch in which
  none was looked at counts none as unchanged; of a run without any step of an optimizer, all are.

Left out: weight_change_little, which DeepFD never sets. Where a program reports no accuracy, no rule that asks for one
applies: other metrics have other scales.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from bugbench.keras_view import epoch_logs, gradient_norms, latest, readings, sizes, swings
from bugbench.trace import Trace

STATISTICS = ("mean", "std", "skew", "median", "var", "sem", "max", "min")
CURVES = ["loss", "acc", "val_loss", "val_acc"]
VANISHED, SMALL = 1e-3, 1e-4  # ratio of the first to the last kernel's gradient, and the first one's own norm
EXPLODED = 70.0  # the same ratio
DIED = 0.7  # share of gradients that are zero
LARGE = 5.0  # a weight
START = 0.3  # of the epochs, before which curves are not judged
HUGE = 1e5  # validation loss
GAP, GAP_ABOVE, HIGH = 0.1, 0.07, 0.9  # training less validation accuracy, and what it is where training has above 0.9
SATISFIED = 0.6  # accuracy
GAIN = 0.01  # of accuracy in an epoch, and a change of losses that counts
SWING, OFTEN = 0.03, 0.2  # a fall of training accuracy from a peak, and the share of epochs that have one
Series = Mapping[str, Sequence[float] | np.ndarray | pd.Series]


def monitor_statistics(trace: Trace) -> dict[str, float | None]:
    """Return DeepFD's features by name; None where one is not defined or not finite."""
    looks = monitor(trace)
    final = {f"{name}_last": _finite(looks[name].iloc[-1]) if len(looks) else None for name in CURVES}
    return _statistics({str(name): column for name, column in looks.items()}) | final


def run_statistics(trace: Trace) -> dict[str, float | None]:
    """Return DeepFD's features, and statistics over batches.

    Of all batches: loss and learning rate. Of those looked at closely: size (root mean square) of gradients, ratio of
    the first to the last, share of zeros; the largest weight; zeros in the outputs of ReLU; mean and deviation of all
    outputs. They stand for adjusted_lr, mean_activation, std_activation, dying_relu and the gradients of DEFault (Jahan
    et al., ICSE 2025; ``default_tool/config.py``).
    """
    series = {**_batches(trace), **_layers(trace)}
    finite = {
        name: pd.Series(np.asarray(values, dtype=np.float64)).replace([np.inf, -np.inf], np.nan)
        for name, values in series.items()
    }
    return monitor_statistics(trace) | _statistics(finite)


def table(runs: Iterable[Mapping[str, float | None]], names: Sequence[str]) -> np.ndarray:
    """Return a row per run and a column per name; NaN where a run has no such number."""
    rows = [[np.nan if (value := run.get(name)) is None else value for name in names] for run in runs]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(names))


def _statistics(series: Mapping[str, pd.Series]) -> dict[str, float | None]:
    with np.errstate(all="ignore"):
        return {f"{name}_{what}": _finite(getattr(series[name], what)()) for name in series for what in STATISTICS}


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


# -- DeepFD's monitor -----------------------------------------------------------------------------------------------


def monitor(trace: Trace) -> pd.DataFrame:
    """Return what DeepFD's monitor writes down: a row for each look; counters grow, and flags that are set stay."""
    logs = epoch_logs(trace)
    if logs.empty:  # take what there is for an epoch: as DeepFD looks at its first batch, it always has a row
        steps = trace.train_steps()
        logs = pd.DataFrame({"loss": [steps["loss"].mean()], "until": [len(steps)]}).head(len(steps))
    ends = logs["until"].to_numpy() - 1
    curves = logs.fillna(0.0).reindex(columns=CURVES).reset_index(drop=True)
    parts = [
        curves,
        _curve_rules(logs.reset_index(drop=True)),
        _gradient_rules(trace, ends),
        _weight_rules(trace, ends),
    ]
    return pd.concat(parts, axis=1).astype(np.float64)


def _curve_rules(logs: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of Monitor.py's loss_issue."""
    bad = (~logs.abs().lt(np.inf)).reindex(columns=CURVES, fill_value=False).astype(int).cummax() > 0
    loss, acc, val_loss, val_acc = (column for _, column in logs.reindex(columns=CURVES).astype(np.float64).items())
    nan_loss = bad["loss"] | bad["val_loss"] | (val_loss >= HUGE)
    nan_acc = ~nan_loss & (bad["acc"] | bad["val_acc"])
    past = pd.Series(np.arange(1, len(logs) + 1))
    judged = ~nan_loss & ~nan_acc & (past >= START * len(logs))
    gap = acc - val_acc >= np.where(acc > HIGH, GAP_ABOVE, GAP)
    turned = (loss.diff() < -GAIN) & (val_loss.diff() > GAIN)
    low = (acc.cummax() < SATISFIED) | (val_acc.cummax() < SATISFIED)
    slow = [curve.diff().cummax().fillna(0.0) < GAIN for curve in (acc, val_acc)]
    both = acc.notna() & val_acc.notna()
    swinging = np.array([swings(acc.to_numpy()[:n], SWING) >= OFTEN * n for n in past], dtype=bool)
    return pd.DataFrame(
        {
            **{"nan_loss": nan_loss.cumsum(), "nan_acc": nan_acc.cumsum()},
            "test_not_well": (judged & gap).cumsum(),
            "test_turn_bad": turned.astype(float).where(judged & (past > 1)).ffill().fillna(0.0),  # of the last epoch
            "unstable_loss": (judged & swinging).cumsum() > 0,
            "not_converge": (judged & both & low).cumsum() > 0,
            "sc_accuracy": (judged & both & slow[0] & slow[1]).cumsum() > 0,
            "increase_loss": (judged & (loss.diff() > 0)).cumsum(),
            "decrease_acc": (judged & (acc.diff() < 0)).cumsum(),
        }
    )


def _gradient_rules(trace: Trace, ends: np.ndarray) -> pd.DataFrame:
    """Return the columns of Monitor.py's gradient_issue."""
    size, rows = sizes(trace), []
    for end in ends:
        norms, zeros = gradient_norms(trace, int(end), size)
        with np.errstate(all="ignore"):  # 0 / 0 breaks no rule
            ratio = norms[:1] / norms[-1:]
        vanished = (ratio < VANISHED) & (norms[:1] < SMALL)
        bad = bool(latest(trace, "gradient", int(end))["nonfinite"].any())
        rows.append((bad, vanished.any() and not bad, (ratio > EXPLODED).any() and not bad, zeros >= DIED and not bad))
    counts = pd.DataFrame(rows, columns=["nan_gradient", "vanish_gradient", "explode_gradient", "died_relu"], dtype=int)
    return counts.cumsum().assign(nan_gradient=counts["nan_gradient"].cummax())


def _weight_rules(trace: Trace, ends: np.ndarray) -> pd.DataFrame:
    """Return the columns of Monitor.py's weights_issue; unchanged are tensors, of which a look may add several."""
    means = readings(trace, "weight")
    if means.empty:  # no optimizer took a step, so what has a gradient is as it was
        still = readings(trace, "gradient").shape[1] * np.arange(len(ends))
        return pd.DataFrame({"nan_weight": 0, "large_weight": 0, "cons_mean_weight": still, "cons_std_weight": still})

    def at_ends(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.reindex(ends, method="ffill").reset_index(drop=True)

    std, low, high, nonfinite = (readings(trace, "weight", name) for name in ("std", "min", "max", "nonfinite"))
    good = ~(at_ends(nonfinite) > 0).any(axis=1)
    large = (at_ends(low) < -LARGE).any(axis=1) | (at_ends(high) > LARGE).any(axis=1)
    looked = at_ends(pd.DataFrame({"step": means.index}, means.index))["step"]
    fresh = good & (looked.diff() > 0)
    same = {name: (at_ends(rows).diff() == 0).sum(axis=1) for name, rows in (("mean", means), ("std", std))}
    return pd.DataFrame(
        {
            **{"nan_weight": (~good).cumsum() > 0, "large_weight": (good & large).cumsum()},
            **{f"cons_{name}_weight": count.where(fresh, 0).cumsum() for name, count in same.items()},
        }
    )


# -- over batches ---------------------------------------------------------------------------------------------------


def _batches(trace: Trace) -> Series:
    steps = trace.train_steps()
    return {"batch_loss": steps["loss"], "lr": steps["lr"]}


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
    return {
        **{"gradient": by_step.mean(), "gradient_ratio": by_step.first() / by_step.last()},
        "gradient_zeros": gradients.groupby("step")["zero_share"].mean(),
        "weight": weights[["min", "max"]].abs().max(axis=1).groupby(weights["step"]).max(),
        "dead_relu": relus.groupby("step")["zero_share"].max(),
        "activation_mean": activations.groupby("step")["mean"].mean(),
        "activation_std": activations.groupby("step")["std"].mean(),
    }
