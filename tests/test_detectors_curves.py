"""Detectors of curves: a loss drawn by hand for every fault that shows in one, and for every harmless oddity."""

import numpy as np
import pytest
import torch
from bugbench.recorder import Recorder
from tiny_training import OF_CURVES, faults
from torch import nn

pytestmark = pytest.mark.usefixtures("fixed_seed")


def curves(folder, losses, val=None, *, epochs=10, task="classification", classes=10, lr=0.1, first=False, **reported):
    """Record curves as they are: ``losses`` per batch, ``val`` per epoch, metrics per epoch as ``train_accuracy``, …"""
    run = Recorder(folder, task=task, classes=classes)
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    run.watch(nn.ParameterList([weight]), optimizer)
    rates = np.broadcast_to(lr, len(losses))
    batch = {"inputs": torch.zeros(2, 2), "targets": torch.zeros(2), "outputs": torch.zeros(2)}

    def evaluation(epoch, loss):
        run.log_batch("val", **batch, loss=float(loss))
        run.log_metrics("val", **{n[4:]: float(v[epoch]) for n, v in reported.items() if n.startswith("val_")})

    if first:
        evaluation(0, 2.4)
    for epoch, part in enumerate(np.array_split(np.arange(len(losses)), epochs)):
        for step in part:
            optimizer.param_groups[0]["lr"] = float(rates[step])
            run.log_batch("train", **batch, loss=float(losses[step]))
        run.log_metrics("train", **{n[6:]: float(v[epoch]) for n, v in reported.items() if n.startswith("train_")})
        if val is not None:
            evaluation(epoch, val[epoch])
    run.finish()
    return folder


STEPS = np.arange(200)
EPOCHS = np.arange(10)
NOISE = np.random.default_rng(0).standard_normal(200)
CHANCE = np.log(10)


def falling(start=2.4, end=0.1, pace=30.0, noise=0.1):
    """A healthy loss: exponential, with noise in proportion."""
    return (end + (start - end) * np.exp(-STEPS / pace)) * np.exp(noise * NOISE)


def at_epochs(losses):
    return losses.reshape(10, -1).mean(axis=1)


