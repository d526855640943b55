"""Which samples were seen: a fingerprint and a label for each, hashed many batches at a time."""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from bugbench.tensor_summary import fingerprint

PENDING_BYTES = 2**17  # batches that wait to be hashed together: few enough to stay in the processor's cache


@dataclass(frozen=True)
class SampleTable:
    """A row per sample seen, in the order seen.

    Attributes:
        splits: the split of each batch, and ``epochs``, ``steps`` and ``counts`` (its number of samples) with it.
        epochs: evaluations before the batch.
        steps: training batches before the batch.
        counts: samples in the batch.
        fingerprints: of each sample, shape (samples,), int64.
        labels: of each sample, shape (samples,), float64; NaN where a sample has no single one.
    """

    splits: list[str]
    epochs: list[int]
    steps: list[int]
    counts: list[int]
    fingerprints: np.ndarray
    labels: np.ndarray


class SampleLog:
    """The samples of a run, batch by batch."""

    def __init__(self) -> None:
        self._batches: list[tuple[str, int, int]] = []
        self._counts: list[int] = []
        self._pending: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._room = PENDING_BYTES
        self._done: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def add(
        self, split: str, epoch: int, step: int, samples: torch.Tensor, targets: torch.Tensor, copied: bool = False
    ) -> None:
        """Take one batch; ``copied`` says that the program holds neither of the two tensors."""
        self._batches.append((split, epoch, step))
        self._room -= samples.nbytes
        if self._room > 0 and not copied:
            samples = samples.detach().clone()
        if targets.dim() == 1 and not copied:
            targets = targets.detach().clone()
        self._pending.append((samples, targets))
        if self._room <= 0:
            self._flush()

    def table(self) -> SampleTable:
        """Return all samples seen."""
        self._flush()
        hashes, labels = [], []
        for fingerprints, targets in self._done:
            hashes.append(fingerprints.cpu().numpy())
            missing = np.full(len(fingerprints), np.nan)
            labels.append(missing if targets is None else targets.cpu().double().numpy())
        return SampleTable(
            splits=[batch[0] for batch in self._batches],
            epochs=[batch[1] for batch in self._batches],
            steps=[batch[2] for batch in self._batches],
            counts=self._counts,
            fingerprints=np.concatenate([np.zeros(0, dtype=np.int64), *hashes]),
            labels=np.concatenate([np.zeros(0), *labels]),
        )

    def _flush(self) -> None:
        """Hash what waits, neighbours of one kind together; a hash is exact, so it does not matter beside which."""
        for _, group in groupby(self._pending, _kind):
            samples, targets = zip(*group, strict=True)
            self._counts.extend(map(len, samples))
            labels = torch.cat(targets) if _one_each(samples[0], targets[0]) else None
            self._done.append((fingerprint(samples[0] if len(samples) == 1 else torch.cat(samples)), labels))
        self._pending.clear()
        self._room = PENDING_BYTES


def _one_each(samples: torch.Tensor, targets: torch.Tensor) -> bool:
    return targets.dim() == 1 and len(targets) == len(samples)


def _kind(batch: tuple[torch.Tensor, torch.Tensor]) -> Any:
    """Return what batches must share to be hashed together."""
    samples, targets = batch
    labelled = (targets.dtype, targets.device) if _one_each(samples, targets) else None
    return samples.shape[1:], samples.dtype, samples.device, labelled
