"""A program run again under a probe: bit by bit as before, under other settings, until enough is seen."""

import numpy as np
import pytest
import torch
import yaml
from bugbench.rerun import Probe, StopRun, load_program, seed_everything
from bugbench.trace import Trace

PROGRAM = """\
import torch
import torch.nn.functional as F


def main(config, run):
    torch.manual_seed(config.seed)
    inputs = torch.randn(8, 1) + float((config.data_dir / "shift.txt").read_text())
    model = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
    run.watch(model, optimizer)
    print("training")
    for _ in range(config.epochs):
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = F.mse_loss(outputs, inputs)
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=inputs, outputs=outputs, loss=loss)
"""


class Losses(Probe):
    """Collects the losses, and has seen enough after ``limit``."""

    def __init__(self, limit=100):
        self.values, self.limit = [], limit

    def log_batch(self, split, **tensors):
        self.values.append(tensors["loss"].item())
        if len(self.values) == self.limit:
            raise StopRun


@pytest.fixture
def rerunnable(tmp_path):
    """A trace with the access "rerun", and the losses of the run that left it."""
    folder = tmp_path / "trace"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "shift.txt").write_text("0.5")
    (folder / "program.py").write_text(PROGRAM)
    config = {"seed": 3, "lr": 0.1, "epochs": 5}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    trace, probe = Trace(folder), Losses()
    trace.rerun(probe)
    return trace, probe.values


def test_unchanged_rerun_repeats_the_run_bit_by_bit(rerunnable, capsys):
    trace, losses = rerunnable
    torch.randn(10)
    probe = Losses()
    trace.rerun(probe)
    assert probe.values == losses
    assert len(losses) == 5
    assert capsys.readouterr().out == ""


def test_rerun_under_other_settings(rerunnable):
    trace, losses = rerunnable
    probe = Losses()
    trace.rerun(probe, lr=0.0, epochs=2)
    assert len(probe.values) == 2
    assert probe.values[0] == losses[0]
    assert probe.values[1] != losses[1]
    with pytest.raises(KeyError, match="no setting 'learning_rate'; it has epochs, lr, seed"):
        trace.rerun(probe, learning_rate=1.0)


def test_probe_that_has_seen_enough_ends_the_rerun(rerunnable):
    trace, losses = rerunnable
    probe = Losses(limit=2)
    trace.rerun(probe)
    assert probe.values == losses[:2]


def test_what_a_program_left_switched_does_not_reach_the_next(rerunnable):
    trace, losses = rerunnable
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.autograd.set_detect_anomaly(True)
    probe = Losses()
    trace.rerun(probe)
    assert probe.values == losses
    assert torch.is_grad_enabled()
    assert not torch.is_anomaly_enabled()


def test_every_generator_is_seeded():
    seed_everything(1)
    first = (torch.rand(1).item(), np.random.rand())
    seed_everything(2)
    second = (torch.rand(1).item(), np.random.rand())
    seed_everything(1)
    assert (torch.rand(1).item(), np.random.rand()) == first != second
    seed_everything(2**32 + 1)  # more than numpy takes


def test_program_is_a_fresh_module_each_time(tmp_path):
    path = tmp_path / "program.py"
    path.write_text("seen = []\n")
    load_program(path).seen.append(1)
    assert load_program(path).seen == []
