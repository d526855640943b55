"""How a program may have counted a metric of an evaluation, rightly or not."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from bugbench.trace import Batch

Tally = tuple[float, float]  # what a batch adds to the sum, and to the number by which the sum is divided
LARGEST = 2**26  # numbers in a broadcast comparison, for memory


def countings(name: str, batches: list[Batch]) -> Iterator[tuple[str, list[Tally]]]:
    """Yield "right" or a fault, and what each batch adds to the metric: the right ways of counting come first."""
    batches = [_indexed(b) for b in batches]
    paired = all(b.outputs.size == b.targets.size for b in batches)
    if name in ("mae", "mse", "rmse") and paired:
        away = [b.outputs.astype(np.float64).ravel() - b.targets.ravel() for b in batches]
        yield "right", [(float((np.abs(d) if name == "mae" else d**2).sum()), d.size) for d in away]
    elif ("acc" in name or "dice" in name) and paired and all(np.isin(b.targets, (0, 1)).all() for b in batches):
        rows = [(b.outputs.reshape(len(b.targets), -1), b.targets.reshape(len(b.targets), -1) == 1) for b in batches]
        for fault, cut in _cuts(batches):
            if "acc" in name:
                yield fault, [(float(((z > cut) == t).sum()), t.size) for z, t in rows]
            else:  # of all pixels, and of each image
                parts = [(2.0 * ((z > cut) & t).sum(axis=1), (z > cut).sum(axis=1) + t.sum(axis=1)) for z, t in rows]
                yield fault, [(float(both.sum()), float(size.sum())) for both, size in parts]
                if all(size.all() for _, size in parts):
                    yield fault, [(float((both / size).sum()), len(size)) for both, size in parts]
    elif "acc" in name and np.issubdtype(batches[0].targets.dtype, np.integer):
        yield from _of_classes(batches)


def _of_classes(batches: list[Batch]) -> Iterator[tuple[str, list[Tally]]]:
    first = batches[0]
    shape, dims = first.outputs.shape, first.outputs.ndim
    axes = [a for a in (dims - 1, 1) if first.targets.shape in (r := shape[:a] + shape[a + 1 :], (*r, 1))]
    if dims < 2 or not axes:
        return
    axis, sizes = axes[0], [int((b.targets >= 0).sum()) for b in batches]
    best = [b.outputs.argmax(axis=axis) for b in batches]
    yield "right", [((p == b.targets.reshape(p.shape)).sum(), n) for p, b, n in zip(best, batches, sizes, strict=True)]
    others = [[b.outputs.argmax(axis=a) for b in batches] for a in [None, *(a for a in range(dims) if a not in axes)]]
    for said in [*others, best, [np.expand_dims(p, axis) for p in best]]:
        tallies = [_compared(p, b.targets) for p, b in zip(said, batches, strict=True)]
        known = [tally for tally in tallies if tally is not None]
        if len(known) == len(batches):
            yield "metric_wrong_dim", [(hits, n) for (hits, _), n in zip(known, sizes, strict=True)]
            yield "metric_wrong_dim", known  # the mean of all that was compared
    if shape[axis] == 2:
        scores = [np.moveaxis(b.outputs.astype(np.float64), axis, -1) for b in batches]
        for weight in (0.0, 1.0):  # the second output, and its lead
            for fault, cut in _cuts(batches)[1:]:
                with np.errstate(invalid="ignore"):
                    said = [z[..., 1] - weight * z[..., 0] > cut for z in scores]
                hits = [(p == b.targets.reshape(p.shape)).sum() for p, b in zip(said, batches, strict=True)]
                yield fault, list(zip(map(float, hits), sizes, strict=True))


def _cuts(batches: list[Batch]) -> list[tuple[str, float]]:
    """Return where scores are to be cut, and where by mistake; no probability, of logits either, is below zero."""
    if outside_unit(batches):
        return [("right", 0.0), ("logit_threshold", 0.5), ("logit_threshold", -np.inf)]
    return [("right", 0.5), ("logit_threshold", 0.0)]


def outside_unit(batches: list[Batch]) -> bool:
    """Tell whether some outputs are no probabilities."""
    return any(b.outputs.min() < 0 or b.outputs.max() > 1 for b in batches)


def _indexed(b: Batch) -> Batch:
    """Return the batch with class indices for targets where these were one-hot."""
    axes = (a for a in (b.targets.ndim - 1, 1) if b.outputs.shape == b.targets.shape and 0 < a < b.targets.ndim)
    one_hot = [a for a in axes if b.targets.shape[a] > 1 and np.isin(b.targets, (0, 1)).all()]
    return next((replace(b, targets=b.targets.argmax(a)) for a in one_hot if (b.targets.sum(a) == 1).all()), b)


def _compared(predicted: np.ndarray | np.intp, targets: np.ndarray) -> Tally | None:
    """Return hits and comparisons as broadcasting counts them; None where it raises, or takes too much memory."""
    try:
        size = math.prod(np.broadcast_shapes(np.shape(predicted), targets.shape))
    except ValueError:
        return None
    return (float((predicted == targets).sum()), size) if 0 < size <= LARGEST else None
