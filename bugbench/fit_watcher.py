"""TheDeepChecker's watch over the tensors of a model that learns one batch. The detector keeps its limits."""

import math
from collections import defaultdict, deque
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from bugbench.checked_program import ACTIVATIONS
from bugbench.cold_start import F_CRITICAL, LEARNING
from bugbench.rule_table import Finding
from torch import nn

BINS = 50
BUFFER = 10  # deep_checker/checkers.py, buffer_scale: steps whose activations are judged together
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WEIGHTED = (*CONVOLUTIONS, nn.Linear, nn.Bilinear, nn.Embedding, nn.RNNBase, nn.MultiheadAttention)
DECOUPLED = ("AdamW", "Adafactor", "Muon")  # shrink weights beside the gradient; not every version of torch says so


def smoothness(losses: list[float]) -> float:
    """Return one less the share of steps at which a series turns, as in ``deep_checker/metrics.py``."""
    values = np.array(losses)
    with np.errstate(all="ignore"):
        turns = np.count_nonzero(np.diff(values[1:] / values[:-1] > 1))
    return 1 - turns / len(values)


def saturation(values: np.ndarray) -> float:
    """Return the measure rho of Rakitianskaia and Engelbrecht (2015) of a neuron's outputs, for a range of 0 to 1."""
    bins = np.digitize(values, np.arange(BINS) / BINS)
    counts = np.bincount(bins, minlength=BINS + 1)
    means = np.bincount(bins, values, minlength=BINS + 1) / np.maximum(counts, 1)
    return float((np.abs(2 * means - 1) * counts).sum() / counts.sum())


