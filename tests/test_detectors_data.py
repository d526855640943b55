"""The baselines and the detectors that look at data: what they must name, and when they must be silent."""

import contextlib
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
from bugbench.detectors.label_alignment import LabelAlignment
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


# -- healthy runs and published traps: all must be silent --------------------------------------------------------------


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


# -- finite_checks -----------------------------------------------------------------------------------------------------


def rows_of(x: torch.Tensor, every: int, value: float) -> torch.Tensor:
    return changed(x, lambda z: z.view(len(z), -1)[::every, 2].fill_(value))


@pytest.mark.parametrize(("value", "fault"), [(float("nan"), "nan_inputs"), (float("inf"), "inf_inputs")])
def test_inputs_that_are_not_finite(tmp_path, value, fault):
    (x, y), val = table()
    Run(tmp_path / "t", (rows_of(x, 40, value), y), val, classes=3)
    assert faults(FiniteChecks, tmp_path / "t")[0] == fault
    assert faults(InputChecks, tmp_path / "t")[0] == fault


def test_one_hole_in_a_batch_that_is_not_kept(tmp_path):
    (x, y), val = table()
    x = changed(x, lambda z: z[7 * 32 + 3, 1].fill_(float("nan")))  # step 7: looked at closely, not kept
    Run(tmp_path / "t", (x, y), val, classes=3, batches=sequential)
    found = suspects(FiniteChecks, tmp_path / "t")
    assert found[0].fault == "nan_inputs"
    assert "step 7" in found[0].evidence


def test_constant_pixels_divided_by_their_deviation(tmp_path):
    (x, y), (u, v) = digits()
    mean, std = x.mean(dim=0), x.std(dim=0)
    Run(tmp_path / "t", ((x - mean) / std, y), ((u - mean) / std, v), classes=10, epochs=1)
    assert faults(FiniteChecks, tmp_path / "t")[0] == "divide_by_zero_std"
    assert faults(InputChecks, tmp_path / "t")[0] == "divide_by_zero_std"


class Coping(nn.Module):
    """Sets missing values to 0 and masks small inputs with -inf, as healthy programs do."""

    def __init__(self):
        super().__init__()
        self.mask = nn.Threshold(0.0, float("-inf"))
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        x = torch.nan_to_num(x)
        return self.head(torch.cat([x, self.mask(x + 4).softmax(dim=1)], dim=1))


def test_a_model_that_copes_is_left_in_peace(tmp_path):
    (x, y), (u, v) = table()
    holes = (rows_of(x, 40, float("nan")), y), (rows_of(u, 30, float("nan")), v)
    Run(tmp_path / "t", *holes, classes=3, model=Coping())
    assert faults(FiniteChecks, tmp_path / "t") == []
    assert faults(InputChecks, tmp_path / "t") == []


def by_hand(outputs, targets):
    p = outputs.exp() / outputs.exp().sum(dim=1, keepdim=True)
    return -p[torch.arange(len(targets)), targets].log().mean()


def log_of_softmax(outputs, targets):
    return -outputs.softmax(dim=1)[torch.arange(len(targets)), targets].log().mean()


def root_of_distance(outputs, targets):
    return F.cross_entropy(outputs, targets) + (0 * outputs).square().sum().sqrt()


def linear(factor: float, bias: float) -> nn.Module:
    layer = nn.Linear(6, 3)
    with torch.no_grad():
        layer.weight.mul_(factor)
        layer.bias.fill_(bias)
    return nn.Sequential(layer)


def test_arithmetic_of_the_loss(tmp_path):
    train, val = table()
    Run(tmp_path / "e", train, val, classes=3, model=linear(1.0, 90.0), loss=by_hand, epochs=1)
    Run(tmp_path / "l", train, val, classes=3, model=linear(200.0, 0.0), loss=log_of_softmax, epochs=1)
    Run(tmp_path / "s", train, val, classes=3, loss=root_of_distance, epochs=1)
    assert faults(FiniteChecks, tmp_path / "e")[0] == "exp_overflow"
    assert faults(FiniteChecks, tmp_path / "l")[0] == "log_of_zero"
    found = suspects(FiniteChecks, tmp_path / "s")[0]
    assert (found.fault, found.layer) == ("sqrt_grad_at_zero", "3")  # the last layer is nearest to the loss


