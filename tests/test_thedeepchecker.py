"""TheDeepChecker's rules on numbers worked out by hand, beside their limits."""

import math
from collections.abc import Iterable
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from bugbench.after_training import label_rule, linear_cka, mode_rules
from bugbench.checked_program import CheckedProgram
from bugbench.cold_start import balance_rule, loss_rules, weight_rules
from bugbench.detectors import thedeepchecker
from bugbench.fit_watcher import Watcher, saturation, smoothness
from bugbench.single_batch import single_batch_rules
from torch import nn

LIMITS = thedeepchecker.Thedeepchecker()


def test_smoothness_counts_turns() -> None:
    assert smoothness([4.0, 3.0, 2.0, 1.0]) == 1.0
    assert smoothness([1.0, 2.0, 1.0, 2.0]) == 0.5  # up, down, up: two turns in four losses


def test_saturation_is_the_mean_distance_from_the_middle() -> None:
    assert saturation(np.zeros(8)) == 1.0
    assert saturation(np.full(8, 0.5)) == 0.0
    assert saturation(np.array([0.0, 0.0, 0.25, 0.25])) == pytest.approx(0.75)


def test_kernel_alignment() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(50, 3))
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    assert linear_cka(a, a) == pytest.approx(1)
    assert linear_cka(a, 5 * a @ rotation + 7) == pytest.approx(1)  # neither scale, rotation nor shift matter
    assert abs(linear_cka(a, rng.normal(size=(50, 3)))) < 0.1
    assert math.isnan(linear_cka(a[:3], a[:3]))
    assert linear_cka(a, np.full((50, 3), 0.1)) == 0  # what does not vary is like nothing


@pytest.mark.parametrize(
    ("counts", "fires"),
    [
        ((50, 50), False),  # a perplexity of 2 of 2: all the way
        ((90, 10), True),  # exp(0.325) - 1 = 0.384
        ((80, 20), False),  # exp(0.500) - 1 = 0.649
        ((100, 0), True),  # the other class never comes
    ],
)
def test_balance_of_labels(counts: tuple[int, int], fires: bool) -> None:
    labels = torch.tensor([0] * counts[0] + [1] * counts[1])
    for targets in (labels, labels.float()[:, None]):
        assert bool(list(balance_rule(targets, 2, 0.5))) == fires


@pytest.mark.parametrize(
    ("scale", "default", "rule"),
    [
        (0.0, True, "constant weights"),
        (2.0**0.5, True, None),  # He: a variance of 2 / 64
        (4.0, True, "large initial weights"),  # 16 / 64 is 8 times as much, more than 2.71 times
        (3**-0.5, True, None),  # PyTorch's own: 1 / (3 * 64)
        (3**-0.5, False, "small initial weights"),
        (0.1, True, "small initial weights"),
    ],
)
def test_initial_weights(scale: float, default: bool, rule: str | None) -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
    values = torch.tensor([1.0, -1.0]).repeat(1024).view(32, 64)  # a variance of 1
    with torch.no_grad():
        model[0].weight.copy_(values * scale / 8)
    assert [f.rule for f in weight_rules(model, 0.1, default)] == ([rule] if rule else [])


@pytest.mark.parametrize(
    ("first", "fires"),
    [
        ([2.3] * 12, True),
        ([2.3, 2.2, 2.1, 2.0, 1.9, 1.8, 1.5, 1.2, 0.9, 0.6, 0.4, 0.2], False),  # falls by 10 % and more five times
        ([2.3, 2.2, 2.3, 1.2, 2.4, 1.1, 2.5, 1.0, 2.4, 1.2, 2.2, 1.0], False),
        ([2.3, 2.2, 2.2], False),  # too short to tell
        ([2.3, *[0.0] * 11], False),  # learnt by heart: the original stops at a loss of exactly 0
        ([*[2.3] * 11, math.nan], False),  # a loss that is not finite stands for its epoch
    ],
)
def test_corrupted_labels_leave_a_loss_that_stands_still(first: list[float], fires: bool) -> None:
    table = pd.DataFrame({"epoch": [i for i, _ in enumerate(first) for _ in range(2)]})
    table["loss"] = [loss for first_of_epoch in first for loss in (first_of_epoch, 2.3)]
    trace = SimpleNamespace(train_steps=lambda: table)
    assert bool(list(label_rule(trace, LIMITS))) == fires  # type: ignore[arg-type]


def untrained(outputs: torch.Tensor, targets: torch.Tensor, loss: float) -> CheckedProgram:
    """A program whose model puts out ``outputs`` and whose first loss was ``loss``."""
    program = CheckedProgram(1, 1, 1)
    program.start, program.loss, program.first_loss = (Constant(outputs), None), lambda y, _: y.sum() * 0 + loss, loss
    program.inputs, program.targets = [targets], [targets]
    return program


