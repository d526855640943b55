"""What adapters hand to tools of a program's loss, of gradients after the backward pass, and of several models."""

import math
from types import SimpleNamespace

import pytest
import torch
from bugbench.detector import NotApplicable
from bugbench.third_party import loss_of

LOSS = "loss = loss_function(outputs, targets)\n            loss.backward"
SEVERAL = (
    ("cross_entropy(outputs, targets)", "cross_entropy(outputs, targets, reduction='none')"),
    ("loss = loss_function(outputs, targets)", "loss = loss_function(outputs, targets).mean()"),
    ("loss = loss_function(outputs, v)", "loss = loss_function(outputs, v).mean()"),
)
PENALTY = (
    (LOSS, "loss = loss_function(outputs, targets) + model.head.weight.square().sum()\n            loss.backward"),
)
ALTERED = ((LOSS, "loss = loss_function(outputs, (targets + 1) % 10)\n            loss.backward"),)
FIRST = "    run.watch(model, optimizer)\n"
BEFORE = """    run.watch(model, optimizer)
    for _ in range(30):
        optimizer.zero_grad()
        outputs = model(x[:64])
        loss = loss_function(outputs, y[:64])
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=x[:64], targets=y[:64], outputs=outputs, loss=loss)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    run.watch(model, optimizer)
"""
REPLACED = (FIRST, BEFORE)
TWO = (
    ("        optimizer.step()", "        optimizer.step()\n            other(inputs[:, :32])"),
    (FIRST, f"{FIRST}    other = nn.Sequential(nn.Linear(32, 8), nn.ReLU())\n    run.watch(other)\n"),
)


def evidence(found):
    return " | ".join(f"{s.fault}: {s.evidence}" for s in found)


# -- the loss ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """Return a function that asks for a program's loss, of outputs and targets, with what is logged."""

    def ask_for(text, outputs, targets, *logged):
        (tmp_path / "program.py").write_text(f"import torch\nimport torch.nn.functional as F\n{text}")
        return loss_of(SimpleNamespace(folder=tmp_path), outputs, targets, *logged)

    return ask_for


MEAN = "def loss_function(o, t):\n    return F.mse_loss(o, t)\n"
NONE = MEAN.replace("t)\n", "t, reduction='none')\n")
ROOT = MEAN.replace("F.mse_loss(o, t)", "(o - t).sum().sqrt()")


@pytest.mark.parametrize(
    ("text", "logged", "known"),
    [
        *((MEAN, torch.tensor(4.0), True), (MEAN, 4.00002, True), (MEAN, 4.001, False), (MEAN, 0.0, False)),
        *((MEAN, torch.full((2,), 4.0), False), (NONE, 4.0, False), (ROOT, math.nan, True), (MEAN, math.nan, False)),
        *(("", 4.0, False), ("loss_function = 3\n", 4.0, False), ("def loss_function(o):\n    pass\n", 4.0, False)),
    ],
)
def test_a_loss_is_known_by_what_the_program_logged(text, logged, known, own):
    outputs, targets = torch.zeros(3, requires_grad=True), torch.full((3,), 2.0)
    assert (own(text, outputs, targets, logged) is not None) == known


def test_outputs_of_autocast_may_be_taken_in_single_precision(own):
    outputs, targets = torch.linspace(0, 1, 7).bfloat16(), torch.full((7,), 0.3)
    for logged in (((outputs.float() - targets) ** 2).mean(), ((outputs - targets.bfloat16()) ** 2).mean()):
        text = MEAN.replace("F.mse_loss(o, t)", "F.mse_loss(o, t.to(o.dtype))")
        assert own(text, outputs, targets, logged) is not None
    assert own(MEAN, outputs, targets, logged * 1.01) is None


