"""The baselines and the detectors that look at data, on small recorded runs: what they must name, when they must be silent."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bugbench.detector import Detector, NotApplicable, Suspect
from bugbench.detectors.always_faulty import AlwaysFaulty
from bugbench.detectors.always_healthy import AlwaysHealthy
from bugbench.detectors.augmentation_checks import AugmentationChecks
from bugbench.detectors.finite_checks import FiniteChecks
from bugbench.detectors.input_checks import InputChecks
from bugbench.detectors.label_checks import LabelChecks
from bugbench.detectors.label_coverage import LabelCoverage
from bugbench.detectors.loader_checks import LoaderChecks
from bugbench.detectors.normalization_checks import NormalizationChecks
from bugbench.detectors.oracle import Oracle
from bugbench.detectors.prior import Prior
from bugbench.detectors.split_checks import SplitChecks
from bugbench.detectors.target_leakage import TargetLeakage
from bugbench.detectors.traceback_reader import TracebackReader
from bugbench.recorder import Recorder, program_traceback
from bugbench.rerun import load_program
from bugbench.trace import Trace, export
from sklearn import datasets
from torch import nn

DATA_DETECTORS: list[type[Detector]] = [
    AugmentationChecks,
    FiniteChecks,
    InputChecks,
    LabelChecks,
    LabelCoverage,
    LoaderChecks,
    NormalizationChecks,
    SplitChecks,
    TargetLeakage,
    TracebackReader,
]
torch.set_num_threads(1)


class Run:
    """A tiny training program in a dozen lines, recorded; every argument is one thing to get wrong."""

    def __init__(
        self,
        folder: Path,
        train: tuple[torch.Tensor, torch.Tensor],
        val: tuple[torch.Tensor, torch.Tensor] | None,
        *,
        task: str = "classification",
        classes: int | None = None,
        model: nn.Module | None = None,
        loss: Callable[..., torch.Tensor] | None = None,
        lr: float = 0.05,
        epochs: int = 3,
        batches: Callable[[int], Any] | None = None,
        augment: Callable[[torch.Tensor], torch.Tensor] | None = None,
        augment_val: Callable[[torch.Tensor], torch.Tensor] | None = None,
        log_samples: bool = True,
        predictions: dict[str, torch.Tensor] | None = None,
    ) -> None:
        torch.manual_seed(0)
        (x, y), self.folder = train, folder
        outputs = classes or (1 if y.dim() == 1 else y.shape[-1])
        model = model or nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 16), nn.ReLU(), nn.Linear(16, outputs))
        loss = loss or (F.cross_entropy if classes else lambda out, t: F.mse_loss(out.reshape(t.shape), t))
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        run = Recorder(folder, task=task, classes=classes)
        run.watch(model, optimizer)
        for _ in range(epochs):
            for index in batches(len(x)) if batches else torch.randperm(len(x)).split(32):
                samples, targets = x[index], y[index]
                inputs = augment(samples) if augment else samples
                optimizer.zero_grad()
                out = model(inputs)
                value = loss(out, targets)
                value.backward()
                optimizer.step()
                extra = {"samples": samples} if augment and log_samples else {}
                run.log_batch("train", inputs=inputs, targets=targets, outputs=out, loss=value, **extra)
            if val is None:
                continue
            with torch.no_grad():
                inputs = augment_val(val[0]) if augment_val else val[0]
                out = model(inputs)
                run.log_batch("val", inputs=inputs, targets=val[1], outputs=out, loss=loss(out, val[1]))
            run.log_metrics("val", loss=0.0)
        run.finish(predictions)


def suspects(detector: type[Detector] | Detector, folder: Path, until: int | None = None) -> list[Suspect]:
    """Diagnose with nothing but the files that the detector's access grants."""
    detector = detector() if isinstance(detector, type) else detector
    for number in itertools.count():
        copy = folder.with_name(f"{folder.name}-copy{number}")
        if not copy.exists():
            break
    export(folder, copy, detector.access, until)
    return list(detector.diagnose(Trace(copy)).suspects)


def faults(detector: type[Detector] | Detector, folder: Path, until: int | None = None) -> list[str]:
    return [suspect.fault for suspect in suspects(detector, folder, until)]


