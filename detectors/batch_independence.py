"""What does an output depend on? Its own sample and, in a language model, the past: nothing else."""

from dataclasses import dataclass
from typing import Any

import torch
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Suspect, Trace, suspect
from bugbench.rerun import Probe, StopRun
from torch import nn

TOLERANCE = 1e-4  # relative to the largest output or gradient; float32 sums in another order differ by 1e-6


@dataclass
class BatchIndependence(Detector):
    """What does an output depend on? Its own sample and, in a language model, the past: nothing else.

    Karpathy's recipe ("use backprop to chart dependencies"), with changed inputs in place of gradients. The program
    runs again up to its first training batch.

    The loss, for classes and tokens: d loss / d outputs sums to zero over the axis that a softmax has normalised. If
    that is another than the classes', the program runs a second time with one row of the outputs replaced along it; if
    that changes the gradient of the other rows, samples are coupled in the loss: ``softmax_dim``. Coupling alone is no
    proof, for contrastive losses couple on purpose.

    The model, in evaluation mode, on that batch:

    * same inputs, other outputs: a random layer that ignores the mode, ``functional_dropout``;
    * another sample in one row, other outputs in other rows: a softmax over the batch (``softmax_dim``), or batch and
      time exchanged (``swapped_axes``; it comes first where only later rows change, as in a recurrent layer);
    * if targets are the next tokens, another token at one position, other outputs before it: ``missing_causal_mask``,
      or ``inverted_mask`` where none after it changes.

    Not applicable to several models at once, to a model that returns no tensor or keeps a state from call to call, and
    to batches of one row. What only differs between training and evaluation mode is not seen.
    """

    access = {"rerun"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        task = trace.meta.get("task")
        run = _first_batch(trace, None)
        axis = _softmax_axis(run) if task in ("classification", "language_model") else None
        if axis is not None and _coupled(run, _first_batch(trace, axis)):
            evidence = f"the outputs' gradient sums to zero over axis {axis}; one row's output changes the others'"
            return suspect("softmax_dim", evidence)
        model = run.models[0].eval()
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is None for m in model.modules()):
            raise NotApplicable("batch norm without running statistics couples the batch on purpose")
        outputs = run.forward(run.inputs)
        if _differ(outputs, run.forward(run.inputs)).any():
            raise NotApplicable("the model keeps a state from call to call")
        if _differ(outputs, run.forward(run.inputs, seed=1)).any():
            return suspect("functional_dropout", "in evaluation mode the same inputs give other outputs")
        return (
            _judge_rows(run, outputs) or (_judge_order(run, outputs) if task == "language_model" else None) or HEALTHY
        )


