"""torchdiag: health checks of gradients, activations and one training step."""

import contextlib
import copy
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from bugbench.detector import Detector, Diagnosis, Trace
from bugbench.third_party import Following, Message, follow, loss_of, only_model, tool, translate

FAULTS = {  # what an issue says; its "possible causes" for dead neurons are printed below the list
    "issue: failed": ["crash"],
    "issue: not finite": ["numerics"],
    "issue: disconnected": ["detached_features"],
    "issue: None gradients": ["detached_features"],
    "issue: exploding": ["optimizer", "model"],
    "issue: vanishing": ["model"],
    "issue: neurons dead": ["dead_relu", "lr_too_high", "large_init"],
    "issue: No parameters changed": ["optimizer"],
    "issue: ALL parameters are frozen": ["frozen_layers"],
}


@dataclass
class Torchdiag(Detector):
    """torchdiag 0.1.0 (PyPI, torchdiag): its four checks of a model, at their fixed limits, in the order of its README.

    ``summary`` and ``verify_step`` on the first training batch, ``check_gradients`` and ``check_dead_neurons`` on the
    last one that the trace holds. The tool trains what it is given, so it gets copies. Its words are the lines that it
    prints below "ISSUES FOUND". It looks at modules such as ``nn.ReLU`` only, not at ``F.relu``, and a NaN gradient is
    healthy to it.
    """

    access = {"rerun"}
    origin = "tool"

    def diagnose(self, trace: Trace) -> Diagnosis:
        torchdiag = tool("torchdiag")
        run = _FirstAndLast(trace)
        follow(trace, run)
        only_model(run)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            (model, optimizer), inputs, targets = run.first, run.inputs[0], run.targets[0]
            torchdiag.summary(model)
            with torch.no_grad():
                outputs = copy.deepcopy(model)(inputs)
            if (loss := loss_of(trace, outputs, targets)) is not None:
                torchdiag.verify_step(model, optimizer, loss, inputs, targets)
            model, _ = run.last
            torchdiag.check_gradients(model)
            torchdiag.check_dead_neurons(model, run.inputs[-1])
        issues = [line.strip("• ") for line in said.getvalue().splitlines() if line.startswith("  •")]
        return translate([Message("issue", issue) for issue in dict.fromkeys(issues)], FAULTS)


class _FirstAndLast(Following):
    """Copies of the model before training and after the last batch, with the batches that go with them."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self.inputs: list[Any] = []
        self.targets: list[Any] = []
        self.first: Any = None
        self.last: Any = None

    def on_watch(self, model: Any, optimizer: Any) -> None:
        self.first = copy.deepcopy((model, optimizer))
        model.register_forward_pre_hook(self._before_forward)

    def _before_forward(self, model: Any, arguments: Any) -> None:
        if torch.is_grad_enabled() and arguments:
            self.given = arguments[0]

    def on_batch(self, split: str, tensors: Mapping[str, Any]) -> None:
        if split == "train":
            self.inputs[1:], self.targets[1:] = [self.given], [tensors["targets"]]
            self.last = self.watched[-1]
