"""Healthy runs and published traps, on which every detector of data must be silent."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bugbench.detectors.label_coverage import LabelCoverage
from data_runs import Run, Split, digits, parts, regression, sequential, silent, table
from sklearn import datasets


def windows(series: np.ndarray, length: int = 12) -> Split:
    """Return windows of a time series with the value that follows, in the order of time; the end is held out."""
    view = np.lib.stride_tricks.sliding_window_view(series.astype(np.float32), length + 1)
    x, y = torch.tensor(view[:, :-1].copy()), torch.tensor(view[:, -1].copy())
    cut = len(x) * 3 // 4
    return (x[:cut], y[:cut]), (x[cut + length :], y[cut + length :])


def test_healthy_table(tmp_path):
    Run(tmp_path / "t", *table(), classes=3)
    silent(tmp_path / "t")


def test_healthy_regression(tmp_path):
    Run(tmp_path / "t", *regression(), task="regression")
    silent(tmp_path / "t")


@pytest.mark.parametrize("name", ["breast_cancer", "iris", "wine"])
def test_strong_natural_features(tmp_path, name):
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    Run(tmp_path / "t", *parts(x, y, len(y) // 4), classes=int(y.max()) + 1, epochs=8)
    silent(tmp_path / "t")


def test_raw_iris_and_unit_interval_images(tmp_path):
    Run(tmp_path / "i", *parts(*datasets.load_iris(return_X_y=True), 40), classes=3)
    Run(tmp_path / "d", *digits(), classes=10)
    silent(tmp_path / "i")
    silent(tmp_path / "d")


def test_sums_accumulation_and_single_samples(tmp_path):
    train, val = table(300)
    Run(tmp_path / "s", train, val, classes=3, lr=0.002, loss=lambda o, t: F.cross_entropy(o, t, reduction="sum"))
    Run(tmp_path / "b", train, val, classes=3, batches=lambda n: torch.randperm(n).split(1), epochs=2)
    silent(tmp_path / "s")
    silent(tmp_path / "b")


def test_full_batch_of_sorted_data(tmp_path):
    (x, y), val = table()
    order = y.argsort()
    whole = lambda n: [torch.arange(n)] * 10  # noqa: E731
    Run(tmp_path / "t", (x[order], y[order]), val, classes=3, batches=whole)
    silent(tmp_path / "t")


def test_balanced_batches_of_few_classes(tmp_path):
    (x, y), val = digits()

    def some_classes(count):
        for _ in range(30):
            chosen = torch.randperm(10)[:5]
            yield torch.cat([torch.where(y == k)[0][torch.randperm(int((y == k).sum()))[:6]] for k in chosen])

    Run(tmp_path / "t", (x, y), val, classes=10, batches=some_classes)
    silent(tmp_path / "t")


def test_draws_with_replacement_and_oversampling(tmp_path):
    (x, y), val = table()
    Run(tmp_path / "r", (x, y), val, classes=3, batches=lambda n: torch.randint(n, (n,)).split(32))
    keep = (y > 0) | (torch.arange(len(y)) % 6 == 0)
    x, y = x[keep], y[keep]
    rare = torch.where(y == 0)[0].repeat(4)
    Run(tmp_path / "o", (torch.cat([x, x[rare]]), torch.cat([y, y[rare]])), val, classes=3)
    silent(tmp_path / "r")
    silent(tmp_path / "o", LabelCoverage)  # validation was not thinned out


def test_natural_twins(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.integers(0, 3, (700, 5))
    y = (generator.random(700) < 0.15 + 0.3 * x[:, 0]).astype(int)
    Run(tmp_path / "t", *parts(x, y), classes=2)
    silent(tmp_path / "t")


@pytest.mark.parametrize("kind", ["waves", "trend"])
def test_time_series_in_order(tmp_path, kind):
    t = np.arange(900)
    noise = np.random.default_rng(0).normal(size=900)
    series = np.sin(t / 15) + 0.05 * noise if kind == "waves" else t / 300 + 0.02 * noise
    Run(tmp_path / "t", *windows(series), task="regression", batches=sequential)
    silent(tmp_path / "t")


def test_rare_classes(tmp_path):
    generator = np.random.default_rng(0)
    y = np.minimum(generator.geometric(0.15, 1200) - 1, 29)
    x = generator.normal(size=(1200, 8)) + 0.1 * y[:, None]
    Run(tmp_path / "t", *parts(x, y), classes=30)
    silent(tmp_path / "t")


def test_soft_labels(tmp_path):
    (x, y), val = table()
    Run(
        tmp_path / "t",
        (x, F.one_hot(y, 3) * 0.8 + 0.1),
        (val[0], F.one_hot(val[1], 3).float()),
        classes=3,
        loss=F.cross_entropy,
    )
    silent(tmp_path / "t")
