"""Is the model right as often as it is sure, and more often where it is surer?"""

from dataclasses import dataclass

import numpy as np
from bugbench.class_view import ClassView, class_view
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Suspect, Trace
from bugbench.whole_evaluations import fair_evaluations
from scipy.special import softmax


@dataclass
class RankCalibration(Detector):
    """Is the model right as often as it is sure, and more often where it is surer?

    On the evaluations that were recorded whole (of text, in part), with the confidence that Guo et al. (2017) look at,
    the largest probability:

    * *Calibration gap*: mean confidence less accuracy (their figure 1). Their uncalibrated networks mostly have an
      expected calibration error of 4 to 10 %, which a gap never exceeds; so a gap of more than 10 % by two standard
      errors is more than what is usual. Too sure: ``miscalibrated``, if since an earlier evaluation the confidence has
      grown and the accuracy has not; else inputs or labels of the evaluation are others than those of training
      (families). Not sure enough: ``label_smoothing_wrong`` and what else keeps scores together, but only if the
      training loss has come to rest, for scores grow as long as it falls; a slow fall may look like rest.
    * *Rejection*: when the less confident half is rejected, the relative error of the rest must fall (Nadeem et al.
      2010, accuracy-rejection curves). If the confident half is wrong more often than the other by two standard errors
      of the difference, confidence is the wrong way round: ``class_map_mismatch``, or evaluation has other inputs.

    Small networks on small data sets, unlike Guo's, may stay under 10 %; a fault that a temperature would mend, as
    miscalibration is, harms no accuracy.
    """

    access = {"data"}
    gap: float = 0.1  # Guo et al., of their results: typically between 4 and 10 %
    errors: float = 2.0  # standard errors
    bins: int = 15  # Guo et al.
    falls: float = 0.05  # in the last fifth of the run, against the one before; TheDeepChecker: less is no fall
    rows: int = 100  # fewer have a standard error of 5 %

    def diagnose(self, trace: Trace) -> Diagnosis:
        splits = [s for s in dict.fromkeys(trace.steps["split"]) if s != "train"]
        by_step: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        fair = [batches for split in splits[:1] for batches in fair_evaluations(trace, split).values()]
        for batch in (b for batches in fair for b in batches):
            view = class_view(batch, trace.meta) if np.isfinite(batch.outputs).all() else None
            if view is not None and not _squared(view):
                known = view.y.max(axis=-1) > 0.5
                sure, right = _probabilities(view.z).max(axis=-1), view.z.argmax(axis=-1) == view.y.argmax(axis=-1)
                by_step.setdefault(batch.step, []).append((sure[known], right[known]))
        seen = [tuple(np.concatenate(part) for part in zip(*by_step[step], strict=True)) for step in sorted(by_step)]
        if not seen or len(seen[-1][0]) < self.rows:
            raise NotApplicable(f"no evaluation of {self.rows} samples with a class and an output for each class")
        sure, right = seen[-1]
        gap, error = float((sure - right).mean()), float((sure - right).std() / np.sqrt(len(sure)))
        text = f"confidence {sure.mean():.3f}, accuracy {right.mean():.3f} of {len(sure)}, "
        text += f"expected calibration error {self._calibration_error(sure, right):.3f}"
        if gap > self.gap + self.errors * error:
            grown = [s.mean() < sure.mean() and r.mean() >= right.mean() - error for s, r in seen[:-1]]
            own = ["miscalibrated", "overfit_capacity"] if any(grown) else []
            return _ranked([*own, "preprocessing", "labels", "split"], "the model is too sure: " + text)
        if gap < -self.gap - self.errors * error and not self._still_falls(trace.train_steps()["loss"].to_numpy()):
            faults = ["label_smoothing_wrong", "redundant_softmax", "excess_dropout", "too_few_epochs", "lr_too_low"]
            return _ranked(faults, "the model is not sure enough: " + text)
        order = np.argsort(-sure, kind="stable")
        kept, rejected = (~right[part] for part in np.array_split(order, 2))
        spread = np.sqrt(kept.var() / len(kept) + rejected.var() / len(rejected))
        if kept.mean() - rejected.mean() > self.errors * spread:
            text = f"of the confident half {kept.mean():.1%} are wrong, of the other {rejected.mean():.1%}; {text}"
            return _ranked(["class_map_mismatch", "preprocessing"], text)
        return HEALTHY

    def _still_falls(self, loss: np.ndarray) -> bool:
        before, last = (np.median(part) for part in np.array_split(loss, 5)[-2:]) if len(loss) >= 5 else (0.0, 0.0)
        return bool(last < before - self.falls * abs(before))

    def _calibration_error(self, sure: np.ndarray, right: np.ndarray) -> float:
        place = np.minimum((sure * self.bins).astype(int), self.bins - 1)
        sums = np.bincount(place, weights=sure - right, minlength=self.bins)
        return float(np.abs(sums).sum() / len(sure))


def _squared(view: ClassView) -> bool:
    """Tell whether the loss is a squared distance to one-hot labels: then no softmax makes probabilities of outputs."""
    distance = ((view.z - view.y) ** 2).sum(axis=-1).mean()
    return bool(np.isclose(view.loss, [distance, distance / view.z.shape[-1]], rtol=1e-4).any())


def _probabilities(z: np.ndarray) -> np.ndarray:
    """Return probabilities (…, C): the outputs themselves where they are, or are logarithms of some."""
    for given in (z, np.exp(np.minimum(z, 1.0))):
        if given.min() >= 0 and np.abs(given.sum(axis=-1) - 1).max() < 1e-3:
            return given
    return softmax(z, axis=-1)


def _ranked(faults: list[str], evidence: str) -> Diagnosis:
    return Diagnosis(Suspect(fault, 0.6 / (i + 1), evidence) for i, fault in enumerate(faults))
