"""The figure of one case: training loss and reported metric against the healthy twin."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from bugbench import atomic
from bugbench.job import CaseResult
from bugbench.store import Store
from bugbench.trace import Trace

BUG, TWIN, HIDDEN = "#c2410c", "#2563eb", "#111827"  # told apart in grey print and by colour-blind readers


def save_curves(result: CaseResult, store: Store, path: Path) -> Path:
    """Draw ``result`` into a PNG at ``path``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    case, record = result.case, result.record
    report = case.workload.settings["report"]
    metric = case.workload.settings["oracle"]["metric"]
    bug, twin = Trace(store.trace(record.trace_key)), Trace(store.trace(record.twin_key))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), constrained_layout=True)
    for trace, colour, name in ((twin, TWIN, "healthy twin"), (bug, BUG, record.bug)):
        steps = trace.train_steps()
        loss = steps["loss"].replace([np.inf, -np.inf], np.nan)
        left.plot(steps["step"], loss, color=colour, alpha=0.25, linewidth=0.8)
        left.plot(steps["step"], smooth(loss), color=colour, linewidth=1.6, label=name)
        values = trace.metric(report["split"], report["metric"])
        style = {"color": colour, "marker": "o", "markersize": 3, "linewidth": 1.4}
        right.plot(values.index + 1, values, label=f"{name}, reported", **style)
    if record.onset is not None:
        left.axvline(record.onset, color=HIDDEN, linewidth=0.8, linestyle=":", label=f"onset: step {record.onset}")
    for value, colour, name in ((record.oracle_twin, TWIN, "healthy twin"), (record.oracle_bug, BUG, record.bug)):
        if value is not None and np.isfinite(value):
            low, high = record.oracle["bounds"]
            level = float(np.clip(value, low, high))
            right.axhline(level, color=colour, linestyle="--", linewidth=1.2, label=f"{name}, hidden test")
    left.set(title="Training loss", xlabel="step", ylabel="loss")
    right.set(title=f"{metric}, reported and on the hidden test".capitalize())
    right.set(xlabel="epoch", ylabel=report["metric"])
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle(f"{record.bug} on {record.workload}, seed {record.seed}", fontsize=11)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    plt.close(figure)
    atomic.write(path, picture.getvalue())
    return path


def smooth(values: pd.Series, share: float = 0.05) -> pd.Series:
    """Return a centred rolling mean over ``share`` of the points."""
    window = max(int(len(values) * share), 1)
    return values.rolling(window, center=True, min_periods=1).mean()
