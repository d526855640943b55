"""The order and repetition of samples within training, and what training and validation share."""

import pytest
import torch
from bugbench.detectors.loader_checks import LoaderChecks
from bugbench.detectors.split_checks import SplitChecks
from bugbench.recorder import Recorder
from data_runs import (
    LanguageModel,
    Run,
    digits,
    faults,
    regression,
    sequential,
    silent,
    suspects,
    table,
    text,
    token_loss,
)
from torch import nn

# -- loader_checks -----------------------------------------------------------------------------------------------------


def test_class_sorted_data(tmp_path):
    (x, y), val = digits()
    order = y.argsort(stable=True)
    Run(tmp_path / "t", (x[order], y[order]), val, classes=10, batches=sequential)
    Run(tmp_path / "s", (x[order], y[order]), val, classes=10, batches=lambda n: torch.randperm(n).split(32))
    found = suspects(LoaderChecks, tmp_path / "t")
    assert [suspect.fault for suspect in found] == ["unshuffled_loader"]
    assert "runs" in found[0].evidence
    assert faults(LoaderChecks, tmp_path / "s") == []


def test_data_sorted_by_target(tmp_path):
    (x, y), val = regression()
    order = y.argsort()
    Run(tmp_path / "t", (x[order], y[order]), val, task="regression", batches=sequential)
    assert faults(LoaderChecks, tmp_path / "t") == ["unshuffled_loader"]
    Run(tmp_path / "u", (x, y), val, task="regression", batches=sequential)
    assert faults(LoaderChecks, tmp_path / "u") == []  # not shuffled, but not sorted either


@pytest.mark.parametrize(("epochs", "in_order", "expected"), [(3, True, True), (1, True, False), (3, False, False)])
def test_text_in_order(tmp_path, epochs, in_order, expected):
    settings = dict(task="language_model", classes=30, model=LanguageModel(), loss=token_loss, epochs=epochs)
    if in_order:
        settings["batches"] = sequential
    Run(tmp_path / "t", text(200), text(40), **settings)
    assert faults(LoaderChecks, tmp_path / "t") == (["unshuffled_loader"] if expected else [])
    silent(tmp_path / "t", LoaderChecks, SplitChecks)


def test_the_same_batch_again(tmp_path):
    train, val = table()
    raw = {"outputs": torch.zeros(64, 3), "targets": train[1][:64]}  # of the 64 samples of training that are asked
    Run(tmp_path / "a", train, val, classes=3, batches=lambda n: [torch.arange(32)] * 12, predictions=raw)
    Run(tmp_path / "b", train, val, classes=3, batches=lambda n: [torch.randperm(n)[:32]] * 12)  # another each epoch
    assert faults(LoaderChecks, tmp_path / "a") == ["same_batch"]
    assert faults(LoaderChecks, tmp_path / "b") == ["same_batch"]


@pytest.mark.parametrize("known", [None, 20, 60])
def test_training_on_all_of_few_points(tmp_path, known):
    """As networks for differential equations are: sixty points to train on, two hundred to look at."""
    x, u = torch.linspace(-1, 1, 60)[:, None], torch.linspace(-1, 1, 200)[:, None] + 0.001
    raw = known and {"outputs": torch.zeros(known), "targets": torch.zeros(known)}
    whole = lambda n: [torch.arange(n)] * 20  # noqa: E731
    Run(tmp_path / "t", (x, (3 * x).sin()), (u, (3 * u).sin()), task="regression", batches=whole, predictions=raw)
    assert faults(LoaderChecks, tmp_path / "t") == []


def test_samples_that_are_all_one_are_no_batch_that_comes_again(tmp_path):
    (x, y), val = table()
    raw = {"outputs": torch.zeros(64, 3), "targets": y[:64]}
    Run(tmp_path / "t", (torch.zeros_like(x), y), val, classes=3, predictions=raw)
    assert faults(LoaderChecks, tmp_path / "t") == []


def test_repeated_rows(tmp_path):
    (x, y), val = table()
    Run(tmp_path / "t", (torch.cat([x, x[: len(x) // 2]]), torch.cat([y, y[: len(y) // 2]])), val, classes=3)
    Run(tmp_path / "k", (x.repeat(3, 1), y.repeat(3)), val, classes=3)  # every row three times: a longer epoch
    assert faults(LoaderChecks, tmp_path / "t") == ["duplicate_rows"]
    assert faults(LoaderChecks, tmp_path / "k") == []


# -- split_checks ------------------------------------------------------------------------------------------------------


def test_overlap(tmp_path):
    (x, y), (u, v) = table()
    Run(tmp_path / "some", (x, y), (torch.cat([u, x[:30]]), torch.cat([v, y[:30]])), classes=3)
    Run(tmp_path / "slice", (x, y), (x[:100], y[:100]), classes=3)
    both = torch.cat([x, u]).repeat(2, 1), torch.cat([y, v]).repeat(2)
    order = torch.randperm(len(both[0]), generator=torch.Generator().manual_seed(0))
    x2, y2 = both[0][order], both[1][order]
    Run(tmp_path / "double", (x2[:900], y2[:900]), (x2[900:], y2[900:]), classes=3)
    assert faults(SplitChecks, tmp_path / "some") == ["train_in_validation"]
    assert faults(SplitChecks, tmp_path / "slice")[0] == "validation_is_train"
    assert faults(SplitChecks, tmp_path / "double")[0] == "duplicates_across_split"
    assert faults(LoaderChecks, tmp_path / "double") == ["duplicates_across_split"]


def test_a_handful_of_validation_samples(tmp_path):
    train, (u, v) = table()
    Run(tmp_path / "t", train, (u[:8], v[:8]), classes=3)
    assert faults(SplitChecks, tmp_path / "t") == ["tiny_validation"]


def test_augmentation_in_evaluation(tmp_path):
    noisy = lambda z: z + 0.1 * torch.randn_like(z)  # noqa: E731
    Run(tmp_path / "t", *digits(), classes=10, augment=noisy, augment_val=noisy)
    Run(tmp_path / "h", *digits(), classes=10, augment=noisy)
    assert faults(SplitChecks, tmp_path / "t") == ["augmentation_in_eval"]
    assert faults(SplitChecks, tmp_path / "h") == []


@pytest.mark.parametrize(("epochs", "noisy", "expected"), [(1, False, []), (3, True, ["augmentation_in_eval"])])
def test_evaluations_of_one_split_are_compared(tmp_path, epochs, noisy, expected):
    (x, y), (u, v) = digits()
    generator = torch.Generator().manual_seed(0)
    run = Recorder(tmp_path / "t", task="classification", classes=10)
    other = u + torch.randn(u.shape, generator=generator)
    for _ in range(epochs):
        if noisy:
            other = u + torch.randn(u.shape, generator=generator)
        for split, inputs, targets in (("train", x, y), ("val", u, v), ("val_noisy", other, v)):
            outputs = torch.zeros(len(inputs), 10)
            run.log_batch(split, inputs=inputs, targets=targets, outputs=outputs, loss=2.3)
        run.log_metrics("val", loss=2.3)
    run.finish()
    assert faults(SplitChecks, tmp_path / "t") == expected


@pytest.mark.parametrize(("count", "expected"), [(15, []), (5, ["tiny_validation"])])
def test_few_images_with_many_targets(tmp_path, count, expected):
    x = torch.randn(415, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0.5).long()
    model = nn.Conv2d(1, 2, 3, padding=1)
    Run(tmp_path / "t", (x[:400], y[:400]), (x[400:][:count], y[400:][:count]), classes=2, model=model, epochs=1)
    assert faults(SplitChecks, tmp_path / "t") == expected
