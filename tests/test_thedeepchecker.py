"""TheDeepChecker's rules on numbers worked out by hand, beside their limits."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from bugbench.after_training import label_rule, linear_cka, mode_rules
from bugbench.checked_program import CheckedProgram
from bugbench.cold_start import balance_rule, loss_rules, scale_rule, weight_rules
from bugbench.detectors import thedeepchecker
from bugbench.single_batch import single_batch_rules
from torch import nn

LIMITS = thedeepchecker.Thedeepchecker()


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
    for targets in (labels, labels[:, None], labels.float()[:, None], torch.eye(2)[labels]):
        assert bool(list(balance_rule(targets, 2, 0.5))) == fires


@pytest.mark.parametrize("shape", [(8, 4, 4), (8, 1, 4, 4), (8, 16)])
def test_labels_of_pixels_or_of_several_kinds_are_not_weighed(shape: tuple[int, ...]) -> None:
    targets = torch.zeros(shape, dtype=torch.long)
    targets[0] = 1  # an eighth, which would be exp(0.377) - 1 = 0.458
    assert not list(balance_rule(targets, 2, 0.5))
    assert not list(balance_rule(targets.float(), 2, 0.5))
    assert list(balance_rule(targets.reshape(-1), 2, 0.5))


WIDE, UNIT, SIGNED = [0.0, 5.0, 0.0, 5.0], [0.0, 1.0, 0.0, 1.0], [-1.0, 1.0, -1.0, 1.0]
STANDARD, SAME = [-2.0, 0.0, 2.0, 0.0], [3.0] * 4


@pytest.mark.parametrize(
    ("columns", "narrow", "expected"),
    [
        ([UNIT, WIDE], 0.0, []),  # nothing is asked after a column from 0 to 1
        ([SIGNED, SAME], 0.0, []),
        ([WIDE, UNIT, WIDE], 0.0, ["unnormalized 0"]),
        ([WIDE, SAME, UNIT, SAME], 0.0, ["unnormalized 0", "constant 1"]),
        ([[value / 2**0.5 for value in STANDARD], WIDE], 0.0, ["unnormalized 1"]),  # a deviation of 1 ends nothing
        ([[1.0] + [0.0] * 19999, WIDE], 0.0, []),  # a deviation of 0.007
        ([[1.0] + [0.0] * 19999, WIDE], 0.01, ["unnormalized 0", "unnormalized 1"]),  # targets that hardly vary
    ],
)
def test_scale_of_columns(columns: list[list[float]], narrow: float, expected: list[str]) -> None:
    rows = max(map(len, columns))
    table = torch.tensor([column * (rows // len(column)) for column in columns]).T
    found = [
        f.rule.replace("features ", "") + f" {f.evidence.partition(':')[0].removeprefix('column ')}"
        for f in scale_rule("features", table, columns=True, narrow=narrow)
    ]
    assert found == expected


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
    ("functions", "fires"),
    [
        ([nn.Tanh()], True),  # Glorot: 2 / (64 + 512) is 4.5 times smaller than LeCun's 1 / 64
        ([nn.Tanh(), nn.ReLU()], True),  # the first counts, as if all were
        ([nn.ReLU(), nn.Tanh()], False),  # He's 2 / 64 is twice as large
        ([nn.SELU(), nn.Tanh()], False),  # none is recommended for it: any will do
        ([nn.GELU(), nn.Tanh()], True),  # not one of the functions it knows
        ([], False),
    ],
)
def test_initial_weights_are_those_of_the_first_function(functions: list[nn.Module], fires: bool) -> None:
    layer = nn.Linear(64, 512)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, -1.0]).repeat(16384).view(512, 64) / 8)  # a variance of 1 / 64
    found = [f.rule for f in weight_rules(nn.Sequential(layer, *functions), 0.1, torch_initialization=False)]
    assert found == ["large initial weights"] * fires


@pytest.mark.parametrize(
    ("first", "fires"),
    [
        ([2.3] * 50, True),
        ([2.3] * 49, False),  # shorter than what the original trains
        ([*[2.3] * 50, *[0.1] * 50], True),  # and it trains no longer
        ([*[2.3] * 25, *[2.0] * 25], False),  # a variance of 0.02
        ([*[0.5] * 5, *[2.3] * 45], True),  # five epochs to warm up
        ([*[0.5] * 6, *[2.3] * 44], False),  # a variance of 0.07
        ([2.0, 1.9, 1.6, 1.4, 1.2, *[1.0] * 45], False),  # gains of 19, 14, 17 and 20 % use up 1, 1, 1 and 2 of five
        ([2.0, 1.9, 1.6, 1.4, 1.2, 1.2, *[1.0] * 44], True),  # it starts anew in between
        ([2.3, 2.2, *[2.3, 1.2] * 24], False),
        ([2.3, *[0.0] * 49], False),  # learnt by heart: the original stops at a loss of exactly 0
        ([*[2.3] * 49, math.nan], False),  # a loss that is not finite stands for its epoch
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


def test_error_that_cannot_be_told_is_none() -> None:
    model = nn.Linear(4, 2)
    program = untrained(torch.zeros(1), torch.rand(8, 3), 1.0)
    program.start, program.inputs = (model, torch.optim.SGD(model.parameters(), lr=0.1)), [torch.randn(8, 4)]
    program.loss = lambda outputs, _: outputs.square().mean() + 1
    assert "batch not learnt" not in {f.rule for f in single_batch_rules(program, LIMITS)}


# -- the two modes -----------------------------------------------------------------------------------------------------


class Dropping(nn.Module):
    """Knows its mode without a layer that does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 0.95, self.training)


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
    dead = nn.Linear(4, 16)
    nn.init.constant_(dead.bias, -50.0)
    silent = nn.Sequential(nn.Sequential(dead, nn.ReLU()), nn.Linear(16, 3))
    assert modes(silent) == []  # has but one mode
    assert "activations differ between modes 0.1" in modes(nn.Sequential(*silent, nn.Dropout(0.1)))  # an alignment of 0
    assert "activations differ between modes None" in modes(Dropping())
    assert modes(nn.Sequential(nn.Unflatten(0, (20, 1)), sound)) == []  # takes 20 samples, not 60
