"""TheDeepChecker's checks on a model that is to learn one small batch by heart. It keeps their limits."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from bugbench.checked_program import CheckedProgram, error_rate
from bugbench.fit_watcher import Watcher, smoothness
from bugbench.rule_table import Finding
from scipy.stats import mannwhitneyu
from torch import nn

FIT = {"classification": 0.0, "regression": 1e-4}  # errors at which the monitored phase ends (OverfitCheck)


def single_batch_rules(program: CheckedProgram, limits: Any) -> Iterator[Finding]:
    """Train on one batch, as the program's optimizer would, with a look at every tensor until the batch is learnt."""
    inputs, targets = _sample(program, limits.batch)
    watcher = Watcher(limits)
    kind, losses, errors = _fit(program, inputs, targets, limits, watcher)
    yield from watcher.findings
    if not math.isfinite(losses[-1]):
        yield Finding("loss not finite", f"{losses[-1]} after {len(losses)} steps on {len(inputs)} samples")
        return
    most = limits.batch_errors if kind == "classification" else limits.batch_mean_error
    if min(errors) <= most:
        smooth = smoothness(losses) > limits.smooth
        if min(losses) <= limits.zero_loss or (min(losses) <= limits.small_loss and smooth):
            yield Finding("loss goes to zero", f"{min(losses):.2g} after {len(losses)} steps on {len(inputs)} samples")
        return
    text = f"an error of {min(errors):.1%} on {len(inputs)} samples after {len(errors)} steps"
    yield Finding("batch not learnt", text)
    blank = torch.zeros_like(inputs) if inputs.is_floating_point() else inputs * 0
    _, without, _ = _fit(program, blank, targets, limits, None)
    last = limits.compared_losses
    if math.isfinite(without[-1]):
        chance = mannwhitneyu(losses[-last:], without[-last:]).pvalue
        if not chance <= 0.05:
            yield Finding("inputs not used", f"losses without the inputs are the same (p = {chance:.2f})")


def _sample(program: CheckedProgram, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return as many samples of each class, drawn with replacement as in the original, or the first ones."""
    shape = program.inputs[0].shape[1:]
    pairs = [(x, y) for x, y in zip(program.inputs, program.targets, strict=True) if x.shape[1:] == shape]
    inputs, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    if targets.is_floating_point() or targets.ndim != 1:
        return inputs[:size], targets[:size]
    generator = torch.Generator().manual_seed(0)
    classes = targets.unique().tolist()
    rows = []
    for label in classes:
        of_class = (targets == label).nonzero().flatten()
        rows.append(of_class[torch.randint(len(of_class), (max(size // len(classes), 1),), generator=generator)])
    chosen = torch.cat(rows)
    return inputs[chosen], targets[chosen]


def _fit(
    program: CheckedProgram, inputs: torch.Tensor, targets: torch.Tensor, limits: Any, watcher: Watcher | None
) -> tuple[str, list[float], list[float]]:
    """Return the kind of task, and loss and error of each step; the work is bounded by the size of the activations."""
    assert program.start is not None and program.loss is not None
    model, optimizer = copy.deepcopy(program.start)
    model.train()
    torch.manual_seed(0)
    steps = min(limits.iterations, int(limits.work / _work(program.start[0], inputs)))
    losses: list[float] = []
    errors: list[float] = []
    kind, patience = "", limits.fit_patience
    for i in range(max(steps, 1)):
        watching = watcher is not None and patience > 0 and i < limits.watched_iterations
        if watcher is not None and watching:
            watcher.before(model, optimizer, i)
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = program.loss(outputs, targets)
        loss.backward()
        if watcher is not None and watching:
            watcher.gradients()
        optimizer.step()
        kind, error = error_rate(outputs, targets)
        losses.append(float(loss.detach()))
        errors.append(error)
        if watcher is not None and watching:
            watcher.after(outputs, targets, losses[-1], error, kind)
        patience = patience - 1 if error <= FIT[kind] else limits.fit_patience if patience > 0 else 0
        if not math.isfinite(losses[-1]):
            break
    return kind, losses, errors


def _work(model: nn.Module, inputs: torch.Tensor) -> int:
    """Return the number of elements that the layers put out for these inputs."""
    model, sizes = copy.deepcopy(model), [inputs.numel()]
    for layer in model.modules():
        if not any(layer.children()):
            layer.register_forward_hook(lambda _, __, y: sizes.append(y.numel() if isinstance(y, torch.Tensor) else 0))
    with torch.no_grad():
        model(inputs)
    return sum(sizes)
