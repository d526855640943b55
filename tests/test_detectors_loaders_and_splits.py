"""The order and repetition of samples within training, and what training and validation share."""

import pytest
import torch
from bugbench.detectors.loader_checks import LoaderChecks
from bugbench.detectors.split_checks import SplitChecks
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
    Run(tmp_path / "a", train, val, classes=3, batches=lambda n: [torch.arange(32)] * 12)
    Run(tmp_path / "b", train, val, classes=3, batches=lambda n: [torch.randperm(n)[:32]] * 12)  # another each epoch
    assert faults(LoaderChecks, tmp_path / "a") == ["same_batch"]
    assert faults(LoaderChecks, tmp_path / "b") == ["same_batch"]


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
