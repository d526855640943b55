"""The rules of SageMaker Debugger, asked of a trace. The detector ``sagemaker_rules`` has their limits and sources.

SageMaker saves tensors whole, a trace their statistics. What a rule asks of the elements is answered from these, and
each reading says whether exactly, by a bound, or by an estimate.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from bugbench.rule_table import Finding
from bugbench.trace import Trace

PERCENTILES = 3.29  # standard deviations from the 5th to the 95th percentile of a normal distribution


def tensor_rules(trace: Trace, limits: Any) -> Iterator[Finding]:
    """Ask gradients, weights, updates and losses."""
    layers, losses = trace.layers, trace.steps["loss"].to_numpy(float)
    gradients, weights = layers[layers["kind"] == "gradient"], of_weights(layers, "weight")
    ill = layers[layers["nonfinite"] > 0]
    if len(ill) or not np.isfinite(losses).all():
        where = f"in the {ill['kind'].iloc[0]} at step {ill['step'].iloc[0]}" if len(ill) else "in the loss"
        yield Finding("ExplodingTensor", f"NaN or infinity {where}", ill["layer"].iloc[0] if len(ill) else None)
    sizes = gradients.assign(size=root_mean_square(gradients))
    for row in _first(sizes[sizes["size"] < limits.vanishing]):
        yield Finding("VanishingGradient", f"a gradient of {row['size']:.2g} at step {row['step']}", row["layer"])
    zero = pd.concat([gradients, weights]).query("zero_share >= 1")
    for row in _first(zero):
        yield Finding("AllZero", f"the {row['kind']} is zero at step {row['step']}", row["layer"])
    ratios = update_ratios(layers)
    for size, wrong in (("large", ratios > limits.update_large), ("small", ratios < limits.update_small)):
        for row in _first(ratios[wrong].rename("ratio").reset_index()):
            text = f"an update of {row['ratio']:.2g} of the weight at step {row['step']}"
            yield Finding(f"WeightUpdateRatio.{size}", text, row["layer"])
    yield from _unchanged(weights, limits.unchanged_steps, limits.unchanged_rtol, limits.unchanged_atol)
    variance = weights["std"].astype(float) ** 2
    for row in _first(weights[(variance < limits.variance_min) | (variance > limits.variance_max)]):
        yield Finding("TensorVariance", f"a variance of {row['std'] ** 2:.2g} at step {row['step']}", row["layer"])


def activation_rules(trace: Trace, limits: Any) -> Iterator[Finding]:
    """Ask ReLU, tanh and sigmoid modules, and the first steps as a whole."""
    relus = list(activations(trace, ("ReLU", "ReLU6")))
    # more zeros than there can be while at least the tolerated share of the units is active often enough
    zeros = 1 - limits.relu_inactivity / 100 * (1 - limits.relu_layer / 100)
    for a in [a for a in relus if a.outputs["zero_share"] > zeros][:1]:
        text = f"{a.outputs['zero_share']:.2%} of the outputs are zero at step {a.step}"
        yield Finding("DeadRelu", text, a.layer)
    ranges = {"Tanh": (limits.tanh_low, limits.tanh_high), "Sigmoid": (limits.sigmoid_low, limits.sigmoid_high)}
    for a in activations(trace, tuple(ranges)):
        if (share := a.share_outside(*ranges[a.kind])) > limits.saturated_layer / 100:
            yield Finding("SaturatedActivation", f"{share:.0%} of the inputs saturate it at step {a.step}", a.layer)
            break
    early: dict[int, list[float]] = {}
    for a in relus:
        if a.step < limits.initialization_steps:
            early.setdefault(a.step, []).append(float(a.inputs["std"]) ** 2)
    for step, variances in early.items():
        if max(variances) > limits.variance_ratio * min(variances):
            text = (
                f"inputs of ReLU layers have variances of {min(variances):.2g} to {max(variances):.2g} at step {step}"
            )
            yield Finding("PoorWeightInitialization", text)
            break
    first = trace.layers[(trace.layers["kind"] == "gradient") & (trace.layers["step"] < limits.initialization_steps)]
    losses = trace.train_steps()["loss"].to_numpy(float)[: limits.initialization_steps]
    narrow = first[PERCENTILES * first["std"] < limits.distribution_range]
    if len(narrow) and not_decreasing(losses, limits.initialization_patience):
        text = f"a gradient's deviation is {narrow['std'].iloc[0]:.2g}, and the first losses do not fall"
        yield Finding("PoorWeightInitialization", text, narrow["layer"].iloc[0])


def curve_rules(trace: Trace, limits: Any) -> Iterator[Finding]:
    """Ask the losses, a mean for each epoch and part."""
    losses = evaluation_losses(trace)
    evaluated = not trace.steps["split"].str.contains("train").all()
    curve = losses[["step", "held_out"]] if evaluated else training_losses(trace)
    for (then, before), (step, loss) in loss_pairs(curve.to_numpy(float), limits.loss_steps):
        if not loss < before - limits.loss_percent / 100 * abs(before):
            yield Finding("LossNotDecreasing", f"{before:.4g} at step {then:g}, {loss:.4g} at step {step:g}")
    above, run = (losses["held_out"] - losses["train"]) / losses["train"], 0
    for i, ratio in enumerate(above):
        run = run + 1 if ratio > limits.overfit_ratio else 0
        if run >= limits.overfit_patience:
            yield Finding("Overfit", f"the loss of evaluation {i} is {ratio:.0%} above that in training")
            break
    for part, patience in (("train", limits.overtraining_train), ("held_out", limits.overtraining_validation)):
        if not_decreasing(losses[part].to_numpy(), patience, limits.overtraining_delta):
            text = f"{patience} evaluations without a loss ({part.replace('_', ' ')}) that is better by"
            yield Finding("Overtraining", f"{text} {limits.overtraining_delta}")


def data_rules(trace: Trace, limits: Any) -> Iterator[Finding]:
    """Ask labels, predictions and inputs."""
    seen = trace.samples.loc[trace.samples["split"] == "train", "label"].dropna()
    if trace.meta.get("task") == "classification" and len(seen) >= limits.samples:
        counts = seen.value_counts()
        if counts.max() > limits.imbalance * counts.min():
            text = f"{counts.max()} samples of class {counts.idxmax():g}, {counts.min()} of class {counts.idxmin():g}"
            yield Finding("ClassImbalance", text)
        labels, predicted = latest_answers(trace, limits.samples)
        wrong = {c: float((predicted[labels == c] != c).mean()) for c in np.unique(labels)}
        for c in [c for c in wrong if wrong[c] > limits.misprediction][:1]:
            yield Finding("ClassImbalance.misprediction", f"{wrong[c]:.0%} of class {c} are taken for another")
    train, batches = trace.train_steps(), trace.batches("train")
    looked = train[train["input_mean"].notna()] if "input_mean" in train else train[:0]
    inputs = batches[0].inputs if batches else np.zeros(0)
    if inputs.ndim == 4 and inputs.dtype.kind == "f" and looked["batch_size"].sum() >= limits.samples:
        mean = float(np.average(looked["input_mean"], weights=looked["batch_size"]))
        if abs(mean) > limits.image_mean:
            yield Finding("CheckInputImages", f"the mean of {looked['batch_size'].sum()} images is {mean:.3g}")
    tokens = [b.inputs for b in batches if b.inputs.dtype.kind in "iu" and b.inputs.ndim == 2]
    share = float(np.mean([(t == limits.token).mean() for t in tokens])) if tokens else 0.0
    if share > limits.token_percent / 100:
        yield Finding("NLPSequenceRatio", f"{share:.0%} of the tokens are {limits.token}")


@dataclass(frozen=True)
class Activation:
    """An activation module at one step: its kind, the statistics of what went in and of what came out."""

    step: int
    layer: str
    kind: str
    inputs: dict[str, float]
    outputs: dict[str, float]

    def share_outside(self, low: float, high: float) -> float:
        """Return the share of the inputs below ``low`` or above ``high``: estimated, as if they were normal."""
        mean, std = self.inputs["mean"], max(self.inputs["std"], 1e-12)
        if not math.isfinite(mean + std):
            return 0.0
        below, above = (math.erfc(z / math.sqrt(2)) / 2 for z in ((mean - low) / std, (high - mean) / std))
        return below + above


def activations(trace: Trace, kinds: tuple[str, ...]) -> Iterator[Activation]:
    """Yield the modules of these kinds, with the outputs of the layer called before them as their inputs.

    Functions such as ``F.relu`` are no modules and leave nothing in a trace.
    """
    names = trace.meta.get("layers", {})
    if not set(kinds) & set(names.values()):
        return
    rows: list[Any] = trace.layers[trace.layers["kind"] == "activation"].to_dict("records")
    for before, now in pairwise(rows):
        if names.get(now["layer"]) in kinds and before["step"] == now["step"]:
            yield Activation(now["step"], now["layer"], names[now["layer"]], before, now)


def _first(rows: pd.DataFrame) -> list[Any]:
    """Return the first row as a dictionary, if there is one."""
    return rows.head(1).to_dict("records")


def of_weights(layers: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Return the rows of a kind of the collection "weights": parameters with that word in their name, not biases."""
    return layers[(layers["kind"] == kind) & layers["layer"].str.contains("weight")]


