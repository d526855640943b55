"""TheDeepChecker's checks before training: data, initial weights, initial loss, gradients. It keeps their limits."""

import contextlib
import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from bugbench.checked_program import ACTIVATIONS, CLOSE, CheckedProgram, Refused, distributions, refusals
from bugbench.rule_table import Finding
from torch import nn

F_CRITICAL = {0.1: 2.70554, 0.05: 3.8415, 0.025: 5.0239, 0.01: 6.635}  # deep_checker/metrics.py, by alpha
LEARNING = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def cold_start_rules(program: CheckedProgram, task: str, classes: int, limits: Any) -> Iterator[Finding]:
    """Ask the first epoch's data and the untrained model.

    Values in two dimensions are a table, asked column by column; others are asked as one (there the user says which).
    """
    assert program.start is not None
    features, targets = joined(program.features), joined(program.targets)
    if features.is_floating_point():
        yield from scale_rule("features", features, columns=features.ndim == 2)
    if task == "regression" and targets.is_floating_point():
        yield from scale_rule("targets", targets, columns=targets.ndim == 2, narrow=CLOSE)
    elif task != "language_model":
        yield from balance_rule(targets, classes, limits.labels_perplexity)
    yield from weight_rules(program.start[0], limits.f_test_alpha, limits.torch_initialization)
    yield from loss_rules(program, task, classes, limits)
    if limits.gradient_check:
        yield from gradient_rules(program, limits)


def joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """Return in one what batches hold; those of another shape than the first are left out."""
    alike = [x for x in parts if x.shape[1:] == parts[0].shape[1:]]
    return torch.cat(alike)


def scale_rule(what: str, values: torch.Tensor, columns: bool, narrow: float = 0.0) -> Iterator[Finding]:
    """Ask of each column whether it is constant; lies from 0 or -1 to 1; or has mean 0 and deviation 1.

    The first column from 0 or -1 to 1 that deviates by more than ``narrow`` ends it, as in deep_checker/checkers.py:
    those after it are not asked.
    """
    flat = values.double().reshape(len(values), -1) if columns else values.double().reshape(-1, 1)
    low, high, mean, std = flat.amin(dim=0), flat.amax(dim=0), flat.mean(dim=0), flat.std(dim=0, unbiased=False)
    for i in range(flat.shape[1]):
        which = f"column {i}" if columns else f"all {what}"
        bounded = abs(high[i] - 1) <= CLOSE and min(abs(low[i]), abs(low[i] + 1)) <= CLOSE
        standard = abs(std[i] - 1) <= CLOSE and abs(mean[i]) <= CLOSE
        if bounded and std[i] > narrow:
            return
        if std[i] == 0:
            yield Finding(f"{what} constant", f"{which}: {float(mean[i]):.3g}")
        elif not standard:
            text = f"{which}: {float(low[i]):.3g} to {float(high[i]):.3g}, mean {float(mean[i]):.3g}"
            yield Finding(f"{what} unnormalized", f"{text}, deviation {float(std[i]):.3g}")


def balance_rule(targets: torch.Tensor, classes: int, least: float) -> Iterator[Finding]:
    """Ask whether the labels' perplexity is at least this share of the way from one class to all.

    Only where a sample has one label: deep_checker/metadata.py knows a number of 0 or 1, or a row over the classes, and
    none for each pixel or word.
    """
    if targets.numel() != len(targets) and not distributions(targets):
        return
    if targets.is_floating_point():
        one_hot = targets.ndim == 2 and targets.shape[1] > 1
        shares = (
            targets.double().mean(dim=0)
            if one_hot
            else torch.stack([1 - targets.double().mean(), targets.double().mean()])
        )
    else:
        labels = targets.reshape(-1)
        shares = torch.bincount(labels[labels >= 0], minlength=classes).double()
    shares = shares / shares.sum()
    if len(shares) < 2 or (shares < 0).any():
        return
    known = shares[shares > 0]
    balance = (math.exp(-float((known * known.log()).sum())) - 1) / (len(shares) - 1)
    if balance < least:
        yield Finding("unbalanced labels", f"a normalized perplexity of {balance:.2f} over {len(shares)} classes")


def weight_rules(model: nn.Module, alpha: float, torch_initialization: bool) -> Iterator[Finding]:
    """Ask whether initial weights vary, and as He, Glorot or LeCun would have them for the model's first activation."""
    kinds = [type(m).__name__.lower() for m in model.modules()]
    wanted = next((type(m).__name__.lower() for m in model.modules() if isinstance(m, ACTIVATIONS)), "")
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, LEARNING)]
    for name, layer in layers:
        weight = layer.weight.detach().double()
        variance, fan_in, fan_out = float(weight.var(unbiased=False)), weight[0].numel(), weight[:, 0].numel()
        if weight.numel() < 2:
            continue
        if variance <= 1e-8:
            yield Finding("constant weights", f"a variance of {variance:.2g}", name)
            continue
        known = {"relu": 2 / fan_in, "tanh": 2 / (fan_in + fan_out), "sigmoid": 1 / fan_in}
        accepted = [known[wanted]] if wanted in known else list(known.values())
        accepted += [1 / (3 * fan_in)] if torch_initialization else []
        if all(max(variance / v, v / variance) > F_CRITICAL[alpha] for v in accepted):
            size = "large" if variance > max(accepted) else "small"
            text = f"a deviation of {variance**0.5:.3g}, {accepted[0] ** 0.5:.3g} is recommended"
            yield Finding(f"{size} initial weights", text, name)
    normalized = any("norm" in kind for kind in kinds)
    if layers and not normalized and all(m.bias is None for _, m in layers):
        yield Finding("no bias", "no layer has a bias")