class FirstBatch(Probe):
    """The first training batch; with ``replace``, row 0 of the model's outputs is replaced along that axis."""

    def __init__(self, replace: int | None) -> None:
        self.replace = replace
        self.models: list[nn.Module] = []
        self.call: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self.outputs: Any = None
        self.slope: torch.Tensor | None = None  # d loss / d outputs
        self.targets: Any = None

    def watch(self, model: nn.Module, optimizer: Any = None, name: str = "") -> None:
        self.models.append(model)
        model.register_forward_hook(self._after_forward, with_kwargs=True)

    def log_batch(self, split: str, **tensors: Any) -> None:
        if split == "train":
            self.targets = tensors["targets"]
            raise StopRun

    def forward(self, inputs: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """Return the model's outputs for other inputs, its other arguments as they were."""
        (arguments, keywords), old = self.call, self.inputs
        torch.manual_seed(seed)
        with torch.no_grad():
            return self.models[0](
                *(inputs if a is old else a for a in arguments),
                **{name: inputs if a is old else a for name, a in keywords.items()},
            )

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [a for a in [*self.call[0], *self.call[1].values()] if isinstance(a, torch.Tensor)]

    @property
    def inputs(self) -> Any:
        """The model's first argument that has a row for each row of the outputs."""
        return next((a for a in self.tensors if a.shape[:1] == self.outputs.shape[:1]), None)

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


def _first_batch(trace: Trace, replace: int | None) -> FirstBatch:
    run = FirstBatch(replace)
    try:
        trace.rerun(run)
    except Exception as error:
        raise NotApplicable(f"the program raised in its first batch: {type(error).__name__}: {error}") from error
    if run.targets is None or len(run.models) != 1:
        raise NotApplicable(f"the program watches {len(run.models)} models, or logs no training batch")
    if not isinstance(run.outputs, torch.Tensor) or run.outputs.shape[:1] < (2,) or run.inputs is None:
        raise NotApplicable("the model does not return a tensor of several rows, one for each of its inputs")
    if not torch.isfinite(run.outputs).all():
        raise NotApplicable("the first outputs are not finite")
    return run


def _softmax_axis(run: FirstBatch) -> int | None:
    """Return an axis over which the outputs' gradient sums to zero although it is not that of the classes."""
    slope, targets = run.slope, run.targets
    if slope is None or not slope.any():
        return None
    shape, last = slope.shape, slope.ndim - 1
    classes = {a for a in (1, last) if 0 < a <= last and targets.shape in (shape, shape[:a] + shape[a + 1 :])}
    if any(_vanishes(slope, a) for a in classes):
        return None
    others = [a for a in range(slope.ndim) if a not in classes and shape[a] > 1]
    joint = 0 if slope.ndim == 3 and _vanishes(slope.flatten(0, 1), 0) else None  # (B, T) flattened before the softmax
    return next((a for a in others if _vanishes(slope, a)), joint)


def _vanishes(slope: torch.Tensor, axis: int) -> bool:
    return bool(slope.sum(dim=axis).abs().max() <= TOLERANCE * slope.abs().sum(dim=axis).max())


def _coupled(before: FirstBatch, after: FirstBatch) -> bool:
    """Tell whether the gradient of the rows that were not replaced changed, other than by a common factor."""
    if before.slope is None or after.slope is None or after.replace is None:
        return False
    a, b = (slope.movedim(after.replace, 0)[1:].flatten() for slope in (before.slope, after.slope))
    return bool((b - a * (a @ b) / (a @ a)).norm() > 10 * TOLERANCE * b.norm())


def _differ(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return where two outputs differ by more than rounding; NaN in both is no difference."""
    return ((a - b).abs() > TOLERANCE * a.nan_to_num().abs().max()) | (a.isnan() != b.isnan())


def _judge_rows(run: FirstBatch, outputs: torch.Tensor) -> Diagnosis | None:
    """Put another sample into the middle row, and see which rows of the outputs change."""
    middle, rows = len(outputs) // 2, len(outputs)
    relations = [a for a in run.tensors if a is not run.inputs and (a.shape[:1] != (rows,) or a.shape[1:2] == (rows,))]
    if relations:  # edges of a graph, say, which couple the rows on purpose
        return None
    other = next((row for row in run.inputs if not torch.equal(row, run.inputs[middle])), None)
    if other is None:
        return None
    inputs = run.inputs.clone()
    inputs[middle] = other
    changed = _differ(outputs, run.forward(inputs)).reshape(len(outputs), -1).any(dim=1)
    before, after = int(changed[:middle].sum()), int(changed[middle + 1 :].sum())
    if not before + after:
        return None
    evidence = f"another sample in row {middle} changes the outputs of {before} rows before it and {after} after it"
    sums = outputs.sum(dim=0)
    if outputs.min() >= 0 and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        return suspect("softmax_dim", evidence + "; they sum to one over the batch")
    faults = ["softmax_dim", "swapped_axes"] if before else ["swapped_axes", "softmax_dim"]
    return Diagnosis(
        Suspect(f, c, evidence) for f, c in zip([*faults, "view_for_permute"], (0.6, 0.4, 0.2), strict=True)
    )


def _judge_order(run: FirstBatch, outputs: torch.Tensor) -> Diagnosis | None:
    """Put other tokens at the middle position, and see which positions of the outputs change."""
    tokens, targets = run.inputs, run.targets
    if tokens.is_floating_point() or tokens.ndim != 2 or targets.shape != tokens.shape or outputs.ndim != 3:
        return None
    known, middle = tokens.unique(), tokens.shape[1] // 2
    follows = [targets == tokens, targets[:, :-1] == tokens[:, 1:]]  # the shift may be inside the loss
    if outputs.shape[:2] != tokens.shape or len(known) < 2 or max(f.float().mean() for f in follows) < 0.99:
        return None
    inputs = tokens.clone()
    inputs[:, middle] = known[(torch.searchsorted(known, tokens[:, middle].contiguous()) + 1) % len(known)]
    changed = _differ(outputs, run.forward(inputs)).any(dim=2).any(dim=0)
    before, after = int(changed[:middle].sum()), int(changed[middle + 1 :].sum())
    evidence = f"other tokens at position {middle} change {before} positions of the outputs before it, {after} after it"
    return suspect("missing_causal_mask" if after else "inverted_mask", evidence) if before else None
