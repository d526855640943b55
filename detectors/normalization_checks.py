"""The scale of what the model is fed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from bugbench.detector import Detector, Diagnosis, Suspect, Trace
from bugbench.trace import Batch


@dataclass
class NormalizationChecks(Detector):
    """Tells from recorded inputs whether they were scaled, twice or not at all, and alike in all splits.

    Nothing is asked of the range: standardised inputs leave [-1, 1] by nature (UMLAUT's limit, which nearly every
    healthy run breaks). Token indices are left alone.

    - *Raw scale*: a feature that is mostly above 10 in size (0.7 if standardised, at most 1 if scaled to a range; LeCun
      et al., Efficient BackProp, 1998), and a first layer with weights whose outputs are therefore spread by more
      than 2 (TheDeepChecker's limit), which shows that the model does not scale its inputs itself.
    - *Two scales*: most features lie, in validation, outside all that training has shown or vary in another unit; or
      all by one and the same factor. Where targets lie elsewhere, too, time went on: no alarm.
    - *Twice scaled*: levels k / K**2 with k up to K, as pixels have that were divided by K twice; or all features of a
      table at -mean / std, below 0, many by more than they vary, as (x - mean) / std makes of its own result, where
      units differ: what is below 0 by nature, as levels in dBm, is of one unit.
    - *Scaled along the row*: the rows of a table, not its columns, have mean 0 and one deviation.
    """

    access = {"tensors", "data"}
    raw_size: float = 10.0  # ten times what any usual scaling leaves
    spread: float = 2.0  # of the first layer's outputs; TheDeepChecker wants 0.5 to 2
    unit: float = 4.0  # factor between the deviations of a feature in training and validation
    common: float = 2.0  # factor that all features share: random parts of the same data differ less, and not alike
    units: float = 10.0  # factor between deviations of features in several units; ours: an order of magnitude
    rows: int = 20  # fewer do not show a distribution

    def diagnose(self, trace: Trace) -> Diagnosis:
        others = [split for split in dict.fromkeys(trace.steps["split"]) if split != "train"][:1]
        train, held_out = trace.batches("train"), [b for split in others for b in trace.batches(split)]
        fed, clean = _rows([b.inputs for b in train]), _rows([b.inputs for b in held_out])
        if fed is None or len(fed) < self.rows:
            return Diagnosis()
        flat = fed.reshape(len(fed), -1)
        checks = [self._raw(trace, flat), _pixels_twice(flat)]
        if fed.ndim == 2 and (flat.std(axis=0) > 0).sum() >= 4:
            checks = [self._table_twice(flat), *checks, _along_rows(flat)]
        if clean is not None and clean.shape[1:] == fed.shape[1:] and len(clean) >= self.rows:
            held = clean.reshape(len(clean), -1)
            # augmentation may itself change the scale, and may come before normalization: both sides of it must differ
            samples = _rows([b.samples for b in train if b.samples is not None and b.samples.shape == b.inputs.shape])
            sides = [flat] if samples is None else [flat, samples.reshape(len(samples), -1)]
            differing = min([list(self._two_scales(side, held)) for side in sides], key=len)
            checks = [iter([] if _drift(train, held_out) else differing), *checks, _pixels_twice(held)]
        return Diagnosis({found.fault: found for check in checks for found in check}.values())

    def _raw(self, trace: Trace, flat: np.ndarray) -> Iterator[Suspect]:
        size, std = np.median(np.abs(flat), axis=0), flat.std(axis=0)
        weighted = {name.rpartition(".weight")[0] for name in trace.layers["layer"].unique() if ".weight" in name}
        layers = trace.layers[(trace.layers["kind"] == "activation") & trace.layers["layer"].isin(weighted)]
        if size.max() >= self.raw_size and len(layers) and not (first := layers["std"].iloc[0]) <= self.spread:
            text = f"feature {size.argmax()} has a median size of {size.max():.3g}; deviations from {std.min():.2g} to "
            yield Suspect("missing_normalization", 0.9, f"{text}{std.max():.3g}, of the first layer {first:.3g}")

    def _table_twice(self, flat: np.ndarray) -> Iterator[Suspect]:
        mean, std = (moment[flat.std(axis=0) > 0] for moment in (flat.mean(axis=0), flat.std(axis=0)))
        near = 2 * std / len(flat) ** 0.5  # two errors of the mean: features that were near 0 come to about 0 again
        negative, below, factor = (mean < near).mean(), (mean < -std).mean(), std.max() / std.min()
        if negative > 0.95 and below > 0.3 and factor > self.units:
            text = (
                f"{negative:.0%} of the features have no mean above 0, {below:.0%} lie below by more than they vary, "
            )
            yield Suspect("double_normalization", 0.7, f"{text}and deviations differ {factor:.3g}-fold")

    def _two_scales(self, x: np.ndarray, y: np.ndarray) -> Iterator[Suspect]:
        spread = x.std(axis=0)
        told = (spread > 0) & (spread >= np.median(spread))  # what hardly varies tells nothing
        if not told.any():
            return
        middle = np.median(y[:, told], axis=0)
        outside = (middle < x[:, told].min(axis=0)) | (middle > x[:, told].max(axis=0))
        factors = np.log(np.maximum(y[:, told].std(axis=0), 1e-12) / spread[told])
        share, factor = (outside | (np.abs(factors) > np.log(self.unit))).mean(), np.median(factors)
        off = np.median(np.abs(factors - factor))
        if share > 0.5 or (told.sum() >= 8 and abs(factor) > max(np.log(self.common), 3 * off)):
            text = f"{share:.0%} of features lie elsewhere in validation; deviations differ {np.exp(factor):.3g}-fold"
            yield Suspect("train_only_normalization", 0.8, text)
            yield Suspect("wrong_statistics", 0.3, text)


def _drift(train: list[Batch], held_out: list[Batch]) -> bool:
    """Tell whether the targets of a regression lie elsewhere in validation, too: then time went on, as in a trend."""
    ours, theirs = (np.concatenate([b.targets.ravel() for b in part]) for part in (train, held_out))
    return ours.dtype.kind == "f" and bool(np.median(theirs) > ours.max() or np.median(theirs) < ours.min())


def _pixels_twice(flat: np.ndarray) -> Iterator[Suspect]:
    levels = np.unique(flat)
    if len(levels) > 3 and levels[0] == 0:
        step = np.diff(levels).min()
        count = round(levels[-1] / step)
        on_grid = np.abs(levels / step - np.round(levels / step)).max() < 0.05
        if on_grid and abs(levels[-1] * count - 1) < 0.02:
            yield Suspect("double_normalization", 0.9, f"all inputs are multiples of 1 / {count}**2, up to 1 / {count}")


def _along_rows(flat: np.ndarray) -> Iterator[Suspect]:
    mean, deviation = flat.mean(axis=0), flat.std(axis=1)
    if np.abs(flat.mean(axis=1)).max() < 1e-3 and np.ptp(deviation) < 0.2 and np.abs(mean).max() > 0.5:
        neighbours = np.corrcoef(mean[:-1], mean[1:])[0, 1]
        if not neighbours > 0.5:  # the profile of a signal is smooth, and to scale each signal by itself is usual
            yield Suspect("normalization_wrong_dim", 0.8, "every row of the table has mean 0, its columns do not")


def _rows(arrays: list[np.ndarray], most: int = 1024) -> np.ndarray | None:
    """Return up to ``most`` finite samples, (N, ...), float64; None if there are none or they are no real numbers."""
    chosen = [x for x in arrays if x.dtype.kind == "f" and x.ndim > 1 and x[0].size]
    if not chosen:
        return None
    rows = np.concatenate([x for x in chosen if x.shape[1:] == chosen[0].shape[1:]])[:most].astype(np.float64)
    return rows[np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)]
