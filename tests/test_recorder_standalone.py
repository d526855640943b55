"""A program that runs by itself, with a recorder and without the harness."""

import json
import os
import subprocess
import sys
from pathlib import Path

from bugbench.trace import Trace
from recorded_loop import USUAL, orders

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """\
import torch
import torch.nn.functional as F
from bugbench import recorder


def main(config, run):
    torch.manual_seed(config.seed)
    inputs = torch.tensor([[float(x)] for x in (config.data_dir / "numbers.txt").read_text().split()])
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
    run.watch(model, optimizer)
    for epoch in range(config.epochs):
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = F.mse_loss(outputs, 2 * inputs)
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=2 * inputs, outputs=outputs, loss=loss)
        run.log_metrics("train", loss=loss.item())
        if epoch == config.fail_at:
            raise ValueError("the fifth wheel")


if __name__ == "__main__":
    recorder.run(main)
"""


def standalone(folder, *arguments, **config):
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "numbers.txt").write_text("0 1 2")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "config.yaml").write_text(json.dumps({"seed": 0, "lr": 0.1, "epochs": 4, "fail_at": None, **config}))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_program_runs_by_itself(tmp_path):
    done = standalone(tmp_path, "program.py")
    assert done.returncode == 0, done.stderr
    trace = Trace(tmp_path / "trace")
    losses = trace.train_steps()["loss"]
    assert len(losses) == 4
    assert json.loads(done.stdout) == {"train/loss": losses.iloc[-1]}
    assert orders(trace) == [USUAL] * 4
    assert trace.error is None


def test_program_that_fails_by_itself_keeps_its_trace(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    done = standalone(tmp_path / "real", str(tmp_path / "link" / "program.py"), fail_at=1)
    assert done.returncode == 1
    assert "the fifth wheel" in done.stderr
    trace = Trace(tmp_path / "real" / "trace")
    assert len(trace.train_steps()) == 2
    assert trace.error.splitlines() == [
        "Traceback (most recent call last):",
        '  File "program.py", line 21, in main',
        '    raise ValueError("the fifth wheel")',
        "ValueError: the fifth wheel",
    ]