TEETH = 0.3 + 2.8 * (1 - STEPS % 20 % 5 / 4)  # four classes, five batches each
MIXED = np.random.default_rng(1).permuted(np.linspace(0.4, 1.2, 20)[None]).repeat(10, axis=0).ravel()
SICK = {
    "nan_at_once": (["nan_inputs"], np.full(200, np.nan), {}),
    "nan_after_growth": (["lr_too_high"], np.where(STEPS < 30, 2.4 * 1.5 ** (STEPS + 3 * (STEPS % 3)), np.nan), {}),
    "nan_out_of_nothing": (["nan_inputs", "log_of_zero"], np.where(STEPS < 90, falling(), np.nan), {}),
    "minus": (["flipped_sign"], -falling(), {}),
    "bottomless": (["nll_on_logits"], -0.05 * STEPS**1.5 - 0.1, {}),
    "rises_steadily": (["flipped_sign", "lr_too_high"], 2.4 * np.exp(STEPS / 100) * np.exp(0.05 * NOISE), {}),
    "rises_and_stays": (["lr_too_high"], np.minimum(2.0 + STEPS, 9) * np.exp(0.2 * NOISE), {}),
    "falls_then_rises": (["missing_zero_grad"], np.where(STEPS < 40, falling(), 1.0 * np.exp((STEPS - 40) / 40)), {}),
    "jumps": (["lr_too_high"], falling() + 50 * (STEPS == 2) + 30 * (STEPS == 3), {}),
    "chance": (
        ["misaligned_labels"],
        CHANCE * (1 + 0.01 * NOISE),
        {"val": np.full(10, CHANCE) * (1 + 1e-4 * NOISE[:10])},
    ),
    "unmoved": (["zero_grad_after_backward", "missing_step"], 2.35 + 0.1 * NOISE, {"val": np.full(10, 2.3581)}),
    "slow": (["lr_too_low"], 2.5 - 0.0005 * STEPS + 0.1 * NOISE, {"val": 2.51 - 0.01 * EPOCHS}),
    "slow_regression": (["lr_too_low"], 900 - 0.3 * STEPS + NOISE, {"val": 905 - 6.0 * EPOCHS, "task": "regression"}),
    "slow_cosine": (
        ["lr_too_low"],
        2.6 - 0.1 * np.sin(np.pi * STEPS / 400) + 0.02 * NOISE,
        {"val": 2.6 - 0.1 * np.sin(np.pi * (EPOCHS + 1) / 20), "lr": np.cos(np.pi * STEPS / 400)},
    ),
    "saw_tooth": (["unshuffled_loader"], TEETH * np.exp(0.1 * NOISE), {"val": np.full(10, 2.3) + 0.1 * NOISE[:10]}),
    "floor": (
        ["redundant_softmax"],
        falling(2.3, 1.5, noise=0.005),
        {"val_accuracy": np.linspace(0.4, 0.97, 10), "val": at_epochs(falling(2.2, 1.5, noise=0))},
    ),
    "memorised": (["misaligned_labels"], 2.31 - 2.2 * (STEPS / 200) ** 2 + 0.05 * NOISE, {"val": 2.31 + 0.1 * EPOCHS}),
    "same_batch": (["same_batch"], falling(2.4, 0.001, 8, noise=0), {"val": 2.4 + 0.1 * EPOCHS}),
    "raw_validation": (["train_only_normalization"], falling(2.4, 0.1, 10), {"val": 4.0 + 0.1 * EPOCHS}),
    "raw_regression": (
        ["train_only_normalization"],
        falling(1.0, 0.3),
        {"val": np.full(10, 40.0) + EPOCHS, "task": "regression"},
    ),
    "below_chance": (
        ["label_off_by_one"],
        falling(2.4, 0.1, 10),
        {"val": 4.0 + 0.3 * EPOCHS, "val_accuracy": np.full(10, 0.01)},
    ),
    "ahead": (
        ["excess_dropout"],
        falling(2.4, 1.5),
        {"val": at_epochs(falling(2, 0.3)), "train_accuracy": np.full(10, 0.4), "val_accuracy": np.full(10, 0.95)},
    ),
    "copies": (
        ["unshifted_lm_labels"],
        falling(4, 0.01),
        {"val": at_epochs(falling(4, 0.01)), "task": "language_model", "classes": 60},
    ),
    "sees_the_future": (
        ["missing_causal_mask"],
        falling(4, 0.2),
        {"val": at_epochs(falling(4, 0.2)), "task": "language_model", "classes": 60},
    ),
    "both_rise": (
        ["miscalibrated"],
        falling(2.3, 0.01, 25),
        {"val": 0.5 + 0.12 * EPOCHS, "val_accuracy": 0.75 + 0.01 * EPOCHS},
    ),
    "sums_over_the_batch": (  # of 32, and as high again at the end: what 95 % right should cost is not a second term
        ["softmax_dim"],
        falling(np.log(32), 2.1, noise=0.02),
        {"val": at_epochs(falling(3.4, 2.9, noise=0)), "val_accuracy": np.linspace(0.5, 0.95, 10)},
    ),
    "at_chance_from_above": (
        ["misaligned_labels"],
        falling(1.2 * CHANCE, CHANCE, 10, noise=0.005),
        {"val": CHANCE * (1 + 1e-4 * NOISE[:10])},
    ),
    "unmoved_on_chance_after_jumps": (["lr_too_high"], np.append(CHANCE, 6 + NOISE[1:]), {"val": 6 + NOISE[:10]}),
    "ends_early": (["lr_decays_early"], falling(2.4, 1.0, 5), {"lr": np.maximum(1 - STEPS / 20, 0) + 1e-9}),
    "no_better_than_the_mean": (
        ["misaligned_labels"],
        1 + 0.1 * NOISE,
        {"task": "regression", "val": 1 + 0.01 * NOISE[:10], "val_r2": -0.05 + 0.02 * NOISE[:10]},
    ),
}
WELL = {
    "falls": (falling(), {"val": at_epochs(falling(2.2, 0.2))}),
    "falls_slower": (falling(pace=80), {"val": at_epochs(falling(pace=70))}),
    "evaluated_first": (falling(), {"val": at_epochs(falling(2.2, 0.2)), "first": True}),
    "warm_up": (np.where(STEPS < 30, 2.4 - 0.001 * STEPS, falling(pace=25)), {"lr": np.minimum(STEPS / 60, 1) + 1e-6}),
    "summed": (64 * falling(), {"val": 64 * at_epochs(falling())}),
    "dropout": (
        falling(end=0.5),
        {"val": at_epochs(falling(2, 0.2)), "train_accuracy": np.full(10, 0.85), "val_accuracy": np.full(10, 0.97)},
    ),
    "small_and_noisy": (falling(0.7, 0.35, noise=0.4), {"val": 0.55 + 0.02 * EPOCHS, "classes": 2}),
    "over_fits": (falling(2.4, 0.02), {"val": 1.0 + 0.03 * EPOCHS}),
    "converged": (0.2 * np.exp(0.3 * NOISE), {"val": 0.25 + 0.01 * NOISE[:10]}),
    "batch_norm_warms_up": (falling(pace=15), {"val": np.append(6.0, at_epochs(falling())[1:])}),
    "easy": (falling(2.4, 0.005, 8), {"val": at_epochs(falling(2, 0.004, 8)), "val_accuracy": np.full(10, 1.0)}),
    "many_classes": (falling(6.9, 4.5, 60), {"val": at_epochs(falling(6.5, 4.6, 60)), "classes": 1000}),
    "fixed_order_of_mixed_data": (MIXED * np.exp(0.05 * NOISE), {"val": 0.8 + 0.01 * NOISE[:10]}),
    "regression": (
        falling(28000, 3000, noise=0.2),
        {"val": at_epochs(falling(25000, 3500)), "task": "regression", "val_r2": np.linspace(0, 0.5, 10)},
    ),
    "hard_regression": (
        falling(1.0, 0.8, noise=0.2),
        {"val": at_epochs(falling(0.95, 0.85)), "task": "regression", "val_r2": np.full(10, 0.1)},
    ),
    "text": (falling(4.5, 1.4), {"val": at_epochs(falling(4.2, 1.5)), "task": "language_model", "classes": 96}),
    "step_decay": (falling(2.4, 0.3), {"lr": np.select([STEPS < 100, STEPS < 150], [0.1, 0.01], 0.001)}),
    "cosine": (
        falling(2.4, 0.3),
        {"lr": 0.05 * (1 + np.cos(np.pi * STEPS / 200)), "val": at_epochs(falling(2.2, 0.35))},
    ),
    "smoothed": (
        falling(2.4, 0.55),
        {"val_accuracy": np.linspace(0.4, 0.97, 10), "val": at_epochs(falling(2.2, 0.5))},
    ),
    "unsure": (
        falling(2.4, 1.7, noise=0.01),
        {"val": at_epochs(falling(2.3, 1.71, noise=0.0)), "val_accuracy": np.linspace(0.2, 0.75, 10)},
    ),
    "hard_and_binary": (falling(0.75, 0.42, noise=0.15), {"train_accuracy": np.linspace(0.6, 0.85, 10), "classes": 2}),
    "two_terms": (
        falling(4.2, 2.5, 80, noise=0.03),
        {"val": at_epochs(falling(3.6, 2.4, 80)), "val_accuracy": np.linspace(0.3, 0.55, 10)},
    ),
    "weighted": (falling(1.47, 0.9, 60, noise=0.05), {"val": at_epochs(falling(1.4, 0.9, 60)), "classes": 2}),
    "slowly": (falling(1.2 * CHANCE, 1.08 * CHANCE, 60, noise=0.01), {"val": at_epochs(falling(2.7, 2.5, 60))}),
    "constant_term": (
        1.6 + falling(CHANCE, 0.2, noise=0.02),
        {"val": 1.6 + at_epochs(falling(2.2, 0.25, noise=0)), "val_accuracy": np.linspace(0.5, 0.93, 10), "classes": 5},
    ),
    "sure_of_what_is_right": (  # the loss rises, but not above what 80 % right are worth
        falling(2.3, 0.01, 25),
        {"val": 0.5 + 0.03 * EPOCHS, "val_accuracy": 0.75 + 0.01 * EPOCHS},
    ),
    "cosine_distance": (falling(0.0, -0.9, noise=0.01), {}),
}