class Constant(nn.Module):
    def __init__(self, outputs: torch.Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.outputs


SOFT = torch.full((8, 10), 0.1)
NUMBERS = torch.linspace(0, 1, 8)[:, None]


@pytest.mark.parametrize(
    ("shape", "targets", "task", "classes", "expected"),
    [
        ((8, 10), torch.arange(8), "classification", 10, math.log(10)),
        ((8, 10), SOFT, "classification", 0, math.log(10)),
        ((8, 1), torch.ones(8, 1), "classification", 2, math.log(2)),
        ((64,), torch.ones(64, dtype=torch.long), "classification", 2, math.log(2)),  # a logit a sample
        ((64,), torch.ones(64, dtype=torch.long), "classification", 0, math.log(2)),
        ((8, 3, 4, 64), torch.zeros(8, 4, 64, dtype=torch.long), "segmentation", 0, math.log(3)),  # not the width
        ((8, 5, 96), torch.zeros(8, 5, dtype=torch.long), "language_model", 0, math.log(96)),
        ((8, 3, 96), torch.zeros(8, 96, dtype=torch.long), "language_model", 3, math.log(3)),
        ((8, 6, 96), torch.zeros(8, 5, dtype=torch.long), "language_model", 96, math.log(96)),  # cut in the loss
        ((8, 1), NUMBERS, "regression", 0, None),
    ],
)
def test_initial_loss_is_that_of_a_guess_over_the_classes(
    shape: tuple[int, ...], targets: torch.Tensor, task: str, classes: int, expected: float | None
) -> None:
    for loss in (1.9, 2.1):  # times what is expected; a deviation of 1 is allowed
        program = untrained(torch.zeros(shape), targets, loss * (expected or 1.0))
        fires = expected is not None and loss > 2
        assert [f.rule for f in loss_rules(program, task, classes, LIMITS)] == ["poor initial loss"] * fires


def test_loss_that_takes_no_copies_is_compared_with_a_guess_all_the_same() -> None:
    program = untrained(torch.zeros(8, 10), torch.arange(8), 9.0)
    program.loss = lambda y, _: y.reshape(8, 10).mean()
    assert [f.rule for f in loss_rules(program, "classification", 10, LIMITS)] == ["poor initial loss"]


# -- what is seen of a fit ---------------------------------------------------------------------------------------------


def watched(model: nn.Module, batches: Iterable[torch.Tensor]) -> set[str]:
    """Return what is said of a model that sees these batches and does not change."""
    watcher, optimizer = Watcher(LIMITS), torch.optim.SGD(model.parameters(), lr=0.0)
    for step, inputs in enumerate(batches):
        watcher.before(model, optimizer, step)
        outputs = model(inputs)
        outputs.sum().backward()
        watcher.gradients()
        watcher.after(outputs, torch.zeros(len(inputs), dtype=torch.long), 1.0, 0.0, "classification")
    return {f.rule for f in watcher.findings}


def half_dead(layer: nn.Module, dead: int) -> nn.Module:
    with torch.no_grad():
        layer.weight.fill_(1.0)  # type: ignore[union-attr, operator]
        layer.bias.zero_()[:dead] = -50.0  # type: ignore[union-attr, index, operator]
    return nn.Sequential(layer, nn.ReLU())


@pytest.mark.parametrize(("dead", "fires"), [(28, True), (12, False)])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(4, 32), (8, 4)),
        (nn.Linear(4, 32), (8, 10, 4)),  # places, then neurons
        (nn.Conv1d(4, 32, 1), (8, 4, 10)),  # neurons, then places
        (nn.Conv2d(4, 32, 1), (8, 4, 5, 5)),
        (nn.ConvTranspose2d(4, 32, 1), (8, 4, 5, 5)),
    ],
)
def test_neurons_are_in_the_axis_that_the_layer_before_made(
    layer: nn.Module, shape: tuple[int, ...], dead: int, fires: bool
) -> None:
    said = watched(half_dead(layer, dead), [torch.rand(shape)] * 11)
    assert ("dead layer" in said) == fires


def test_places_where_all_neurons_are_silent_are_not_dead_neurons() -> None:
    inputs = torch.rand(8, 10, 4)
    inputs[:, 2:] = -1.0  # as padding may be
    assert "dead layer" not in watched(half_dead(nn.Linear(4, 32), 0), [inputs] * 11)


@pytest.mark.parametrize(("alive", "fires"), [((), True), ((3, 7), False)])
def test_activations_of_ten_steps_are_judged_together(alive: tuple[int, ...], fires: bool) -> None:
    batches = [torch.full((8, 4), 1.0 if step in alive else -1.0) for step in range(11)]
    assert ("dead layer" in watched(half_dead(nn.Linear(4, 32), 0), batches)) == fires


def test_activation_of_one_number_a_sample() -> None:
    torch.manual_seed(0)  # of a few seeds the layer is dead in truth
    model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0), nn.ReLU())
    assert "dead layer" not in watched(model, [torch.randn(8, 4)] * 11)


def test_error_that_cannot_be_told_is_none() -> None:
    model = nn.Linear(4, 2)
    program = untrained(torch.zeros(1), torch.rand(8, 3), 1.0)
    program.start, program.inputs = (model, torch.optim.SGD(model.parameters(), lr=0.1)), [torch.randn(8, 4)]
    program.loss = lambda outputs, _: outputs.square().mean() + 1
    assert "batch not learnt" not in {f.rule for f in single_batch_rules(program, LIMITS)}


# -- the two modes -----------------------------------------------------------------------------------------------------


def modes(model: nn.Module) -> list[str]:
    program = CheckedProgram(1, 1, 1)
    program.model, program.loss = model, lambda outputs, _: (outputs - 1).square().mean()
    program.evaluated = [(torch.randn(20, 4), torch.zeros(20)) for _ in range(3)]
    return [f"{f.rule} {f.layer}" for f in mode_rules(program, 0.75, 0.5)]


def test_modes_of_models() -> None:
    torch.manual_seed(0)
    sound = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    assert modes(sound) == []
    dropped = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.95), nn.ReLU(), nn.Linear(16, 3))
    assert "activations differ between modes 2" in modes(dropped)
    silent = nn.Sequential(half_dead(nn.Linear(4, 16), 16), nn.Linear(16, 3))
    assert "activations differ between modes 0.1" in modes(silent)  # constant activations: an alignment of 0
    assert modes(nn.Sequential(nn.Unflatten(0, (20, 1)), sound)) == []  # takes 20 samples, not 60
