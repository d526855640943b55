"""A recorded batch of a classification, as detectors that recompute like to have it: classes last, targets one-hot."""

from typing import Any, NamedTuple

import numpy as np
from bugbench.trace import Batch

Axis = int | tuple[int, ...]


class ClassView(NamedTuple):
    """Arrays of shape (…, C) in float64, and the batch's loss.

    Attributes:
        z: the outputs.
        y: the targets, one-hot or soft; all zero where a target is none of the classes, as -100 is.
        slope: d loss / d outputs; NaN where the recorder did not see it.
        loss: as recorded.
    """

    z: np.ndarray
    y: np.ndarray
    slope: np.ndarray
    loss: float


def class_view(batch: Batch, meta: dict[str, Any]) -> ClassView | None:
    """Return the batch with its classes last, or None if its targets are no classes of its outputs.

    Targets are indices, of the outputs' shape without the classes' axis (the last, or the second as in images), or
    soft, of the outputs' shape and with sum one. Where both axes fit, ``meta["classes"]`` decides.
    """
    outputs, targets, slope = batch.outputs.astype(np.float64), batch.targets, batch.output_gradients
    last = outputs.ndim - 1
    if last < 1 or not outputs.size or meta.get("task") == "regression":
        return None
    hard = np.issubdtype(targets.dtype, np.integer)
    if hard:
        targets = targets.ravel() if last == 1 and targets.size == len(outputs) else targets
        axes = [a for a in (last, 1) if outputs.shape[:a] + outputs.shape[a + 1 :] == targets.shape]
    else:
        axes = [a for a in (last, 1) if outputs.shape == targets.shape and np.abs(targets.sum(a) - 1).max() < 1e-3]
    axis = next((a for a in axes if outputs.shape[a] == meta.get("classes")), axes[0] if axes else 0)
    if not axis or outputs.shape[axis] < 2:
        return None
    z = np.moveaxis(outputs, axis, -1)
    y = targets[..., None] == np.arange(z.shape[-1]) if hard else np.moveaxis(targets, axis, -1)
    known = slope is not None and slope.shape == outputs.shape
    gradient = np.moveaxis(slope, axis, -1) if known and slope is not None else np.full(z.shape, np.nan)
    return ClassView(z, y.astype(np.float64), gradient.astype(np.float64), batch.loss)


def other_axes(z: np.ndarray) -> list[Axis]:
    """Return the axes, and all of them together, over which a softmax of ``z`` (…, C) would be wrong."""
    axes: list[Axis] = [a for a in range(z.ndim - 1) if z.shape[a] > 1]
    return [*axes, tuple(range(z.ndim - 1))] if len(axes) > 1 else axes


def spread(batches: list[Batch], most: int) -> list[Batch]:
    """Return up to ``most`` batches with finite loss and outputs, spread over the run."""
    finite = [b for b in batches if np.isfinite(b.loss) and b.outputs.size and np.isfinite(b.outputs).all()]
    return [finite[i] for i in np.unique(np.linspace(0, len(finite) - 1, most).astype(int))] if finite else []
