"""A run in numbers: DeepFD's monitor, on curves and models whose numbers are known, and eight statistics of each."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from breakable_program import Program
from bugbench.detector import Trace
from bugbench.recorder import Recorder
from bugbench.run_statistics import CURVES, STATISTICS, monitor, monitor_statistics, run_statistics, table
from scipy import stats
from torch import nn

NAN, INF = float("nan"), float("inf")
CONSTANT = ("cons_mean_weight", "cons_std_weight")


def run_of(
    folder: Path,
    loss: Sequence[float],
    acc: Sequence[float] | None = None,
    val_loss: Sequence[float] | None = None,
    val_acc: Sequence[float] | None = None,
) -> Trace:
    """Record a run with one batch in each epoch, no model, and what it reports at the end of each."""
    run = Recorder(folder, access=("curves", "tensors"))
    for epoch, number in enumerate(loss):
        one = torch.ones(1)
        run.log_batch("train", inputs=one, targets=one, outputs=one, loss=number)
        for split, curves in (("train", {"accuracy": acc}), ("val", {"loss": val_loss, "accuracy": val_acc})):
            found = {name: curve[epoch] for name, curve in curves.items() if curve is not None}
            run.log_metrics(split, **found, r2=0.9)  # which is no accuracy
    run.finish()
    return Trace(folder)


def columns(trace: Trace, *names: str) -> dict[str, list[float]]:
    return {name: monitor(trace)[name].tolist() for name in names}


def test_eight_statistics_of_a_series_agree_with_scipy(tmp_path):
    found = run_statistics(run_of(tmp_path / "t", [3.0, 1.0, 2.0, NAN, 1.5]))
    seen = np.array([3.0, 1.0, 2.0, 0.0, 1.5])  # as in cal_stats.py
    expected = {
        **{"mean": 1.5, "median": 1.5, "max": 3.0, "min": 0.0, "std": seen.std(ddof=1), "var": seen.var(ddof=1)},
        **{"sem": stats.sem(seen), "skew": stats.skew(seen, bias=False), "last": 1.5},
    }
    assert {name: found[f"loss_{name}"] for name in expected} == pytest.approx(expected)
    assert found["batch_loss_mean"] == 1.875, "without what is no number"
    assert (found["val_acc_mean"], found["val_acc_last"]) == (None, None), "nothing was reported"
    json.dumps(found, allow_nan=False)


def test_what_is_infinite_has_no_mean(tmp_path):
    found = monitor_statistics(run_of(tmp_path / "t", [3.0, INF]))
    assert [found[f"loss_{name}"] for name in ("mean", "max", "last", "min")] == [None, None, None, 3.0]


def test_the_features_are_those_of_deepfd(tmp_path):
    found = monitor_statistics(Program().run(tmp_path / "t"))
    assert len(found) == 21 * len(STATISTICS) + len(CURVES), "of the monitor's 22 numbers one is never set"
    more = run_statistics(Program().run(tmp_path / "u"))
    assert {name.rpartition("_")[0] for name in more.keys() - found} == {
        *("batch_loss", "lr", "gradient", "gradient_ratio", "gradient_zeros", "weight"),
        *("dead_relu", "activation_mean", "activation_std"),
    }


def test_rules_for_curves_count_after_a_third_of_the_epochs(tmp_path):
    """Three tenths of five epochs are over after the second."""
    trace = run_of(
        tmp_path / "t",
        loss=[1.0, 1.2, 0.9, 0.7, 0.6],
        acc=[0.50, 0.55, 0.54, 0.58, 0.70],
        val_loss=[1.0, 1.1, 1.2, 1.4, 1.3],
        val_acc=[0.20, 0.50, 0.43, 0.47, 0.65],
    )
    assert columns(trace, *CURVES)["acc"] == [0.50, 0.55, 0.54, 0.58, 0.70]
    expected = {
        "increase_loss": [0, 1, 1, 1, 1],
        "decrease_acc": [0, 0, 1, 1, 1],
        "test_not_well": [0, 0, 1, 2, 2],  # gaps of 0.30 (too early), 0.05, 0.11, 0.11, 0.05
        "test_turn_bad": [0, 0, 1, 1, 0],  # of the last epoch alone
        "not_converge": [0, 1, 1, 1, 1],  # stays, though both end above 0.6
        "sc_accuracy": [0, 0, 0, 0, 0],  # the second epoch gains 0.05
        "unstable_loss": [0, 0, 0, 0, 0],  # 0.55 to 0.54 is no swing
        **{"nan_loss": [0] * 5, "nan_acc": [0] * 5},
    }
    assert columns(trace, *expected) == expected


@pytest.mark.parametrize(("train", "val"), [(0.95, 0.87), (0.85, 0.73)])
def test_a_gap_counts_for_less_where_training_is_better(train, val, tmp_path):
    trace = run_of(tmp_path / "t", [1.0], [train], [1.0], [val])
    assert columns(trace, "test_not_well", "not_converge") == {"test_not_well": [1], "not_converge": [0]}
    smaller = run_of(tmp_path / "u", [1.0], [train], [1.0], [val + 0.03])
    assert columns(smaller, "test_not_well") == {"test_not_well": [0]}


def test_accuracy_that_swings(tmp_path):
    """The fourth epoch makes the third a dip: one fall in four epochs is more than a fifth of them."""
    acc = [0.7, 0.8, 0.7, 0.8, 0.7, 0.8]
    assert columns(run_of(tmp_path / "t", [1.0] * 6, acc), "unstable_loss") == {"unstable_loss": [0, 0, 0, 1, 1, 1]}


def test_accuracy_that_hardly_gains(tmp_path):
    """Slow is a gain of less than 0.01 in each epoch, in training and in validation; one of both is enough for low."""
    slow, fast = [0.70, 0.709, 0.718, 0.727], [0.50, 0.52, 0.52, 0.52]
    both = columns(run_of(tmp_path / "t", [1.0] * 4, slow, None, slow), "sc_accuracy", "not_converge")
    assert both == {"sc_accuracy": [0, 1, 1, 1], "not_converge": [0, 0, 0, 0]}
    one = columns(run_of(tmp_path / "u", [1.0] * 4, slow, None, fast), "sc_accuracy", "not_converge")
    assert one == {"sc_accuracy": [0, 0, 0, 0], "not_converge": [0, 1, 1, 1]}
    none = columns(run_of(tmp_path / "v", [1.0] * 4, slow), "sc_accuracy", "not_converge")
    assert none == {"sc_accuracy": [0, 0, 0, 0], "not_converge": [0, 0, 0, 0]}, "no accuracy in validation"


def test_what_is_no_number_counts_and_stops_the_other_rules(tmp_path):
    bad = columns(run_of(tmp_path / "t", [1.0, 2.0, NAN, 3.0, 4.0]), "nan_loss", "increase_loss")
    assert bad == {"nan_loss": [0, 0, 1, 2, 3], "increase_loss": [0, 1, 1, 1, 1]}
    large = columns(run_of(tmp_path / "u", [1.0, 2.0, 3.0], None, [1.0, 2e5, 1.0]), "nan_loss", "increase_loss")
    assert large == {"nan_loss": [0, 1, 1], "increase_loss": [0, 0, 1]}, "a large loss counts where it is the last"
    acc = columns(run_of(tmp_path / "v", [1.0] * 3, [0.9, NAN, 0.8]), "nan_loss", "nan_acc", "decrease_acc", "acc")
    assert acc == {"nan_loss": [0, 0, 0], "nan_acc": [0, 1, 2], "decrease_acc": [0, 0, 0], "acc": [0.9, 0.0, 0.8]}


def test_a_run_that_ends_before_its_first_evaluation_is_one_epoch(tmp_path):
    run = Recorder(tmp_path / "t", access=("curves", "tensors"))
    for loss in (1.0, 3.0):
        run.log_batch("train", inputs=torch.ones(1), targets=torch.ones(1), outputs=torch.ones(1), loss=loss)
    run.finish(error="KeyError")
    assert monitor(Trace(tmp_path / "t"))["loss"].tolist() == [2.0]


def linear_run(folder: Path, weight: float = 0.007, epochs: int = 3) -> Trace:
    """Train y = w2 W1 x by its value: x is 1 in 2 of 16 places and else 0, W1 is a constant, w2 is 1.

    The gradient of W1 has 1 in 2 of 16 columns and else 0: norm sqrt(32). That of w2 is W1 x, twice the constant, in 16
    places: norm 8 times the constant.
    """
    first, last = nn.Linear(16, 16, bias=False), nn.Linear(16, 1, bias=False)
    nn.init.constant_(first.weight, weight)
    nn.init.ones_(last.weight)
    model = nn.Sequential(first, last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    run = Recorder(folder, access=("curves", "tensors"))
    run.watch(model, optimizer)
    x = torch.zeros(1, 16)
    x[0, :2] = 1
    for _ in range(epochs):
        optimizer.zero_grad()
        outputs = model(x)
        outputs.sum().backward()
        optimizer.step()
        run.log_batch("train", inputs=x, targets=torch.zeros(1), outputs=outputs, loss=1.0)
        run.log_metrics("val", loss=1.0)
    run.finish()
    return Trace(folder)


def test_gradients_are_compared_by_their_norms_and_zeros_by_their_number(tmp_path):
    """The ratio of norms is 5.66 / 0.056 = 101, of root mean squares 25; zeros are 224 of 272, or 0.875 and none."""
    names = ("explode_gradient", "vanish_gradient", "died_relu", "nan_gradient", "large_weight")
    found = columns(linear_run(tmp_path / "t"), *names)
    assert found == dict(zip(names, ([1, 2, 3], [0] * 3, [1, 2, 3], [0] * 3, [0] * 3), strict=True))
    fewer = columns(linear_run(tmp_path / "u", weight=0.014), *names)
    assert fewer["explode_gradient"] == [0, 0, 0], "a ratio of 50"


def test_large_weights_are_counted_by_epoch_and_those_that_are_no_number_stop_that(tmp_path):
    names = ("large_weight", "nan_weight", "nan_gradient", "explode_gradient")
    assert columns(linear_run(tmp_path / "t", weight=-6.0), *names)["large_weight"] == [1, 2, 3]
    found = columns(linear_run(tmp_path / "u", weight=NAN), *names)
    assert found == dict(zip(names, ([0] * 3, [1] * 3, [1] * 3, [0] * 3), strict=True))


def test_vanished_gradients_show(tmp_path):
    found = columns(Program(inputs=lambda x: x * 1e-6).run(tmp_path / "t"), "vanish_gradient", "explode_gradient")
    assert found == {"vanish_gradient": [1, 2, 3], "explode_gradient": [0, 0, 0]}
    assert columns(Program().run(tmp_path / "u"), "vanish_gradient") == {"vanish_gradient": [0, 0, 0]}


def test_weights_that_stay_are_counted_where_they_were_looked_at_again(tmp_path):
    """Four tensors; epochs end at steps 3, 7, 11, 15 and 19, of which 3 and 7 are looked at, then 10."""
    still = Program(rate=lambda epoch, step: 0.0, epochs=5).run(tmp_path / "t")
    counts = [0, 4, 8, 8, 8]
    assert columns(still, *CONSTANT) == {"cons_mean_weight": counts, "cons_std_weight": counts}
    never = Program(order="zero_grad forward backward", epochs=5).run(tmp_path / "u")
    counts = [0, 4, 8, 12, 16]
    assert columns(never, *CONSTANT) == {"cons_mean_weight": counts, "cons_std_weight": counts}
    healthy = Program().run(tmp_path / "v")  # what softmax sends back adds up to 0: the last layer's mean may stay
    assert columns(healthy, "cons_std_weight") == {"cons_std_weight": [0, 0, 0]}


def test_series_over_batches(tmp_path):
    trace = Program(reported=lambda mean: 7.0).run(tmp_path / "t")
    found = run_statistics(trace)
    assert (found["loss_mean"], found["acc_max"], found["lr_mean"]) == (7.0, 0.5, pytest.approx(0.1))
    assert [found[f"val_acc_{name}"] for name in ("min", "mean", "max")] == pytest.approx([0.5, 0.6, 0.7])
    assert found["batch_loss_mean"] == pytest.approx(trace.train_steps()["loss"].mean())
    weights = trace.layers[trace.layers["kind"] == "weight"]
    assert found["weight_max"] == pytest.approx(weights[["min", "max"]].abs().max().max())
    relu = trace.layers[(trace.layers["kind"] == "activation") & (trace.layers["layer"] == "1")]
    assert found["dead_relu_mean"] == pytest.approx(relu["zero_share"].mean())


def test_table_has_nan_for_what_is_missing():
    rows = table([{"a": 1.0, "b": None}, {"b": 2.0}], ["a", "b"])
    assert np.array_equal(rows, [[1, np.nan], [np.nan, 2]], equal_nan=True)
    assert table([], ["a", "b"]).shape == (0, 2)
