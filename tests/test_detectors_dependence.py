"""What an output depends on, found by running a program again: other samples, later tokens, another pass."""

import contextlib

import pytest
from bugbench.detector import NotApplicable
from bugbench.detectors.batch_independence import BatchIndependence
from bugbench.detectors.causality import Causality
from bugbench.detectors.repeated_evaluation import RepeatedEvaluation
from bugbench.recorder import Recorder
from bugbench.trace import Trace
from tiny_training import faults

pytestmark = pytest.mark.usefixtures("fixed_seed")

PROGRAM = """
import torch
import torch.nn.functional as F
from torch import nn
{model}

def main(config, run):
    torch.manual_seed(config.seed)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    run.watch(model, optimizer)
    for _ in range(20):
        {data}
        outputs = model(inputs)
        loss = {loss}
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
"""
VECTORS = "inputs, targets = torch.randn(6, 8), torch.randint(3, (6,))"
TOKENS = "x = torch.randint(11, (6, 10)); inputs, targets = x[:, :-1], x[:, 1:]"
SAME_TOKENS = "x = torch.randint(11, (6, 10)); inputs, targets = x, x"
SERIES = "inputs, targets = torch.randn(6, 9, 4), torch.randint(3, (6,))"

MLP = """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3))

    def forward(self, x):
        return {outputs}
"""
ATTENTION = """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.place, self.head = nn.Embedding(11, 8), nn.Embedding(16, 8), nn.Linear(8, 11)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first={batch_first})

    def forward(self, tokens):
        length = {length}
        x = self.embed(tokens) + self.place(torch.arange(tokens.shape[1]))
        mask = {mask}
        return self.head(x + self.attention(x, x, x, attn_mask=mask, need_weights=False)[0])
"""
LATER = "torch.triu(torch.ones(length, length, dtype=torch.bool), diagonal=1)"
LSTM = """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 8, batch_first={batch_first}), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])
"""
MEAN = "F.cross_entropy(outputs, targets)"
OF_TOKENS = "F.cross_entropy(outputs.flatten(0, 1), targets.flatten())"
IN_LOSS = "F.cross_entropy(outputs[:, :-1].flatten(0, 1), targets[:, 1:].flatten())"


def program(folder, task, model, data, loss):
    source = PROGRAM.format(model=model, data=data, loss=loss)
    if "edges" in data:
        source = source.replace("model(inputs)", "model(inputs, edges)")
    Recorder(folder, task=task, classes=3 if task == "classification" else 11).finish()
    (folder / "data").mkdir()
    (folder / "config.yaml").write_text("seed: 3\n")
    (folder / "program.py").write_text(source)
    return folder


def attention(mask, batch_first=True):
    length = "tokens.shape[1]" if batch_first else "tokens.shape[0]"
    return ATTENTION.format(mask=mask, batch_first=batch_first, length=length)


