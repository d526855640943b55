"""Tracebacks of programs that crash: the fault and the line that they tell of."""

import pytest
import torch
from bugbench.detectors.traceback_reader import TracebackReader
from bugbench.recorder import Recorder, program_traceback
from bugbench.rerun import load_program
from data_runs import silent, suspects
from sklearn import datasets

PROGRAM = """\
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.Linear(64, 32)
        self.right = nn.Linear(64, 32)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        x = x.flatten(1)
        return self.head(torch.cat([self.left(x), self.right(x)], dim=1))


def main(x, y, run):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run.watch(model, optimizer)
    for index in torch.arange(100).split(32):
        inputs, targets = x[index], y[index]
        outputs = model(inputs)
        loss = F.cross_entropy(outputs, targets)
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
"""


@pytest.mark.parametrize(
    ("old", "new", "fault", "line"),
    [
        ("x.flatten(1)", "x", "shape_mismatch", 15),
        ("x.flatten(1)", "x.flatten(0, 2)", "shape_mismatch", 15),
        ("dim=1", "dim=0", "concat_wrong_dim", 15),
        ("x.flatten(1)", "x.view(32, -1)", "hardcoded_batch_size", 15),
        ("x.flatten(1)", "x.reshape(32, 64)", "hardcoded_batch_size", 14),
        ("x[index]", "x[index].double()", "dtype_mismatch", 15),
        ("y[index]", "y[index].float()", "dtype_mismatch", 25),
        ("y[index]", "y[index] + 1", "label_out_of_range", 25),
        (
            "F.cross_entropy(outputs, targets)",
            "-outputs[torch.arange(32), targets + 9].mean()",
            "label_out_of_range",
            25,
        ),
        ("x.flatten(1)", "F.embedding(x.flatten(1).long() + 99, self.head.weight)", "token_out_of_range", 14),
        ("x[index]", 'x[index].to("meta")', "device_mismatch", 15),
        ("model(inputs)", "model(inputs).detach()", "detached_features", 26),
        ("model.parameters()", "nn.Module().parameters()", "unregistered_layers", 20),
        (
            "loss.backward()\n        optimizer.step()",
            "optimizer.step()\n        loss.backward()",
            "step_before_backward",
            27,
        ),
        ("loss.backward()", "torch.zeros(10**15) if len(index) < 32 else loss.backward()", "memory_growth", 26),
        ("loss.backward()", "los.backward()", "crash", 26),
        ("dim=1))", "dim=1)) / missing", "crash", 15),
    ],
)
def test_traceback(tmp_path, old, new, fault, line):
    program = tmp_path / "some_program.py"
    program.write_text(PROGRAM.replace(old, new))
    images, labels = datasets.load_digits(return_X_y=True)
    run = Recorder(tmp_path / "t", task="classification", classes=10)
    with pytest.raises(Exception) as error:
        load_program(program).main(
            torch.tensor(images[:100] / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(labels[:100]), run
        )
    run.finish(error=program_traceback(error.value, program))
    found = suspects(TracebackReader, tmp_path / "t")[0]
    assert (found.fault, found.line) == (fault, line)
    silent(tmp_path / "t", TracebackReader)


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (
            "RuntimeError: Expected all tensors to be on the same device, but found at least two devices",
            "device_mismatch",
        ),
        ("RuntimeError: expected scalar type Long but found Float", "dtype_mismatch"),
        (
            "RuntimeError: \"nll_loss_forward_reduce_cuda_kernel_2d_index\" not implemented for 'Float'",
            "dtype_mismatch",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "crash"),
        ("RuntimeError: Function 'LogBackward0' returned nan values in its 0th output.", "log_of_zero"),
        ("ValueError: Input X contains NaN.\nLogisticRegression does not accept missing values", "nan_inputs"),
        ("FloatingPointError: loss is nan at step 12", "numerics"),
        ("KeyError: 'therapy_weeks'", "crash"),
    ],
)
def test_messages_of_other_places(tmp_path, message, fault):
    Recorder(tmp_path / "t").finish(
        error=f'Traceback (most recent call last):\n  File "program.py", line 8, in main\n    x = f(y)\n{message}\n'
    )
    found = suspects(TracebackReader, tmp_path / "t")[0]
    assert (found.fault, found.line) == (fault, 8)
