"""AutoTrainer's rules on numbers worked out by hand, beside their limits."""

import numpy as np
import pytest
from bugbench.detectors.autotrainer import Autotrainer
from made_tables import LEARNS, STUCK, answers, made_trace

SMALL = {"mean": 0.0, "std": 9e-5}  # its sizes are not to be solved for here, so norms are root mean squares
TINY = {"mean": 0.0, "std": 9e-8}


@pytest.mark.parametrize(
    ("own", "first"),
    [
        ({}, "lr_too_low"),  # stuck, and no gradient is to blame
        ({"first_gradient": SMALL, "last_gradient": {"mean": 0.0, "std": 0.1}}, "saturating_activation"),  # 9e-4
        ({"first_gradient": SMALL, "last_gradient": {"mean": 0.0, "std": 0.08}}, "lr_too_low"),  # a ratio of 1.1e-3
        ({"first_gradient": {"mean": 0.0, "std": 2e-4}, "last_gradient": {"mean": 0.0, "std": 1.0}}, "lr_too_low"),
        (
            {"first_gradient": {"mean": 0.0, "std": 7.1}, "last_gradient": {"mean": 0.0, "std": 0.1}},
            "lr_too_high",
        ),  # 71
        ({"first_gradient": {"mean": 0.0, "std": 6.9}, "last_gradient": {"mean": 0.0, "std": 0.1}}, "lr_too_low"),  # 69
        ({"first_gradient": {"zero_share": 0.9}, "last_gradient": {"zero_share": 0.5}}, "dead_relu"),  # 0.7 of all
        ({"first_gradient": {"zero_share": 0.9}, "last_gradient": {"zero_share": 0.4}}, "lr_too_low"),
        ({"act": {"mean": 10.0, "min": 0.0, "max": 30.0}}, "missing_normalization"),
        ({"act": {"mean": 9.9, "min": 0.0, "max": 30.0, "std": 9.0}}, "lr_too_low"),
        ({"first": {"mean": 6.0, "std": 11.0}}, "missing_normalization"),  # both signs: 10.05, were they normal
        ({"first": {"mean": 6.0, "std": 10.9}}, "lr_too_low"),  # 9.98
        ({"last": {"mean": 99.0, "min": 0.0}}, "lr_too_low"),  # the last layer is left alone
    ],
)
def test_autotrainer_on_a_run_that_does_not_converge(own, first, tmp_path):
    assert answers(Autotrainer(), made_trace(tmp_path / "t", acc=STUCK, **own))[0] == first


def test_autotrainer_leaves_the_gradients_of_a_run_that_converges_alone(tmp_path):
    own = {"first_gradient": {"zero_share": 1.0}, "last_gradient": {"zero_share": 1.0}}
    assert answers(Autotrainer(), made_trace(tmp_path / "t", acc=LEARNS, **own)) == []


@pytest.mark.parametrize(("fall", "unstable"), [(0.031, True), (0.029, False)])
def test_autotrainer_counts_falls_of_training_accuracy(fall, unstable, tmp_path):
    """Of epochs 0, 3, 6 and 9, the one half through ten is 6: two peaks and three dips inside of seven values."""
    acc = [0.8 - fall * (epoch % 2) for epoch in range(10)]
    assert answers(Autotrainer(), made_trace(tmp_path / "t", acc=acc))[:1] == ["lr_too_high"] * unstable


def test_autotrainer_counts_no_falls_of_another_accuracy(tmp_path):
    falls = [0.8 - 0.1 * (epoch % 2) for epoch in range(10)]
    assert answers(Autotrainer(), made_trace(tmp_path / "val", acc=[None] * 10, val_acc=falls)) == []
    assert answers(Autotrainer(), made_trace(tmp_path / "train", acc=falls, val_acc=LEARNS + [0.9] * 2)) != []


def test_autotrainer_on_losses(tmp_path):
    nan = made_trace(tmp_path / "nan", acc=LEARNS, loss=[1.0, *[np.nan] * 7], first_weight={"nonfinite": 1.0})
    assert answers(Autotrainer(), nan)[0] == "lr_too_high"
    finite_weights = made_trace(tmp_path / "finite", acc=LEARNS, loss=[1.0, *[np.nan] * 7])
    assert answers(Autotrainer(), finite_weights) == []
    negative = made_trace(tmp_path / "negative", acc=LEARNS, loss=[-1.0 - epoch for epoch in range(8)])
    assert answers(Autotrainer(), negative)[0] == "nll_on_logits"


def test_autotrainer_says_nothing_of_curves_before_30_percent_or_without_accuracy(tmp_path):
    assert answers(Autotrainer(), made_trace(tmp_path / "slow", acc=[0.3] * 3 + [0.9] * 9)) == []
    assert answers(Autotrainer(), made_trace(tmp_path / "none", acc=[None] * 8)) == []