class HalfPrecision(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        scores = (1e4 * self.query(x)).half() * (1e4 * self.key(x)).half()
        return self.head(scores.float().softmax(dim=1))


def test_forward_pass_names_the_layer(tmp_path):
    Run(tmp_path / "t", *table(), classes=3, model=HalfPrecision(), epochs=1)
    found = suspects(FiniteChecks, tmp_path / "t")
    assert found[0].layer == "head"
    assert "fp16_overflow" in [suspect.fault for suspect in found]


def test_divergence(tmp_path):
    Run(tmp_path / "t", *regression(), task="regression", lr=50.0)
    assert faults(FiniteChecks, tmp_path / "t")[0] == "lr_too_high"
    Run(tmp_path / "n", *table(), classes=3, lr=50.0, loss=lambda o, t: -F.cross_entropy(o, t), epochs=6)
    assert faults(FiniteChecks, tmp_path / "n")[0] == "flipped_sign"


def test_an_update_alone_that_is_not_finite_is_a_symptom(tmp_path):
    Run(tmp_path / "t", *table(), classes=3, lr=float("nan"))
    found = suspects(FiniteChecks, tmp_path / "t")
    assert [s.fault for s in found] == ["numerics"]
    assert found[0].evidence.startswith("the update is not finite, gradients and loss are, at step 0")


def test_evaluation_alone_is_not_finite(tmp_path):
    train, (u, v) = table()
    Run(tmp_path / "t", train, (rows_of(u, 30, float("nan")), v), classes=3)
    assert faults(FiniteChecks, tmp_path / "t") == ["nan_inputs"]


# -- input_checks ------------------------------------------------------------------------------------------------------


def test_blank_samples(tmp_path):
    (x, y), val = table()
    Run(tmp_path / "z", (changed(x, lambda z: z[::4].fill_(0.0)), y), val, classes=3)
    Run(tmp_path / "a", (torch.zeros_like(x), y), val, classes=3)
    Run(tmp_path / "c", (torch.where(y[:, None] == 1, 0.0, x), y), val, classes=3)
    assert faults(InputChecks, tmp_path / "z") == ["zero_inputs"]
    assert faults(InputChecks, tmp_path / "a") == ["zero_inputs"]
    assert faults(InputChecks, tmp_path / "c") == ["corrupt_one_class"]


def test_enormous_values(tmp_path):
    (x, y), val = table()
    Run(tmp_path / "t", (changed(x, lambda z: z[::30, 3].mul_(1e4)), y), val, classes=3, lr=1e-9)
    assert faults(InputChecks, tmp_path / "t") == ["inf_inputs"]
    Run(tmp_path / "h", (x.mul(2).exp(), y), val, classes=3, lr=1e-4)  # long-tailed, and so by nature
    assert faults(InputChecks, tmp_path / "h") == []


def test_predictions_with_holes(tmp_path):
    outputs = {"outputs": torch.tensor([[0.0, float("nan")]]), "targets": torch.tensor([0])}
    Run(tmp_path / "t", *table(), classes=3, predictions=outputs)
    assert faults(InputChecks, tmp_path / "t") == ["nan_inputs"]


# -- normalization_checks ----------------------------------------------------------------------------------------------


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


# -- label_coverage and label_checks -----------------------------------------------------------------------------------


def test_end_of_sorted_data_held_out(tmp_path):
    (x, y), (u, v) = digits()
    x, y = torch.cat([x, u]), torch.cat([y, v])
    order = y.argsort(stable=True)
    x, y = x[order], y[order]
    Run(tmp_path / "t", (x[:1600], y[:1600]), (x[1600:], y[1600:]), classes=10)
    assert faults(LabelCoverage, tmp_path / "t")[0] == "unshuffled_split"
    Run(tmp_path / "e", (x, y), (x[:150] + 0.01, y[:150]), classes=10)
    assert faults(LabelCoverage, tmp_path / "e")[0] == "eval_on_subset"


def test_end_of_data_sorted_by_target_held_out(tmp_path):
    (x, y), (u, v) = regression()
    x, y = torch.cat([x, u]), torch.cat([y, v])
    order = y.argsort()
    x, y = x[order], y[order]
    Run(tmp_path / "t", (x[:500], y[:500]), (x[500:], y[500:]), task="regression")
    assert faults(LabelCoverage, tmp_path / "t") == ["unshuffled_split"]


def test_classes_missing_in_training(tmp_path):
    (x, y), val = digits()
    Run(tmp_path / "d", (x[y != 4], y[y != 4]), val, classes=10)
    keep = (y != 4) | (torch.arange(len(y)) % 20 == 0)
    Run(tmp_path / "s", (x[keep], y[keep]), val, classes=10)
    assert faults(LabelCoverage, tmp_path / "d") == ["dropped_class"]
    assert faults(LabelCoverage, tmp_path / "s") == ["class_imbalance"]


def test_constant_and_missing_labels(tmp_path):
    (x, y), val = table()
    Run(tmp_path / "c", (x, torch.zeros_like(y)), val, classes=3)
    (p, q), held_out = regression()
    Run(tmp_path / "n", (p, q * float("nan")), held_out, task="regression")
    assert faults(LabelChecks, tmp_path / "c") == ["constant_labels"]
    assert faults(LabelChecks, tmp_path / "n") == ["constant_labels"]
    Run(
        tmp_path / "s",
        (p, changed(q, lambda z: z[5].fill_(float("nan")))),
        held_out,
        task="regression",
        batches=sequential,
    )
    assert faults(LabelChecks, tmp_path / "s") == ["labels"]


def test_unscaled_targets(tmp_path):
    (x, y), (u, v) = regression()
    Run(tmp_path / "t", (x, 3000 + 500 * y), (u, 3000 + 500 * v), task="regression", lr=1e-9)
    Run(tmp_path / "a", (x, 40 + 10 * y), (u, 40 + 10 * v), task="regression", lr=1e-4)  # ages
    assert faults(LabelChecks, tmp_path / "t") == ["unscaled_targets"]
    assert faults(LabelChecks, tmp_path / "a") == []


def test_labels_permuted_in_training(tmp_path):
    (x, y), val = digits()
    Run(tmp_path / "o", (x, (y + 1) % 10), val, classes=10)
    Run(tmp_path / "m", (x, torch.tensor([3, 0, 7, 1, 9, 2, 4, 5, 8, 6])[y]), val, classes=10)
    assert faults(LabelChecks, tmp_path / "o")[0] == "label_off_by_one"
    assert faults(LabelChecks, tmp_path / "m")[0] == "class_map_mismatch"


# -- label_alignment ---------------------------------------------------------------------------------------------------


def test_labels_of_other_samples(tmp_path):
    torch.manual_seed(0)
    for name, data, task, classes in (
        ("t", table(), "classification", 3),
        ("d", digits(), "classification", 10),
        ("r", regression(), "regression", None),
    ):
        (x, y), (u, v) = data
        settings = {"task": task, "classes": classes, "epochs": 8}
        Run(tmp_path / name, (x, y[torch.randperm(len(y))]), (u, v[torch.randperm(len(v))]), **settings)
        assert faults(LabelAlignment, tmp_path / name) == ["misaligned_labels"]
        silent(tmp_path / name, LabelAlignment)


def test_a_failed_run_on_sound_data_is_not_misaligned(tmp_path):
    Run(tmp_path / "t", *table(), classes=3, lr=0.0)
    assert faults(LabelAlignment, tmp_path / "t") == []


def test_parity_is_hard_but_sound(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.integers(0, 2, (900, 4)) * 2.0 - 1 + generator.normal(0, 0.1, (900, 4))
    y = (x.prod(axis=1) > 0).astype(int)
    model = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
    Run(tmp_path / "t", *parts(x, y), classes=2, model=model, lr=1.0, epochs=25)
    assert faults(LabelAlignment, tmp_path / "t") == []


# -- target_leakage ----------------------------------------------------------------------------------------------------


def with_column(data: Split, column: Callable[[torch.Tensor], torch.Tensor]) -> Split:
    (x, y), (u, v) = data
    return (torch.cat([x, column(y)[:, None]], dim=1), y), (torch.cat([u, column(v)[:, None]], dim=1), v)


def treatment(y: torch.Tensor) -> torch.Tensor:
    """Weeks of a therapy that all but 5 % of the ill get: 0 or 6 to 30."""
    weeks = torch.randint(6, 31, y.shape) * (torch.rand(len(y)) >= 0.05)
    return (weeks * (y == 1)).float() / 10 - 1


@pytest.mark.parametrize("column", [lambda y: 2.0 * y - 1, treatment, lambda y: y + 0.01 * torch.randn(len(y))])
def test_leaked_class(tmp_path, column):
    torch.manual_seed(0)
    Run(tmp_path / "t", *with_column(table(), column), classes=3)
    found = suspects(TargetLeakage, tmp_path / "t")
    assert [suspect.fault for suspect in found] == ["label_leakage"]
    assert "column 6 " in found[0].evidence


def test_leaked_target(tmp_path):
    torch.manual_seed(0)
    visits = lambda y: (4 * y + torch.randn(len(y))).round()  # noqa: E731
    Run(tmp_path / "t", *with_column(regression(), visits), task="regression")
    assert faults(TargetLeakage, tmp_path / "t") == ["label_leakage"]
    x = torch.randn(600, 5)
    Run(tmp_path / "s", *parts(x, 3 * x[:, 0] + 0.5 * torch.randn(600)), task="regression")
    assert faults(TargetLeakage, tmp_path / "s") == []  # one cause of an effect


def test_threshold_on_one_feature_is_no_leak(tmp_path):
    x = torch.randn(600, 4)
    Run(tmp_path / "t", *parts(x, (x[:, 0] > 0).long()), classes=2)
    assert faults(TargetLeakage, tmp_path / "t") == []


def test_images_are_no_table(tmp_path):
    Run(tmp_path / "t", *digits(), classes=10, epochs=1)
    with pytest.raises(NotApplicable):
        suspects(TargetLeakage, tmp_path / "t")


# -- augmentation_checks -----------------------------------------------------------------------------------------------


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


# -- traceback_reader --------------------------------------------------------------------------------------------------

PROGRAM = """\
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.Linear(64, 32)
        self.right = nn.Linear(64, 32)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        x = x.flatten(1)
        return self.head(torch.cat([self.left(x), self.right(x)], dim=1))


def main(x, y, run):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run.watch(model, optimizer)
    for index in torch.arange(100).split(32):
        inputs, targets = x[index], y[index]
        outputs = model(inputs)
        loss = F.cross_entropy(outputs, targets)
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
"""


@pytest.mark.parametrize(
    ("old", "new", "fault", "line"),
    [
        ("x.flatten(1)", "x", "shape_mismatch", 15),
        ("x.flatten(1)", "x.flatten(0, 2)", "shape_mismatch", 15),
        ("dim=1", "dim=0", "concat_wrong_dim", 15),
        ("x.flatten(1)", "x.view(32, -1)", "hardcoded_batch_size", 15),
        ("x.flatten(1)", "x.reshape(32, 64)", "hardcoded_batch_size", 14),
        ("x[index]", "x[index].double()", "dtype_mismatch", 15),
        ("y[index]", "y[index].float()", "dtype_mismatch", 25),
        ("y[index]", "y[index] + 1", "label_out_of_range", 25),
        (
            "F.cross_entropy(outputs, targets)",
            "-outputs[torch.arange(32), targets + 9].mean()",
            "label_out_of_range",
            25,
        ),
        ("x.flatten(1)", "F.embedding(x.flatten(1).long() + 99, self.head.weight)", "token_out_of_range", 14),
        ("x[index]", 'x[index].to("meta")', "device_mismatch", 15),
        ("model(inputs)", "model(inputs).detach()", "detached_features", 26),
        ("model.parameters()", "nn.Module().parameters()", "unregistered_layers", 20),
        (
            "loss.backward()\n        optimizer.step()",
            "optimizer.step()\n        loss.backward()",
            "step_before_backward",
            27,
        ),
        ("loss.backward()", "torch.zeros(10**15) if len(index) < 32 else loss.backward()", "memory_growth", 26),
        ("loss.backward()", "los.backward()", "crash", 26),
        ("dim=1))", "dim=1)) / missing", "crash", 15),
    ],
)
def test_traceback(tmp_path, old, new, fault, line):
    program = tmp_path / "some_program.py"
    program.write_text(PROGRAM.replace(old, new))
    images, labels = datasets.load_digits(return_X_y=True)
    run = Recorder(tmp_path / "t", task="classification", classes=10)
    with pytest.raises(Exception) as error:
        load_program(program).main(
            torch.tensor(images[:100] / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(labels[:100]), run
        )
    run.finish(error=program_traceback(error.value, program))
    found = suspects(TracebackReader, tmp_path / "t")[0]
    assert (found.fault, found.line) == (fault, line)
    silent(tmp_path / "t", TracebackReader)


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (
            "RuntimeError: Expected all tensors to be on the same device, but found at least two devices",
            "device_mismatch",
        ),
        ("RuntimeError: expected scalar type Long but found Float", "dtype_mismatch"),
        (
            "RuntimeError: \"nll_loss_forward_reduce_cuda_kernel_2d_index\" not implemented for 'Float'",
            "dtype_mismatch",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "crash"),
        ("RuntimeError: Function 'LogBackward0' returned nan values in its 0th output.", "log_of_zero"),
        ("ValueError: Input X contains NaN.\nLogisticRegression does not accept missing values", "nan_inputs"),
        ("FloatingPointError: loss is nan at step 12", "numerics"),
        ("KeyError: 'therapy_weeks'", "crash"),
    ],
)
def test_messages_of_other_places(tmp_path, message, fault):
    Recorder(tmp_path / "t").finish(
        error=f'Traceback (most recent call last):\n  File "program.py", line 8, in main\n    x = f(y)\n{message}\n'
    )
    found = suspects(TracebackReader, tmp_path / "t")[0]
    assert (found.fault, found.line) == (fault, 8)


# -- odd traces --------------------------------------------------------------------------------------------------------


def unharmed(folder: Path) -> None:
    """Assert that every detector comes to an end, on the whole trace and on prefixes of it."""
    for detector, until in itertools.product(DATA_DETECTORS, [None, 0, 1, 5]):
        with contextlib.suppress(NotApplicable), np.errstate(all="raise", under="ignore"):
            suspects(detector, folder, until)


def test_empty_run(tmp_path):
    Recorder(tmp_path / "t").finish(error="KeyboardInterrupt")
    unharmed(tmp_path / "t")


def test_one_step_and_no_validation(tmp_path):
    train, _ = table()
    Run(tmp_path / "t", train, None, classes=3, epochs=1, batches=lambda n: [torch.arange(16)])
    unharmed(tmp_path / "t")
    silent(tmp_path / "t")


def test_nothing_but_nan(tmp_path):
    (x, y), (u, v) = table()
    Run(tmp_path / "t", (x * float("nan"), y), (u * float("nan"), v), classes=3)
    unharmed(tmp_path / "t")
    assert faults(FiniteChecks, tmp_path / "t") == ["nan_inputs"]


def test_sequences_segmentation_and_many_labels(tmp_path):
    torch.manual_seed(0)
    Run(tmp_path / "l", text(80), text(30), task="language_model", classes=30, model=LanguageModel(), loss=token_loss)
    x = torch.randn(120, 1, 8, 8)
    y = (x[:, 0] > 0.5).long()
    Run(tmp_path / "s", (x[:80], y[:80]), (x[80:], y[80:]), classes=2, model=nn.Conv2d(1, 2, 3, padding=1))
    z = torch.randn(200, 5)
    many = (z @ torch.randn(5, 4) > 0).float()
    Run(tmp_path / "m", (z[:150], many[:150]), (z[150:], many[150:]), loss=F.binary_cross_entropy_with_logits)
    for name in ("l", "s", "m"):
        unharmed(tmp_path / name)
    silent(tmp_path / "s")
    silent(tmp_path / "m")


def test_a_model_that_nobody_watches(tmp_path):
    run = Recorder(tmp_path / "t", task="classification", classes=3)
    (x, y), _ = table()
    for index in torch.arange(len(x)).split(50):
        run.log_batch("train", inputs=x[index], targets=y[index], outputs=torch.zeros(len(index), 3), loss=1.1)
    run.finish()
    unharmed(tmp_path / "t")
    silent(tmp_path / "t")
