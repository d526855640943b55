"""DeepLocalize's rules: means that are not finite, zero or unchanged in outputs, weights, gradients; no learning."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from bugbench.class_view import ClassView, class_view
from bugbench.detector import HEALTHY, Detector, Diagnosis, Suspect, Trace
from bugbench.keras_view import DENSE, FLATTEN, kernels, readings, states

# The tool says where (batch, layer, phase), not why: families, in which such a value may arise.
NOT_FINITE = "numerics preprocessing optimizer"
FAMILIES = {
    "forward": "model preprocessing data",  # layers that put out nothing, or always the same
    "weights": "training_loop optimizer model",  # weights that do not move, or are zero
    "delta weights": "model loss training_loop",  # gradients that do not arrive
    "output gradient": "loss model labels",
    "does not learn": "optimizer training_loop model",
}
Alarm = tuple[int, tuple[int, ...], str, str, str | None]  # step, place in the callback's order, families, text, layer


@dataclass
class Deeplocalize(Detector):
    """DeepLocalize (Wardat, Le & Rajan, ICSE 2021), ported from Wardat-ISU/DeepLocalize, "Our Callback/callbacks.py".

    The rules of on_batch_end, on the mean of each tensor; the first alarm ends training. In this order in each batch:
    the output of each layer, kernels, loss, accuracy, the gradients of Dense kernels ("delta weights"), the gradient of
    the outputs; kernels and gradients from the last layer to the first. In each an alarm is raised by a mean that is

    - NaN or infinite, or exactly 0, if that was so in half of the batches so far (``share``), layer by layer; losses
      and accuracies may be 0;
    - then: the same in five batches on end (``window``), looked at every five (meanResult: the mean equals the
      maximum); not for layers that only flatten, and of weights for Dense alone. For loss and accuracy this is "model
      does not learn".

    The tool locates and does not explain: answers are families, and the layer. It flags 133 of 186 healthy models in
    its authors' data (DeepDiagnosis/ICSE2022, "DeepLocalize Result"): 113 by the output of a layer, by its number the
    softmax at the end, whose mean is 1 / C in each batch; 20 as "model does not learn". Models here end in raw scores.

    Changed: the source looks at all batches, a trace at the first ten and each tenth after that, and counts go by
    those; losses are known of all. Accuracy and the gradient of the outputs need whole batches, of which a trace has
    steps 0 to 3, 5, 10, 20, 50, …: they are compared less often; outputs of one column have no accuracy. Layers are
    those that PyTorch knows as modules, in training mode, in which norms put out means of 0: the source runs the model
    in test mode, so that norms are spared the rule on 0. Weights and gradients are the same if deviation and extremes
    are. Gradients of outputs within the model are not in the trace; those of scores have mean 0 but for rounding.
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
        moving = [str(name) for name in outputs if kinds.get(name) not in FLATTEN]
        norms = [str(name) for name in outputs if "Norm" in kinds.get(name, "")]
        yield from self._of_means(outputs, moving, 0, "forward", spared=norms)
        for place, kind, phase in ((1, "weight", "weights"), (4, "gradient", "delta weights")):
            means, asked = readings(trace, kind), reversed(dense if kind == "gradient" else layers)
            means = means[[name for name in asked if name in means]]
            yield from self._of_means(means, dense, place, phase, states(trace, kind).get(list(means)))
        losses = trace.train_steps().set_index("step")[["loss"]].astype(float).fillna(np.inf)
        yield from self._of_means(losses, ["loss"], 2, "does not learn")
        batches = trace.batches("train")
        right = {b.step: _accuracy(class_view(b, trace.meta)) for b in batches}
        accuracy = pd.DataFrame({"accuracy": right}, dtype=float).dropna()
        yield from self._of_means(accuracy, ["accuracy"], 3, "does not learn")
        slopes = {b.step: b.output_gradients.mean() for b in batches if b.output_gradients is not None}
        slope = pd.DataFrame({"the outputs": slopes}, dtype=float).fillna(np.inf)
        yield from self._of_means(slope, ["the outputs"], 5, "output gradient")

    def _of_means(
        self,
        means: pd.DataFrame,
        compared: list[str],
        place: int,
        phase: str,
        numbers: pd.DataFrame | None = None,
        spared: Sequence[str] = (),
    ) -> Iterator[Alarm]:
        """Yield the first alarm of each rule; columns are layers in the order of the source, NaN is not seen.

        ``compared`` may be the same too often: if their ``numbers`` are, or the means. ``spared`` may be 0.
        """
        values, whole = means.to_numpy(dtype=float), (means if numbers is None else numbers).to_numpy(dtype=float)
        zero = (values == 0) & (phase != "does not learn") & ~means.columns.isin(list(spared))
        often = zero & (zero.cumsum(axis=0) >= self.share * np.arange(1, len(values) + 1)[:, None])
        same = np.zeros(values.shape, dtype=bool)
        for end in range(self.window, len(values) + 1, self.window):
            part = whole[end - self.window : end]
            same[end - 1] = (part.mean(axis=0) == part.max(axis=0)) & means.columns.isin(compared)
        times = f"the same {self.window} times"
        for turn, found, text, families in (
            (0, np.isinf(values), "not finite", NOT_FINITE),
            (0, often, "0", FAMILIES[phase]),
            (1, same, times, FAMILIES[phase]),
        ):
            for row, column in np.argwhere(found)[:1]:
                name = means.columns[column]
                layer = name.removesuffix(".weight") if place in (0, 1, 4) else None
                text = f"{phase}: the mean of {name} is {text}"
                yield int(means.index[row]), (place, turn, int(column)), families, text, layer


def _accuracy(batch: ClassView | None) -> float:
    if batch is None or not batch.y.any():
        return np.nan
    return float((batch.z.argmax(-1) == batch.y.argmax(-1))[batch.y.any(-1)].mean())
