"""The scale of inputs: raw, scaled twice, along the wrong axis, or in one split alone."""

import pytest
import torch
from bugbench.detectors.normalization_checks import NormalizationChecks
from data_runs import Run, Split, digits, faults, parts
from sklearn import datasets
from torch import nn


def cancer() -> Split:
    return parts(*datasets.load_breast_cancer(return_X_y=True), 150)


def test_raw_scale(tmp_path):
    Run(tmp_path / "t", *cancer(), classes=2, lr=1e-6)
    Run(tmp_path / "d", *digits(scale=1 / 16), classes=10, lr=1e-6)  # pixels from 0 to 255
    norm = nn.Sequential(nn.BatchNorm1d(30), nn.Linear(30, 2))
    Run(tmp_path / "n", *cancer(), classes=2, model=norm)
    assert faults(NormalizationChecks, tmp_path / "t") == ["missing_normalization"]
    assert faults(NormalizationChecks, tmp_path / "d") == ["missing_normalization"]
    assert faults(NormalizationChecks, tmp_path / "n") == []  # the model scales its inputs itself
    first = nn.Sequential(nn.Flatten(), nn.Dropout(0.0), nn.BatchNorm1d(30), nn.Linear(30, 2))
    Run(tmp_path / "f", *cancer(), classes=2, model=first)
    assert faults(NormalizationChecks, tmp_path / "f") == []  # though not with what is called first
    Run(tmp_path / "r", *cancer(), classes=2, lr=1e-6, model=nn.Sequential(nn.Flatten(), nn.Linear(30, 2)))
    assert faults(NormalizationChecks, tmp_path / "r") == ["missing_normalization"]


@pytest.mark.parametrize("data", [cancer, lambda: digits(1.0)])
def test_two_scales(tmp_path, data):
    (x, y), val = data()
    x = (x - x.mean(dim=0)) / (x.std(dim=0) + 0.01)
    Run(tmp_path / "t", (x, y), val, classes=10)
    assert faults(NormalizationChecks, tmp_path / "t")[0] == "train_only_normalization"


def test_twice_scaled(tmp_path):
    (x, y), (u, v) = cancer()
    mean, std = x.mean(dim=0), x.std(dim=0)
    twice = lambda z: ((z - mean) / std - mean) / std  # noqa: E731
    Run(tmp_path / "t", (twice(x), y), (twice(u), v), classes=2, lr=1e-6)
    Run(tmp_path / "d", *digits(scale=256.0), classes=10)
    assert faults(NormalizationChecks, tmp_path / "t")[0] == "double_normalization"
    assert faults(NormalizationChecks, tmp_path / "d") == ["double_normalization"]


def test_scaled_along_the_row(tmp_path):
    (x, y), (u, v) = cancer()
    rows = lambda z: (z - z.mean(dim=1, keepdim=True)) / z.std(dim=1, keepdim=True)  # noqa: E731
    Run(tmp_path / "t", (rows(x), y), (rows(u), v), classes=2)
    assert faults(NormalizationChecks, tmp_path / "t") == ["normalization_wrong_dim"]
    t = torch.linspace(0, 6, 40)
    signal = torch.sin(t + 0.3 * torch.randn(400, 1)) + 0.1 * torch.randn(400, 40)
    Run(tmp_path / "s", *parts(rows(signal), torch.arange(400) % 2), classes=2)
    assert faults(NormalizationChecks, tmp_path / "s") == []  # each signal by itself, as is usual


def test_strong_augmentation_is_no_other_scale(tmp_path):
    noisy = lambda z: z + 3 * torch.randn_like(z)  # noqa: E731
    Run(tmp_path / "t", *digits(), classes=10, augment=noisy)
    assert faults(NormalizationChecks, tmp_path / "t") == []


def test_levels_below_zero_by_nature(tmp_path):
    generator = torch.Generator().manual_seed(0)
    strength = -80 + 15 * torch.randn(600, 10, generator=generator) - 10 * torch.rand(10, generator=generator)  # dBm
    Run(tmp_path / "t", *parts(strength / 100, (strength[:, 0] > strength[:, 1]).long()), classes=2)
    assert faults(NormalizationChecks, tmp_path / "t") == []
