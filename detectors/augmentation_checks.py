"""Does random augmentation change what a sample means, or erase it?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from bugbench.detector import Detector, Diagnosis, NotApplicable, Suspect, Trace

Transform = Callable[[np.ndarray], np.ndarray]
IMAGE: dict[str, Transform] = {
    "left-right flip": lambda x: x[..., ::-1],
    "up-down flip": lambda x: x[..., ::-1, :],
    "half turn": lambda x: x[..., ::-1, ::-1],
    "quarter turn": lambda x: x.swapaxes(-2, -1)[..., ::-1],  # of images that are not square, too: it matches nothing
    "quarter turn back": lambda x: x.swapaxes(-2, -1)[..., ::-1, :],
}
IMAGE_SHIFTS = [(1, -1), (-1, -1), (1, -2), (-1, -2)]  # pixels and axis
SIGNAL: dict[str, Transform] = {"change of sign": lambda x: -x, "reversal": lambda x: x[..., ::-1]}


@dataclass
class AugmentationChecks(Detector):
    """Finds the flips and turns that augmentation made, and asks clean samples whether those keep the class.

    Clean samples are those of validation. All are compared by correlation, the best over small shifts (all lags for
    signals), so that mild shifts and turns do not matter, nor does normalization.

    - *Made*: transformed back, an input resembles its nearest clean sample clearly more than before, and as much as
      clean samples resemble one another; on a share of the inputs that clean samples do not have.
    - *Harmful*: the nearest neighbour (Cover and Hart 1967) knows the class of clean samples, but loses half of its
      lead over the majority class when they are so transformed. Where flips do not matter, as in textures or snapshots,
      clean samples come in all orientations and a flipped one finds its like: no alarm.
    - *Too strong*: the neighbour knows the class of the samples logged before augmentation, but keeps less than a
      quarter of its lead on what is made of them.

    TheDeepChecker asks the model instead, whether activations of original and augmented data agree to 0.95; but a model
    may have learnt the flips by heart. No data says whether objects that always face one way may face the other.
    """

    access = {"data"}
    margin: float = 0.05  # in correlation, for a resemblance to be clearly greater: symmetric samples show nothing
    share: float = 0.1  # of the inputs, beyond the share of clean samples of which the same can be said
    lead: float = 0.5  # of the neighbour over the majority class, on clean samples; with less it knows too little
    bad: float = 0.5  # of that lead is lost …
    erased: float = 0.75  # … or, for too strong, three quarters: most of the signal
    rows: int = 40  # fewer do not show a share

    def diagnose(self, trace: Trace) -> Diagnosis:
        others = [split for split in dict.fromkeys(trace.steps["split"]) if "train" not in split][:1]
        train, held_out = trace.batches("train"), [b for split in others for b in trace.batches(split)]
        made, labels = _labelled([(b.inputs, b.targets) for b in train], 120)
        clean, classes = _labelled([(b.inputs, b.targets) for b in held_out], 200)
        if min(len(made), len(clean)) < self.rows or made.shape[1:] != clean.shape[1:]:
            raise NotApplicable("no labelled images or signals in training and validation to compare")
        samples, _ = _labelled([(b.samples, b.targets) for b in train if b.samples is not None], 120)
        return Diagnosis(self._compare(made, labels, clean, classes, samples))

    def _compare(self, made: Any, labels: Any, clean: Any, classes: Any, samples: Any) -> Iterator[Suspect]:
        majority = np.bincount(classes).max() / len(classes)

        def lead(likeness: np.ndarray, truth: np.ndarray) -> float:
            return ((classes[likeness.argmax(axis=1)] == truth).mean() - majority) / max(1 - majority, 1e-9)

        among, plain = _likeness(clean, clean, alone=True), _likeness(made, clean)
        usual, knows = np.quantile(among.max(axis=1), 0.1), lead(among, classes)
        if knows < self.lead:
            return
        found = []
        for name, transform in (IMAGE if made.shape[-2] > 1 else SIGNAL).items():
            turned = _likeness(transform(clean), clean, alone=True)
            left = lead(turned, classes) / knows
            if left > 1 - self.bad:
                continue
            pairs = (plain, _likeness(transform(made), clean)), (among, turned)
            share, by_nature = (
                (b.max(axis=1) > np.maximum(a.max(axis=1) + self.margin, usual)).mean() for a, b in pairs
            )
            if share > by_nature + self.share:
                text = f"{name} in {share:.0%} of the inputs or more; it leaves neighbours {left:.0%} of their lead"
                found.append((share, Suspect("bad_augmentation", 0.9, text)))
        yield from (suspect for _, suspect in sorted(found, key=lambda pair: -pair[0])[:1])
        if not found and samples.shape == made.shape:
            before, after = lead(_likeness(samples, clean), labels), lead(plain, labels)
            if before > self.lead and after < (1 - self.erased) * before:
                text = f"nearest neighbours lead by {before:.0%} on the samples, by {after:.0%} on what is made of them"
                yield Suspect("augmentation_too_strong", 0.8, text)


def _labelled(pairs: list[tuple[Any, np.ndarray]], most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return up to ``most`` inputs as small images (N, C, H, W) or signals (N, C, 1, T), with a class each (N,)."""
    pairs = [(x, y.reshape(-1)) for x, y in pairs if x.dtype.kind == "f" and y.size == len(x) and 2 <= x.ndim <= 4]
    chosen = [(x, y) for x, y in pairs if x.shape[1:] == pairs[0][0].shape[1:] and not (y % 1).any() and y.min() >= 0]
    if not chosen:
        return np.zeros((0, 0, 0, 0)), np.zeros(0, int)
    x, y = np.concatenate([x for x, _ in chosen])[:most], np.concatenate([y for _, y in chosen])[:most].astype(int)
    x = x.transpose(0, 3, 1, 2) if x.ndim == 4 and x.shape[-1] <= 4 else x  # channels last
    if x.ndim == 3 and (min(x.shape[1:]) < 6 or max(x.shape[1:]) > 3 * min(x.shape[1:])):
        x = (x if x.shape[1] < x.shape[2] else x.transpose(0, 2, 1))[:, :, None]  # channels and time
    x = x[:, None, None] if x.ndim == 2 else x[:, None] if x.ndim == 3 else x
    for axis, size in ((-1, 16 if x.shape[-2] > 1 else 64), (-2, 16)):
        step = -(-x.shape[axis] // size)
        x = np.moveaxis(x, axis, -1)[..., : x.shape[axis] // step * step]
        x = np.moveaxis(x.reshape(*x.shape[:-1], -1, step).mean(axis=-1), -1, axis)
    finite = np.isfinite(x).all(axis=(1, 2, 3))
    return x[finite].astype(np.float32), y[finite]


def _likeness(x: np.ndarray, refs: np.ndarray, alone: bool = False) -> np.ndarray:
    """Return the correlations (len(x), len(refs)), best over shifts; ``alone``: but not of a sample with itself."""
    lags = [(lag, -1) for lag in range(0, x.shape[-1], 2)]
    moved = [np.roll(x, lag, axis) for lag, axis in ([(0, -1), *IMAGE_SHIFTS] if x.shape[-2] > 1 else lags)]
    best = (_unit(np.concatenate(moved)) @ _unit(refs).T).reshape(len(moved), len(x), -1).max(axis=0)
    return np.where(best > 0.9999, -1, best) if alone else best


def _unit(x: np.ndarray) -> np.ndarray:
    flat = x.reshape(len(x), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
