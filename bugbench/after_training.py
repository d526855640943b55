"""TheDeepChecker's checks after training: labels, and whether the model's two modes agree. It keeps their limits."""

import contextlib
import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from bugbench.checked_program import ACTIVATIONS, CLOSE, CheckedProgram, Refused, refusals
from bugbench.rule_table import Finding
from bugbench.trace import Trace
from torch import nn

MODAL = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


def trained_rules(program: CheckedProgram, trace: Trace, limits: Any) -> Iterator[Finding]:
    """Ask the model that training has left, and the curve of its losses."""
    yield from mode_rules(program, limits.mode_similarity, limits.mode_loss)
    yield from label_rule(trace, limits)


def label_rule(trace: Trace, limits: Any) -> Iterator[Finding]:
    """Ask the first loss of each epoch: if it no longer improves and stands still, the labels may be corrupt.

    deep_checker/checkers.py trains for so many epochs. A shorter run is not asked: it has had less time to improve, and
    a few losses hardly vary.
    """
    losses = trace.train_steps().groupby("epoch")["loss"].nth(0).to_numpy(float)[: limits.label_epochs]
    if len(losses) < limits.label_epochs or (losses == 0).any():
        return
    patience = limits.label_patience
    for before, now in list(pairwise(losses))[1:]:
        gain = round((before - now) / now, 2) if np.isfinite(before - now) else 0.0
        patience = patience - int(gain / limits.label_gain) if gain >= limits.label_gain else limits.label_patience
        if patience <= 0:
            return
    rest = losses[limits.label_warmup :]
    if np.var(rest) <= CLOSE:
        text = f"the first losses of {len(rest)} epochs stay between {rest.min():.3g} and {rest.max():.3g}"
        yield Finding("corrupted labels", text)


def mode_rules(program: CheckedProgram, similarity: float, loss_difference: float) -> Iterator[Finding]:
    """Compare the model's activations, outputs and loss in training and in evaluation mode, on held-out data.

    Only those of a model with two modes (``test_mode`` in deep_checker/checkers.py): it has layers that know them, or
    does not compute the same in both.
    """
    if not program.evaluated or program.model is None or program.loss is None:
        return
    with contextlib.suppress(Refused):  # a model that does not take so many samples is not asked
        seen, losses = _both_modes(program)
        names = [name for name in seen[False] if name in seen[True]]
        same = losses[True] == losses[False] and all(torch.equal(seen[True][n], seen[False][n]) for n in names)
        if same and not any(isinstance(m, MODAL) for m in program.model.modules()):
            return
        larger = max(losses.values())
        if larger > 0 and abs(losses[True] - losses[False]) / larger > loss_difference:
            text = f"a held-out loss of {losses[True]:.3g} in training mode, {losses[False]:.3g} in evaluation mode"
            yield Finding("loss differs between modes", text)
        for name in names:
            value = linear_cka(*(_features(seen[mode][name]) for mode in (True, False)))
            if value <= similarity:
                layer = None if name == "the outputs" else name
                yield Finding("activations differ between modes", f"{name} are alike to {value:.2f}", layer)


def _both_modes(program: CheckedProgram) -> tuple[dict[bool, dict[str, torch.Tensor]], dict[bool, float]]:
    """Return activations and outputs by name, and the loss, in training mode and not."""
    assert program.model is not None and program.loss is not None
    shape = program.evaluated[0][0].shape[1:]
    pairs = [(x, y) for x, y in program.evaluated if x.shape[1:] == shape]
    inputs, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    seen: dict[bool, dict[str, torch.Tensor]] = {}
    losses: dict[bool, float] = {}
    for training in (True, False):
        model = copy.deepcopy(program.model).train(training)
        seen[training] = {}
        for name, layer in model.named_modules():
            if isinstance(layer, ACTIVATIONS):
                layer.register_forward_hook(lambda _, __, y, n=name, t=training: seen[t].setdefault(n, y.detach()))
        torch.manual_seed(0)
        with torch.no_grad(), refusals():
            seen[training]["the outputs"] = outputs = model(inputs)
            losses[training] = float(program.loss(outputs, targets))
    return seen, losses


def _features(values: torch.Tensor) -> np.ndarray:
    """Return a row for each sample, also where each has a single number without a dimension of its own."""
    return values.double().reshape(len(values), -1).numpy()


def linear_cka(a: np.ndarray, b: np.ndarray) -> float:
    """Return the centred kernel alignment of two sets of features of the same samples, with the unbiased HSIC.

    Kornblith et al., ICML 2019; the estimator is that of Song et al., JMLR 2012. NaN if there are fewer than 4 samples,
    0 if a set does not vary, as in deep_checker/metrics.py.
    """
    n = len(a)
    if n < 4:
        return float("nan")
    if not np.ptp(a, axis=0).any() or not np.ptp(b, axis=0).any():
        return 0.0
    grams = [x @ x.T for x in (a, b)]
    for gram in grams:
        np.fill_diagonal(gram, 0)

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        mixed = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k.sum(axis=0) @ m.sum(axis=0))
        return float((k * m).sum() + mixed) / (n * (n - 3))

    scale = hsic(grams[0], grams[0]) * hsic(grams[1], grams[1])
    return hsic(*grams) / scale**0.5 if scale > 0 else float("nan")
