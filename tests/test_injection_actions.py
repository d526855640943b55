"""What each action of an edit does to the same program, shown as the lines that change."""

import pickle

import pytest
from bugbench.injection import Edit
from edited_program import PROGRAM, edited, is_formatted, removed_and_added

EXAMPLES = {
    "replace an expression": (
        {"within": "@loss", "find": "F.cross_entropy($A, $B)", "replace": "F.nll_loss($A.log_softmax(dim=0), $B)"},
        [
            "-    return F.cross_entropy(outputs, targets)",
            "+    return F.nll_loss(outputs.log_softmax(dim=0), targets)",
        ],
    ),
    "replace a keyword argument inside its call, the last $$$ empty": (
        {"find": "torch.optim.SGD($$$A, lr=config.lr, $$$B)", "replace": "torch.optim.SGD($$$A, lr=100, $$$B)"},
        [
            "-    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)",
            "+    optimizer = torch.optim.SGD(model.parameters(), lr=100)",
        ],
    ),
    "replace keeps a list one element to a line, and its comments": (
        {"find": "nn.Sequential($$$A, nn.ReLU(), $$$B)", "replace": "nn.Sequential($$$A, nn.Sigmoid(), $$$B)"},
        ["-            nn.ReLU(),", "+            nn.Sigmoid(),"],
    ),
    "replace with nothing takes a list element out": (
        {"find": "nn.ReLU()", "replace": ""},
        ["-            nn.ReLU(),"],
    ),
    "replace a header": (
        {"within": "@train_step", "find": "for $X, $Y in $LOADER:", "replace": "for $Y, $X in reversed($LOADER):"},
        [
            "-    for inputs, targets in loader:  # 漢字",
            "+    for targets, inputs in reversed(loader):  # 漢字",
        ],
    ),
    "replace consecutive statements": (
        {"find": "$LOSS.backward()\n$OPT.step()", "replace": "$OPT.step()\n$LOSS.backward()"},
        ["-        optimizer.step()", "+        optimizer.step()"],
    ),
    "replace with other statements in between": (
        {
            "find": "$OPT.zero_grad()\n$$$REST\n$LOSS.backward()",
            "replace": "$$$REST\n$LOSS.backward()\n$OPT.zero_grad()",
        },
        ["-        optimizer.zero_grad()", "+        optimizer.zero_grad()"],
    ),
    "delete a statement": (
        {"find": "$OPT.zero_grad()", "delete": True},
        ["-        optimizer.zero_grad()"],
    ),
    "delete in several scopes": (
        {"within": "@both", "find": "model.$MODE()", "delete": True},
        ["-    model.train()", "-    model.eval()"],
    ),
    "delete in a nested function": (
        {"within": "@predict", "find": "model.eval()", "delete": True},
        ["-        model.eval()"],
    ),
    "delete a decorator": (
        {"within": "evaluate", "find": "@torch.no_grad()", "delete": True},
        ["-@torch.no_grad()"],
    ),
    "delete a whole function with its decorator and the blank lines": (
        {"find": "def evaluate($$$): $$$", "delete": True},
        [
            "-@torch.no_grad()",
            "-def evaluate(model, loader):",
            "-    model.eval()",
            "-    for inputs, targets in loader:",
            "-        total = loss_function(model(inputs), targets)",
            "-",
            "-    return total",
            "-",
            "-",
        ],
    ),
    "delete a run of statements": (
        {"find": "$LOSS.backward()\n$OPT.step()", "delete": True},
        ["-        loss.backward()", "-        optimizer.step()"],
    ),
    "before": (
        {"find": "$OPT.step()", "before": "if $OPT.defaults:\n    clip($OPT)"},
        ["+        if optimizer.defaults:", "+            clip(optimizer)"],
    ),
    "before a decorated function": (
        {"find": "def evaluate($$$): $$$", "before": "SPEED = 1"},
        ["+SPEED = 1", "+", "+"],
    ),
    "before the statement that a match stands in": (
        {"find": "range($X)", "before": "epochs = $X"},
        ["+    epochs = config.epochs"],
    ),
    "after": (
        {"find": "$LOSS = loss_function($$$)", "after": "$LOSS = -$LOSS", "within": "@train_step"},
        ["+        loss = -loss"],
    ),
    "after a block": (
        {"within": "train_epoch", "find": "for $X, $Y in $LOADER: $$$", "after": "optimizer.step()"},
        ["+    optimizer.step()"],
    ),
    "after a header, first in its block": (
        {"within": "train_epoch", "find": "for $X, $Y in $LOADER:", "after": "$X = $X.float()"},
        ["+        inputs = inputs.float()"],
    ),
    "after a function": (
        {"find": "def loss_function($$$): $$$", "after": "WEIGHT = 2"},
        ["+", "+", "+WEIGHT = 2"],
    ),
    "after the imports": (
        {"find": "from torch import nn", "after": "torch.manual_seed(0)"},
        ["+", "+torch.manual_seed(0)"],
    ),
    "an import after an import": (
        {"find": "import torch", "after": "import torchvision"},
        ["+import torchvision"],
    ),
    "a new function after a function": (
        {"find": "def loss_function($$$): $$$", "after": "def twice(x):\n    return 2 * x"},
        ["+", "+", "+def twice(x):", "+    return 2 * x"],
    ),
    "a new function before a function": (
        {"find": "def loss_function($$$): $$$", "before": "def twice(x):\n    return 2 * x"},
        ["+def twice(x):", "+    return 2 * x", "+", "+"],
    ),
    "a new method after a method": (
        {"within": "Net.forward", "find": "def forward($$$): $$$", "after": "def reset(self):\n    pass"},
        ["+", "+    def reset(self):", "+        pass"],
    ),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_edit_changes_the_program_as_shown(example):
    edit, expected = EXAMPLES[example]
    result = edited(PROGRAM, edit)
    assert sorted(removed_and_added(PROGRAM, result.source)) == sorted(expected)
    assert is_formatted(result.source)


@pytest.mark.parametrize("example", EXAMPLES)
def test_lines_to_blame_hold_what_was_added(example):
    edit, expected = EXAMPLES[example]
    result = edited(PROGRAM, edit)
    added = [line[1:] for line in expected if line[0] == "+" and line != "+"]
    if added:
        assert [result.source.splitlines()[number - 1] for number in result.lines] == added
    else:
        assert result.lines


def test_the_program_of_the_examples_is_formatted():
    assert is_formatted(PROGRAM)


def test_an_edit_can_be_pickled():
    edit = Edit("f($X)", "replace", "g($X)")
    assert pickle.loads(pickle.dumps(edit)) == edit
