"""A tiny training program with one thing wrong at a time, data for it, and what the detectors of data say of it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from bugbench.detector import Detector, NotApplicable, Suspect
from bugbench.detectors.augmentation_checks import AugmentationChecks
from bugbench.detectors.finite_checks import FiniteChecks
from bugbench.detectors.input_checks import InputChecks
from bugbench.detectors.label_alignment import LabelAlignment
from bugbench.detectors.label_checks import LabelChecks
from bugbench.detectors.label_coverage import LabelCoverage
from bugbench.detectors.loader_checks import LoaderChecks
from bugbench.detectors.normalization_checks import NormalizationChecks
from bugbench.detectors.split_checks import SplitChecks
from bugbench.detectors.target_leakage import TargetLeakage
from bugbench.detectors.traceback_reader import TracebackReader
from bugbench.recorder import Recorder
from bugbench.trace import Trace, export
from sklearn import datasets
from torch import nn

DATA_DETECTORS: list[type[Detector]] = [
    AugmentationChecks,
    FiniteChecks,
    InputChecks,
    LabelAlignment,
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
    copy = folder.with_name(f"{folder.name} {'+'.join(sorted(detector.access))} {until}")
    if not copy.exists():
        export(folder, copy, detector.access, until)
    return list(detector.diagnose(Trace(copy)).suspects)


def faults(detector: type[Detector] | Detector, folder: Path, until: int | None = None) -> list[str]:
    return [suspect.fault for suspect in suspects(detector, folder, until)]


def silent(folder: Path, *but: type[Detector]) -> None:
    """Assert that no detector of data raises an alarm, but for those named."""
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
    centers = 0.7 * generator.normal(size=(3, 6))
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


def sequential(count: int) -> Iterator[torch.Tensor]:
    yield from torch.arange(count).split(32)


def changed(x: torch.Tensor, change: Callable[[torch.Tensor], Any]) -> torch.Tensor:
    x = x.clone()
    change(x)
    return x


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(30, 8), nn.Linear(8, 30)

    def forward(self, tokens):
        return self.head(self.embedding(tokens))


def text(windows_count: int, length: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(30, (windows_count * length + 1,), generator=torch.Generator().manual_seed(0))
    view = tokens.unfold(0, length + 1, length)
    return view[:, :-1], view[:, 1:]


def token_loss(outputs, targets):
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())
