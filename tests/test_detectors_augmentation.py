"""Augmentation that changes the meaning of a sample or erases it, and augmentation that does no harm."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from bugbench.detectors.augmentation_checks import AugmentationChecks
from data_runs import Run, Split, digits, faults, parts, silent, suspects


def half_of(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    def augment(x):
        chosen = torch.rand(len(x)).view(-1, *[1] * (x.dim() - 1)) < 0.5
        return torch.where(chosen, change(x), x).roll(int(torch.randint(-1, 2, ())), dims=-1)

    return augment


FLIPS = {
    "left-right flip": lambda x: x.flip(-1),
    "up-down flip": lambda x: x.flip(-2),
    "half turn": lambda x: x.flip(-1, -2),
}


@pytest.mark.parametrize("logged", [True, False])
@pytest.mark.parametrize("name", FLIPS)
def test_flipped_digits(tmp_path, name, logged):
    Run(tmp_path / "t", *digits(), classes=10, augment=half_of(FLIPS[name]), log_samples=logged)
    found = suspects(AugmentationChecks, tmp_path / "t")
    assert [suspect.fault for suspect in found] == ["bad_augmentation"]
    assert found[0].evidence.startswith(name)


def beats(count: int = 600) -> Split:
    """Heartbeats at any place in their window; the classes differ in the wave that follows the peak."""
    generator = np.random.default_rng(0)
    t, y = np.arange(120), generator.integers(0, 3, count)
    at = generator.integers(40, 70, count)[:, None]
    wave = lambda center, width, size: size * np.exp(-0.5 * ((t - center) / width) ** 2)  # noqa: E731
    after = np.array([0.4, -0.4, 0.0])[y][:, None]
    x = wave(at, 2, 1.0) - wave(at + 5, 3, 0.3) + wave(at + 30, 8, 1.0) * after + wave(at - 18, 5, 0.2)
    return parts((x + generator.normal(0, 0.03, x.shape))[:, None], y)


def test_polarity_of_signals(tmp_path):
    Run(tmp_path / "t", *beats(), classes=3, augment=half_of(lambda x: -x))
    Run(tmp_path / "m", *beats(), classes=3, augment=lambda x: x * (1 + 0.1 * torch.randn(len(x), 1, 1)))
    assert suspects(AugmentationChecks, tmp_path / "t")[0].evidence.startswith("change of sign")
    assert faults(AugmentationChecks, tmp_path / "m") == []


def test_mild_augmentation(tmp_path):
    mild = lambda x: x.roll(1, dims=-2) * (torch.rand_like(x) > 0.1) + 0.1 * torch.randn_like(x)  # noqa: E731
    Run(tmp_path / "t", *digits(), classes=10, augment=mild)
    silent(tmp_path / "t")


def test_flips_of_textures_do_not_matter(tmp_path):
    generator = np.random.default_rng(0)
    u, v = np.meshgrid(np.arange(16), np.arange(16))
    y = generator.integers(0, 3, 600)
    angle, phase = generator.uniform(0, 6.3, (2, 600, 1, 1))
    waves = np.sin(np.array([0.5, 1.1, 1.8])[y][:, None, None] * (u * np.cos(angle) + v * np.sin(angle)) + phase)
    Run(tmp_path / "t", *parts(waves[:, None], y), classes=3, augment=half_of(FLIPS["left-right flip"]))
    assert faults(AugmentationChecks, tmp_path / "t") == []


def test_erasing_augmentation(tmp_path):
    erase = lambda x: x * (torch.rand_like(x) < 0.08)  # noqa: E731
    Run(tmp_path / "t", *digits(), classes=10, augment=erase)
    assert faults(AugmentationChecks, tmp_path / "t") == ["augmentation_too_strong"]
