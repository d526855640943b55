"""Does the output of a sample depend on the other samples of its batch?"""

from dataclasses import dataclass

import torch
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Suspect, Trace, suspect
from bugbench.first_batch import FirstBatch, differ, first_batch
from torch import nn


@dataclass
class BatchIndependence(Detector):
    """Does the output of a sample depend on the other samples of its batch?

    Karpathy's recipe ("use backprop to chart dependencies"), with changed inputs in place of gradients. The program
    runs again up to its first training batch.

    The loss, for classes and tokens: d loss / d outputs sums to zero over the axis that a softmax has normalised. If
    that is another than the classes', the program runs a second time with one row of the outputs replaced along it; if
    that changes the gradient of the other rows by more than a common factor, samples are coupled in the loss:
    ``softmax_dim``. Coupling alone is no proof, for contrastive losses couple on purpose.

    The model, in evaluation mode: another sample in one row must leave the outputs of the other rows alone. If not, it
    has a softmax over the batch (``softmax_dim``) or takes the batch for the time (``swapped_axes``; first where only
    later rows change, as in a recurrent layer).

    Not applicable where ``first_batch`` says so, to a model that keeps a state from call to call, and to batch norm
    without running statistics; a model that takes more tensors than inputs, such as the edges of a graph, passes.
    """

    access = {"rerun"}
    tolerance: float = 1e-4  # relative; float32 sums in another order differ by 1e-6

    def diagnose(self, trace: Trace) -> Diagnosis:
        run = first_batch(trace)
        axis = self._softmax_axis(run) if trace.meta.get("task") in ("classification", "language_model") else None
        if axis is not None and self._coupled(run, first_batch(trace, replace=axis), axis):
            evidence = f"the outputs' gradient sums to zero over axis {axis}; one row's output changes the others'"
            return suspect("softmax_dim", evidence)
        for module in run.models[0].modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
                raise NotApplicable("batch norm without running statistics couples the batch on purpose")
        outputs = run.forward(run.inputs)
        if differ(outputs, run.forward(run.inputs)).any():
            raise NotApplicable("the model keeps a state from call to call")
        rows = len(outputs)
        others = [a for a in run.tensors if a is not run.inputs]
        row = next((row for row in run.inputs if not torch.equal(row, run.inputs[rows // 2])), None)
        # a tensor without a row for each sample, or with one for each pair, may couple them on purpose
        if row is None or any(a.shape[:1] != (rows,) or a.shape[1:2] == (rows,) for a in others):
            return HEALTHY
        inputs = run.inputs.clone()
        inputs[rows // 2] = row
        changed = differ(outputs, run.forward(inputs)).reshape(rows, -1).any(dim=1)
        before, after = int(changed[: rows // 2].sum()), int(changed[rows // 2 + 1 :].sum())
        if not before + after:
            return HEALTHY
        evidence = f"another sample in row {rows // 2} changes the outputs of {before} rows before and {after} after it"
        if outputs.min() >= 0 and (outputs.sum(dim=0) - 1).abs().max() < 1e-3:
            return suspect("softmax_dim", evidence + "; they sum to one over the batch")
        faults = ["softmax_dim", "swapped_axes"] if before else ["swapped_axes", "softmax_dim"]
        return Diagnosis(Suspect(f, 0.6 / (i + 1), evidence) for i, f in enumerate([*faults, "view_for_permute"]))

    def _softmax_axis(self, run: FirstBatch) -> int | None:
        """Return an axis over which the outputs' gradient sums to zero although it is not that of the classes."""
        slope, targets = run.slope, run.targets
        if slope is None or not slope.any():
            return None
        shape, last = slope.shape, slope.ndim - 1
        classes = {a for a in (1, last) if 0 < a <= last and targets.shape in (shape, shape[:a] + shape[a + 1 :])}
        if any(self._vanishes(slope, a) for a in classes):
            return None
        others = [a for a in range(slope.ndim) if a not in classes and shape[a] > 1]
        joint = slope.ndim == 3 and self._vanishes(slope.flatten(0, 1), 0)  # (B, T) flattened before the softmax
        return next((a for a in others if self._vanishes(slope, a)), 0 if joint else None)

    def _vanishes(self, slope: torch.Tensor, axis: int) -> bool:
        return bool(slope.sum(dim=axis).abs().max() <= self.tolerance * slope.abs().sum(dim=axis).max())

    def _coupled(self, before: FirstBatch, after: FirstBatch, axis: int) -> bool:
        if before.slope is None or after.slope is None:
            return False
        a, b = (slope.movedim(axis, 0)[1:].flatten() for slope in (before.slope, after.slope))
        return bool((b - a * (a @ b) / (a @ a)).norm() > 10 * self.tolerance * b.norm())
