"""Over which axis did a softmax work? Its outputs sum to one there, and the gradient behind it to zero."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from bugbench.class_view import Axis, ClassView, class_view, other_axes, spread
from bugbench.detector import HEALTHY, Detector, Diagnosis, Trace, suspect


@dataclass
class SoftmaxAxis(Detector):
    """Over which axis did a softmax work? Its outputs sum to one there, and the gradient behind it to zero.

    Two identities, whatever the loss makes of the softmax (weights of the classes, smoothing): probabilities, or the
    exponentials of log-probabilities, sum to one over the axis that was normalised; and since adding a constant along
    that axis changes nothing, d loss / d outputs sums to zero over it, as softmax - onehot does (PyTorch's
    documentation of CrossEntropyLoss). If one holds in all recorded batches over the batch, the time or both, and not
    over the classes, it is ``softmax_dim``. Silent where the model ends with another function of the scores.
    """

    access = {"data"}
    tolerance: float = 1e-4  # relative to the sum of the absolute values; float32 sums cancel to 1e-6
    most: int = 6  # batches looked at, spread over the run, for speed

    def diagnose(self, trace: Trace) -> Diagnosis:
        views = [v for b in spread(trace.batches(), self.most) if (v := class_view(b, trace.meta)) is not None]
        signs: dict[str, Callable[[ClassView, Axis], bool]] = {
            "outputs sum to one": lambda v, axis: v.z.min() >= 0 and _is_one(v.z, axis),
            "outputs' exponentials sum to one": lambda v, axis: v.z.max() < 1e-6 and _is_one(np.exp(v.z), axis),
            "gradients of the outputs sum to zero": self._is_zero,
        }
        for axis in other_axes(views[0].z) if len(views) > 1 else ():
            for words, sign in signs.items():
                if all(v.z.ndim == views[0].z.ndim and sign(v, axis) and not sign(v, -1) for v in views):
                    return suspect(
                        "softmax_dim", f"the {words} over axis {axis} of {len(views)} batches, not over classes"
                    )
        return HEALTHY

    def _is_zero(self, v: ClassView, axis: Axis) -> bool:
        total = np.abs(v.slope).sum(axis).max()
        return bool(total > 0 and np.abs(v.slope.sum(axis)).max() <= self.tolerance * total)


def _is_one(values: np.ndarray, axis: Axis) -> bool:
    return bool(np.abs(values.sum(axis) - 1).max() < 1e-3)
