"""Which loss was computed? Recompute the recorded one under each hypothesis and see which equals the number."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from bugbench.detector import HEALTHY, Detector, Diagnosis, Trace, suspect
from bugbench.trace import Batch
from scipy.special import log_softmax, softmax, xlogy

Axis = int | tuple[int, ...]


@dataclass
class LossRecomputation(Detector):
    """Which loss was computed? Recompute the recorded one under each hypothesis and see which equals the number.

    Arithmetic on the recorded batches, in float64, for class targets, hard or soft. A fault is named only if its
    formula gives the recorded loss of all batches, up to a constant factor, and the right one does not. A loss that no
    formula here gives (custom, weighted, regularised) is not judged. Right: cross-entropy of logits, log-probabilities
    or probabilities; in sequences also with the targets one further (the shift inside the loss). Wrong: of
    softmax(outputs), ``redundant_softmax``; nll of raw outputs, ``nll_on_logits``; squared distance,
    ``mse_for_classes``; capped, ``clipped_loss``; smoothing above one half, ``label_smoothing_wrong``; a softmax over
    another axis, ``softmax_dim``. The last shows also in the outputs, which sum to one over that axis, or in their
    gradient, which sums to zero (as softmax - onehot does over the classes: PyTorch's CrossEntropyLoss). Where the
    right formula holds: outputs that are probabilities but taken for logits, ``redundant_softmax``, or that a ReLU or
    sigmoid has cut, ``activation_on_logits``; loss or gradient with the sign turned, ``flipped_sign``. A sum instead of
    a mean is a matter of the learning rate: ``loss_reduction_sum`` only where the loss also tripled or never fell by a
    tenth.
    """

    access = {"data"}
    tolerance: float = 1e-4  # relative; float32 losses agree with float64 ones to 1e-6
    most: int = 6  # batches looked at, spread over the run, for speed
    agreement: float = 0.99  # share of gradients that must have the wrong sign; the rest is left to ties

    def diagnose(self, trace: Trace) -> Diagnosis:
        finite = [b for b in trace.batches() if np.isfinite(b.loss) and b.outputs.size and np.isfinite(b.outputs).all()]
        chosen = (
            [finite[i] for i in np.unique(np.linspace(0, len(finite) - 1, self.most).astype(int))] if finite else []
        )
        views = [view for b in chosen if (view := _class_view(b, trace.meta)) is not None]
        if len(views) < 2:
            return HEALTHY
        for axis in _other_axes(views[0].z):
            if any(all(sign(v, axis) and not sign(v, -1) for v in views) for sign in SOFTMAX_SIGNS):
                return suspect("softmax_dim", f"outputs or their gradient are normalised over axis {axis}, not classes")
        moved = [View(v.z[:, :-1], v.y[:, 1:], v.slope[:, :-1], v.loss) for v in views if v.z.ndim == 3]
        for these in (views, moved):
            if found := self._explain(these, _right_means):
                return self._after(*found, these, trace.train_steps()["loss"].to_numpy())
        losses = np.array([v.loss for v in views])
        vary = np.ptp(losses) > 10 * self.tolerance * np.abs(losses).max()  # one number is soon explained
        if vary and (found := self._explain(views, _wrong_means)):
            fault, words = found[0].split(": ")
            return suspect(fault, f"{words} gives the loss of {len(views)} batches, the right formula does not")
        return self._limited(views)

    def _explain(self, views: "list[View]", formulas: "Callable[[View], dict[str, float]]") -> tuple[str, float] | None:
        """Return the first formula that gives all losses, and how many times its mean over a batch the loss is."""
        tables = [formulas(view) for view in views]
        losses, counts = np.array([v.loss for v in views]), np.array([v.y.sum() for v in views])
        for words in tables[0] if len(tables) > 1 else ():
            means = np.array([table[words] for table in tables])
            if not np.isfinite(means).all():  # no logarithm of a logit
                continue
            for weights in (np.ones(len(means)), counts):
                values = means * weights
                largest = np.abs(values).argmax()
                ratio = losses[largest] / values[largest] if values[largest] else 0.0
                # a factor other than 1 must be borne out by losses that differ
                differ = len(values) > 2 and np.ptp(values) > 0.01 * np.abs(values).max()
                if (differ or abs(abs(ratio) - 1) < self.tolerance) and np.allclose(
                    losses, ratio * values, rtol=self.tolerance, atol=1e-5 * abs(ratio)
                ):
                    return words, float(ratio * weights.mean())
        return None

    def _after(self, words: str, factor: float, views: "list[View]", curve: np.ndarray) -> Diagnosis:
        """Judge what the right formula leaves open: the sign, what the outputs went through, the reduction."""
        ascents = [(v.slope[v.y == 1] > 0).mean() for v in views if v.slope[v.y == 1].any()]
        if factor < 0 or (len(ascents) > 1 and min(ascents) >= self.agreement):
            return suspect("flipped_sign", f"the loss is {factor:.3g} times the {words}, and its gradient ascends")
        values = np.concatenate([v.z.ravel() for v in views])
        if words == "cross-entropy" and values.min() >= 0 and values.any():
            if all(_outputs_sum_to_one(v, -1) for v in views):
                return suspect("redundant_softmax", "the cross-entropy takes outputs for logits that are probabilities")
            if (zeros := (values == 0).mean()) > 0.01 or values.max() <= 1:
                evidence = f"the logits lie in [{values.min():.2g}, {values.max():.2g}], {zeros:.0%} of them are zero"
                return suspect("activation_on_logits", evidence)
        count = np.mean([v.y.sum() for v in views])
        late = np.median(curve[-max(len(curve) // 5, 1) :])
        if count > 1.5 and abs(factor / count - 1) < 0.01 and not max(curve.max() / 3, late / 0.9) < curve[0]:
            return suspect("loss_reduction_sum", f"the loss is a sum over {count:.0f} entries and does not come down")
        return HEALTHY

    def _limited(self, views: "list[View]") -> Diagnosis:
        """Judge two formulas with a free number: a loss that is capped, and labels that are smoothed."""
        losses, entropy = np.array([v.loss for v in views]), np.array([_right_means(v)["cross-entropy"] for v in views])
        capped = np.allclose(np.minimum(entropy, losses.max()), losses, rtol=self.tolerance)
        over = entropy > losses.max() * 1.01
        borne_out = not over.all() or all((v.slope == 0).all() for v in views)  # else the loss is merely constant
        if capped and over.sum() > 1 and borne_out:
            return suspect("clipped_loss", f"the loss is the cross-entropy, but never above {losses.max():.4g}")
        uniform = np.array([-(log_softmax(v.z, -1).mean(-1) * v.y.sum(-1)).sum() / max(v.y.sum(), 1) for v in views])
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (losses - entropy) / (uniform - entropy)
            if np.ptp(share) < 0.01 and 0.5 < share.mean() < 1.001:
                return suspect(
                    "label_smoothing_wrong", f"the loss spreads {share.mean():.0%} of a label over all classes"
                )
        return HEALTHY


class View(NamedTuple):
    """Logits z, targets y (one-hot or soft, all zero where ignored) and d loss / d z (NaN if unknown): (…, C)."""

    z: np.ndarray
    y: np.ndarray
    slope: np.ndarray
    loss: float


def _class_view(batch: Batch, meta: dict[str, Any]) -> View | None:
    """Return the batch with its classes last, or None if its targets are no classes of its outputs."""
    outputs, targets = batch.outputs.astype(np.float64), batch.targets
    last = outputs.ndim - 1
    if last < 1 or meta.get("task") == "regression":
        return None
    if np.issubdtype(targets.dtype, np.integer):
        targets = targets.ravel() if last == 1 and targets.size == len(outputs) else targets
        axes = [a for a in (last, 1) if outputs.shape[:a] + outputs.shape[a + 1 :] == targets.shape]
        axis = next((a for a in axes if outputs.shape[a] == meta.get("classes")), axes[0] if axes else 0)
        y = targets[..., None] == np.arange(outputs.shape[axis])
    else:
        axes = [a for a in (last, 1) if outputs.shape == targets.shape and np.abs(targets.sum(a) - 1).max() < 1e-3]
        axis = axes[0] if axes else 0
        y = np.moveaxis(targets, axis, -1)
    if not axis or outputs.shape[axis] < 2:
        return None
    slope = np.full_like(outputs, np.nan)
    if batch.output_gradients is not None and batch.output_gradients.shape == outputs.shape:
        slope = batch.output_gradients.astype(np.float64)
    return View(np.moveaxis(outputs, axis, -1), y.astype(np.float64), np.moveaxis(slope, axis, -1), batch.loss)


def _right_means(v: View) -> dict[str, float]:
    means = {"cross-entropy": -(v.y * log_softmax(v.z, -1)).sum(), "nll of probabilities": -xlogy(v.y, v.z).sum()}
    return {words: float(value) / max(v.y.sum(), 1) for words, value in means.items()}


def _wrong_means(v: View) -> dict[str, float]:
    sums = {
        "redundant_softmax: cross-entropy of softmax(outputs)": -(v.y * log_softmax(softmax(v.z, -1), -1)).sum(),
        "nll_on_logits: nll of raw outputs": -(v.y * v.z).sum(),
        "mse_for_classes: squared distance to one-hot labels": ((v.z - v.y) ** 2).sum(),
        "mse_for_classes: Brier score": ((softmax(v.z, -1) - v.y) ** 2).sum(),
    }
    for axis in _other_axes(v.z):
        sums[f"softmax_dim: softmax over axis {axis}"] = -(v.y * log_softmax(v.z, axis)).sum()
        sums[f"softmax_dim: cross-entropy of softmax over axis {axis}"] = -(
            v.y * log_softmax(softmax(v.z, axis), -1)
        ).sum()
    return {words: float(value) / max(v.y.sum(), 1) for words, value in sums.items()}


def _other_axes(z: np.ndarray) -> list[Axis]:
    """Return the axes, and all of them together, over which a softmax would be wrong."""
    axes: list[Axis] = [a for a in range(z.ndim - 1) if z.shape[a] > 1]
    return [*axes, tuple(range(z.ndim - 1))] if len(axes) > 1 else axes


def _outputs_sum_to_one(v: View, axis: Axis) -> bool:
    return bool(v.z.min() >= 0 and np.abs(v.z.sum(axis) - 1).max() < 1e-3)


def _exponentials_sum_to_one(v: View, axis: Axis) -> bool:
    return bool(v.z.max() < 1e-6 and np.abs(np.exp(v.z).sum(axis) - 1).max() < 1e-3)


def _gradient_sums_to_zero(v: View, axis: Axis) -> bool:
    total = np.abs(v.slope).sum(axis).max()
    return bool(total > 0 and np.abs(v.slope.sum(axis)).max() <= 1e-4 * total)


SOFTMAX_SIGNS = (_outputs_sum_to_one, _exponentials_sum_to_one, _gradient_sums_to_zero)
