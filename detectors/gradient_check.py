"""Is the gradient that backpropagation finds the slope of the loss?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Suspect, Trace
from bugbench.one_batch import one_batch


@dataclass
class GradientCheck(Detector):
    """Is the gradient that backpropagation finds the slope of the loss?

    CS231n's gradient check: in double precision, on a few samples, without dropout, the derivative by backpropagation
    is compared with (f(w + h) - f(w - h)) / 2h. TheDeepChecker takes three samples as well and alarms at a relative
    error |a - n| / (|a| + |n|) of 1 %; CS231n calls more than 1e-2 "probably wrong". Here w goes along one random
    direction for each parameter, in which all of its numbers have a part. The program runs again up to its first
    training batch; the model is a copy from before training, in training mode.

    Autograd differentiates what it sees, so an error means that it did not see all: a graph cut by ``detach``,
    ``.data`` or ``no_grad``, ``detached_features``, with the last layer that the error reaches; or a backward function
    written by hand. A stop of the gradient on purpose, as in a straight-through estimator, looks the same. Parameters
    that are frozen are not looked at. At a kink (CS231n: "kinks in the objective") the slopes ahead and behind differ,
    and any number between them is right, so their difference is allowed for.
    """

    access = {"rerun"}
    step: float = 1e-5  # CS231n
    error: float = 0.01  # TheDeepChecker: relative_err_max_thresh
    samples: int = 3  # TheDeepChecker: sample_size
    least: float = 1e-7  # derivatives smaller than that are zero (CS231n: 1e-7 is what double precision may leave)

    def diagnose(self, trace: Trace) -> Diagnosis:
        run = one_batch(trace)
        model = run.fresh()[0].double()
        inputs, targets = (t.double() if t.is_floating_point() else t for t in run.few(self.samples))

        def loss() -> torch.Tensor:
            torch.manual_seed(0)
            return run.loss_function(model(inputs), targets)

        try:
            value = loss()
        except RuntimeError as error:
            raise NotApplicable(f"the program does not run in double precision: {error}") from error
        if value.dtype != torch.float64 or float(value.detach()) != float(loss().detach()):
            raise NotApplicable("the loss is no double, or not the same when asked again")
        named = {name: p for name, p in model.named_parameters() if p.requires_grad and p.numel()}
        found: Sequence[torch.Tensor | None] = [None] * len(named)
        if value.requires_grad and named:
            found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
        random = torch.Generator().manual_seed(0)
        wrong, lost = [], 0
        for (name, parameter), gradient in zip(named.items(), found, strict=True):
            direction = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
            direction /= direction.norm()
            slopes = self._slopes(loss, parameter, direction, float(value.detach()))
            analytic = 0.0 if gradient is None else float((gradient * direction).sum())
            numerical = sum(slopes) / 2
            both, kink = abs(analytic) + abs(numerical), abs(slopes[0] - slopes[1])
            if both > self.least and abs(analytic - numerical) > self.error * both + kink:
                wrong.append((name, analytic, numerical))
                lost += analytic == 0
        if not wrong:
            return HEALTHY
        name, analytic, numerical = wrong[-1]
        seen = f"{len(wrong)} of {len(named)} parameters have a wrong gradient, {lost} none at all; along a direction "
        seen += f"in {name} backpropagation finds {analytic:.3g}, the loss changes by {numerical:.3g}"
        faults = ["detached_features", "model"] if lost else ["model", "detached_features"]
        layer = name.rpartition(".")[0] or None
        return Diagnosis(Suspect(fault, 0.8 / (i + 1), seen, layer=layer) for i, fault in enumerate(faults))

    def _slopes(
        self, loss: Callable[[], torch.Tensor], parameter: torch.Tensor, direction: torch.Tensor, value: float
    ) -> tuple[float, float]:
        """Return the slope of the loss along a direction, before and behind the point."""
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.copy_(kept + self.step * direction)
            ahead = (float(loss()) - value) / self.step
            parameter.copy_(kept - self.step * direction)
            behind = (value - float(loss())) / self.step
            parameter.copy_(kept)
        return ahead, behind
