"""Was the model in training mode while it was trained, and in evaluation mode while it was evaluated?"""

from dataclasses import dataclass

import pandas as pd
from bugbench.detector import HEALTHY, Detector, Diagnosis, Trace, suspect

# kinds of layers (class names) that do different things in the two modes
BY_MODE = ("Dropout", "BatchNorm", "DropPath", "StochasticDepth", "RReLU")


@dataclass
class ModeCheck(Detector):
    """Was the model in training mode while it was trained, and in evaluation mode while it was evaluated?

    Debugging practice (Karpathy's "most common neural net mistakes": "you forgot to toggle train/eval mode for the
    net"; TheDeepChecker's train/eval switch test). Three rules on the mode that the recorder saw at each forward call:

    * batches with a backward pass run wholly in evaluation mode: ``eval_mode_in_training``;
    * batches of an evaluation run wholly in training mode: ``train_mode_in_eval``;
    * a batch-norm layer in training mode returns mean(bias) and mean(weight^2) + mean(bias^2) as its first two
      moments, whatever its input (Ioffe & Szegedy 2015, algorithm 1). Where a part of the model is in evaluation mode
      and the second moment is far from that, the layer runs on statistics that are not those of its data:
      ``batchnorm_in_eval``. A backbone frozen with fitting statistics passes.

    Silent for a model without layers that depend on the mode (known by their class names: a ``F.dropout`` call is not
    seen), and for a model of which only a part is in the other mode, as when a backbone is frozen on purpose.
    """

    access = {"tensors"}
    patience: int = 3  # training batches in evaluation mode: one may be a probe of the program
    share: float = 0.5  # of an evaluation split's batches: a first look at an untrained model may be in training mode
    factor: float = 4.0  # between second moments; statistics of a related data set stay within a factor of two

    def diagnose(self, trace: Trace) -> Diagnosis:
        steps = trace.steps
        by_mode = {n: k for n, k in trace.meta.get("layers", {}).items() if any(word in k for word in BY_MODE)}
        if not by_mode or not {"mode", "order"} <= set(steps.columns) or steps.empty:
            return HEALTHY
        kinds = ", ".join(sorted(set(by_mode.values())))
        backward = steps["order"].str.contains("backward", na=False)
        trained = backward | steps["order"].str.contains("step", na=False)
        training = steps[trained & (steps["split"] == "train")]
        wrong = training.loc[training["mode"] == "eval", "step"]
        if len(wrong) >= self.patience:
            evidence = f"{len(wrong)} of {len(training)} training batches, from step {wrong.iloc[0]} on, "
            return suspect("eval_mode_in_training", evidence + f"ran in evaluation mode ({kinds})")
        # a step alone is the last of training, logged before it: the forward passes are the evaluation's
        for split, rows in steps[~backward & (steps["split"] != "train")].groupby("split"):
            if (share := (rows["mode"] == "train").mean()) > self.share:
                return suspect(
                    "train_mode_in_eval", f"{share:.0%} of the {split} batches ran in training mode ({kinds})"
                )
        if (training["mode"] == "mixed").mean() > self.share:
            for name in (n for n, kind in by_mode.items() if "BatchNorm" in kind):
                if (ratio := _moment_ratio(trace.layers, name)) and not 1 / self.factor < ratio < self.factor:
                    evidence = f"{name} does not normalise: its second moment is {ratio:.2g} times weight^2 + bias^2"
                    return suspect("batchnorm_in_eval", evidence, layer=name)
        return HEALTHY


def _moment_ratio(layers: pd.DataFrame, name: str) -> float | None:
    """Return E[y^2] / (mean(weight^2) + mean(bias^2)) of a batch-norm layer, the median over the recorded steps."""
    square = layers["mean"] ** 2 + layers["std"] ** 2

    def moment(layer: str, kind: str) -> pd.Series:
        chosen = (layers["layer"] == layer) & (layers["kind"] == kind)
        return square[chosen].set_axis(layers.loc[chosen, "step"])

    expected = moment(f"{name}.weight", "weight") + moment(f"{name}.bias", "weight")
    ratio = float((moment(name, "activation") / expected).median())
    return ratio if ratio > 0 else None
