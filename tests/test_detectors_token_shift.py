"""Shifts of tokens against their targets, in the data, in the loss and in the model, and padding that is learned."""

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from bugbench.detectors.token_shift import TokenShift
from tiny_training import Tagger, faults, top, train
from torch import nn

pytestmark = pytest.mark.usefixtures("fixed_seed")


def text_batches(count=60, shift=1, length=12):
    """Tokens that mostly follow a rule, so that there is something to learn, cut with a shift in the data."""
    for _ in range(count):
        x = torch.randint(11, (8, 1))
        for _ in range(length + shift - 1):
            x = torch.cat(
                [x, torch.where(torch.rand(8, 1) < 0.7, (x[:, -1:] * 3 + 1) % 11, torch.randint(11, (8, 1)))], 1
            )
        yield x[:, :length], x[:, shift:]


def token_loss(shift):
    return lambda o, t: F.cross_entropy(o[:, : o.shape[1] - shift].flatten(0, 1), t[:, shift:].flatten())


class InADict(nn.Module):
    """Returns what Hugging Face models do: a mapping, of which the recorder sees no gradient."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return OrderedDict(logits=self.model(tokens))


class ShiftsInside(Tagger):
    """Moves its inputs one to the right, as T5's decoder does, so that targets are the inputs."""

    def forward(self, tokens):
        return super().forward(F.pad(tokens[:, :-1], (1, 0)))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("in_data", "in_loss", "fault"),
    [
        (1, 0, None),
        (0, 1, None),
        (0, 0, "unshifted_lm_labels"),
        (1, 1, "double_shift"),
        (2, 0, "double_shift"),
    ],
)
def test_total_shift_of_tokens(tmp_path, in_data, in_loss, fault, wrapped):
    model = InADict(Tagger()) if wrapped else Tagger()
    outputs_of = (lambda o: o["logits"]) if wrapped else None
    batches = list(text_batches(shift=in_data))
    loss = token_loss(in_loss)
    train(tmp_path, model, batches, loss, task="language_model", classes=11, lr=0.5, outputs_of=outputs_of)
    assert top(TokenShift, tmp_path) == fault


def masked_batches():
    for x, _ in text_batches():
        hidden = torch.rand(x.shape) < 0.15
        yield x.masked_fill(hidden, 10), torch.where(hidden, x, -100)


def test_shifts_that_are_none_of_our_business(tmp_path):
    unshifted = list(text_batches(shift=0))
    train(tmp_path / "inside", ShiftsInside(), unshifted, token_loss(0), task="language_model", classes=11)
    train(tmp_path / "masked", Tagger(), masked_batches(), token_loss(0), task="language_model", classes=11)
    train(tmp_path / "tags", Tagger(), unshifted, token_loss(0), task="classification", classes=11)
    constant = [(torch.full((4, 9), 3), torch.full((4, 9), 3)) for _ in range(20)]
    train(tmp_path / "constant", Tagger(), constant, token_loss(0), task="language_model", classes=11)
    assert {name: faults(TokenShift, tmp_path / name) for name in ("inside", "masked", "tags", "constant")} == {
        "inside": [],
        "masked": [],
        "tags": [],
        "constant": [],
    }


def padded_batches(ignored):
    for x, _ in text_batches(length=12):
        x = x.clamp(max=9)  # 10 is the padding
        lengths = torch.randint(4, 13, (8, 1))
        x = torch.where(torch.arange(12) < lengths, x, 10)
        targets = x[:, 1:]
        yield x[:, :-1], torch.where(targets == 10, -100, targets) if ignored else targets


def test_padding(tmp_path):
    train(tmp_path / "a", Tagger(), padded_batches(True), token_loss(0), task="language_model", classes=11)
    train(tmp_path / "b", Tagger(), padded_batches(False), token_loss(0), task="language_model", classes=11)
    ignoring = lambda o, t: F.cross_entropy(o.flatten(0, 1), t.flatten(), ignore_index=10)  # noqa: E731
    train(tmp_path / "c", Tagger(), padded_batches(False), ignoring, task="language_model", classes=11)
    assert faults(TokenShift, tmp_path / "a") == []
    assert top(TokenShift, tmp_path / "b") == "padding_in_loss"
    assert faults(TokenShift, tmp_path / "c") == []