@pytest.mark.parametrize("name", SICK)
def test_curves_that_say_something(tmp_path, name):
    expected, losses, more = SICK[name]
    folder = curves(tmp_path, losses, **more)
    answers = [found for detector in OF_CURVES if (found := faults(detector, folder))]
    assert expected in [found[: len(expected)] for found in answers]


@pytest.mark.parametrize("name", WELL)
def test_curves_that_say_nothing(tmp_path, name):
    losses, more = WELL[name]
    folder = curves(tmp_path, losses, **more)
    assert {d.__name__: faults(d, folder) for d in OF_CURVES} == {d.__name__: [] for d in OF_CURVES}


@pytest.mark.parametrize("first", ["val", "foreign"])
def test_only_the_first_evaluation_split_is_read(tmp_path, first):
    """A healthy model is wrong on foreign data, and five guesses are right more often than one."""
    run = Recorder(tmp_path, task="classification", classes=10)
    batch = {"inputs": torch.zeros(2, 2), "targets": torch.zeros(2), "outputs": torch.zeros(2)}
    known = {"loss": 0.3, "top5_accuracy": 1.0, "accuracy": 0.9}
    foreign = {"loss": 7.0, "top5_accuracy": 0.6, "accuracy": 0.05}
    for epoch in range(10):
        for loss in falling()[20 * epoch : 20 * epoch + 20]:
            run.log_batch("train", **batch, loss=float(loss))
        run.log_metrics("train", accuracy=0.6, top5_accuracy=0.5)
        for split, values in sorted({"val": known, "foreign": foreign}.items(), reverse=first == "val"):
            run.log_batch(split, **batch, loss=values["loss"])
            run.log_metrics(split, **{n: v * (1 + 1e-3 * NOISE[epoch]) for n, v in values.items()})
    run.finish()
    found = [fault for detector in OF_CURVES[1:3] for fault in faults(detector, tmp_path)]
    assert (found == []) == (first == "val")
