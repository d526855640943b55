"""A program to edit, shown as the text before and after."""

import subprocess
import sys
from textwrap import dedent

from bugbench.injection import Edit, diff, inject

PROGRAM = dedent('''\
    """Digits, é and 漢 😀."""

    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(64, width),  # pixels
                nn.ReLU(),
                nn.Linear(width, 10),
            )

        def forward(self, x):
            return self.layers(x)


    def loss_function(outputs, targets):
        return F.cross_entropy(outputs, targets)


    def train_epoch(model, loader, optimizer):
        model.train()
        for inputs, targets in loader:  # 漢字
            optimizer.zero_grad()
            loss = loss_function(model(inputs), targets)
            loss.backward()
            optimizer.step()


    @torch.no_grad()
    def evaluate(model, loader):
        model.eval()
        for inputs, targets in loader:
            total = loss_function(model(inputs), targets)

        return total


    def main(config):
        optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
        for epoch in range(config.epochs):
            train_epoch(model, loader, optimizer)

        def predict(raw):
            model.eval()
            return model(raw / 255)

        return predict
    ''')
ROLES = {
    "loss": "loss_function",
    "train_step": "train_epoch",
    "predict": "main.predict",
    "both": ["train_epoch", "evaluate"],
}


def edited(source, *edits, roles=ROLES):
    return inject(dedent(source), [[Edit.from_mapping(edit) for edit in edits]], roles=roles, card="card", program="p")


def change(source, find, action, text=True, within=None):
    return edited(source, {"find": find, action: text, "within": within}).source


def is_formatted(source):
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "--check", "-"]
    return subprocess.run(ruff, input=source.encode(), capture_output=True).returncode == 0


def removed_and_added(before, after):
    lines = diff(before, after, "p").splitlines()[2:]
    return [line for line in lines if line[0] in "+-"]
