"""Is the program's learning rate in the range in which the loss falls?"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace, suspect
from bugbench.rerun import Probe, StopRun


@dataclass
class LrRangeTest(Detector):
    """Is the program's learning rate in the range in which the loss falls?

    The learning rate range test (Smith 2017, "Cyclical Learning Rates", 3.3): the program runs again, with a rate that
    grows by a constant factor from batch to batch, from 1e-5 to 0.1 in a hundred batches (fastai's ``lr_find`` takes a
    hundred as well), or from and to the program's own rate where that lies outside. The loss is smoothed as there: an
    exponential mean with 0.98, corrected for its start.

    * The loss has passed four times its lowest (where fastai's test ends), or is not finite, before the rate comes to
      the program's own: ``lr_too_high``.
    * The program's own rate is lower than the first at which a twentieth of the whole fall is done (TheDeepChecker: a
      loss that falls by less than 5 % does not fall), and a tenth of the best: ``lr_too_low``. Smith has the user read
      the start of the fall off the plot, so this number stands for his eye.

    The program's own rate is that of its optimizer before training, without a warm-up (``initial_lr`` of a scheduler).
    A test of so few batches is short of memory: what only a long run shows, as momentum's oscillation, it does not see.
    Not applicable to several models or optimizers, to several processes (the rate grows in one of them), and to a loss
    that never falls by a tenth: there the range is empty, for a reason that is not the rate's.
    """

    access = {"rerun"}
    lowest: float = 1e-5
    highest: float = 0.1
    batches: int = 100  # fastai: num_it
    diverged: float = 4.0  # fastai: stop_div
    begun: float = 0.05  # TheDeepChecker, non_dec: decr_percentage
    fall: float = 0.1  # of the first loss, and twice the 5 % that do not count

    def diagnose(self, trace: Trace) -> Diagnosis:
        if trace.meta.get("task") == "generation":
            raise NotApplicable("the losses of two models that play against each other need not fall")
        probe = GrowingRate(self.lowest, self.highest, self.batches)
        try:
            trace.rerun(probe)
        except Exception as error:
            if not probe.losses:
                raise NotApplicable(f"the program raised before its first batch: {type(error).__name__}") from error
        losses, rates, own = np.array(probe.losses), np.array(probe.rates), probe.own
        if probe.reason or (len(losses) < self.batches // 2 and np.isfinite(losses).all()):
            raise NotApplicable(probe.reason or f"the program trains for {len(losses)} batches only")
        if not probe.steps:
            raise NotApplicable("the optimizer never steps")
        end = int(next(iter(np.flatnonzero(~np.isfinite(losses))), len(losses)))
        if end < 2:
            raise NotApplicable("the first losses are not finite")
        smooth, start = _smoothed(losses[:end]), float(losses[:end][: self.batches // 10].mean())
        best = int(smooth.argmin())
        beyond = np.flatnonzero(smooth > (self.diverged * smooth[best] if smooth[best] > 0 else math.inf))
        limit = int(next(iter(beyond[beyond > best]), end))
        fall = start - smooth[best]
        if limit < len(losses) and rates[limit] < own and fall > 0:
            text = f"the loss falls to {smooth[best]:.3g} at a rate of {rates[best]:.2g} and has left it for good at"
            return suspect("lr_too_high", f"{text} {rates[limit]:.2g}; the program's own rate is {own:.2g}")
        if fall < self.fall * abs(start):
            raise NotApplicable(f"the loss falls at no rate: it starts at {start:.3g}, at best {smooth[best]:.3g}")
        begin = rates[np.flatnonzero(smooth[: best + 1] >= start - self.begun * fall)[-1:]].max(initial=rates[0])
        if own < begin and own < 0.1 * rates[best]:
            text = f"the loss begins to fall at a rate of {begin:.2g} and is lowest at {rates[best]:.2g}"
            return suspect("lr_too_low", f"{text}; the program's own rate is {own:.2g}")
        return HEALTHY


class GrowingRate(Probe):
    """Gives the optimizer another rate at each step, whatever a schedule says, and keeps the losses."""

    def __init__(self, lowest: float, highest: float, batches: int) -> None:
        self.lowest, self.highest, self.batches = lowest, highest, batches
        self.own, self.steps, self.reason = math.nan, 0, ""
        self.rates: list[float] = []
        self.losses: list[float] = []

    def watch(self, model: torch.nn.Module, optimizer: Any = None, name: str = "") -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            self.reason = "the program shows no optimizer"
        elif torch.distributed.is_available() and torch.distributed.is_initialized():
            self.reason = "the rate would grow in one of several processes only"
        elif not math.isnan(self.own) and not self.losses:
            self.reason = "the program has several optimizers"
        if self.reason:
            raise StopRun
        if math.isnan(self.own):
            self.own = max(float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups)
            self.lowest, self.highest = min(self.lowest, self.own or 1), max(self.highest, self.own)
        optimizer.register_step_pre_hook(self._before_step)

    def _rate(self) -> float:
        return self.lowest * (self.highest / self.lowest) ** min(len(self.losses) / (self.batches - 1), 1.0)

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self.steps += 1
        for group in optimizer.param_groups:
            group["lr"] = self._rate()

    def log_batch(self, split: str, **tensors: Any) -> None:
        if split == "train":
            self.rates.append(self._rate())
            self.losses.append(float(torch.as_tensor(tensors["loss"]).detach()))
            if len(self.losses) >= self.batches or not math.isfinite(self.losses[-1]):
                raise StopRun


def _smoothed(losses: np.ndarray, beta: float = 0.98) -> np.ndarray:
    means, mean = [], 0.0
    for i, loss in enumerate(losses):
        mean = beta * mean + (1 - beta) * loss
        means.append(mean / (1 - beta ** (i + 1)))
    return np.array(means)
