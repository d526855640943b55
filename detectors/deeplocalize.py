"""DeepLocalize's rules: means that are not finite, zero or unchanged in outputs, weights, gradients; no learning."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.class_view import ClassView, class_view
from bugbench.detector import HEALTHY, Detector, Diagnosis, Suspect, Trace
from bugbench.keras_view import DENSE, kernels, readings

# The tool says where (batch, layer, phase), not why: families, in which such a value may arise.
NOT_FINITE = "numerics preprocessing optimizer"
FAMILIES = {
    "forward": "model preprocessing data",  # layers that put out nothing, or always the same
    "weights": "training_loop optimizer model",  # weights that do not move, or are zero
    "delta weights": "model loss training_loop",  # gradients that do not arrive
    "output gradient": "loss model labels",
    "does not learn": "optimizer training_loop model",
}
Alarm = tuple[int, int, str, str, str | None]  # step, place in the callback's order, families, text, layer


@dataclass
class Deeplocalize(Detector):
    """DeepLocalize (Wardat, Le & Rajan, ICSE 2021), ported from Wardat-ISU/DeepLocalize, "Our Callback/callbacks.py".

    The rules of on_batch_end, on the mean of each tensor; the first alarm ends training. In this order in each batch:
    the output of each layer, its kernel, loss and accuracy, the kernels' gradients ("delta weights"), the gradient of
    the outputs. In each an alarm is raised by a mean that is

    - NaN or infinite;
    - exactly 0, if that was so in half of the batches so far (``share``), except for loss and accuracy;
    - the same in five batches on end (``window``), looked at every five (meanResult: the mean equals the maximum);
      not for layers that only flatten, and of weights and gradients for Dense alone, as in the source. For loss and
      accuracy this is "model does not learn".

    The tool locates and does not explain: answers are families, and the layer. It flags most healthy models, too (133
    of 186 in the authors' own data), often since five small batches are equally right.

    Changed: the source looks at all batches, a trace at the first ten and each tenth after that, and counts go by
    those; losses are known of all. Accuracy and the gradient of the outputs need whole batches, of which a trace has
    steps 0 to 3, 5, 10, 20, 50, …: so accuracy, the source's most frequent alarm, is compared less often here. Layers
    are those that PyTorch knows as modules, in training mode. Gradients of outputs within the model are not in the
    trace; those of class scores have mean 0 but for rounding, as batch norm's first outputs have: at times exactly 0.
    """

    access = {"tensors", "data"}
    origin = "published"
    window: int = 5  # N
    share: float = 0.5

    def diagnose(self, trace: Trace) -> Diagnosis:
        with np.errstate(all="ignore"):
            first = min(self._alarms(trace), key=lambda alarm: alarm[:2], default=None)
        if first is None:
            return HEALTHY
        step, _, families, text, layer = first
        ranked = enumerate(families.split())
        return Diagnosis(Suspect(f, 1 / (i + 2), f"step {step}, {text}", layer=layer) for i, f in ranked)

    def _alarms(self, trace: Trace) -> Iterator[Alarm]:
        kinds, dense, layers = trace.meta.get("layers", {}), kernels(trace, DENSE), kernels(trace)
        outputs = readings(trace, "activation")
        moving = [str(name) for name in outputs if kinds.get(name) not in ("Flatten", "Unflatten")]
        yield from self._of_means(outputs, moving, 0, "forward")
        for place, kind, phase in ((1, "weight", "weights"), (3, "gradient", "delta weights")):
            means = readings(trace, kind)
            yield from self._of_means(means[[name for name in reversed(layers) if name in means]], dense, place, phase)
        losses = trace.train_steps().set_index("step")[["loss"]].astype(float).fillna(np.inf)
        yield from self._of_means(losses, ["loss"], 2, "does not learn")
        batches = trace.batches("train")
        right = {b.step: _accuracy(class_view(b, trace.meta)) for b in batches}
        accuracy = pd.DataFrame({"accuracy": right}, dtype=float).dropna()
        yield from self._of_means(accuracy, ["accuracy"], 2, "does not learn")
        slopes = {b.step: b.output_gradients.mean() for b in batches if b.output_gradients is not None}
        slope = pd.DataFrame({"the outputs": slopes}, dtype=float).fillna(np.inf)
        yield from self._of_means(slope, ["the outputs"], 4, "output gradient")

    def _of_means(self, means: pd.DataFrame, compared: list[str], place: int, phase: str) -> Iterator[Alarm]:
        """Yield the first alarm of each rule; columns are layers in the order of the source, NaN is not seen."""
        values, is_metric = means.to_numpy(dtype=float), place == 2
        zero = (values == 0) & (not is_metric)
        often = zero & (zero.cumsum(axis=0) >= self.share * np.arange(1, len(values) + 1)[:, None])
        same = np.zeros(values.shape, dtype=bool)
        for end in range(self.window, len(values) + 1, self.window):
            part = values[end - self.window : end]
            same[end - 1] = (part.mean(axis=0) == part.max(axis=0)) & means.columns.isin(compared)
        times = f"the same {self.window} times"
        for found, text, families in (
            (np.isinf(values), "not finite", NOT_FINITE),
            (often, "0", FAMILIES[phase]),
            (same, times, FAMILIES[phase]),
        ):
            for row, column in np.argwhere(found)[:1]:
                name = means.columns[column]
                layer = name.removesuffix(".weight") if place in (0, 1, 3) else None
                yield int(means.index[row]), place, families, f"{phase}: the mean of {name} is {text}", layer


def _accuracy(batch: ClassView | None) -> float:
    if batch is None or not batch.y.any():
        return np.nan
    return float((batch.z.argmax(-1) == batch.y.argmax(-1))[batch.y.any(-1)].mean())
