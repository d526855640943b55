"""A recorder on a line and its optimizer, small enough to work out by hand what it must write down."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from bugbench.recorder import Recorder
from bugbench.trace import Trace
from torch import nn

USUAL = "zero_grad forward backward step"


def line(weight=2.0, bias=1.0):
    """The model outputs = weight * inputs + bias, its one layer called "out"."""
    model = nn.Sequential(OrderedDict(out=nn.Linear(1, 1)))
    with torch.no_grad():
        model.out.weight.fill_(weight)
        model.out.bias.fill_(bias)
    return model


INPUTS, TARGETS = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)


class Loop:
    """A recorder on a line and its optimizer, and the parts of a loop around them."""

    def __init__(self, folder, model=None, lr=0.5, name="", **settings):
        self.folder = folder
        self.run = Recorder(folder, **settings)
        self.model = line() if model is None else model
        self.optimizer = torch.optim.SGD([p for p in self.model.parameters() if p.requires_grad], lr=lr)
        self.run.watch(self.model, self.optimizer, name)

    def forward(self, inputs=INPUTS, targets=TARGETS):
        outputs = self.model(inputs)
        self.batch = dict(inputs=inputs, targets=targets, outputs=outputs, loss=F.mse_loss(outputs, targets))

    def backward(self):
        self.batch["loss"].backward()

    def log(self, split="train", **changes):
        self.run.log_batch(split, **{**self.batch, **changes})

    def step(self, **changes):
        self.optimizer.zero_grad()
        self.forward()
        self.backward()
        self.optimizer.step()
        self.log(**changes)

    def evaluate(self, split="val", batches=1, **metrics):
        self.model.eval()
        with torch.no_grad():
            for _ in range(batches):
                self.forward()
                self.log(split)
        self.run.log_metrics(split, **(metrics or {"loss": 0.5}))
        self.model.train()

    def trace(self, **results):
        self.run.finish(**results)
        return Trace(self.folder)


def orders(trace, split="train"):
    return list(trace.steps.loc[trace.steps["split"] == split, "order"])