def root_mean_square(rows: pd.DataFrame) -> pd.Series:
    """Return the root of the mean squared element of each tensor: exact, and a bound of the mean absolute element."""
    return (rows["mean"].astype(float) ** 2 + rows["std"].astype(float) ** 2) ** 0.5


def update_ratios(layers: pd.DataFrame) -> pd.Series:
    """Return the size of each weight's update divided by the weight's after it, indexed by step and layer."""
    update, weight = (
        root_mean_square(of_weights(layers, kind).set_index(["step", "layer"])) for kind in ("update", "weight")
    )
    return (update / weight).dropna()


def _unchanged(weights: pd.DataFrame, steps: int, rtol: float, atol: float) -> Iterator[Finding]:
    """Yield the first weight with the same four statistics at so many recorded steps in a row: an estimate."""
    for layer, rows in weights.groupby("layer", sort=False):
        values = rows[["mean", "std", "min", "max"]].to_numpy(float)
        same = np.isclose(values[1:], values[:-1], rtol=rtol, atol=atol).all(axis=1)
        for i in range(len(same) - steps + 2):
            if same[i : i + steps - 1].all():
                text = f"the same at {steps} recorded steps until {rows['step'].iloc[i + steps - 1]}"
                yield Finding("UnchangedTensor", text, str(layer))
                return


