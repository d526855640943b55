"""torchtest2: sanity checks of a model, its loss and its optimizer on a batch before training."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace
from bugbench.rerun import StopRun
from bugbench.third_party import Following, Message, follow, loss_of, only_model, tool, translate
from torch.utils._pytree import tree_map

FAULTS = {  # check, and words of its message: the causes that the message names, in its order
    "forward": ["crash"],
    "output_finite": ["numerics"],
    "output_varies": ["model"],
    "eval_determinism": ["functional_dropout"],
    "loss: raised": ["crash"],
    "loss: must be a scalar": ["loss"],
    "loss: the loss is": ["numerics"],
    "loss: not connected": ["detached_features"],
    "loss: a leaf tensor": ["detached_features"],
    "initial_loss: much larger": ["large_init", "missing_normalization"],
    "initial_loss: suspiciously low": ["label_leakage"],
    "optimizer_coverage: tensor(s) that are not": ["optimizer_wrong_params"],
    "optimizer_coverage": ["optimizer_partial_params"],
    "gradient_flow: no gradient": ["detached_features"],
    "gradient_flow: all-zero": ["dead_relu"],
    "gradient_magnitude: NaN/inf": ["numerics"],
    "gradient_magnitude: exploding": ["large_init", "missing_normalization", "lr_too_high"],
    "params_change: an optimizer step": ["optimizer"],
    "params_change": ["model"],
    "frozen_params": ["optimizer"],
    "input_dependency": ["model"],
    "batch_independence": ["view_for_permute", "swapped_axes", "softmax_dim"],
    "overfit_batch: the loss became": ["lr_too_high", "numerics"],
    "overfit_batch: gradients became": ["numerics"],
    "overfit_batch: did not decrease": ["optimizer", "wrong_target"],
    "overfit_batch: did not reach": ["model_too_small", "lr_too_low"],
}


@dataclass
class Torchtest2(Detector):
    """torchtest2 0.1.0, ``check_model``: about twenty sanity checks on the untrained model (PyPI, torchtest2).

    The program runs up to its ``batches``-th training batch; then the model gets its first weights back, and the tool
    checks it on each of these batches with the program's loss and optimizer, all options at their defaults; the
    over-fitting of a batch, 200 steps, is tried on the first one only. The loss is handed over as ``F.cross_entropy``
    where the program's loss equals it, for the tool recognises that function alone. FAIL ranks above WARN.

    A softmax over the batch is seen in the model only, not in the loss; NaN only if one of the batches has it.
    """

    access = {"rerun"}
    origin = "tool"
    batches: int = 5

    def diagnose(self, trace: Trace) -> Diagnosis:
        torchtest2 = tool("torchtest2")
        run = _Start(trace, self.batches)
        follow(trace, run)
        model, optimizer = only_model(run)
        if not run.calls or run.outputs is None:
            raise NotApplicable("the model is not called with tensors before the first batch is logged")
        model.load_state_dict(run.state)
        optimizer.load_state_dict(run.optimizer_state)
        optimizer.zero_grad()
        loss = loss_of(trace, run.outputs, run.calls[0][1])
        found = []
        for number, (inputs, targets) in enumerate(run.calls):
            about: dict[str, Any] = {"overfit_steps": 0} if number else {}
            report = torchtest2.check_model(model, inputs, targets, loss_fn=loss, optimizer=optimizer, **about)
            found += [r for r in report if r.status.value in ("FAIL", "WARN")]
        found.sort(key=lambda r: r.status.value)  # stable
        return translate([Message(r.name, f"{r.status.value} {r.message}") for r in found], FAULTS)


class _Start(Following):
    """The weights before training, and what the model was called with in its first training batches."""

    def __init__(self, trace: Trace, batches: int) -> None:
        super().__init__(trace)
        self.steps = min(self.steps, batches) or self.steps
        self.calls: list[tuple[Any, Any]] = []
        self.arguments: Any = None
        self.outputs: Any = None

    def on_watch(self, model: Any, optimizer: Any) -> None:
        self.state = copy.deepcopy(model.state_dict())
        self.optimizer_state = copy.deepcopy(optimizer.state_dict()) if optimizer is not None else {}
        self.hook = model.register_forward_hook(self._after_forward, with_kwargs=True)

    def _after_forward(self, model: Any, arguments: Any, keywords: Any, outputs: Any) -> None:
        if torch.is_grad_enabled():
            mixed = bool(arguments) and bool(keywords)
            self.arguments = None if mixed else keywords or (arguments if len(arguments) > 1 else arguments[0])
            if isinstance(outputs, torch.Tensor) and self.outputs is None:
                self.outputs = outputs.detach()

    def on_batch(self, split: str, tensors: Mapping[str, Any]) -> None:
        if split == "train":
            if self.arguments is not None:
                self.calls.append((tree_map(_copy, self.arguments), tensors["targets"]))
            if self.seen + 1 == self.steps:
                self.hook.remove()
                raise StopRun


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
