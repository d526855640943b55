"""DeepLocalize's rules on numbers worked out by hand, beside their limits."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bugbench.detectors.deepdiagnosis import Deepdiagnosis
from bugbench.detectors.deeplocalize import Deeplocalize
from bugbench.recorder import Recorder
from bugbench.trace import Trace
from made_tables import LAYERS, LEARNS, TWELVE, answers, made_trace
from torch import nn


@pytest.mark.parametrize(
    ("own", "family", "where", "text"),
    [
        ({"act": {"mean": lambda s: np.nan if s == 6 else 0.1 + s}}, "numerics", "act", "step 6, forward"),
        (
            {"act": {"mean": lambda s: 0.0 if s in (3, 4, 5, 6) else 0.1 + s}},
            "model",
            "act",
            "step 5, forward",
        ),  # 3 of 6
        ({"act": {"mean": lambda s: 0.0 if s in (3, 4) else 0.1 + s}}, None, None, ""),  # two of five are below half
        ({"act": {"mean": lambda s: 0.3 if 5 <= s < 10 else 0.1 + s}}, "model", "act", "step 9, forward"),
        ({"act": {"mean": lambda s: 0.3 if 4 <= s < 9 else 0.1 + s}}, None, None, ""),  # two windows, neither whole
        ({"last_weight": {"mean": 0.2}}, "training_loop", "last", "step 4, weights"),
        ({"first_gradient": {"mean": 0.2}}, "model", "first", "step 4, delta weights"),
        ({"losses": lambda s: 0.7 if 5 <= s < 10 else 1.0 + s}, "optimizer", None, "step 9, does not learn"),
        ({"losses": lambda s: np.nan if s == 2 else 1.0 + s}, "numerics", None, "step 2, does not learn"),
        # the earlier batch comes first, and in a batch the outputs
        (
            {"act": {"mean": lambda s: np.nan if s > 2 else 0.1 + s}, "last_weight": {"mean": np.inf}},
            "numerics",
            "last",
            "step 0",
        ),
        ({"act": {"mean": np.nan}, "last_weight": {"mean": np.inf}}, "numerics", "act", "step 0"),
    ],
)
def test_deeplocalize(own, family, where, text, tmp_path):
    own.setdefault("losses", lambda step: 1.0 + step)
    suspects = Deeplocalize().diagnose(made_trace(tmp_path / "t", acc=LEARNS, **own)).suspects
    assert [s.fault for s in suspects][:1] == ([family] if family else [])
    for suspect in suspects:
        assert suspect.layer == where
        assert text in suspect.evidence


STILL = {"mean": 0.2}
MOVING = {"mean": 0.2, "std": lambda step: 0.5 + 1e-6 * step}
NORMED = {"first": "Linear", "act": "BatchNorm1d", "last": "Linear"}
FLAT = {"first": "Linear", "act": "Flatten", "last": "Linear"}


@pytest.mark.parametrize("tensor", ["last_weight", "last_gradient"])
def test_a_tensor_whose_mean_alone_stands_still_is_not_unchanged(tensor, tmp_path):
    """As in double precision: the mean of a gradient is a rounding error in size, a weight's moves by less."""
    for name, own, alarm in (("still", STILL, True), ("moving", MOVING, False)):
        trace = made_trace(tmp_path / name, acc=TWELVE, losses=lambda step: 1.0 + step, **{tensor: own})
        assert bool(answers(Deeplocalize(), trace)) == alarm
        assert bool(answers(Deepdiagnosis(), trace)) == alarm


def test_a_norm_may_put_out_a_mean_of_zero(tmp_path):
    for name, layers, alarm in (("norm", NORMED, False), ("relu", LAYERS, True)):
        own = {"act": {"mean": 0.0, "std": lambda step: 1 + step}, "layers": layers, "acc": TWELVE[:4]}
        trace = made_trace(tmp_path / name, losses=lambda step: 1.0 + step, **own)
        trace.layers.loc[(trace.layers["layer"] == "act") & (trace.layers["step"] % 5 == 4), "mean"] = 1e-9
        assert bool(answers(Deeplocalize(), trace)) == alarm
        assert bool(answers(Deepdiagnosis(), trace)) == alarm


def test_a_layer_that_flattens_may_put_out_the_same(tmp_path):
    for name, layers, alarm in (("flat", FLAT, False), ("relu", LAYERS, True)):
        trace = made_trace(tmp_path / name, acc=TWELVE, act=STILL, layers=layers, losses=lambda step: 1.0 + step)
        assert bool(answers(Deeplocalize(), trace)) == alarm
        assert bool(answers(Deepdiagnosis(), trace)) == alarm


def test_deeplocalize_asks_gradients_of_dense_layers_alone_and_layer_by_layer(tmp_path):
    gone = {"first_gradient": {"mean": np.nan}, "losses": lambda step: 1.0 + step}
    dense = made_trace(tmp_path / "dense", acc=LEARNS, **gone)
    assert answers(Deeplocalize(), dense)[0] == "numerics"
    other = made_trace(tmp_path / "conv", acc=LEARNS, **gone)
    other.meta["layers"] = LAYERS | {"first": "Conv2d"}
    assert answers(Deeplocalize(), other) == []
    # 0 in the first layer comes before NaN in the second, of one batch
    trace = made_trace(tmp_path / "order", acc=LEARNS, first={"mean": 0.0}, act={"mean": np.nan})
    (suspect, *_) = Deeplocalize().diagnose(trace).suspects
    assert (suspect.layer, suspect.evidence) == ("first", "step 0, forward: the mean of first is 0")


def test_deeplocalize_flags_five_batches_that_are_equally_right(tmp_path):
    run = Recorder(tmp_path, task="classification", classes=2)
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    run.watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    for step in range(6):
        inputs, targets = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
        outputs = F.one_hot(targets, 2).float() + 0.01 * model(inputs)
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=1.0 + step)
    run.finish()
    (first, *_) = Deeplocalize().diagnose(Trace(tmp_path)).suspects
    assert first.fault == "optimizer"
    assert "step 5, does not learn: the mean of accuracy" in first.evidence  # of steps 0, 1, 2, 3 and 5
