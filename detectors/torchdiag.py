"""torchdiag: health checks of gradients, activations and one training step."""

import contextlib
import copy
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace
from bugbench.third_party import Following, Message, detached, follow, loss_of, only_model, tool, translate
from bugbench.watching import OnlyHere

FAULTS: dict[str, list[str]] = {  # what an issue says; the "possible causes" of dead neurons are printed below the list
    **{"forward: FAILED": ["crash"], "loss: FAILED": ["crash"], "backward: FAILED": ["crash"]},  # parts of verify_step
    "issue: not finite": ["numerics"],
    "issue: disconnected": ["detached_features"],
    "issue: None gradients": ["detached_features"],
    "issue: exploding": ["optimizer", "model"],
    "issue: vanishing": ["model"],
    "issue: neurons dead": ["dead_relu", "lr_too_high", "large_init"],
    "issue: No parameters changed": ["optimizer"],
    "issue: ALL parameters are frozen": ["frozen_layers"],
    "issue: split across devices": [],  # how large a model is, no mistake
}


@dataclass
class Torchdiag(Detector):
    """torchdiag 0.1.0 (PyPI, torchdiag): its four checks of a model, at their fixed limits, in the order of its README.

    ``summary`` and ``verify_step`` on the first training batch, ``check_dead_neurons`` on the last one that the trace
    holds, and ``check_gradients``, which is to be called after ``backward``, on the gradients of the optimizer's last
    step. ``verify_step`` trains what it is given, so it gets copies. The tool's words are the lines that it prints
    below "ISSUES FOUND" and the failures that ``verify_step`` returns. It looks at modules such as ``nn.ReLU`` only,
    not at ``F.relu``, and a NaN gradient is healthy to it.
    """

    access = {"rerun"}
    origin = "tool"

    def diagnose(self, trace: Trace) -> Diagnosis:
        torchdiag = tool("torchdiag")
        run = _FirstAndLast(trace)
        follow(trace, run)
        only_model(run)
        if not run.calls:
            raise NotApplicable("the program logs no training batch, or does not call the model before")
        inputs, outputs = zip(*(_one_tensor(call) for call in run.calls), strict=True)
        results: dict[str, Any] = {}
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            model, optimizer = run.first
            torchdiag.summary(model)
            if (loss := loss_of(trace, outputs[0], run.targets)) is not None:
                results = torchdiag.verify_step(model, optimizer, loss, inputs[0], run.targets)
            model, _ = run.watched[-1]
            for parameter, gradient in run.gradients.items():
                parameter.grad = gradient
            torchdiag.check_gradients(model)
            torchdiag.check_dead_neurons(model, inputs[-1])
        found = [Message(part, said) for part, said in results.items() if str(said).startswith("FAILED")]
        issues = [line.strip("• ") for line in printed.getvalue().splitlines() if line.startswith("  •")]
        return translate([*found, *(Message("issue", issue) for issue in dict.fromkeys(issues))], FAULTS)


def _one_tensor(call: tuple[Any, Any, Any]) -> tuple[Any, Any]:
    arguments, keywords, outputs = call
    if keywords or len(arguments) != 1 or not isinstance(arguments[0], torch.Tensor):
        raise NotApplicable("the tool calls the model with one tensor")
    if not isinstance(outputs, torch.Tensor):
        raise NotApplicable("the tool checks a model that returns one tensor")
    return arguments[0], outputs


class _FirstAndLast(Following):
    """A copy of the model before training, its first and its last call, and the gradients of the last step."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self.calls: list[Any] = []  # arguments, keywords and outputs
        self.call: Any = None
        self.targets: Any = None  # of the first
        self.gradients: dict[Any, Any] = {}  # of parameters; there are none before the first step

    def on_watch(self, model: Any, optimizer: Any) -> None:
        self.first = copy.deepcopy((model, optimizer))
        model.register_forward_hook(OnlyHere(self._after_forward), with_kwargs=True)
        if optimizer is not None:
            optimizer.register_step_pre_hook(OnlyHere(lambda *_: self._before_step(model)))

    def _after_forward(self, model: Any, arguments: Any, keywords: Any, outputs: Any) -> None:
        if torch.is_grad_enabled():
            self.call = (arguments, keywords, outputs)

    def _before_step(self, model: Any) -> None:
        self.gradients = {p: None if p.grad is None else p.grad.detach().clone() for p in model.parameters()}

    def on_batch(self, split: str, tensors: Mapping[str, Any]) -> None:
        if split == "train" and self.call is not None:
            if not self.calls:
                self.targets = detached(tensors["targets"])
            self.calls[1:] = [detached(self.call)]
