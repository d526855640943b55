"""TheDeepChecker: each rule on numbers or on a small program, sound and with the fault that the rule is about."""

import math
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from bugbench.after_training import label_rule, linear_cka
from bugbench.checked_program import error_rate
from bugbench.cold_start import balance_rule, weight_rules
from bugbench.detector import NotApplicable
from bugbench.detectors import thedeepchecker
from bugbench.fit_watcher import Watcher, saturation, smoothness
from bugbench.recorder import Recorder
from bugbench.trace import Trace
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


def test_error_rate_of_each_kind_of_target() -> None:
    scores = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
    assert error_rate(scores, torch.tensor([0, 1, 1, 1])) == ("classification", 0.25)
    assert error_rate(scores, torch.eye(2)[[0, 1, 1, 1]]) == ("classification", 0.25)
    assert error_rate(torch.tensor([[-1.0], [2.0]]), torch.tensor([[0.0], [0.0]])) == ("classification", 0.5)
    assert error_rate(torch.tensor([-1.0, 2.0, 3.0, 1.0]), torch.tensor([0, 0, 1, 1])) == ("classification", 0.25)
    kind, error = error_rate(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 5.0]))
    assert (kind, error) == ("regression", pytest.approx(2 / 3 / 4))


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
    ],
)
def test_corrupted_labels_leave_a_loss_that_stands_still(first: list[float], fires: bool) -> None:
    table = pd.DataFrame({"epoch": range(len(first)), "loss": first})
    trace = SimpleNamespace(train_steps=lambda: table)
    assert bool(list(label_rule(trace, thedeepchecker.Thedeepchecker()))) == fires  # type: ignore[arg-type]


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
    model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0), nn.ReLU())
    assert "dead layer" not in watched(model, [torch.randn(8, 4)] * 11)


# -- whole programs ----------------------------------------------------------------------------------------------------


PROGRAM = """
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.act, self.head = nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)

    def forward(self, x):
        x = self.act(self.hidden(x))
        return self.head({features})


def loss_function(outputs, targets):
    return {loss}


def main(config, run):
    torch.manual_seed(0)
    targets = torch.arange(64) % 2
    inputs = torch.randn(64, 8) + 2 * targets[:, None]
    inputs = {scaled}
    model = Net()
    {init}
    optimizer = torch.optim.{optimizer}
    run.watch(model, optimizer)
    for epoch in range(8):
        for rows in torch.arange(64).split(16):
            optimizer.zero_grad()
            outputs = model(inputs[rows])
            loss = loss_function(outputs, targets[rows])
            loss.backward()
            optimizer.step()
            run.log_batch("train", inputs=inputs[rows], targets=targets[rows], outputs=outputs, loss=loss)
        run.log_batch("val", inputs=inputs, targets=targets, outputs=model(inputs), loss=1.0)
        run.log_metrics("val", loss=1.0)
"""
SOUND = {
    "features": "x",
    "loss": "F.cross_entropy(outputs, targets)",
    "scaled": "(inputs - inputs.mean(dim=0)) / inputs.std(dim=0, unbiased=False)",
    "init": "",
    "optimizer": "SGD(model.parameters(), lr=0.05)",
}
NEVER_LEARNT = "F.cross_entropy(outputs, 1 - targets)"  # what is learnt at once is not watched for long


def check(folder: Path, **changes: str) -> set[str]:
    recorder = Recorder(folder, task="classification", classes=2)
    recorder.finish()
    (folder / "program.py").write_text(PROGRAM.format(**SOUND | changes))
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "data").mkdir()
    said = thedeepchecker.Thedeepchecker().diagnose(Trace(folder))
    return {s.evidence.partition(":")[0] for s in said.suspects}


def test_sound_program_passes_but_for_its_narrow_activations(tmp_path: Path) -> None:
    assert check(tmp_path) <= {"unstable activation", "stagnating loss"}


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("features unnormalized", {"scaled": "100 * inputs"}),
        ("wrong gradient", {"features": "x.detach()"}),
        ("summed loss", {"loss": "F.cross_entropy(outputs, targets, reduction='sum')"}),
        ("constant weights", {"init": "[nn.init.zeros_(p) for p in model.parameters()]"}),
        ("large initial weights", {"init": "nn.init.normal_(model.hidden.weight)"}),
        ("dead layer", {"init": "nn.init.constant_(model.hidden.bias, -50.0)"}),
        ("weights untrained", {"optimizer": "SGD(model.head.parameters(), lr=0.05)"}),
        ("updates too large", {"optimizer": "Adam(model.parameters(), lr=1.0)", "loss": NEVER_LEARNT}),
        ("updates too small", {"optimizer": "SGD(model.parameters(), lr=1e-7)"}),
        ("penalty outweighs the loss", {"optimizer": "SGD(model.parameters(), lr=0.05, weight_decay=10.0)"}),
        ("penalty outweighs the loss", {"optimizer": "Adam(model.parameters(), lr=0.05, weight_decay=10.0)"}),
        ("inputs not used", {"features": "0 * x"}),
        ("batch not learnt", {"loss": NEVER_LEARNT}),
        ("poor initial loss", {"loss": "10 * F.cross_entropy(outputs, targets)"}),
        ("loss not finite", {"loss": "F.cross_entropy(outputs, targets) + torch.log(-outputs.var())"}),
    ],
)
def test_broken_program_fails_the_check_of_its_fault(tmp_path: Path, rule: str, changes: dict[str, str]) -> None:
    assert rule in check(tmp_path, **changes)


def test_decoupled_weight_decay_is_no_penalty(tmp_path: Path) -> None:
    assert "penalty outweighs the loss" not in check(
        tmp_path, optimizer="AdamW(model.parameters(), lr=0.05, weight_decay=10.0)"
    )


def test_outputs_may_be_one_number_a_sample(tmp_path: Path) -> None:
    vector = {"features": "x)[:, 0].mul(1", "loss": "F.binary_cross_entropy_with_logits(outputs, targets.float())"}
    assert check(tmp_path, **vector) <= {"unstable activation", "stagnating loss"}


def test_program_without_a_loss_function_is_not_judged(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="loss_function"):
        source = PROGRAM.replace("loss_function", "criterion")
        Recorder(tmp_path, task="classification", classes=2).finish()
        (tmp_path / "program.py").write_text(source.format(**SOUND))
        (tmp_path / "config.yaml").write_text("seed: 0\n")
        (tmp_path / "data").mkdir()
        thedeepchecker.Thedeepchecker().diagnose(Trace(tmp_path))
