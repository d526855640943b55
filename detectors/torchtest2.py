"""torchtest2: sanity checks of a model, its loss and its optimizer on a batch before training."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace
from bugbench.third_party import Following, Message, detached, follow, loss_of, only_model, tool, translate

FAULTS: dict[str, list[str]] = {  # check, and words of its message: the causes that the message names, in its order
    **{"raised": ["crash"], "forward: raised": ["crash"], "forward: contains no tensors": ["model"]},
    **{"output_finite: non-finite": ["numerics"], "output_varies: the same output": ["model"]},
    **{"eval_determinism: randomness in": ["functional_dropout"], "eval_determinism: structured outputs": ["model"]},
    **{"loss: raised": ["crash"], "loss: must be a": ["loss"], "loss: the loss is": ["numerics"]},
    **{"loss: not connected": ["detached_features"], "loss: a leaf tensor": ["detached_features"]},
    "initial_loss: much larger": ["large_init", "missing_normalization"],
    "initial_loss: suspiciously low": ["label_leakage"],
    "optimizer_coverage: tensor(s) that are not": ["optimizer_wrong_params"],
    "optimizer_coverage: not in the optimizer": ["optimizer_partial_params"],
    **{"gradient_flow: no gradient": ["model", "detached_features"], "gradient_flow: all-zero": ["dead_relu"]},
    "gradient_magnitude: NaN/inf": ["log_of_zero", "sqrt_grad_at_zero", "divide_by_zero_std", "fp16_overflow"],
    "gradient_magnitude: exploding": ["large_init", "missing_normalization", "lr_too_high"],
    **{"params_change: after an optimizer step": ["optimizer"], "params_change: did not change - ": ["model"]},
    **{"frozen_params: expected to be frozen": ["optimizer"], "input_dependency: no influence": ["model"]},
    "batch_independence: mixes information": ["view_for_permute", "swapped_axes", "softmax_dim"],
    **{"batch_independence: structure of the outputs": ["model"], "batch_independence: weak coupling": ["model"]},
    **{"overfit_batch: the loss became": ["lr_too_high", "numerics"], "overfit_batch: gradients became": ["numerics"]},
    "overfit_batch: did not decrease": ["optimizer", "wrong_target"],
    "overfit_batch: did not reach": ["model_too_small", "lr_too_low"],
}


@dataclass
class Torchtest2(Detector):
    """torchtest2 0.1.0, ``check_model``: sanity checks of the untrained model (PyPI, torchtest2).

    The program runs up to its ``batches``-th training batch; then the model gets its first weights back, and the tool
    checks it on each of these batches with the program's loss and optimizer, all options at their defaults: 14 of
    its 18 checks (not those of the outputs' shape and range, gradcheck and GPU); over-fitting a batch, 200 steps, is
    tried on the first one only. The tool expects ln(classes) of a cross-entropy, which it knows by its type: the
    program's loss gets that type where the two are equal on the first batch. It gets no loss, and skips what needs one,
    where ``loss_function`` is not what is logged (``third_party.loss_of``). FAIL ranks above WARN; warnings are alarms
    too, although a run with warnings alone passes by the tool's own ``ok``. An adapter is not shown the scheduler: the
    learning rate stays where it begins. Autocast is not reproduced; programs with several models are declined. Softmax
    over the batch is seen in the model only, not in the loss; NaN only if one of the batches has it.
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
        _, targets, logged = run.calls[0]
        loss = _typed(loss_of(trace, run.outputs, targets, logged), run.outputs, targets)
        found = []
        for number, (inputs, targets, _) in enumerate(run.calls):
            about: dict[str, Any] = {"overfit_steps": 0} if number else {}
            report = torchtest2.check_model(model, inputs, targets, loss_fn=loss, optimizer=optimizer, **about)
            found += [r for r in report if r.status.value in ("FAIL", "WARN")]
        return translate(map(_message, sorted(found, key=lambda r: r.status.value)), FAULTS)  # the order is stable


def _message(result: Any) -> Message:
    rule, about = ("raised", f"{result.name} ") if result.message.startswith("raised ") else (result.name, "")
    return Message(rule, f"{result.status.value} {about}{result.message}")


def _typed(own: Any, outputs: Any, targets: Any) -> Any:
    """Return a program's own loss, in the type of cross-entropy if it has its value."""
    try:
        values = own(outputs.clone(), targets).item(), torch.nn.functional.cross_entropy(outputs, targets).item()
    except Exception:  # there is no cross-entropy of these, or no loss
        return own
    typed: Any = torch.nn.CrossEntropyLoss()
    typed.forward = lambda outputs, targets: own(outputs, targets)
    return typed if np.isclose(*values, rtol=1e-5, equal_nan=True) else own


class _Start(Following):
    """The weights before training, and what the model was called with in its first training batches."""

    arguments: Any = None
    outputs: Any = None  # of the first of the calls

    def __init__(self, trace: Trace, batches: int) -> None:
        super().__init__(trace)
        self.steps = min(self.steps, batches) or self.steps
        self.calls: list[Any] = []  # arguments, targets and logged loss

    def on_watch(self, model: Any, optimizer: Any) -> None:
        self.state = copy.deepcopy(model.state_dict())
        self.optimizer_state = copy.deepcopy(optimizer.state_dict()) if optimizer is not None else {}
        self.hook = model.register_forward_hook(self._after_forward, with_kwargs=True)

    def _after_forward(self, model: Any, arguments: Any, keywords: Any, outputs: Any) -> None:
        if torch.is_grad_enabled():
            self.arguments = None if arguments and keywords else keywords or arguments  # the tool takes one of the two
            if isinstance(outputs, torch.Tensor) and not self.calls:
                self.outputs = detached(outputs)

    def on_batch(self, split: str, tensors: Mapping[str, Any]) -> None:
        if split == "train":
            if self.arguments is not None:
                self.calls.append(detached((self.arguments, tensors["targets"], tensors.get("loss"))))
            if self.seen + 1 == self.steps and self.watched:
                self.hook.remove()
