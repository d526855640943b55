"""What TheDeepChecker keeps of a rerun: when it ends, its batches, models, samples and errors."""

import pytest
import torch
from bugbench.checked_program import CheckedProgram, error_rate
from bugbench.rerun import StopRun
from torch import nn


def test_error_rate_of_each_kind_of_target() -> None:
    scores = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
    assert error_rate(scores, torch.tensor([0, 1, 1, 1])) == ("classification", 0.25)
    assert error_rate(scores, torch.eye(2)[[0, 1, 1, 1]]) == ("classification", 0.25)
    soft = torch.tensor([[0.7, 0.3], [0.1, 0.9], [0.4, 0.6], [0.3, 0.7]])
    assert error_rate(scores, soft) == ("classification", 0.25)
    assert error_rate(scores, 2 * soft)[0] == "regression"  # its rows do not sum to 1
    assert error_rate(torch.tensor([[-1.0], [2.0]]), torch.tensor([[0.0], [0.0]])) == ("classification", 0.5)
    assert error_rate(torch.tensor([-1.0, 2.0, 3.0, 1.0]), torch.tensor([0, 0, 1, 1])) == ("classification", 0.25)
    kind, error = error_rate(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 5.0]))
    assert (kind, error) == ("regression", pytest.approx(2 / 3 / 4))


def log(program: CheckedProgram, split: str, samples: int = 8) -> None:
    batch = torch.zeros(samples, 2)
    program.log_batch(split, inputs=batch, targets=batch, outputs=batch, loss=1.0, samples=None)  # as the recorder may


def run(program: CheckedProgram, epoch: int, val_batches: int = 5) -> int:
    """Log epochs with an evaluation each until the program is stopped; return the number of evaluations."""
    for evaluations in range(5000 // epoch):
        try:
            for _ in range(epoch):
                log(program, "train")
            for _ in range(val_batches):
                log(program, "val")
        except StopRun:
            return evaluations
    raise AssertionError("it was never stopped")


@pytest.mark.parametrize(("epoch", "count"), [(300, 300), (40, 280), (125, 250), (250, 250)])
def test_run_ends_when_a_whole_evaluation_is_over(epoch: int, count: int) -> None:
    program = CheckedProgram(250, 38400, 1024)
    run(program, epoch)
    assert (program.count, len(program.evaluated)) == (count, 5)


def test_run_ends_in_an_evaluation_that_has_brought_enough() -> None:
    program = CheckedProgram(250, 38400, 1024)
    run(program, 300, val_batches=1000)
    assert (program.count, sum(len(x) for x, _ in program.evaluated)) == (300, 1024)


def test_run_without_an_evaluation_ends_nonetheless() -> None:
    program = CheckedProgram(250, 38400, 1024)
    run(program, 2500)
    assert (program.count, program.evaluated) == (2000, [])


def test_inputs_stand_in_for_samples_that_are_not_given() -> None:
    program = CheckedProgram(250, 38400, 1024)
    log(program, "train")
    assert torch.equal(program.features[0], program.inputs[0])


@pytest.mark.parametrize(
    ("second", "name", "trained", "several"),
    [
        (nn.Linear(2, 2), "", True, False),  # a checkpoint was loaded into a new model
        (nn.Linear(2, 2), "", False, True),  # two networks that are trained together
        (nn.Linear(2, 3), "", True, True),
        (nn.Linear(2, 2), "other", True, True),
        (None, "", False, False),  # the same model with another optimizer
    ],
)
def test_models_are_counted_not_names(second: nn.Module | None, name: str, trained: bool, several: bool) -> None:
    program, first = CheckedProgram(250, 38400, 1024), nn.Linear(2, 2)
    program.watch(first, None)
    if trained:
        log(program, "train")
    program.watch(second or first, None, name)
    assert program.several == several


def test_sample_has_as_many_of_each_class() -> None:
    for targets in (torch.eye(2)[[0] * 30 + [1] * 2] * 0.8 + 0.1, torch.tensor([0.0] * 30 + [1.0] * 2)[:, None]):
        program = CheckedProgram(1, 1, 1)
        program.inputs, program.targets = [torch.zeros(32, 3)], [targets]
        likeliest = program.sample(16)[1][:, -1] > 0.5
        assert (len(likeliest), int(likeliest.sum())) == (16, 8)
