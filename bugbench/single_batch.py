"""TheDeepChecker's checks on a model that is to learn one small batch by heart. It keeps their limits."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from bugbench.checked_program import CheckedProgram, Refused, error_rate, refusals
from bugbench.cold_start import joined
from bugbench.fit_watcher import Watcher, smoothness
from bugbench.rule_table import Finding
from scipy.stats import mannwhitneyu
from torch import nn

FIT = {"classification": 0.0, "regression": 1e-4}  # errors at which the monitored phase ends (OverfitCheck)


def single_batch_rules(program: CheckedProgram, limits: Any) -> Iterator[Finding]:
    """Train on one batch, as the program's optimizer would, with a look at every tensor until the batch is learnt.

    A model that does not take the batch, as with the size of a batch written into it, is not asked.
    """
    inputs, targets = program.sample(limits.batch)
    watcher = Watcher(limits, joined(program.targets))
    try:
        kind, losses, errors = _fit(program, inputs, targets, limits, watcher)
    except Refused:
        return
    yield from watcher.findings
    if not math.isfinite(losses[-1]):
        yield Finding("loss not finite", f"{losses[-1]} after {len(losses)} steps on {len(inputs)} samples")
        return
    most = limits.batch_errors if kind == "classification" else limits.batch_mean_error
    learnt = not min(errors) > most  # an error that is no number says nothing
    if not learnt:
        text = f"an error of {min(errors):.1%} on {len(inputs)} samples after {len(errors)} steps"
        yield Finding("batch not learnt", text)
    smooth = smoothness(losses) > limits.smooth
    if min(losses) <= limits.zero_loss or (min(losses) <= limits.small_loss and smooth):
        yield Finding("loss goes to zero", f"{min(losses):.2g} after {len(losses)} steps on {len(inputs)} samples")
        return
    if learnt:
        return
    blank = torch.zeros_like(inputs) if inputs.is_floating_point() else inputs * 0
    try:
        _, without, _ = _fit(program, blank, targets, limits, None)
    except Refused:
        return
    last = limits.compared_losses
    if math.isfinite(without[-1]):
        chance = mannwhitneyu(losses[-last:], without[-last:]).pvalue
        if not chance <= 0.05:
            yield Finding("inputs not used", f"losses without the inputs are the same (p = {chance:.2f})")


def _fit(
    program: CheckedProgram, inputs: torch.Tensor, targets: torch.Tensor, limits: Any, watcher: Watcher | None
) -> tuple[str, list[float], list[float]]:
    """Return the kind of task, and loss and error of each step; the work is bounded by the size of the activations.

    Raises:
        Refused: the model does not take the batch. What it refuses later, as what is not finite, ends the fit.
    """
    assert program.start is not None
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
        try:
            outputs, loss = program.gradients(model, optimizer, inputs, targets)
            if watcher is not None and watching:
                watcher.gradients()
            with refusals():
                optimizer.step()
        except Refused:
            if not losses:
                raise
            break
        kind, error = error_rate(outputs, targets)
        losses.append(loss)
        errors.append(error)
        if watcher is not None and watching:
            watcher.after(outputs, losses[-1], error, kind)
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
    with torch.no_grad(), refusals():
        model(inputs)
    return sum(sizes)
