"""Which loss was computed? Recompute the recorded one under each hypothesis and see which equals the number."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from bugbench.detector import HEALTHY, Detector, Diagnosis, Trace, suspect
from bugbench.trace import Batch
from scipy.special import expit, log_softmax, softmax, xlogy


@dataclass
class LossRecomputation(Detector):
    """Which loss was computed? Recompute the recorded one under each hypothesis and see which equals the number.

    Arithmetic on the recorded batches, in float64; no threshold on a curve. A fault is named only if its formula gives
    the recorded loss of all batches, up to one constant factor, and no right formula does. A loss that no formula here
    gives (custom, weighted, regularised) is not judged.

    Class targets, hard or soft. Right: cross-entropy of logits, log-probabilities or probabilities, for sequences also
    with the targets one further (shifted inside the loss). Wrong: of softmax(outputs), ``redundant_softmax``; a softmax
    over another axis, ``softmax_dim`` (seen also in outputs or their gradients, which a softmax makes sum to one or to
    zero over the axis it works on); nll of raw outputs, ``nll_on_logits``; squared distance, ``mse_for_classes``;
    capped, ``clipped_loss``; smoothing above one half, ``label_smoothing_wrong``; right, but of outputs that a ReLU or
    sigmoid has cut, ``activation_on_logits``. Continuous targets: the mean over all pairs of a batch,
    ``label_broadcast``; the distance to the inputs, ``wrong_target``. Both: a loss, or a gradient, with the sign turned,
    ``flipped_sign``. A sum instead of a mean is a matter of the learning rate: ``loss_reduction_sum`` only where the
    loss also doubled or never fell (TheDeepChecker's divergence, x2).
    """

    access = {"data"}
    tolerance: float = 1e-4  # relative; float32 losses agree with float64 ones to 1e-6
    most: int = 7  # batches looked at, spread over the run, for speed
    agreement: float = 0.99  # share of gradients that must have the wrong sign; the rest is left to ties

    def diagnose(self, trace: Trace) -> Diagnosis:
        batches = [b for b in trace.batches() if np.isfinite(b.loss) and b.outputs.size and np.isfinite(b.outputs).all()]
        if len(batches) < 2:
            return HEALTHY
        batches = [batches[i] for i in np.unique(np.linspace(0, len(batches) - 1, self.most).astype(int))]
        losses = np.array([b.loss for b in batches])
        classes = [v for b in batches if (v := _classes(b, trace)) is not None]
        if len(classes) == len(batches):
            if (axis := _wrong_axis(classes)) is not None:
                return suspect("softmax_dim", f"outputs or gradients are normalised over axis {axis}, not over classes")
            rows = list(zip(*(v.formulas() for v in classes), strict=False))
        else:
            classification = trace.meta.get("task") == "classification"
            rows = list(zip(*(Numbers(b, classification).formulas() for b in batches), strict=False))
        for row in rows:
            if factor := self._factor(row, losses):
                if fault := row[0].fault:
                    return suspect(fault, f"{row[0].words} gives the loss of all {len(losses)} batches, the right one does not")
                return self._right(row, factor, trace)
        return _limits(classes, losses, self.tolerance) if len(classes) == len(batches) else HEALTHY

    def _factor(self, row: "tuple[Formula, ...]", losses: np.ndarray) -> float:
        """Return the constant by which the formula's mean gives every loss (its sum's too, as factor of the mean), or 0."""
        means: list[float] = []
        for formula in row:
            means.append(formula.mean())
            counts = np.array([f.view.count for f in row[: len(means)]])
            for weights in (np.ones(len(means)), counts):
                values, own = np.array(means) * weights, losses[: len(means)]
                largest = np.abs(values).argmax()
                ratio = own[largest] / values[largest] if values[largest] else 0.0
                if ratio and np.allclose(own, ratio * values, rtol=self.tolerance, atol=1e-5 * abs(ratio)):
                    break
            else:
                return 0.0
        free = abs(abs(ratio) - 1) > self.tolerance  # a free constant must be borne out by losses that differ
        return 0.0 if free and (len(means) < 3 or np.ptp(values) < 0.01 * np.abs(values).max()) else ratio * weights.mean()

    def _right(self, row: "tuple[Formula, ...]", factor: float, trace: Trace) -> Diagnosis:
        """Judge what a right formula leaves open: sign, what became of the outputs before, and the reduction."""
        views = [formula.view for formula in row]
        ascents = [a for v in views if (a := v.ascent()) is not None]
        if factor < 0 or (len(ascents) > 1 and min(ascents) >= self.agreement):
            return suspect("flipped_sign", f"the loss is {factor:.3g} times {row[0].words}, its gradient ascends")
        z = [v.z for v in views]
        low, high = min(a.min() for a in z), max(a.max() for a in z)
        zeros = float(np.mean([(a == 0).mean() for a in z]))
        if "logits" in row[0].words and low >= 0 and high > 0:
            if isinstance(views[0], Classes) and all(_is_one(a, -1) for a in z):
                return suspect("redundant_softmax", "the loss takes outputs for logits that are probabilities")
            if zeros > 0.01 or high <= 1:
                return suspect("activation_on_logits", f"the logits lie in [{low:.2g}, {high:.2g}], {zeros:.0%} are zero")
        count = np.mean([v.count for v in views])
        curve = trace.train_steps()["loss"].to_numpy()
        early, late = curve[:10], curve[-max(len(curve) // 5, 1) :]
        if count > 1.5 and abs(factor / count - 1) < 0.01 and not max(early.max() / 2, np.median(late)) < curve[0]:
            return suspect("loss_reduction_sum", f"the loss is a sum over {count:.0f} entries and does not come down")
        return HEALTHY


class Classes(NamedTuple):
    """Logits z and targets y of a batch, classes last: (…, C); y one-hot or soft, all zero where ignored."""

    z: np.ndarray
    y: np.ndarray
    gradient: np.ndarray | None

    @property
    def count(self) -> float:
        return max(float(self.y.sum()), 1.0)

    def nll(self, scores: np.ndarray) -> float:
        return -float((self.y * scores).sum()) / self.count

    def ascent(self) -> float | None:
        """Return the share of targets whose output the gradient lowers."""
        hard = self.y == 1
        return float((self.gradient[hard] > 0).mean()) if self.gradient is not None and hard.any() else None

    def formulas(self) -> "Iterator[Formula]":
        z, y = self.z, self.y
        yield Formula(None, "the cross-entropy of logits", lambda: self.nll(log_softmax(z, -1)), self)
        yield Formula(None, "the nll of probabilities", lambda: -float(xlogy(y, z).sum()) / self.count, self)
        if z.ndim == 3:
            slope = None if self.gradient is None else self.gradient[:, :-1]
            later = Classes(z[:, :-1], y[:, 1:], slope)
            yield Formula(None, "the cross-entropy of logits", lambda: later.nll(log_softmax(later.z, -1)), later)
        words = "the cross-entropy of softmax(outputs)"
        yield Formula("redundant_softmax", words, lambda: self.nll(log_softmax(softmax(z, -1), -1)), self)
        for axis in _other_axes(z):
            words = f"a softmax over axis {axis}"
            yield Formula("softmax_dim", words, lambda a=axis: self.nll(log_softmax(z, a)), self)
            yield Formula("softmax_dim", words, lambda a=axis: self.nll(log_softmax(softmax(z, a), -1)), self)
        yield Formula("nll_on_logits", "the nll of raw outputs", lambda: self.nll(z), self)
        yield Formula("mse_for_classes", "the squared distance to one-hot labels", lambda: float(((z - y) ** 2).mean()), self)
        yield Formula("mse_for_classes", "the Brier score", lambda: float(((softmax(z, -1) - y) ** 2).mean()), self)


class Numbers:
    """Outputs z and continuous (or binary) targets t of a batch, of equal size."""

    def __init__(self, batch: Batch, classification: bool) -> None:
        self.batch, self.classification = batch, classification
        self.z = batch.outputs.astype(np.float64).ravel()
        self.t = batch.targets.astype(np.float64).ravel()
        self.binary = bool(np.isin(self.t, (0, 1)).all())
        self.count = float(self.z.size)

    def ascent(self) -> float | None:
        """Return the share of outputs that the gradient drives away from their targets."""
        if self.batch.output_gradients is None or self.batch.output_gradients.size != self.z.size:
            return None
        away = self.batch.output_gradients.ravel() * ((0.5 if self.binary else self.z) - self.t)
        return float((away[away != 0] < 0).mean()) if away.any() else None

    def formulas(self) -> "Iterator[Formula]":
        z, t, batch = self.z, self.t, self.batch
        if z.size != t.size:
            return

        def entropy(logits: np.ndarray) -> float:
            return float((np.logaddexp(0, logits) - logits * t).mean()) if self.binary else np.nan

        yield Formula(None, "the binary cross-entropy of logits", lambda: entropy(z), self)
        yield Formula(None, "that of probabilities", lambda: -float((xlogy(t, z) + xlogy(1 - t, 1 - z)).mean()), self)
        yield Formula("activation_on_logits", "that of sigmoid(outputs)", lambda: entropy(expit(z)), self)
        classes = "mse_for_classes" if self.classification and (t == np.round(t)).all() else None
        others = {"label_broadcast": batch.targets.astype(np.float64), "wrong_target": batch.inputs.astype(np.float64)}
        for words, distance in DISTANCES.items():
            yield Formula(classes, words, lambda f=distance: float(f(z - t).mean()), self)
        for fault, other in others.items():
            for words, distance in DISTANCES.items():
                yield Formula(fault, f"{words} to others", lambda f=distance, o=other: _spread(f, batch.outputs, o), self)


class Formula(NamedTuple):
    """A hypothesis on one batch: the fault it stands for (None: right), words, its mean over the batch."""

    fault: str | None
    words: str
    mean: Callable[[], float]
    view: Classes | Numbers


DISTANCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the squared error": np.square,
    "the absolute error": np.abs,
    "the Huber loss": lambda d: np.where(np.abs(d) < 1, d**2 / 2, np.abs(d) - 0.5),
}
