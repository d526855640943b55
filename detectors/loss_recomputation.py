"""Which loss was computed? Recompute the recorded one under each hypothesis and see which equals the number."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from bugbench.detector import HEALTHY, Detector, Diagnosis, Suspect, Trace, suspect
from bugbench.trace import Batch

Loss = Callable[["View"], np.ndarray]


class View(NamedTuple):
    """A batch with its classes last: logits and targets (…, C), one-hot or soft, zero where a target is ignored."""

    z: np.ndarray
    y: np.ndarray
    gradient: np.ndarray | None

    def shifted(self, by: int) -> "View":
        return View(self.z[:, : self.z.shape[1] - by], self.y[:, by:], None) if by else self


@dataclass
class LossRecomputation(Detector):
    """Which loss was computed? Recompute the recorded one under each hypothesis and see which equals the number.

    Arithmetic on the recorded batches, in float64, no training curve. A hypothesis is named only if it gives the
    recorded loss of all batches, up to one constant factor, and the right formula does not; a loss that no formula
    here gives (a custom or regularised one) is not judged. Class targets (indices or soft): cross-entropy of logits,
    log-probabilities or probabilities, with targets as they are or one further (the shift inside the loss) is right;
    of softmax(outputs): ``redundant_softmax``; of a log-softmax over another axis: ``softmax_dim``; nll of raw outputs:
    ``nll_on_logits``; squared distance: ``mse_for_classes``; capped: ``clipped_loss``; smoothing above one half:
    ``label_smoothing_wrong``; binary cross-entropy of sigmoids taken for logits, and outputs that a ReLU has cut:
    ``activation_on_logits``. Continuous targets: mean over all pairs of a batch: ``label_broadcast``; distance to the
    inputs: ``wrong_target``. A loss or gradient with the sign turned: ``flipped_sign``. A sum instead of a mean is a
    matter of the learning rate, so ``loss_reduction_sum`` is named only where the loss also doubled or never fell.

    Identities of d loss / d outputs (PyTorch's documentation of CrossEntropyLoss: (softmax - onehot) / N): a softmax's
    gradient sums to zero over the axis it normalised; the target's entry is the one that is negative, which shows to
    which token each position was compared: its own (``unshifted_lm_labels``, if it also learnt to copy it, for some
    models shift their inputs themselves) or the second next (``double_shift``), and whether padding was
    (``padding_in_loss``).
    """

    access = {"data"}
    tolerance: float = 1e-4  # relative; float32 losses agree with float64 ones to 1e-6
    most: int = 10  # batches looked at, for speed
    agreement: float = 0.99  # of entries; the rest is left to float32 and to ties

    def diagnose(self, trace: Trace) -> Diagnosis:
        batches = [b for b in trace.batches() if _is_finite(b) and b.outputs.size and b.targets.size][: self.most]
        if len(batches) < 2:
            return HEALTHY
        losses = np.array([b.loss for b in batches])
        views = [_class_view(b, trace.meta.get("classes")) for b in batches]
        if any(v is None for v in views):
            return self._element_wise(batches, losses, trace)
        return self._class_wise(batches, [v for v in views if v], losses, trace)
