"""TheDeepChecker's watch over a fit, on tensors worked out by hand."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from bugbench.detectors import thedeepchecker
from bugbench.fit_watcher import Watcher, saturation, smoothness
from torch import nn

LIMITS = thedeepchecker.Thedeepchecker()


def test_smoothness_counts_turns() -> None:
    assert smoothness([4.0, 3.0, 2.0, 1.0]) == 1.0
    assert smoothness([1.0, 2.0, 1.0, 2.0]) == 0.5  # up, down, up: two turns in four losses


def test_saturation_is_the_mean_distance_from_the_middle() -> None:
    assert saturation(np.zeros(8)) == 1.0
    assert saturation(np.full(8, 0.5)) == 0.0
    assert saturation(np.array([0.0, 0.0, 0.25, 0.25])) == pytest.approx(0.75)


def watched(model: nn.Module, batches: Iterable[torch.Tensor]) -> set[str]:
    """Return what is said of a model that sees these batches and does not change."""
    watcher, optimizer = Watcher(LIMITS, torch.zeros(1)), torch.optim.SGD(model.parameters(), lr=0.0)
    for step, inputs in enumerate(batches):
        watcher.before(model, optimizer, step)
        outputs = model(inputs)
        outputs.sum().backward()
        watcher.gradients()
        watcher.after(outputs, 1.0, 0.0, "classification")
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


@pytest.mark.parametrize(
    ("first", "rule"), [(nn.Hardtanh(), "dead layer"), (nn.ReLU(), "dead layer"), (nn.Sigmoid(), "saturated layer")]
)
def test_all_activations_are_taken_for_what_the_first_is(first: nn.Module, rule: str) -> None:
    silent = half_dead(nn.Linear(4, 32), 32)  # puts out 0, which is as far from the middle as can be
    said = watched(nn.Sequential(first, silent), [torch.rand(8, 4)] * 11)
    assert said & {"dead layer", "saturated layer"} == {rule}


@pytest.mark.parametrize(
    ("targets", "outputs", "expected"),
    [
        ([[0.0, 0.0], [5.0, 1.0]], [[0.1, 0.1], [0.9, 0.9]], {"outputs never large"}),
        ([[0.0, 0.0], [5.0, 1.0]], [[0.1, 0.1], [0.9, 2.0]], {"outputs never large"}),  # the other column
        ([[0.0, 0.0], [5.0, 1.0]], [[0.1, 0.1], [2.0, 0.9]], set()),
        ([[-5.0, 0.0], [0.5, 1.0]], [[-0.1, 0.1], [0.9, 0.9]], set()),  # the largest is 0.5, whatever the smallest
        ([[-5.0, 0.0], [0.5, 1.0]], [[0.1, -0.1], [0.9, 0.9]], {"outputs never negative"}),
        ([[-5.0, 0.0], [-3.0, 1.0]], [[-0.1, 0.1], [-0.9, 0.9]], {"outputs never large"}),  # the largest is -3
        ([[0.0, 0.0], [1.0, 1.0]], [[0.5, 0.1], [0.5, 0.9]], {"constant outputs"}),
        ([[0.0], [5.0]], [[0.1, 0.1], [0.9, 0.9]], set()),  # whose target is whose cannot be told
    ],
)
def test_outputs_reach_where_their_targets_are(
    targets: list[list[float]], outputs: list[list[float]], expected: set[str]
) -> None:
    watcher, model = Watcher(LIMITS, torch.tensor(targets)), nn.Flatten()
    for step in range(41):  # looked at five times: 0, 10, 20, 30, 40
        watcher.before(model, None, step)
        watcher.after(torch.tensor(outputs), 1.0, 0.0, "regression")
        found = {f.rule for f in watcher.findings if "outputs" in f.rule}
        assert found == (expected if step == 40 else set())
