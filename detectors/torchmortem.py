"""torchmortem: an autopsy of a training run."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bugbench.detector import Detector, Diagnosis, Trace
from bugbench.third_party import Following, Message, follow, tool, translate

FAULTS = {  # category, and words of the title; causes as the tool's advice implies, in its order, else the family
    "gradient_flow: Vanishing": ["residual_missing", "saturating_activation"],
    "gradient_flow: Exploding": ["lr_too_high", "large_init"],
    "gradient_flow: stalling": ["dead_relu"],
    "dead_units": ["dead_relu", "lr_too_high"],
    "saturation": ["saturating_activation", "lr_too_high"],
    "gradient_noise": ["optimizer"],
    "loss_dynamics: divergence": ["lr_too_high"],
    "loss_dynamics: plateau": ["lr_too_low"],
    "rank_collapse": ["excess_weight_decay", "excess_dropout"],
    "update_ratio: too low": ["lr_too_low"],
    "update_ratio: too high": ["lr_too_high"],
    "weight_norm: explosion": ["lr_too_high"],  # the advice before, more weight decay, is no fault of the vocabulary
    **{"weight_norm: Stagnant": ["model"], "weight_norm: imbalance": ["model"]},
}


@dataclass
class Torchmortem(Detector):
    """torchmortem 0.1.1 (PyPI, torchmortem): ``Autopsy`` of each watched model with its default sampling.

    Critical findings come first, then warnings; observations that it calls information do not count. It warns of every
    healthy run that was tried, and it calls NaN gradients vanishing. An error in one of its rules, which it logs and
    passes over, is raised.
    """

    access = {"rerun"}
    origin = "tool"

    def diagnose(self, trace: Trace) -> Diagnosis:
        run = _Autopsies(trace, tool("torchmortem").Autopsy)
        logger, errors = logging.getLogger("torchmortem.core"), _Errors(logging.ERROR)
        logger.addHandler(errors)
        try:
            follow(trace, run)
        finally:
            for autopsy in run.autopsies:
                autopsy.detach()  # one that is attached writes a report into the working directory as Python ends
            logger.removeHandler(errors)
        if errors.said:
            raise RuntimeError(errors.said[0])
        findings = []
        for autopsy in run.autopsies:
            findings += [f for f in autopsy.get_report().findings if f.severity.name in ("CRITICAL", "WARNING")]
        findings.sort(key=lambda f: f.severity.name)  # stable
        return translate(
            [
                Message(f.category, f"{f.severity.name} {f.title}. {f.summary}", (f.affected_layers or [None])[0])
                for f in findings
            ],
            FAULTS,
        )


class _Errors(logging.Handler):
    """Keeps the errors that the tool logs."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        self.said.append(f"{record.getMessage()}: {type(cause).__name__}: {cause}")


class _Autopsies(Following):
    def __init__(self, trace: Trace, autopsy: Any) -> None:
        super().__init__(trace)
        self.autopsy = autopsy
        self.autopsies: list[Any] = []

    def on_watch(self, model: Any, optimizer: Any) -> None:
        self.autopsies.append(self.autopsy(model, optimizer=optimizer))
        self.autopsies[-1].attach()

    def on_batch(self, split: str, tensors: Mapping[str, Any]) -> None:
        if split == "train":
            for autopsy in self.autopsies:
                autopsy.step(loss=float(tensors["loss"]))
