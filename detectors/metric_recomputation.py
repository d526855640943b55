"""Are the reported metrics what the recorded outputs and targets of the evaluation give?"""

from dataclasses import dataclass

import numpy as np
from bugbench.detector import Detector, Diagnosis, Suspect, Trace
from bugbench.metric_countings import countings, outside_unit
from bugbench.trace import Batch
from bugbench.whole_evaluations import whole_evaluations


@dataclass
class MetricRecomputation(Detector):
    """Are the reported metrics what the recorded outputs and targets of the evaluation give?

    Accuracy, Dice, MAE, MSE and RMSE of the evaluations whose batches were all recorded, computed anew. A fault is
    named only if the report never equals the right number and always equals the same wrong one:

    * ``metric_wrong_dim``: argmax over the batch, the time or all of the outputs instead of the classes, or with its
      dimension kept; where shapes differ, hits are counted as broadcasting has it, which may be more than samples;
    * ``logit_threshold``: scores cut at 0.5 though they are logits (some lie outside [0, 1]), or probabilities at 0;
      of two outputs, the second or its lead over the first. If probabilities are cut at 0, they may also be what an
      ``activation_on_logits`` has made of logits;
    * ``mean_of_batch_means``: batches of different sizes, or their roots, averaged alike, where that changes the number
      visibly. The loss is left out: PyTorch's own quick start averages it so; and so is Dice, often taken by batch.

    A metric of another name or in another unit, which none of the numbers explains, is not judged.
    """

    access = {"data"}
    visible: float = 0.01  # a percentage point of accuracy or a hundredth of an error: less is lost in the noise
    tolerance: float = 1e-5  # relative; float32 means agree with float64 ones to 1e-6
    rows: int = 20  # targets; among fewer some mistake gives nearly any number
    most: int = 3  # evaluations looked at, the last ones, for speed

    def diagnose(self, trace: Trace) -> Diagnosis:
        suspects = []
        for split in trace.steps.loc[trace.steps["split"] != "train", "split"].unique():
            whole = whole_evaluations(trace, split)
            rows = trace.metrics[(trace.metrics["split"] == split) & trace.metrics["step"].isin([*whole][-self.most :])]
            for name, reports in rows.groupby("name"):
                pairs = zip(reports["step"], reports["value"], strict=True)
                answers = [self._explain(str(name).lower(), value, whole[step]) for step, value in pairs]
                if answers and answers[0] and len(set(answers)) == 1 and answers[0] != "right":
                    numbers = ", ".join(f"{value:.4g}" for value in reports["value"])
                    evidence = (
                        f"{split} {name} ({numbers}) is not what the recorded outputs give, but what the mistake does"
                    )
                    suspects.append(Suspect(answers[0], evidence=evidence))
                    if answers[0] == "logit_threshold" and not outside_unit(whole[[*whole][-1]]):
                        suspects.append(Suspect("activation_on_logits", 0.5, evidence))
        return Diagnosis(suspects[:2])

    def _explain(self, name: str, value: float, batches: list[Batch]) -> str | None:
        """Return "right", the fault whose number is the reported one, or None."""
        if sum(b.targets.size for b in batches) < self.rows:
            return None
        share = "acc" in name or "dice" in name
        reported = np.array([value, value / 100] if share else [value])  # a share may be in percent
        rights = np.zeros(0)
        for fault, tallies in countings(name, batches):
            sums, counts = np.array(tallies).T
            if not counts.all():  # a batch in which every target is ignored
                return None
            total, mean = sums.sum() / counts.sum(), (sums / counts).mean()
            if name == "rmse":
                total, mean = np.sqrt(total), np.sqrt(sums / counts).mean()
            by_batch = "mean_of_batch_means" if fault == "right" and "dice" not in name else fault
            for named, found in ((fault, total), (by_batch, mean)):
                equal = np.isclose(reported, found, rtol=self.tolerance, atol=1e-9)
                if named == "right" and equal.any():
                    return "right"
                rights = np.append(rights, found) if named == "right" else rights
                away = np.abs(reported[:, None] - rights) > self.visible * (1.0 if share else np.abs(rights))
                if found > 0 and (equal & away.all(axis=1)).any():
                    return named
        return None
