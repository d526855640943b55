"""torchmortem: an autopsy of a training run."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from bugbench.detector import Detector, Diagnosis, Trace
from bugbench.third_party import Following, Message, follow, tool, translate
from bugbench.watching import OnlyHere

FAULTS = {  # category, and words of the title; causes that the tool's text names, in its order, else the family
    "gradient_flow: Vanishing": ["residual_missing", "saturating_activation"],
    "gradient_flow: Exploding": ["lr_too_high", "large_init"],
    "gradient_flow: stalling": ["dead_relu", "saturating_activation", "residual_missing"],
    "dead_units": ["dead_relu", "lr_too_high", "large_init"],
    "saturation": ["saturating_activation", "lr_too_high", "large_init"],
    "gradient_noise": ["batch_size_one", "optimizer"],
    "loss_dynamics: divergence": ["lr_too_high", "numerics"],
    "loss_dynamics: plateau": ["lr_too_low"],
    "rank_collapse": ["excess_weight_decay", "excess_dropout", "lr_too_high"],
    "update_ratio: too low": ["lr_too_low"],
    "update_ratio: too high": ["lr_too_high"],
    "weight_norm: explosion": ["lr_too_high"],  # the advice before, more weight decay, is no fault of the vocabulary
    "weight_norm: Stagnant": ["lr_too_low", "detached_features"],
    "weight_norm: imbalance": ["model"],
}


@dataclass
class Torchmortem(Detector):
    """torchmortem 0.1.1 (PyPI, torchmortem): ``Autopsy`` of each watched model with its default sampling.

    Critical findings come first, then warnings; observations that it calls information do not count, nor do the
    ``insights`` that it draws from several findings, for each finding counts by itself. An autopsy is stepped with the
    loss of a training batch that the program logs if its model ran forward, with gradients on, since the batch logged
    before: not that of a model that another has replaced. Of several models that run for one batch each gets the one
    loss that is logged, so a generator gets its discriminator's. It warns of every healthy run that was tried, and it
    calls NaN gradients vanishing. An error in one of its rules, which it logs and passes over, is raised.
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
        self.ran: set[int] = set()  # places of the autopsies whose model ran forward since a batch was logged

    def on_watch(self, model: Any, optimizer: Any) -> None:
        place = len(self.autopsies)
        self.autopsies.append(self.autopsy(model, optimizer=optimizer))
        self.autopsies[-1].attach()
        model.register_forward_hook(OnlyHere(lambda *_: self._after_forward(place)))

    def _after_forward(self, place: int) -> None:
        if torch.is_grad_enabled():
            self.ran.add(place)

    def on_batch(self, split: str, tensors: Mapping[str, Any]) -> None:
        if split == "train":
            for place in sorted(self.ran):
                self.autopsies[place].step(loss=float(tensors["loss"]))
        self.ran.clear()
