"""Which samples were seen: a fingerprint and a label for each, hashed many batches at a time."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from bugbench.tensor_summary import fingerprint

PENDING_BYTES = 2**20  # batches that wait to be hashed together; a larger one is hashed at once, without a copy


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
        self._batches: list[tuple[str, int, int, int]] = []
        self._pending: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        self._kind: Any = None  # what batches must share to be hashed together
        self._room = PENDING_BYTES
        self._done: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def add(
        self, split: str, epoch: int, step: int, samples: torch.Tensor, targets: torch.Tensor, copied: bool = False
    ) -> None:
        """Take one batch; ``copied`` says that the program holds neither of the two tensors."""
        count = len(samples)
        self._batches.append((split, epoch, step, count))
        one_each = targets.dim() == 1 and len(targets) == count
        kind = (samples.shape[1:], samples.dtype, samples.device, one_each and (targets.dtype, targets.device))
        size = samples.numel() * samples.element_size()
        if kind != self._kind or size > self._room:
            self._flush()
            self._kind = kind
        self._room -= size
        wait = self._room > 0
        if wait and not copied:
            samples = samples.detach().clone()
        labels = (targets if copied else targets.detach().clone()) if one_each else None
        self._pending.append((samples, labels))
        if not wait:
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
            counts=[batch[3] for batch in self._batches],
            fingerprints=np.concatenate([np.zeros(0, dtype=np.int64), *hashes]),
            labels=np.concatenate([np.zeros(0), *labels]),
        )

    def _flush(self) -> None:
        """Hash what waits; a hash is exact, so it does not matter beside which other samples."""
        if self._pending:
            samples, labels = zip(*self._pending, strict=True)
            targets = None if labels[0] is None else torch.cat(labels)
            self._done.append((fingerprint(samples[0] if len(samples) == 1 else torch.cat(samples)), targets))
            self._pending.clear()
        self._room = PENDING_BYTES
