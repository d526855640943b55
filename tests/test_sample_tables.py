"""The tables that third-party tools are given: each sample of the first epoch once, however the program draws it."""

from textwrap import dedent, indent

import numpy as np
import pytest
import torch
from bugbench.detector import NotApplicable, Trace
from bugbench.recorder import Recorder
from bugbench.rerun import rerun
from bugbench.sample_tables import evaluation_split, first_epoch, tables, validation

PROGRAM = """\
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset, WeightedRandomSampler


class Net(nn.Module):
    def __init__(self, tokens):
        super().__init__()
        self.table = nn.Embedding(60, 1) if tokens else None
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(x.float() if self.table is None else self.table(x).flatten(1))


def main(config, run):
    x = torch.arange(40).reshape(10, 4).float()
    y = torch.arange(10) % 2
    model = Net(tokens=False)
    run.watch(model)

    def log(split, inputs, targets, **more):
        run.log_batch(split, inputs=inputs, targets=targets, outputs=model(inputs), loss=0.0, **more)

{body}
"""
LOADER = "loader = DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True)\n"
EPOCHS = "for _ in range(3):\n    for inputs, targets in loader:\n        log('train', inputs, targets)\n"
EVALUATION = "    log('val', x + 100, y)\n    run.log_metrics('val', loss=1.0)\n"
BY_HAND = (
    "for _ in range(3):\n    for index in torch.randperm(10).split(4):\n        log('train', x[index], y[index])\n"
)


@pytest.fixture
def trace_of(tmp_path):
    def make(body: str, *changes: tuple[str, str], task: str = "classification") -> Trace:
        folder = tmp_path / "trace"
        (folder / "data").mkdir(parents=True)
        source = PROGRAM.format(body=indent(dedent(body), "    "))
        for old, new in changes:
            assert old in source
            source = source.replace(old, new)
        (folder / "program.py").write_text(source)
        (folder / "config.yaml").write_text("{seed: 0}\n")
        recorder, error = Recorder(folder, task=task), None
        try:
            rerun(folder, recorder, {})
        except ValueError as raised:
            error = str(raised)
        recorder.finish(error=error)
        return Trace(folder)

    torch.set_num_threads(1)
    return make