INDEPENDENT = {
    "mean": ("classification", MLP.format(outputs="self.net(x)"), VECTORS, MEAN),
    "log_softmax": (
        "classification",
        MLP.format(outputs="self.net(x).log_softmax(1)"),
        VECTORS,
        "F.nll_loss(outputs, targets)",
    ),
    "softmax": (
        "classification",
        MLP.format(outputs="self.net(x).softmax(1)"),
        VECTORS,
        "F.nll_loss(outputs.log(), targets)",
    ),
    "weighted": (
        "classification",
        MLP.format(outputs="self.net(x)"),
        VECTORS,
        "F.cross_entropy(outputs, targets, weight=torch.arange(1.0, 4))",
    ),
    "root": ("classification", MLP.format(outputs="self.net(x)"), VECTORS, MEAN + ".sqrt()"),
    "contrastive": (
        "classification",
        MLP.format(outputs="self.net(x)"),
        VECTORS,
        "F.cross_entropy(F.normalize(outputs) @ F.normalize(outputs).T * 5, torch.arange(6).roll(1))",
    ),
    "series": ("classification", LSTM.format(batch_first=True), SERIES, MEAN),
    "graph": (
        "classification",
        MLP.format(outputs="self.net(x + edges @ x)").replace("(self, x)", "(self, x, edges)"),
        VECTORS.replace("inputs,", "edges = torch.rand(6, 6); inputs,"),
        MEAN,
    ),
    "binary": (
        "classification",
        MLP.format(outputs="self.net(x)[:, 0]"),
        VECTORS,
        "F.binary_cross_entropy_with_logits(outputs, (targets > 0).float())",
    ),
    "regression": ("regression", MLP.format(outputs="self.net(x)"), VECTORS, "F.mse_loss(outputs, inputs[:, :3])"),
    "causal": ("language_model", attention(LATER), TOKENS, OF_TOKENS),
    "causal_shift_in_loss": ("language_model", attention(LATER), SAME_TOKENS, IN_LOSS),
    "tagger": ("classification", attention("None"), TOKENS, OF_TOKENS),
    "masked": (
        "language_model",
        attention("None"),
        "x, m = torch.randint(10, (6, 10)), torch.rand(6, 10) < 0.5; "
        "inputs, targets = x.masked_fill(m, 10), torch.where(m, x, -100)",
        OF_TOKENS,
    ),
}
DEPENDENT = {
    "loss": (
        "softmax_dim",
        "classification",
        MLP.format(outputs="self.net(x)"),
        VECTORS,
        "F.nll_loss(outputs.log_softmax(0), targets)",
    ),
    "loss_by_hand": (
        "softmax_dim",
        "classification",
        MLP.format(outputs="self.net(x)"),
        VECTORS,
        "-torch.log(outputs.exp() / outputs.exp().sum(0))[torch.arange(6), targets].mean()",
    ),
    "model": (
        "softmax_dim",
        "classification",
        MLP.format(outputs="self.net(x).softmax(0)"),
        VECTORS,
        "F.nll_loss(outputs.log(), targets)",
    ),
    "time": (
        "softmax_dim",
        "language_model",
        attention(LATER),
        TOKENS,
        "F.nll_loss(outputs.log_softmax(1).flatten(0, 1), targets.flatten())",
    ),
    "flat": (
        "softmax_dim",
        "language_model",
        attention(LATER),
        TOKENS,
        "F.nll_loss(outputs.flatten(0, 1).log_softmax(0), targets.flatten())",
    ),
    "dropout": (
        "functional_dropout",
        "classification",
        MLP.format(outputs="F.dropout(self.net(x), 0.2)"),
        VECTORS,
        MEAN,
    ),
    "batch_is_time": ("swapped_axes", "classification", LSTM.format(batch_first=False), SERIES, MEAN),
    "no_mask": ("missing_causal_mask", "language_model", attention("None"), TOKENS, OF_TOKENS),
    "no_mask_shift_in_loss": ("missing_causal_mask", "language_model", attention("None"), SAME_TOKENS, IN_LOSS),
    "inverted": (
        "inverted_mask",
        "language_model",
        attention(LATER.replace("triu", "tril").replace("1)", "-1)")),
        TOKENS,
        OF_TOKENS,
    ),
}


def of_reruns(folder):
    """Return the first suspects of all detectors that are applicable."""
    found = []
    for detector in (BatchIndependence, Causality, RepeatedEvaluation):
        with contextlib.suppress(NotApplicable):
            found += faults(detector, folder)[:1]
    return found


@pytest.mark.parametrize("name", INDEPENDENT)
def test_outputs_that_depend_on_what_they_may(tmp_path, name):
    assert of_reruns(program(tmp_path, *INDEPENDENT[name])) == []


@pytest.mark.parametrize("name", DEPENDENT)
def test_outputs_that_depend_on_what_they_may_not(tmp_path, name):
    fault, *parts = DEPENDENT[name]
    assert of_reruns(program(tmp_path, *parts)) == [fault]


@pytest.mark.parametrize(
    ("model", "data", "reason"),
    [
        (MLP.format(outputs="(self.net(x), x)"), VECTORS, "tensor"),
        (MLP.format(outputs="{'logits': self.net(x)}"), VECTORS, "tensor"),
        (MLP.format(outputs="self.net(x) / 0"), VECTORS, "finite"),
        (MLP.format(outputs="self.net(x.T)"), VECTORS, "raised"),
        (MLP.format(outputs="self.net(x)"), "inputs, targets = torch.load('nowhere.pt')", "raised"),
        (MLP.format(outputs="self.net(x)"), "inputs, targets = torch.randn(1, 8), torch.randint(3, (1,))", "raised"),
        (MLP.format(outputs="self.net(x)").replace("1d(16", "1d(16, track_running_stats=False"), VECTORS, "batch norm"),
        (MLP.format(outputs="self.net(x)") + "\nModel = None", VECTORS, "raised"),
    ],
)
def test_not_applicable_has_a_reason(tmp_path, model, data, reason):
    loss = (
        "F.cross_entropy(outputs if isinstance(outputs, torch.Tensor) else next(iter(dict(outputs).values())), targets)"
    )
    if "(self.net(x), x)" in model:
        loss = "F.cross_entropy(outputs[0], targets)"
    with pytest.raises(NotApplicable, match=reason):
        BatchIndependence().diagnose(Trace(program(tmp_path, "classification", model, data, loss)))
