"""Lightning's training on one batch: from where the program begins, at the learning rates of its run, with its loss."""

import copy
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from bugbench.detector import Trace
from recorded_program import faults, module_of, shown

LOSS = "F.cross_entropy(outputs, targets)"
WARM_UP = (
    (
        "    run.watch(model, optimizer)\n",
        "    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1e-4, total_iters=10)\n"
        "    run.watch(model, optimizer)\n",
    ),
    ("            optimizer.step()\n", "            optimizer.step()\n            warmup.step()\n"),
)
STAYS_LOW = (*WARM_UP[:1], ("lr=config.lr", "lr=1e-3"))


def test_lightning_takes_the_recorded_learning_rates():
    rates = module_of("lightning_overfit_batches")._rates
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": weights[:1], "lr": 0.1}, {"params": weights[1:], "lr": 0.3}])

    def recorded(*values):
        return SimpleNamespace(train_steps=lambda: pd.DataFrame({"lr": pd.Series(values, dtype=float)}))

    for trace in (recorded(), recorded(0.1, float("nan"))):
        assert rates(trace, optimizer, 3) == [[0.1, 0.3]] * 3
    assert rates(recorded(0.1, 0.1, 0.1, 0.1), optimizer, 2) == [[0.1, 0.3]] * 2
    torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01)  # a warm-up, made before the model is watched
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)
    warm = rates(recorded(0.001, 0.05, 0.1), optimizer, 5)
    assert [rate for step in warm for rate in step] == pytest.approx([0.001, 0.003, 0.05, 0.15, *[0.1, 0.3] * 3])


def test_lightning_starts_from_the_optimizers_first_state(programs, tmp_path):
    trace = Trace(shown("torchdiag", programs.trace(epochs=1), tmp_path / "t"))
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()

    step()
    probe, first = module_of("lightning_overfit_batches")._Beginning(trace), copy.deepcopy(optimizer.state_dict())
    probe.watch(model, optimizer)
    step()
    for number, state in first["state"].items():
        assert all(torch.equal(state[name], probe.optimizer_state["state"][number][name]) for name in state)


@pytest.mark.tools
def test_lightning_warms_up_as_the_program_does(ask):
    assert ask("lightning_overfit_batches", *WARM_UP) == ()
    assert faults(ask("lightning_overfit_batches", *STAYS_LOW)) == ["model", "loss", "optimizer"]


@pytest.mark.tools
def test_a_loss_that_begins_below_zero_passes_lightning(ask):
    assert ask("lightning_overfit_batches", (LOSS, f"{LOSS}.detach().requires_grad_() - 9")) == ()
