"""The samples that a program trains and evaluates on, as the tables that third-party tools take.

A table holds each sample of a split once, in the order in which the loader first drew it, with the values that the
program logged: before random augmentation where it logs those. Draws are told from samples by the indices that a
``DataLoader`` asks of its data set: an index drawn again is the same sample, and two equal rows of two indices are a
duplicate. Where a program draws by other means there are only the rows, and all of them are kept; if no evaluation
separates its epochs, the first pass is over when each row has come twice on average.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from bugbench.detector import NotApplicable, Trace
from bugbench.rerun import Probe, StopRun
from bugbench.third_party import follow
from torch import nn
from torch.utils.data.dataloader import _BaseDataLoaderIter


@dataclass(frozen=True)
class Samples:
    """The samples of a split: a row of features for each, and its label if it has one."""

    features: np.ndarray
    labels: np.ndarray | None


class _Draw(NamedTuple):
    """The indices that one batch of a loader was made of; ``sampler`` is another object in each pass."""

    dataset: Any
    sampler: Any
    indices: Any


@contextmanager
def _noted_draws() -> Iterator[list[_Draw]]:
    """Give a list to which each batch that a ``DataLoader`` hands out within the context adds its draw."""
    draws: list[_Draw] = []
    next_index, next_batch = _BaseDataLoaderIter._next_index, _BaseDataLoaderIter.__next__

    def ask(self: Any) -> Any:  # workers are asked ahead of time, in the order in which they hand out
        index = next_index(self)
        if getattr(self, "asked_sampler", None) is not self._sampler_iter:
            self.asked_sampler, self.asked = self._sampler_iter, deque()
        self.asked.append(index)
        return index

    def hand_out(self: Any) -> Any:
        batch = next_batch(self)
        draws.append(_Draw(self._dataset, self.asked_sampler, self.asked.popleft()))
        return batch

    _BaseDataLoaderIter._next_index, _BaseDataLoaderIter.__next__ = ask, hand_out  # type: ignore[method-assign]
    try:
        yield draws
    finally:
        _BaseDataLoaderIter._next_index, _BaseDataLoaderIter.__next__ = next_index, next_batch  # type: ignore[method-assign]


class _Pass:
    """The first pass over the samples of one split.

    Attributes:
        left: batches that the recorded run logged before its first evaluation.
        separated: the run trained on after an evaluation, so that no more than one epoch is left.
        known: of each batch it is known which samples of one data set it holds.
        over: the second pass has begun.
    """

    def __init__(self, left: int, separated: bool) -> None:
        self.left, self.separated, self.known, self.over = left, separated, True, False
        self.batches: list[tuple[Any, Any]] = []
        self._origin: _Draw | None = None  # of the first batch
        self._drawn: set[str] = set()
        self._rows, self._distinct = 0, set[int]()

    def add(self, samples: Any, targets: Any, draws: list[_Draw]) -> None:
        """Keep of a batch what is new."""
        self.left -= 1
        if self.over:
            return
        if not isinstance(samples, np.ndarray) or not samples.ndim:
            self.batches.append((samples, None))
            return
        labels = targets.reshape(-1) if isinstance(targets, np.ndarray) and targets.size == len(samples) else None
        kept = np.arange(len(samples))
        if (indices := _indices(draws, len(samples), self._origin)) is None:
            self.known = False
        else:
            self._origin = self._origin or draws[-1]
            first = {index: i for i, index in reversed(list(enumerate(indices))) if index not in self._drawn}
            kept = np.array(sorted(first.values()), dtype=int)
            self._drawn.update(indices)
            self.over = not first and draws[-1].sampler is not self._origin.sampler  # else drawn with replacement
        if len(kept):
            self.batches.append((samples[kept], None if labels is None else labels[kept]))
        self._rows += len(kept)
        self._distinct.update(
            hash((x.tobytes(), b"" if labels is None else labels[i].tobytes())) for i, x in enumerate(samples)
        )
        if not self.separated and not self.known and self._rows >= 2 * len(self._distinct):
            self.over = True
            ends = np.cumsum([len(x) for x, _ in self.batches])
            del self.batches[max(int((ends <= len(self._distinct)).sum()), 1) :]

    @property
    def done(self) -> bool:
        return self.over or self.left <= 0


def _indices(draws: list[_Draw], size: int, origin: _Draw | None) -> list[str] | None:
    """Return which samples of the data set of ``origin`` the last ``size`` drawn are; None if that cannot be told."""
    dataset = origin.dataset if origin else draws[-1].dataset if draws else None
    if not draws or any(draw.dataset is not dataset for draw in draws):
        return None
    indices: list[str] = []
    for draw in reversed(draws):
        if not isinstance(draw.indices, list | tuple) or None in draw.indices:
            return None
        indices = [*map(str, draw.indices), *indices]
        if len(indices) >= size:
            break
    return indices if len(indices) == size else None


class _FirstPass(Probe):
    def __init__(self, trace: Trace, draws: list[_Draw]) -> None:
        self.passes = {}
        separated = trace.train_steps()["epoch"].nunique() > 1
        for split, steps in trace.steps.groupby("split", sort=False):  # one may be evaluated before it is trained
            self.passes[split] = _Pass(int((steps["epoch"] == steps["epoch"].iloc[0]).sum()), separated)
        self.draws = draws
        self.embeds = False  # one vocabulary for all positions of a sample
        self.seen = 0

    def watch(self, model: Any, optimizer: Any = None, name: str = "") -> None:
        for layer in model.modules():
            if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
                layer.register_forward_pre_hook(self._embedded)

    def _embedded(self, layer: Any, arguments: Any) -> None:
        self.embeds |= isinstance(layer, nn.EmbeddingBag) or any(x.ndim > 1 for x in arguments[:1])

    def log_batch(self, split: str, **tensors: Any) -> None:
        self.seen += 1
        samples = tensors["inputs"] if tensors.get("samples") is None else tensors["samples"]
        if split in self.passes and self.passes[split].left > 0:
            self.passes[split].add(_array(samples), _array(tensors["targets"]), self.draws)
        self.draws.clear()
        if all(first.done for first in self.passes.values()):
            raise StopRun


def _array(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy().copy()


def first_epoch(trace: Trace) -> dict[str, Samples]:
    """Return the samples of each split, in the order logged, until the first evaluation or the end of a pass.

    Raises:
        NotApplicable: the program raises at once; its samples are sequences of tokens, or no arrays of one shape; or
            nothing tells where its first epoch ends.
    """
    with _noted_draws() as draws:
        probe = _FirstPass(trace, draws)
        follow(trace, probe)
    splits = {}
    for split, first in probe.passes.items():
        rows = [x for x, _ in first.batches]
        if any(not isinstance(x, np.ndarray) or x.ndim == 0 for x in rows) or len({x.shape[1:] for x in rows}) > 1:
            raise NotApplicable("a table has one row of numbers for each sample; the inputs are no arrays of one shape")
        if not rows:
            continue
        if split == "train" and not (first.separated or first.over or first.known):
            raise NotApplicable("no evaluation separates the epochs, and the samples bear no indices")
        features = np.concatenate([x.reshape(len(x), -1) for x in rows])
        tokens = probe.embeds and np.issubdtype(features.dtype, np.integer)
        if tokens or trace.meta.get("task") == "language_model":
            raise NotApplicable("the samples are sequences of tokens: no table of features, and windows repeat")
        labels = [y for _, y in first.batches if y is not None]
        splits[str(split)] = Samples(features, np.concatenate(labels) if len(labels) == len(rows) else None)
    if "train" not in splits:
        raise NotApplicable("the program logs no training batch")
    return splits


def evaluation_split(splits: Iterable[str]) -> str | None:
    """Return the split that a program evaluates on: "val" if there is one of that name, else the first."""
    others = list(dict.fromkeys(split for split in splits if split != "train"))
    return "val" if "val" in others else next(iter(others), None)


def validation(splits: Mapping[str, Samples]) -> Samples | None:
    """Return the samples that the program evaluates on."""
    name = evaluation_split(splits)
    return None if name is None else splits[name]


def tables(trace: Trace) -> tuple[Any, Any, str | None]:
    """Return data frames of training and validation (or None), and the name of the target's column.

    The columns are x0, x1, …: those of a tensor have no names. There is a target if both tables have one.

    Raises:
        NotApplicable: see :func:`first_epoch`.
    """
    import pandas as pd

    splits = first_epoch(trace)
    parts = [splits["train"], validation(splits)]
    labelled = all(part is None or part.labels is not None for part in parts)
    frames: list[Any] = []
    for part in parts:
        if part is None:
            frames.append(None)
            continue
        frame = pd.DataFrame(part.features, columns=[f"x{i}" for i in range(part.features.shape[1])])
        frames.append(frame.assign(target=part.labels) if labelled else frame)
    return frames[0], frames[1], "target" if labelled else None
