"""Statistics of tensors that are seen again and again, worked out for many of them in one go.

A reduction over a small tensor costs its launch, hardly its arithmetic. So small tensors are only copied when they are
seen, each into a row of a block, and a full block is summarised at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from bugbench.tensor_summary import statistics_dtype, summarize, summarize_rows
from bugbench.trace import STATISTICS

BLOCK_ROWS = 64
BLOCK_BYTES = 2**17  # what a block may hold; a tensor that does not fit in twice is summarised at once, by itself


@dataclass(frozen=True)
class StatisticsTable:
    """A row per tensor committed, ordered by moment and within one by when the name was first seen.

    Attributes:
        names: what each tensor is called, and ``kinds`` what it is of that.
        kinds: e.g. "activation".
        moments: when it was committed, shape (rows,), int64.
        sizes: its number of elements, shape (rows,), int64.
        values: its statistics, shape (rows, 6), float32, columns as in :data:`bugbench.trace.STATISTICS`.
    """

    names: list[str]
    kinds: list[str]
    moments: np.ndarray
    sizes: np.ndarray
    values: np.ndarray

    def norms(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the moments at which there were tensors of a kind, and their Euclidean norm taken together.

        A sum of squares is n (mean^2 + std^2), so no tensor has to be gone through again.
        """
        chosen = np.array([k == kind for k in self.kinds], dtype=bool)
        mean, std = self.values[chosen, 0].astype(np.float64), self.values[chosen, 1].astype(np.float64)
        moments, place = np.unique(self.moments[chosen], return_inverse=True)
        return moments, np.sqrt(np.bincount(place, self.sizes[chosen] * (mean**2 + std**2), len(moments)))


class _Block:
    """Room for tensors of one shape, a row each.

    The whole block is always summarised, also when rows at its end are stale: so the statistics of a tensor, to their
    last bit, never depend on how many others came after it.
    """

    def __init__(self, key: tuple[str, str], like: torch.Tensor, rows: int) -> None:
        self.key, self.size = key, like.numel()
        with torch.inference_mode(False):  # a tensor made in that mode could not be written to outside of it
            dtype = statistics_dtype(like)
            self.values = torch.zeros((rows, self.size), dtype=dtype, device=like.device)
            self.rows = [row.view(like.shape) for row in self.values]
        self.moments: list[int] = []


class StatisticsLog:
    """Tensors by name and kind: ``put`` as they come, then ``commit`` or ``discard`` all of a moment.

    What is put twice before that counts once, as it was the last time. Nothing waits for a GPU before ``table``.
    """

    def __init__(self) -> None:
        self.moments: list[int] = []  # every commit, also of nothing
        self._blocks: dict[tuple, _Block | None] = {}  # None: too large for a block
        self._pending: dict[tuple[str, str], _Block | tuple[int, torch.Tensor]] = {}
        self._order: dict[tuple[str, str], int] = {}
        self._done: list[tuple[tuple[str, str], int, list[int], torch.Tensor]] = []

    def put(self, kind: str, names: Sequence[str], tensors: Sequence[torch.Tensor]) -> None:
        """Take the tensors as they are now, of any shape and number type."""
        rows, sources = [], []
        for name, tensor in zip(names, tensors, strict=True):
            source = tensor.detach()
            if source.is_complex():
                source = torch.view_as_real(source)
            place = (name, kind, source.shape, source.dtype, source.device)
            try:
                block = self._blocks[place]
            except KeyError:
                block = self._blocks[place] = self._new_block((name, kind), source)
            if block is None:
                self._pending[name, kind] = (source.numel(), summarize(source))
            else:
                self._pending[name, kind] = block
                rows.append(block.rows[len(block.moments)])
                sources.append(source)
        if rows:
            torch._foreach_copy_(rows, sources)

    def commit(self, moment: int) -> None:
        """Keep what was put since the last commit or discard as of ``moment``."""
        self.moments.append(moment)
        for key, held in self._pending.items():
            if isinstance(held, _Block):
                held.moments.append(moment)
                if len(held.moments) == len(held.rows):
                    self._summarize(held)
            else:
                self._done.append((key, held[0], [moment], held[1].unsqueeze(0)))
        self._pending.clear()

    def discard(self) -> None:
        """Forget what was put since the last commit or discard."""
        self._pending.clear()

    def table(self) -> StatisticsTable:
        """Return all that was committed."""
        for block in self._blocks.values():
            if block is not None and block.moments:
                self._summarize(block)
        keys = [key for key, _, moments, _ in self._done for _ in moments]
        moments = np.array([m for _, _, moments, _ in self._done for m in moments], dtype=np.int64)
        sizes = np.array([size for _, size, moments, _ in self._done for _ in moments], dtype=np.int64)
        order = np.lexsort((np.array([self._order[key] for key in keys], dtype=np.int64), moments))
        return StatisticsTable(
            names=[keys[i][0] for i in order],
            kinds=[keys[i][1] for i in order],
            moments=moments[order],
            sizes=sizes[order],
            values=_to_host([values for *_, values in self._done])[order],
        )

    def _new_block(self, key: tuple[str, str], like: torch.Tensor) -> _Block | None:
        self._order.setdefault(key, len(self._order))
        itemsize = 8 if statistics_dtype(like) == torch.float64 else 4
        rows = min(BLOCK_ROWS, BLOCK_BYTES // (itemsize * like.numel())) if like.numel() else 0
        return _Block(key, like, rows) if rows > 1 else None

    def _summarize(self, block: _Block) -> None:
        values = summarize_rows(block.values)[: len(block.moments)]
        self._done.append((block.key, block.size, block.moments, values))
        block.moments = []


def _to_host(parts: list[torch.Tensor]) -> np.ndarray:
    """Return the parts below each other, moved in one go from each device."""
    if not parts:
        return np.zeros((0, len(STATISTICS)), dtype=np.float32)
    if len({part.device for part in parts}) == 1:
        return torch.cat(parts).cpu().numpy()
    return torch.cat([part.cpu() for part in parts]).numpy()