def evaluation_losses(trace: Trace) -> pd.DataFrame:
    """Return the mean loss in training and in evaluation, a row per epoch: columns step, train, held_out."""
    steps = trace.steps
    others = [split for split in dict.fromkeys(steps["split"]) if "train" not in split]
    if not others:
        return pd.DataFrame({"step": [], "train": [], "held_out": []})
    train, held_out = (steps[steps["split"] == split].groupby("epoch") for split in ("train", others[0]))
    columns = {"step": held_out["step"].max(), "train": train["loss"].mean(), "held_out": held_out["loss"].mean()}
    return pd.DataFrame(columns).dropna().reset_index(drop=True)


def training_losses(trace: Trace) -> pd.DataFrame:
    """Return the mean loss in training, a row per epoch: columns step and loss. For runs without an evaluation."""
    train = trace.train_steps().groupby("epoch")
    return pd.DataFrame({"step": train["step"].max(), "loss": train["loss"].mean()})


def loss_pairs(curve: np.ndarray, apart: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows of step and loss to compare: one at least ``apart`` steps after the last, and what it is held against.

    That is the newest at least as many steps behind it, which need not be the last one looked at.
    """
    looked = -math.inf
    for i, row in enumerate(curve):
        behind = [earlier for earlier in curve[:i] if row[0] - earlier[0] >= apart]
        if behind and row[0] - looked >= apart:
            looked = row[0]
            yield behind[-1], row


def not_decreasing(losses: np.ndarray, patience: int, delta: float = 0.0) -> bool:
    """Tell whether ``patience`` losses in a row were not ``delta`` better than the best before them."""
    best, waited = math.inf, 0
    for loss in losses:
        waited = 0 if loss < best - delta else waited + 1
        best = loss if waited == 0 else best
        if waited >= patience:
            return True
    return False


def latest_answers(trace: Trace, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and predicted classes of the last recorded batches with ``samples`` samples in all, or of none.

    A trace keeps early batches more densely than SageMaker does, so the latest are taken rather than the first.
    """
    splits = dict.fromkeys(trace.steps["split"])
    labels: list[np.ndarray] = []
    predicted: list[np.ndarray] = []
    for batch in sorted((b for split in splits for b in trace.batches(split)), key=lambda b: -b.step):
        if (
            batch.targets.dtype.kind in "iu"
            and batch.targets.shape == batch.outputs.shape[:-1]
            and batch.outputs.ndim == 2
        ):
            labels.append(batch.targets)
            predicted.append(batch.outputs.argmax(axis=-1))
            if sum(map(len, labels)) >= samples:
                return np.concatenate(labels), np.concatenate(predicted)
    return np.zeros(0, int), np.zeros(0, int)
