"""Traces that the detectors of losses, metrics, calls and curves are not made for: none may make them raise."""

import pytest
import torch
from bugbench.detectors.call_order import CallOrder
from bugbench.detectors.loss_recomputation import LossRecomputation
from bugbench.detectors.metric_recomputation import MetricRecomputation
from bugbench.detectors.mode_check import ModeCheck
from bugbench.detectors.regression_loss import RegressionLoss
from bugbench.detectors.softmax_axis import SoftmaxAxis
from bugbench.detectors.token_shift import TokenShift
from bugbench.recorder import Recorder
from tiny_training import OF_CURVES, faults

pytestmark = pytest.mark.usefixtures("fixed_seed")

STATIC = (
    LossRecomputation,
    SoftmaxAxis,
    RegressionLoss,
    TokenShift,
    MetricRecomputation,
    ModeCheck,
    CallOrder,
    *OF_CURVES,
)


def odd_runs(folder):
    """Traces that a detector is not made for; none of them may make it raise."""
    batch = {"inputs": torch.zeros(4, 3), "targets": torch.zeros(4).long(), "outputs": torch.randn(4, 5)}
    kinds = {
        "nothing": [],
        "one": [batch],
        "nan": [{**batch, "outputs": torch.full((4, 5), torch.nan)}] * 12,
        "infinite": [{**batch, "outputs": torch.full((4, 5), torch.inf)}] * 12,
        "soft": [{**batch, "targets": torch.rand(4, 5).softmax(1)}] * 12,
        "flat": [{**batch, "outputs": torch.rand(4), "targets": torch.rand(4)}] * 12,
        "mismatch": [{**batch, "outputs": torch.rand(4, 7, 2)}] * 12,
        "images": [{**batch, "inputs": torch.rand(4, 3, 6, 6), "outputs": torch.rand(4, 3, 6, 6)}] * 12,
        "image_to_image": [{k: torch.rand(4, 3, 6, 6) for k in batch}] * 12,
        "tokens": [
            {"inputs": torch.randint(5, (4, 6)), "targets": torch.randint(5, (4, 6)), "outputs": torch.rand(4, 6, 5)}
        ]
        * 12,
        "ignored": [
            {"inputs": torch.randint(5, (4, 6)), "targets": torch.full((4, 6), -100), "outputs": torch.rand(4, 6, 5)}
        ]
        * 12,
        "row": [{k: v[:1] for k, v in batch.items()}] * 12,
        "half": [{**batch, "outputs": batch["outputs"].half()}] * 12,
        "scalar": [{**batch, "outputs": torch.tensor(1.0)}] * 12,
        "one_class": [{**batch, "outputs": torch.zeros(4, 1)}] * 12,
        "zero": [{**batch, "outputs": torch.zeros(4, 5)}] * 12,
    }
    for name, batches in kinds.items():
        for task in ("classification", "regression", "language_model", None):
            for loss in (1.0, float("nan"), 0.0):
                run = Recorder(
                    folder / f"{name}-{task}-{loss}", task=task, classes=5 if task == "classification" else None
                )
                for number, one in enumerate(batches):
                    run.log_batch("val" if number % 4 == 3 else "train", **one, loss=loss)
                    if number % 4 == 3:
                        run.log_metrics("val", loss=loss, accuracy=loss, rmse=loss)
                run.finish(error=None if batches else "Traceback: it raised at once")
                yield folder / f"{name}-{task}-{loss}"


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_odd_traces_do_not_raise(tmp_path):
    for folder in odd_runs(tmp_path):
        for detector in STATIC:
            try:
                found = faults(detector, folder)
            except Exception as error:
                raise AssertionError(f"{detector.__name__} on {folder.name}") from error
            if detector not in OF_CURVES:
                assert found == [], f"{detector.__name__} on {folder.name}"