def silent(folder: Path, *but: type[Detector]) -> None:
    """Assert that no detector of this file raises an alarm, but for those named."""
    for detector in DATA_DETECTORS:
        if detector not in but:
            try:
                found = suspects(detector, folder)
            except NotApplicable:
                continue
            assert not found, f"{detector.__name__}: {found[0].fault}: {found[0].evidence}"


# -- data to train on ------------------------------------------------------------------------------------------------

Split = tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def parts(x: Any, y: Any, held_out: int = 150) -> Split:
    """Return training and validation, drawn at random."""
    x, y = torch.as_tensor(np.asarray(x), dtype=torch.float32), torch.as_tensor(np.asarray(y))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    x, y = x[order], y[order]
    return (x[:-held_out], y[:-held_out]), (x[-held_out:], y[-held_out:])


def table(count: int = 600, seed: int = 0) -> Split:
    """Three classes that overlap, six standardised features."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 3, count)
    centers = generator.normal(size=(3, 6))
    x = centers[y] + generator.normal(size=(count, 6))
    return parts((x - x.mean(axis=0)) / x.std(axis=0), y)


def digits(scale: float = 16.0) -> Split:
    images, labels = datasets.load_digits(return_X_y=True)
    return parts(images.reshape(-1, 1, 8, 8) / scale, labels, 300)


def regression(count: int = 600) -> Split:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(count, 6))
    y = x @ np.array([1.0, 0.7, 0.5, 0.3, 0.0, 0.0]) + generator.normal(size=count)
    return parts(x, (y / y.std()).astype(np.float32))


def windows(series: np.ndarray, length: int = 12) -> Split:
    """Return windows of a time series with the value that follows, in the order of time; the end is held out."""
    view = np.lib.stride_tricks.sliding_window_view(series.astype(np.float32), length + 1)
    x, y = torch.tensor(view[:, :-1].copy()), torch.tensor(view[:, -1].copy())
    cut = len(x) * 3 // 4
    return (x[:cut], y[:cut]), (x[cut + length :], y[cut + length :])


def sequential(count: int) -> Iterator[torch.Tensor]:
    yield from torch.arange(count).split(32)


def changed(x: torch.Tensor, change: Callable[[torch.Tensor], Any]) -> torch.Tensor:
    x = x.clone()
    change(x)
    return x


# -- baselines -------------------------------------------------------------------------------------------------------


def test_baselines(tmp_path):
    Run(tmp_path / "t", *table(), classes=3, epochs=1)
    assert faults(AlwaysHealthy, tmp_path / "t") == []
    assert faults(AlwaysFaulty, tmp_path / "t") == ["lr_too_high"]
    assert faults(AlwaysFaulty(fault="nan_inputs"), tmp_path / "t") == ["nan_inputs"]


def test_prior_is_fixed_for_a_trace_and_half_of_the_time_healthy(tmp_path):
    Run(tmp_path / "t", *table(), classes=3, epochs=1)
    answers = [faults(Prior(seed=seed), tmp_path / "t") for seed in range(60)]
    assert answers[:3] == [faults(Prior(seed=seed), tmp_path / "t") for seed in range(3)]
    assert 15 < answers.count([]) < 45
    assert len({answer[0] for answer in answers if answer}) > 15
    Run(tmp_path / "u", *table(seed=1), classes=3, epochs=1)
    assert answers[:20] != [faults(Prior(seed=seed), tmp_path / "u") for seed in range(20)]


@pytest.mark.parametrize(
    ("truth", "expected"), [({"fault": "none"}, []), ({"fault": "dead_relu", "lines": [7, 9]}, [7])]
)
def test_oracle(tmp_path, truth, expected):
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    found = Oracle().diagnose(Trace(tmp_path)).suspects
    assert [suspect.line for suspect in found] == expected
    assert all(suspect.fault == truth["fault"] for suspect in found)


# -- healthy runs and published traps: all must be silent ---------------------------------------------------------------


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
    Run(tmp_path / "t", *parts(generator.normal(size=(1200, 8)), y), classes=30)
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