@pytest.mark.tools
@pytest.mark.parametrize("name", ["torchdiag", "torchtest2"])
@pytest.mark.parametrize("changes", [SEVERAL, PENALTY, ALTERED], ids=["several", "penalty", "altered"])
def test_a_tool_gets_no_loss_that_the_program_does_not_log(name, changes, ask, monkeypatch):
    import torchdiag
    import torchtest2

    def verify(*_):
        raise AssertionError("a loss that is not the program's")

    given, check = [], torchtest2.check_model
    monkeypatch.setattr(torchdiag, "verify_step", verify)
    monkeypatch.setattr(torchtest2, "check_model", lambda *a, **k: (given.append(k["loss_fn"]), check(*a, **k))[1])
    assert evidence(ask(name, *changes)) == ""
    assert given == ([None] * 5 if name == "torchtest2" else [])


# -- gradients and several models -------------------------------------------------------------------------------------


@pytest.mark.tools
@pytest.mark.parametrize("between", ["optimizer.zero_grad()", "nn.utils.clip_grad_norm_(model.parameters(), 1e-9)"])
@pytest.mark.parametrize("huge", [True, False])
def test_torchdiag_takes_gradients_after_backward(between, huge, ask):
    changes = [("loss.backward()\n", f"loss.backward()\n            {between}\n")]
    if huge:
        changes.append(("F.cross_entropy(outputs, targets)", "F.cross_entropy(outputs, targets) * 1e5"))
    said = evidence(ask("torchdiag", *changes))
    assert ("exploding" in said) == huge
    assert "disconnected" not in said
    assert "vanishing" not in said


@pytest.mark.tools
def test_torchdiag_keeps_no_gradient_of_an_earlier_backward(ask):
    cut = ("self.head(self.features(x))", "self.head(self.late(self.features(x)))")
    late = (
        "    def forward(self, x):",
        "    calls = 0\n\n    def late(self, h):\n        self.calls += 1\n"
        "        return h.detach() if self.calls > 3 else h\n\n    def forward(self, x):",
    )
    said = evidence(ask("torchdiag", cut, late))
    assert "features.0.weight: gradient is None" in said
    assert "head.weight" not in said


@pytest.mark.tools
def test_torchdiag_checks_each_model(ask):
    assert evidence(ask("torchdiag", REPLACED)) == ""


@pytest.mark.tools
def test_torchdiag_checks_a_model_that_another_replaces(ask):
    first = (FIRST, f"    nn.init.constant_(model.features[0].bias, -100)\n{BEFORE}")
    found = ask("torchdiag", first)
    named = [s.fault for s in found]
    assert named[named.index("dead_relu") :][:4] == ["dead_relu", "lr_too_high", "large_init", "preprocessing"]
    assert "features.1: 100% neurons dead" in evidence(found)


@pytest.mark.tools
def test_torchdiag_checks_a_model_without_a_loss(ask):
    assert "0.weight: gradient is None" in evidence(ask("torchdiag", *TWO))


@pytest.mark.tools
def test_torchmortem_steps_the_model_that_ran(ask, monkeypatch):
    from torchmortem import Autopsy

    made, step = {}, Autopsy.step
    monkeypatch.setattr(
        Autopsy, "step", lambda self, **k: (made.setdefault(id(self), []).append(k["loss"]), step(self, **k))
    )
    ask("torchmortem", REPLACED)
    assert [len(losses) for losses in made.values()] == [30, 19]


@pytest.mark.tools
def test_torchtest2_declines_several_models(ask):
    with pytest.raises(NotApplicable, match="one model"):
        ask("torchtest2", *TWO)


@pytest.mark.tools
@pytest.mark.parametrize(
    ("said", "severity", "faults"),
    [
        ("Model parameters are split across devices: cpu, cuda:0.", "ERROR", ["device_mismatch"]),
        ("Model is entirely on CPU, but a GPU is available.", "WARN", []),
    ],
)
def test_torch_audit_tells_a_split_model_from_a_slow_one(said, severity, faults, ask, monkeypatch):
    from torch_audit.core import Finding, Severity
    from torch_audit.validators.builtin.hardware import HardwareValidator

    found = [Finding("TA202", said, Severity[severity])]
    monkeypatch.setattr(HardwareValidator, "_check_devices", lambda self, model: iter(found))
    assert [s.fault for s in ask("torch_audit")] == faults