class Watcher:
    """Looks at weights, gradients, activations and outputs of each step, and asks the rules every ``period`` steps.

    Args:
        limits: the detector.
        targets: all that are known, whose range a regression's outputs must reach.
    """

    def __init__(self, limits: Any, targets: torch.Tensor) -> None:
        self.limits, self.findings, self.step = limits, list[Finding](), 0
        columns = targets.reshape(len(targets), -1)
        self.low, self.high = columns.amin(dim=0), columns.amax(dim=0)
        self.bounded: bool | None = None  # whether the model's first activation can saturate; else it can be dead
        self.history: dict[str, list[float]] = defaultdict(list)  # mean absolute values by kind and layer, and losses
        self.seen: dict[str, list[np.ndarray]] = defaultdict(list)  # in this step, by layer and call
        self.kept: dict[tuple[str, int], deque[np.ndarray]] = defaultdict(lambda: deque(maxlen=BUFFER))
        self.channels = False  # whether the weighted layer called last has its neurons in axis 1
        self.weights: dict[str, torch.Tensor] = {}
        self.biases: dict[str, torch.Tensor] = {}
        self.old: dict[str, torch.Tensor] = {}
        self.optimizer: Any = None
        self.reached: dict[str, torch.Tensor] = {}  # for each output of the model

    @property
    def due(self) -> bool:
        return self.step >= self.limits.start and self.step % self.limits.period == 0

    def before(self, model: nn.Module, optimizer: Any, step: int) -> None:
        self.step, self.optimizer = step, optimizer
        if not self.weights:
            layers = [(name, m) for name, m in model.named_modules() if isinstance(m, LEARNING)]
            self.weights = {name: m.weight for name, m in layers}
            self.biases = {name: m.bias for name, m in layers if m.bias is not None}
            for name, layer in model.named_modules():
                if isinstance(layer, ACTIVATIONS):
                    layer.register_forward_hook(lambda m, _, y, n=name: self._saw(n, m, y))
                elif isinstance(layer, WEIGHTED):
                    layer.register_forward_hook(lambda m, *_: setattr(self, "channels", isinstance(m, CONVOLUTIONS)))
        self.old = {name: w.detach().clone() for name, w in self.weights.items()}

    def _saw(self, name: str, layer: nn.Module, outputs: torch.Tensor) -> None:
        """Keep what an activation puts out, a column for each neuron: axis 1 after a convolution, else the last."""
        values = outputs.detach().float().clone()
        values = values.movedim(1, -1) if self.channels and values.ndim > 2 else values
        rows = values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1).numpy()
        if self.bounded is None:  # deep_checker/hooks.py takes all for what the first is
            self.bounded = isinstance(layer, (nn.Tanh, nn.Sigmoid))
        self.seen[name].append(rows)

    def gradients(self) -> None:
        """Ask the gradients, after the backward pass and before the step."""
        limits = self.limits
        for name, weight in self.weights.items():
            if weight.grad is None:
                continue
            if not torch.isfinite(weight.grad).all():
                self._found("gradient not finite", f"at step {self.step}", name)
                continue
            sizes = self.history[f"gradient of {name}"]
            sizes.append(float(weight.grad.abs().mean()))
            self._penalty(name, weight)
            if not self.due:
                continue
            rates = _rates(sizes, limits.window)
            if sizes[-1] < limits.vanishing or (rates and max(rates) <= limits.vanishing_rate):
                self._found("vanishing gradient", f"{sizes[-1]:.2g} at step {self.step}", name)
            if sizes[-1] > limits.exploding or (rates and min(rates) >= limits.growth):
                self._found("exploding gradient", f"{sizes[-1]:.2g} at step {self.step}", name)

    def _penalty(self, name: str, weight: torch.Tensor) -> None:
        """Ask whether the gradient of the penalty outweighs that of the loss.

        The penalty is weight decay that the optimizer adds to the gradient. Decoupled decay is part of no gradient, so
        nothing is asked.
        """
        group: dict[str, Any] = next(
            (g for g in self.optimizer.param_groups if any(p is weight for p in g["params"])), {}
        )
        if group.get("decoupled_weight_decay") or any(c.__name__ in DECOUPLED for c in type(self.optimizer).__mro__):
            return
        ratios = self.history[f"penalty of {name}"]
        norm = float(weight.grad.norm()) if weight.grad is not None else 0.0
        ratios.append(group.get("weight_decay", 0.0) * float(weight.detach().norm()) / (norm + 1e-16))
        if len(ratios) >= self.limits.window and min(ratios[-self.limits.window :]) >= self.limits.growth:
            self._found("penalty outweighs the loss", f"{ratios[-1]:.2g} times its gradient", name)

    def after(self, outputs: torch.Tensor, loss: float, error: float, kind: str) -> None:
        """Ask the rest, after the step."""
        self.history["loss since"].append(loss)
        self.history["error since"].append(error)
        for name, weight in self.weights.items():
            self._weight(name, weight.detach())
        for name, bias in self.biases.items():
            self._divergence("bias", name, bias.detach())
        for name, calls in self.seen.items():
            for i, rows in enumerate(calls):
                self.kept[name, i].append(rows)
                if self.due:
                    self._activation(name, np.concatenate(self.kept[name, i]))
        self.seen.clear()
        self._outputs(outputs.detach(), kind)
        if self.step % self.limits.period == 0:
            self._curve()

    def _weight(self, name: str, weight: torch.Tensor) -> None:
        limits, size = self.limits, float(self.old[name].abs().mean())
        if size > 0:
            ratio = float((weight - self.old[name]).abs().mean()) / size
            logs = self.history[f"update of {name}"]
            logs.append(math.log10(ratio) if ratio > 0 else 0.0)
            if self.step and self.step % limits.period == 0:
                mean = sum(logs) / len(logs)
                logs.clear()
                if mean == 0:
                    self._found("weights untrained", f"no value changed until step {self.step}", name)
                elif not limits.update_low <= mean <= limits.update_high:
                    which = "large" if mean > limits.update_high else "small"
                    self._found(f"updates too {which}", f"10^{mean:.1f} of the weights until step {self.step}", name)
        if self._divergence("weight", name, weight) and self.due:
            dead = float((weight.abs() < limits.dead_weight).float().mean())
            negative = float((weight < 0).float().mean())
            if dead > limits.dead_weights:
                self._found("dead weights", f"{dead:.0%} are all but zero at step {self.step}", name)
            if negative > limits.negative_weights:
                self._found("negative weights", f"{negative:.0%} at step {self.step}", name)

    def _divergence(self, what: str, name: str, values: torch.Tensor) -> bool:
        """Ask whether a parameter grows beyond bounds; return whether it is finite."""
        if not torch.isfinite(values).all():
            self._found(f"{what} not finite", f"at step {self.step}", name)
            return False
        sizes = self.history[f"{what} of {name}"]
        sizes.append(float(values.abs().mean()))
        rates = _rates(sizes, self.limits.window)
        if self.due and (sizes[-1] > self.limits.diverging or (rates and min(rates) >= self.limits.growth)):
            self._found("diverging weights", f"the {what} is {sizes[-1]:.2g} at step {self.step}", name)
        return True

    def _activation(self, name: str, rows: np.ndarray) -> None:
        limits = self.limits
        if not np.isfinite(rows).all():
            self._found("activation not finite", f"at step {self.step}", name)
            return
        if self.bounded:
            share = float(np.mean([saturation(column) > limits.saturation for column in rows.T]))
            if share > limits.dead_neurons:
                self._found("saturated layer", f"{share:.0%} of the neurons at step {self.step}", name)
        else:
            share = float((np.percentile(np.abs(rows), limits.percentile, axis=0) < limits.dead_activation).mean())
            if share > limits.dead_neurons:
                self._found("dead layer", f"{share:.0%} of the neurons at step {self.step}", name)
        variance, bounds = float(rows.var()), (limits.activation_low**2, limits.activation_high**2)
        ratio = max(bounds[0] / max(variance, 1e-30), variance / bounds[1])
        if ratio > F_CRITICAL[limits.f_test_alpha]:
            self._found("unstable activation", f"a deviation of {variance**0.5:.2g} at step {self.step}", name)

    def _outputs(self, outputs: torch.Tensor, kind: str) -> None:
        """Ask whether each output varies, and gets where its targets are: above 1 where the largest is not within 1.

        That is the size of the largest target, as in deep_checker/metadata.py, not the largest size: -5 to 0 is small.
        """
        rows = outputs.reshape(len(outputs), -1)
        states = {"constant outputs": rows.var(dim=0) > 0} if len(rows) > 1 else {}
        if kind == "regression" and rows.shape[1] == len(self.high):
            states["outputs never large"] = (rows.abs() > 1).any(dim=0) | (self.high.abs() <= 1)
            states["outputs never negative"] = (rows < 0).any(dim=0) | (self.low >= 0)
        for rule, reached in states.items():
            self.reached[rule] = reached | self.reached.get(rule, reached)
            if self.step % self.limits.period == 0:
                waited = self.history[rule]
                waited.append(float(not self.reached[rule].all()))
                if sum(waited) >= self.limits.patience and waited[-1]:
                    self._found(rule, f"at {len(waited)} looks until step {self.step}")

    def _curve(self) -> None:
        limits, losses, errors = self.limits, self.history["loss"], self.history["error"]
        for series in ("loss", "error"):
            since = self.history[f"{series} since"]
            self.history[series].append(sum(since) / len(since))
            since.clear()
        if not math.isfinite(losses[-1]):
            return
        if rates := _rates(losses, limits.window):
            if all(1 - rate < limits.loss_fall for rate in rates):
                self._found(
                    "stagnating loss", f"{losses[-limits.window]:.4g} to {losses[-1]:.4g} until step {self.step}"
                )
            if min(rates) >= limits.growth:
                self._found(
                    "diverging loss", f"{losses[-limits.window]:.4g} to {losses[-1]:.4g} until step {self.step}"
                )
        if (smooth := smoothness(losses[-50:])) < limits.smoothness:
            self._found("fluctuating loss", f"a smoothness of {smooth:.2f} until step {self.step}")
        vary = len(losses) > 2 and np.std(losses) > 0 and np.std(errors) > 0
        if vary and abs(alike := float(np.corrcoef(losses, errors)[0, 1])) < limits.correlation:
            self._found("loss not representative", f"a correlation of {alike:.2f} with the errors")

    def _found(self, rule: str, evidence: str, layer: str | None = None) -> None:
        self.findings.append(Finding(rule, evidence, layer))


def _rates(values: list[float], window: int) -> list[float]:
    """Return how often each of the last values holds the one before; none before the window is full."""
    if len(values) < window:
        return []
    last = values[-window:]
    return [b / a if a else math.nan for a, b in pairwise(last)]
