"""torchdiag: health checks of gradients, activations and one training step."""

import contextlib
import copy
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace
from bugbench.third_party import Following, Message, detached, follow, loss_of, tool, translate
from bugbench.watching import OnlyHere

FAULTS: dict[str, list[str]] = {  # what an issue says; the "possible causes" of dead neurons are printed below the list
    **{"forward: FAILED": ["crash"], "loss: FAILED": ["crash"], "backward: FAILED": ["crash"]},  # parts of verify_step
    "issue: not finite": ["numerics"],
    "issue: disconnected": ["detached_features"],
    "issue: None gradients": ["detached_features"],
    "issue: exploding": ["optimizer", "model"],
    "issue: vanishing": ["model"],
    "issue: neurons dead": ["dead_relu", "lr_too_high", "large_init", "preprocessing"],
    "issue: No parameters changed": ["optimizer"],
    "issue: ALL parameters are frozen": ["frozen_layers"],
    "issue: split across devices": [],  # how large a model is, no mistake
}
UNCALLED = "the program logs no training batch, or does not call the model before"


@dataclass
class Torchdiag(Detector):
    """torchdiag 0.1.0 (PyPI, torchdiag): its four checks of a model, at their fixed limits, for each watched model.

    ``summary`` and ``verify_step`` on its first training batch, ``check_gradients`` on the gradients of its last
    ``backward``, taken as they are accumulated, and ``check_dead_neurons`` on the last batch that the trace holds, a
    partial one maybe: an order that is not the README's. ``memory_report`` says nothing of the program and is left out,
    and the warning of a model split across devices is dropped. ``verify_step`` trains what it is given, so it gets
    copies; a model without an optimizer, or whose loss is not known (``third_party.loss_of``), goes without. The tool's
    words are the lines that it prints below "ISSUES FOUND" and the failures that ``verify_step`` returns. It looks at
    modules such as ``nn.ReLU`` only, not at ``F.relu``, and a NaN gradient is healthy to it. Of several models those
    are checked that are called with one tensor and return one.
    """

    access = {"rerun"}
    origin = "tool"

    def diagnose(self, trace: Trace) -> Diagnosis:
        torchdiag = tool("torchdiag")
        run = _FirstAndLast(trace)
        follow(trace, run)
        models = [seen for seen in run.models if not seen.unfit()]
        if not models:
            raise NotApplicable(next((s.unfit() for s in run.models if s.calls), UNCALLED))
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            found = [message for seen in models for message in seen.check(torchdiag, trace)]
        issues = [line.strip("• ") for line in printed.getvalue().splitlines() if line.startswith("  •")]
        return translate([*found, *(Message("issue", issue) for issue in dict.fromkeys(issues))], FAULTS)


class _Seen:
    """A copy of a model before training, its first and its last call, and the gradients of its last backward pass."""

    def __init__(self, model: Any, optimizer: Any) -> None:
        self.model, self.first = model, copy.deepcopy((model, optimizer))
        self.call: Any = None  # arguments, keywords and outputs
        self.calls: list[Any] = []  # with targets and loss
        self.gradients: dict[Any, Any] = {}  # of those parameters that get some; None before the last backward
        self.forward = False
        model.register_forward_hook(OnlyHere(self._after_forward), with_kwargs=True)

    def _after_forward(self, model: Any, arguments: Any, keywords: Any, outputs: Any) -> None:
        if torch.is_grad_enabled():
            self.call, self.forward = (arguments, keywords, outputs), True
            for parameter in model.parameters():
                if parameter.requires_grad and parameter not in self.gradients:
                    self.gradients[parameter] = None
                    parameter.register_post_accumulate_grad_hook(self._after_accumulation)

    def _after_accumulation(self, parameter: Any) -> None:
        if self.forward:  # the first of a backward pass
            self.gradients, self.forward = dict.fromkeys(self.gradients), False
        self.gradients[parameter] = parameter.grad.detach().clone()

    def unfit(self) -> str:
        for arguments, keywords, outputs, *_ in self.calls:
            if keywords or len(arguments) != 1 or not isinstance(arguments[0], torch.Tensor):
                return "the tool calls the model with one tensor"
            if not isinstance(outputs, torch.Tensor):
                return "the tool checks a model that returns one tensor"
        return "" if self.calls else UNCALLED

    def check(self, torchdiag: Any, trace: Trace) -> list[Message]:
        """Let the tool print what it finds, and return the failures of ``verify_step``."""
        results: dict[str, Any] = {}
        (given,), _, outputs, targets, logged = self.calls[0]
        model, optimizer = self.first
        torchdiag.summary(model)
        if optimizer is not None and (loss := loss_of(trace, outputs, targets, logged)) is not None:
            results = torchdiag.verify_step(model, optimizer, loss, given, targets)
        if any(g is not None for g in self.gradients.values()):  # else what there is the program has filled in itself
            for parameter, gradient in self.gradients.items():
                parameter.grad = gradient
        torchdiag.check_gradients(self.model)
        torchdiag.check_dead_neurons(self.model, *self.calls[-1][0])
        return [Message(part, said) for part, said in results.items() if str(said).startswith("FAILED")]


class _FirstAndLast(Following):
    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self.models: list[_Seen] = []

    def on_watch(self, model: Any, optimizer: Any) -> None:
        self.models.append(_Seen(model, optimizer))

    def on_batch(self, split: str, tensors: Mapping[str, Any]) -> None:
        for seen in self.models:
            if split == "train" and seen.call is not None:
                seen.calls[1:] = [detached((*seen.call, tensors["targets"], tensors.get("loss")))]
            seen.call = None