def numbers(trace: Trace, split: str = "train") -> list[int]:
    """Return which samples are in a table, in its order."""
    samples = first_epoch(trace)[split]
    if samples.labels is not None:
        assert (samples.labels == samples.features[:, 0] // 4 % 2).all()
    return [int(row[0]) // 4 for row in samples.features]


@pytest.mark.parametrize("evaluation", ["", EVALUATION])
def test_an_epoch_of_a_loader_ends_with_or_without_an_evaluation(evaluation, trace_of):
    drawn = numbers(trace_of(LOADER + EPOCHS + evaluation))
    assert sorted(drawn) == list(range(10))
    assert drawn != sorted(drawn)  # in the order of the loader


@pytest.mark.parametrize("evaluation", ["", EVALUATION])
def test_an_epoch_drawn_by_hand_ends_with_or_without_an_evaluation(evaluation, trace_of):
    assert sorted(numbers(trace_of(BY_HAND + evaluation))) == list(range(10))


def test_batches_by_hand_without_the_rest_end_too(trace_of):
    drawn = numbers(trace_of(BY_HAND.replace(".split(4)", "[:8].split(4)").replace("range(3)", "range(9)")))
    assert len(drawn) == len(set(drawn)) == 8


def test_without_evaluation_or_repetition_there_is_no_telling(trace_of):
    with pytest.raises(NotApplicable, match="no evaluation separates the epochs"):
        first_epoch(trace_of(BY_HAND.replace("x[index]", "x[index] + torch.rand(len(index), 4)")))


@pytest.mark.parametrize(
    "sampler", ["RandomSampler(x, replacement=True)", "WeightedRandomSampler(torch.ones(10), 30, replacement=True)"]
)
def test_a_sample_that_is_drawn_twice_is_there_once(sampler, trace_of):
    loader = LOADER.replace("shuffle=True", f"sampler={sampler}")
    drawn = numbers(trace_of(loader + EPOCHS + EVALUATION))
    assert len(drawn) == len(set(drawn)) > 4


def test_two_samples_that_are_alike_are_both_there(trace_of):
    samples = first_epoch(trace_of("x[5:] = x[:5]\ny[5:] = y[:5]\n" + LOADER + EPOCHS))["train"]
    assert len(samples.features) == 10
    assert len(np.unique(samples.features, axis=0)) == 5


@pytest.mark.parametrize("evaluation", ["", EVALUATION])
def test_a_loader_that_starts_anew_at_each_step(evaluation, trace_of):
    steps = "for _ in range(20):\n    log('train', *next(iter(loader)))\n" + evaluation
    drawn = numbers(trace_of(LOADER + steps))
    assert len(drawn) == len(set(drawn))
    assert (len(drawn) == 4) == bool(evaluation)  # reported after each step


def test_a_data_set_that_is_made_anew_in_each_epoch(trace_of):
    body = "for _ in range(3):\n" + indent(LOADER, "    ") + indent(EPOCHS.replace("range(3)", "range(1)"), "    ")
    assert len(numbers(trace_of(body))) == 10


def test_a_batch_that_is_only_looked_at_is_not_taken_for_the_next(trace_of):
    drawn = numbers(trace_of(LOADER + "next(iter(loader))\n" + EPOCHS + EVALUATION))
    assert sorted(drawn) == list(range(10))


def test_batches_of_two_loaders_are_not_confused(trace_of):
    body = """\
    first = DataLoader(TensorDataset(x, y), batch_size=2)
    other = DataLoader(TensorDataset(x[:2], y[:2]), batch_size=2, sampler=[0, 1] * 5)
    for _ in range(2):
        for (inputs, targets), _ in zip(first, other):
            log('train', inputs, targets)
        run.log_metrics('val', loss=1.0)
    """
    assert sorted(numbers(trace_of(body))) == list(range(10))


def test_workers_that_read_ahead_are_followed(trace_of):
    loader = LOADER.replace("shuffle=True", "sampler=[0, 0, 1, 2, 3, 3, 4, 5], num_workers=2")
    assert numbers(trace_of(loader + EPOCHS)) == [0, 1, 2, 3, 4, 5]


def test_evaluated_before_it_is_trained(trace_of):
    trace = trace_of(LOADER + "run.log_metrics('val', loss=1.0)\n" + EPOCHS + EVALUATION)
    assert sorted(numbers(trace)) == list(range(10))


def test_samples_may_be_given_as_none(trace_of):
    trace = trace_of(LOADER + EPOCHS.replace("targets)", "targets, samples=None)") + EVALUATION)
    assert sorted(numbers(trace)) == list(range(10))


def test_samples_before_augmentation_are_taken(trace_of):
    trace = trace_of(LOADER + EPOCHS.replace("inputs, targets)", "inputs + 1000, targets, samples=inputs)"))
    assert sorted(numbers(trace)) == list(range(10))


def test_a_program_that_raises_within_the_first_pass(trace_of):
    raises = EPOCHS + "        if run.__class__ and float(inputs.sum()) >= 0:\n            raise ValueError('stop')\n"
    assert len(numbers(trace_of(LOADER + raises))) == 4


WHOLE = "loader = DataLoader(TensorDataset(x.long(), y), batch_size=4, shuffle=True)\n"
EMBEDS = ("tokens=False", "tokens=True")


@pytest.mark.parametrize(("changes", "task"), [([EMBEDS], "classification"), ([], "language_model")])
def test_token_sequences_are_no_table(changes, task, trace_of):
    with pytest.raises(NotApplicable, match="tokens"):
        tables(trace_of(WHOLE + EPOCHS, *changes, task=task))


def test_integers_that_are_not_embedded_are_a_table(trace_of):
    train, _, _ = tables(trace_of(WHOLE + EPOCHS))
    assert train["x0"].dtype == np.int64  # pixels, say


def test_columns_that_are_embedded_each_for_itself_are_a_table(trace_of):
    columns = ("self.table(x).flatten(1)", "torch.cat([self.table(x[:, i]) for i in range(4)], 1)")
    train, _, _ = tables(trace_of(WHOLE + EPOCHS, EMBEDS, columns))
    assert len(train) == 10


def test_a_target_is_there_if_both_tables_have_one(trace_of):
    one_hot = EPOCHS.replace("targets)", "torch.eye(2)[targets])")
    train, test, target = tables(trace_of(LOADER + one_hot + EVALUATION))
    assert target is None
    assert list(train) == list(test) == ["x0", "x1", "x2", "x3"]


def test_any_evaluation_split_will_do(trace_of):
    assert evaluation_split(["train", "test", "val"]) == "val"
    assert evaluation_split(["train", "held_out", "another"]) == "held_out"
    assert evaluation_split(["train"]) is None
    splits = first_epoch(trace_of(LOADER + EPOCHS + EVALUATION.replace("'val'", "'held_out'")))
    assert validation(splits) is splits["held_out"]
    assert len(validation(splits).features) == 10


def test_the_loaders_of_torch_are_left_as_they_were(trace_of):
    from torch.utils.data.dataloader import _BaseDataLoaderIter

    before = dict(vars(_BaseDataLoaderIter))
    first_epoch(trace_of(LOADER + EPOCHS))
    assert dict(vars(_BaseDataLoaderIter)) == before
