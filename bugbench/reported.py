"""What a program reports of itself: one evaluation split, its losses, one accuracy, and a start at chance."""

import math

import numpy as np
import pandas as pd
from bugbench.trace import Trace

EXACT = ("accuracy", "acc")
OTHERS = ("bal", "top")  # balanced over classes, or one of five guesses: no share of right answers
STARTS_AT_CHANCE = 0.25  # relative; a new model's outputs are small, and losses of other formulas start elsewhere


def evaluation_split(trace: Trace) -> str | None:
    """Return the evaluation split reported first, else logged first.

    Further splits, of noisy or foreign data say, are to differ, so they are never mixed; one with "train" in its name
    is training.
    """
    for table in (trace.metrics, trace.steps):
        for split in pd.unique(table["split"]):
            if "train" not in split.lower():
                return str(split)
    return None


def evaluation_losses(trace: Trace) -> pd.Series:
    """Return the loss of each evaluation by its step, as reported (a batch's may be a sum), else the batches' mean."""
    split = evaluation_split(trace)
    rows = trace.metrics[(trace.metrics["split"] == split) & (trace.metrics["name"] == "loss")]
    rows = trace.steps[trace.steps["split"] == split].rename(columns={"loss": "value"}) if rows.empty else rows
    return rows.groupby("step")["value"].mean()


def accuracy_name(trace: Trace) -> str | None:
    """Return the one reported metric of the evaluation split that is the share of right answers."""
    found = [n for n in _names(trace) if "acc" in n.lower() and not any(word in n.lower() for word in OTHERS)]
    return min(found, key=lambda name: name.lower() not in EXACT, default=None)


def r2_name(trace: Trace) -> str | None:
    """Return the name by which the evaluation split's R2 is reported."""
    return next((name for name in _names(trace) if name.lower() in ("r2", "r2_score")), None)


def _names(trace: Trace) -> list[str]:
    return list(pd.unique(trace.metrics.loc[trace.metrics["split"] == evaluation_split(trace), "name"]))


def accuracies(trace: Trace, split: str | None) -> np.ndarray:
    """Return :func:`accuracy_name` as a split reported it, as shares: percent are divided by 100."""
    values = trace.metric(str(split), str(accuracy_name(trace))).to_numpy(dtype=np.float64)
    return values / 100 if values.max(initial=0) > 1 else values


def chance_loss(losses: np.ndarray, classes: int) -> float:
    """Return ln C, what a uniform guess over C classes costs, where ``losses`` of training start near it; else 0."""
    guess = math.log(classes) if classes > 1 else math.inf
    # the first is from before the first step, whatever comes of that; the median has less noise
    starts = [losses[0], float(np.median(losses[:5]))] if len(losses) else []
    return guess if any(abs(start - guess) < STARTS_AT_CHANCE * guess for start in starts) else 0.0


def cost_of_accuracy(right: float, classes: int) -> float:
    """Return the cross-entropy of who knows only how often he is right: each guess that sure, the rest even."""
    wrong = 1 - right
    return -sum(p * math.log(p / n) for p, n in ((right, 1), (wrong, classes - 1)) if p > 0 and n > 0)


class Curves:
    """Losses per batch and per evaluation, and what the program reported."""

    def __init__(self, trace: Trace) -> None:
        train, task = trace.train_steps(), trace.meta.get("task")
        self.loss = loss = train["loss"].to_numpy(dtype=np.float64)
        self.val = evaluation_losses(trace).to_numpy(dtype=np.float64)
        known = task in ("classification", "regression", "language_model") and len(loss) >= 20 and len(self.val) > 1
        self.usable = known and bool(np.isfinite(loss).all() and np.isfinite(self.val).all())
        self.language = task == "language_model"
        self.classes = (trace.meta.get("classes") or 0) * (task != "regression")
        self.chance = chance_loss(loss, self.classes)
        self.first = first = int((train["epoch"] == train["epoch"].min()).sum())  # batches of the first epoch
        self.fresh = float(loss[first // 2 : first].mean()) if known else math.nan
        self.end = float(np.median(loss[-max(len(loss) // 10, 1) :])) if known else math.nan
        self.train_right, self.val_right = (accuracies(trace, split) for split in ("train", evaluation_split(trace)))
        most = self.val_right.max(initial=0)
        self.knows = self.classes > 1 and most > (0.1 if self.classes >= 20 else 0.5 + 0.5 / self.classes)
