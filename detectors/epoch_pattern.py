"""Does every epoch have the same ups and downs?"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from bugbench.detector import HEALTHY, Detector, Diagnosis, Trace, suspect


@dataclass
class EpochPattern(Detector):
    """Does every epoch have the same ups and downs?

    Shuffled anew, the batches of an epoch have nothing to do with those of the last. Where the losses of later epochs,
    without the trend that each has, agree place by place, the order is fixed. That alone does no harm if the data is
    mixed; sorted data shows in one of two ways (the saw-tooth of "37 reasons why your neural network is not working"):

    * neighbours are alike, so the pattern is smooth, while mixed data jumps about;
    * batches go from far below chance, within a class, to above it, at the next: chance is ln C, or the first loss.

    Then ``unshuffled_loader``. Not judged: fewer than two later epochs of the same length, a learning rate that follows
    a pattern of its own within an epoch, and language models with small teeth, for text read in its order, as by a
    model that keeps its state, has easy and hard pages.
    """

    access = {"curves"}
    alike: float = 0.6  # correlation of one epoch with the next; independent ones of six batches reach that by chance
    smooth: float = 0.5  # correlation of neighbours; of 30 independent ones it is within 0.36 for 95 %
    teeth: float = 1.5  # highest over lowest batch of a text

    def diagnose(self, trace: Trace) -> Diagnosis:
        train, classes = trace.train_steps(), trace.meta.get("classes") or 0
        epochs = [rows for _, rows in train.groupby("epoch")]
        usual = np.median([len(rows) for rows in epochs]) if epochs else 0
        whole = [rows for rows in epochs if len(rows) == usual]
        later = whole[max(len(whole) // 2, 1) :]
        if len(later) < 2 or usual < 6 or any(rows["lr"].nunique() > 1 for rows in later):
            return HEALTHY
        loss = np.array([rows["loss"].to_numpy(dtype=np.float64) for rows in later])
        place = np.arange(loss.shape[1])
        if not np.isfinite(loss).all():
            return HEALTHY
        rest = loss - np.array([np.polyval(np.polyfit(place, row, 1), place) for row in loss])
        pattern, moves = rest.mean(axis=0), np.diff(loss.mean(axis=0))
        with np.errstate(all="ignore"):  # a flat curve has no correlation
            alike = np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairwise(rest)])
            smooth = np.corrcoef(pattern[:-1], pattern[1:])[0, 1]
            upward = (
                np.maximum(moves, 0).sum() / np.abs(moves).sum()
            )  # none where all epochs just fall, and curve alike
        reference = math.log(classes) if classes > 1 else float(train["loss"][:5].median())
        wide = np.mean((loss.max(axis=1) > reference) & (loss.min(axis=1) < 0.25 * reference)) >= 0.8
        text = trace.meta.get("task") == "language_model"
        if text and np.median(loss.max(axis=1)) < self.teeth * np.median(loss.min(axis=1)):
            return HEALTHY
        if not (alike > self.alike and upward > 0.1 and (smooth > self.smooth or wide)):
            return HEALTHY
        evidence = f"{len(loss)} epochs have the same ups and downs, from {loss.min():.2g} to {loss.max():.2g}"
        return suspect(
            "unshuffled_loader", f"{evidence} (r = {alike:.2f} from one to the next, {smooth:.2f} of neighbours)"
        )
