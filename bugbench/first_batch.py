"""A program rerun up to its first training batch, for detectors that ask what an output depends on."""

from typing import Any

import torch
from bugbench.detector import NotApplicable, Trace
from bugbench.rerun import Probe, StopRun
from torch import nn


class FirstBatch(Probe):
    """The model, its last call before the first training batch was logged, and what came of it.

    Args:
        replace: an axis of the outputs; along it, the first entry is replaced by the one that differs most from it.

    Attributes:
        outputs: what the model returned in training, detached, before the replacement.
        slope: d loss / d outputs; None if no gradient came back.
        targets: as the program logged them.
    """

    def __init__(self, replace: int | None = None) -> None:
        self.replace = replace
        self.models: list[nn.Module] = []
        self.call: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self.outputs: Any = None
        self.slope: torch.Tensor | None = None
        self.targets: Any = None

    def watch(self, model: nn.Module, optimizer: Any = None, name: str = "") -> None:
        self.models.append(model)
        model.register_forward_hook(self._after_forward, with_kwargs=True)

    def log_batch(self, split: str, **tensors: Any) -> None:
        if split == "train":
            self.targets = tensors["targets"]
            raise StopRun

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The tensors that the model was called with."""
        return [a for a in [*self.call[0], *self.call[1].values()] if isinstance(a, torch.Tensor)]

    @property
    def inputs(self) -> Any:
        """The first of them that has a row for each row of the outputs; None if none has."""
        return next((a for a in self.tensors if a.shape[:1] == self.outputs.shape[:1]), None)

    def forward(self, inputs: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """Return the model's outputs in evaluation mode for other inputs, its other arguments as they were."""
        (arguments, keywords), old = self.call, self.inputs
        torch.manual_seed(seed)
        with torch.no_grad():
            return self.models[0].eval()(
                *(inputs if a is old else a for a in arguments),
                **{name: inputs if a is old else a for name, a in keywords.items()},
            )

    def _after_forward(self, model: nn.Module, arguments: Any, keywords: Any, outputs: Any) -> Any:
        if not torch.is_grad_enabled() or self.targets is not None:
            return None
        self.call, self.outputs = (arguments, keywords), outputs
        if not isinstance(outputs, torch.Tensor) or not outputs.requires_grad:
            return None
        self.outputs = outputs.detach().clone()
        if self.replace is not None:
            rows = self.outputs.movedim(self.replace, 0)
            farthest = (rows - rows[0]).reshape(len(rows), -1).norm(dim=1).argmax()
            difference = torch.zeros_like(rows)
            difference[0] = rows[farthest] - rows[0]
            outputs = outputs + difference.movedim(0, self.replace)
        outputs.register_hook(lambda slope: setattr(self, "slope", slope.detach().clone()))
        return outputs


def first_batch(trace: Trace, replace: int | None = None) -> FirstBatch:
    """Rerun the program of ``trace`` up to its first training batch, and return what was seen.

    Raises:
        NotApplicable: as :func:`run_to_first_batch` does.
    """
    run = FirstBatch(replace)
    run_to_first_batch(trace, run)
    return run


def run_to_first_batch(trace: Trace, run: FirstBatch) -> None:
    """Rerun the program of ``trace`` under ``run``, up to its first training batch.

    Raises:
        NotApplicable: it raised before, has several models, a model that does not return a tensor with several rows,
            or outputs that are not finite.
    """
    try:
        trace.rerun(run)
    except Exception as error:
        last = ": ".join([type(error).__name__, *str(error).strip().splitlines()[-1:]])  # another process's is long
        raise NotApplicable(f"the program raised in its first batch: {last}") from error
    if run.targets is None or len(run.models) != 1:
        raise NotApplicable(f"the program watches {len(run.models)} models, or logs no training batch")
    if not isinstance(run.outputs, torch.Tensor) or run.outputs.shape[:1] < (2,) or run.inputs is None:
        raise NotApplicable("the model does not return a tensor of several rows, one for each of its inputs")
    if not torch.isfinite(run.outputs).all():
        raise NotApplicable("the first outputs are not finite")


def differ(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return where two outputs differ by more than rounding; NaN in both is no difference.

    The limit is 1e-4 of the largest output: float32 sums in another order differ by 1e-6.
    """
    return ((a - b).abs() > 1e-4 * a.nan_to_num().abs().max()) | (a.isnan() != b.isnan())