def loss_rules(program: CheckedProgram, task: str, classes: int, limits: Any) -> Iterator[Finding]:
    """Ask whether the loss grows with the batch, and is what a guess over the classes costs."""
    assert program.start is not None and program.loss is not None
    targets = program.targets[0]
    torch.manual_seed(0)
    with torch.no_grad():
        outputs = copy.deepcopy(program.start[0])(program.inputs[0])
        losses = []
        with contextlib.suppress(Refused), refusals():  # a batch size may be written into the loss
            for n in (2, 4, 8):
                losses.append(float(program.loss(outputs.repeat_interleave(n, 0), targets.repeat_interleave(n, 0))))
    if (
        len(losses) == 3
        and all(math.isfinite(v) and v for v in losses)
        and round(losses[1] / losses[0]) == round(losses[2] / losses[1]) == 2
    ):
        yield Finding("summed loss", f"{losses[0]:.3g}, {losses[1]:.3g}, {losses[2]:.3g} for 2, 4, 8 copies of a batch")
    classes = 0 if task == "regression" else _choices(outputs, targets, classes)
    expected = math.log(classes) if classes > 1 else 0.0
    if expected and not abs(program.first_loss - expected) < limits.initial_loss * expected:
        yield Finding(
            "poor initial loss", f"{program.first_loss:.3g}, where a guess over {classes} costs {expected:.3g}"
        )


def _choices(outputs: torch.Tensor, targets: torch.Tensor, classes: int) -> int:
    """Return over how many classes the untrained model guesses; the program's own number counts for indices alone."""
    if distributions(targets):
        return targets.shape[1]
    if targets.is_floating_point() or outputs.numel() == targets.numel():
        return 2
    return classes or outputs.shape[-1 if outputs.ndim < 3 or outputs.shape[:-1] == targets.shape else 1]


def gradient_rules(program: CheckedProgram, limits: Any) -> Iterator[Finding]:
    """Compare gradients with central differences after a few steps, in double precision and evaluation mode."""
    assert program.start is not None and program.loss is not None
    model, optimizer = copy.deepcopy(program.start)
    model.train()
    torch.manual_seed(0)
    try:
        for i in range(limits.gradient_warmup):
            program.gradients(model, optimizer, *program.sample(limits.gradient_batch, seed=i))
            with refusals():
                optimizer.step()
    except Refused:
        return
    inputs, targets = program.inputs[0][: limits.gradient_samples], program.targets[0][: limits.gradient_samples]
    model = model.double().eval()
    inputs, targets = (x.double() if x.is_floating_point() else x for x in (inputs, targets))

    def loss() -> torch.Tensor:
        torch.manual_seed(0)  # for a function that draws in evaluation too
        return program.loss(model(inputs), targets)  # type: ignore[misc]

    try:
        with refusals():
            value = loss()
    except Refused:
        return  # the program insists on single precision, in which such differences are mostly rounding
    if value.dtype != torch.float64 or not torch.isfinite(value):
        return
    model.zero_grad()
    value.backward()
    for name, weight in model.named_parameters():
        if weight.ndim < 2 or not weight.requires_grad:
            continue
        flat = weight.data.view(-1)
        count = min(max(int(limits.gradient_share * len(flat)), 1), limits.gradient_dimensions)
        places = torch.randperm(len(flat), generator=torch.Generator().manual_seed(0))[:count].tolist()
        analytic = torch.zeros(len(flat), dtype=torch.float64) if weight.grad is None else weight.grad.reshape(-1)
        numeric = []
        for place in places:
            before, values = float(flat[place]), []
            for sign in (1, -1):
                flat[place] = before + sign * limits.gradient_delta
                with torch.no_grad():
                    values.append(float(loss()))
            flat[place] = before
            numeric.append((values[0] - values[1]) / (2 * limits.gradient_delta))
        a, b = analytic[places], torch.tensor(numeric, dtype=torch.float64)
        scale = float(a.norm() + b.norm())
        if scale > CLOSE * limits.gradient_delta and float((a - b).norm()) / scale > limits.gradient_error:
            text = f"gradient of {float(a.norm()):.3g}, by differences {float(b.norm()):.3g}, in {count} dimensions"
            yield Finding("wrong gradient", text, name.rpartition(".")[0])
