"""Is the first loss what a model that knows nothing must pay?"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from bugbench.class_view import class_view
from bugbench.detector import Detector, Diagnosis, NotApplicable, Suspect, Trace
from bugbench.trace import Batch
from scipy.special import log_softmax

TASKS = ("classification", "language_model", "segmentation", "regression")


@dataclass
class InitialLoss(Detector):
    """Is the first loss what a model that knows nothing must pay?

    -ln(1/C) for C classes, 2.302 for ten (CS231n: "look for correct loss at chance performance"; Karpathy's recipe:
    "verify loss @ init"), ln 2 for targets of 0 and 1, and the mean square of the targets for the squared error, since
    outputs start near 0. TheDeepChecker alarms where the loss is off by its expectation or more (``dev_ratio`` 1), so
    at twice of it, and at zero or below. The first recorded batch is from before the first step. What is off is found
    by arithmetic on it, with e the right loss recomputed from outputs and targets:

    * the loss is -e: ``flipped_sign``; minus the mean output of the right class, ``nll_on_logits``, however large;
    * it is n e, for n targets: ``loss_reduction_sum``. This is TheDeepChecker's reduction test, made before training
      like all of this: it alarms as that does where a sum is meant and the learning rate is made for it;
    * e itself is too large: inputs of mean size 10 or more (AutoTrainer's abnormal data) are ``missing_normalization``,
      else weights are, ``large_init``;
    * e is a squared error of twice the targets' variance or more, which their mean alone would cost, and that mean is
      farther from zero than they are spread, and by 10 or more, as with abnormal data: ``unscaled_targets``.

    A loss that is none of these is weighted, or has other terms, and what it should start at is not known. A model that
    was trained before may begin with any loss up to that of chance, and is no alarm. CS231n's second test, that more
    regularization must raise the loss, needs a loss with the penalty in it; PyTorch's optimizers take the penalty as
    weight decay, so it is left out.
    """

    access = {"data"}
    deviation: float = 1.0  # TheDeepChecker, init_loss: dev_ratio
    large: float = 10.0  # AutoTrainer, abnormal data: mean |activation|; here of inputs, and |mean| of targets
    tolerance: float = 1e-3  # relative; float32 losses agree with float64 ones to 1e-6

    def diagnose(self, trace: Trace) -> Diagnosis:
        batch = next((b for b in trace.batches() if b.step == 0), None)
        if trace.meta.get("task") not in TASKS or batch is None:
            raise NotApplicable("no first batch of a task whose first loss is known")
        if not np.isfinite(batch.loss) or not np.isfinite(batch.outputs).all():
            raise NotApplicable("the first loss is not finite")
        view = class_view(batch, trace.meta)
        if view is not None:
            known = view.y.sum(axis=-1) > 0
            each = -(view.y * log_softmax(view.z, axis=-1)).sum(axis=-1)[known]
            raw = -float((view.y * view.z).sum(axis=-1)[known].mean()) if known.any() else np.nan
            return self._judge(batch, np.log(view.z.shape[-1]), each, raw)
        z, y = batch.outputs.astype(np.float64).ravel(), batch.targets.astype(np.float64).ravel()
        if z.size != y.size or not np.isfinite(y).all():
            raise NotApplicable("outputs and targets are neither classes nor pairs of numbers")
        if np.isin(y, (0, 1)).all():
            return self._judge(batch, np.log(2), np.logaddexp(0, z) - z * y, np.nan)
        every = np.concatenate([b.targets.astype(np.float64).ravel() for b in trace.batches()])
        errors, mean, spread = (z - y) ** 2, float(every.mean()), float(every.var())
        far = abs(mean) >= self.large and mean**2 > spread and errors.mean() >= (1 + self.deviation) * spread
        return self._judge(batch, mean**2 + spread, errors, np.nan, far=mean if far else 0.0)

    def _judge(self, batch: Batch, expected: float, each: np.ndarray, raw: float, far: float = 0.0) -> Diagnosis:
        """Compare with what is expected.

        Args:
            batch: the first.
            expected: the loss of a model that knows nothing.
            each: the right losses.
            raw: the loss of outputs taken for logarithms.
            far: the mean of targets that are too far from zero; 0 if they are not.
        """
        loss = batch.loss
        if not each.size:
            return Diagnosis()
        right, total = float(each.mean()), float(each.sum())
        unlogged = self._same(loss, raw) and not self._same(raw, right)
        usual = abs(loss - expected) < self.deviation * expected
        if usual and not unlogged and not far:
            return Diagnosis()
        seen = f"the first loss is {loss:.4g}, and a model that knows nothing pays {expected:.4g}"

        def causes() -> Iterator[tuple[str, str]]:
            if self._same(loss, -right):
                yield "flipped_sign", f"; the outputs give {right:.4g}"
            elif unlogged:
                yield "nll_on_logits", "; it is minus the mean output of the right class"
            elif self._same(loss, total) and each.size > 1:
                yield "loss_reduction_sum", f"; the outputs give {right:.4g} for each of {each.size}"
            elif self._same(loss, right):
                if far:
                    yield "unscaled_targets", f"; the targets are {far:.3g} on average"
                size = float(np.abs(batch.inputs.astype(np.float64)).mean())
                large = batch.inputs.dtype.kind == "f" and size >= self.large
                faults = ["missing_normalization", "large_init"] if large else ["large_init", "missing_normalization"]
                yield from ((fault, f"; the inputs are {size:.3g} from zero on average") for fault in faults)
            else:
                raise NotApplicable(
                    f"the first loss, {loss:.4g}, is of no formula known here; outputs give {right:.4g}"
                )

        return Diagnosis(Suspect(fault, 0.7 / (i + 1), seen + why) for i, (fault, why) in enumerate(causes()))

    def _same(self, loss: float, value: float) -> bool:
        return bool(np.isclose(loss, value, rtol=self.tolerance, atol=1e-9))
