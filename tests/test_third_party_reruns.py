"""Adapters that run a program again: what they hand to the tool, whose error it is, and what they take from its answer.

Healthy variants of the small program stay silent; what is broken is named as by the tool called directly.
"""

import ast
import importlib.util
import logging
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pandas as pd
import pytest
import torch
from bugbench.detector import NotApplicable, Trace
from bugbench.third_party import Following, follow, translate
from recorded_program import MODULES, detector, faults, module_of, shown

LOSS = "F.cross_entropy(outputs, targets)"
LEAF = (LOSS, f"{LOSS}.detach().requires_grad_()")
CLAMPED = (LOSS, f"{LOSS}.clamp(min=1.0)")
NAMED = (("outputs = model(inputs)", "outputs = model(x=inputs)"),)
PAIR = (("def forward(self, x):", "def forward(self, x, y):"), ("model(inputs)", "model(inputs, 1)"), ("(u)", "(u, 1)"))
MAPPING = (
    ("def forward(self, x):", "def forward(self, given):\n        x = given['x']"),
    ("outputs = model(inputs)", "outputs = model({'x': inputs})"),
    ("outputs = model(u)", "outputs = model({'x': u})"),
)
CLEARED = (
    ('            run.log_batch("train"', '            optimizer.zero_grad()\n            run.log_batch("train"'),
)
ZERO = (
    ("        self.head =", "        self.other = nn.Linear(64, 10)\n        self.head ="),
    ("self.head(self.features(x))", "self.head(self.features(x)) + 0 * self.other(x)"),
)
DECAY = (("lr=config.lr)", "lr=config.lr, weight_decay=1e-4)"),)
UNWATCHED = (("    run.watch(model, optimizer)\n", ""),)
UNLOGGED = (('            run.log_batch("train", inputs', '            run.log_batch("warm-up", inputs'),)
IN_PLACE = (
    ("nn.ReLU()", "nn.ReLU(inplace=True)"),
    ("        run.log_metrics", "        assert not run\n        run.log_metrics"),
)
RERUNNING = (
    *("torchtest2", "lightning_overfit_batches", "torchdiag", "torch_audit", "torchmortem", "anomaly_mode"),
    "weightwatcher",
)


# -- anywhere --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [0, 3])
def test_an_error_that_the_recorded_run_did_not_end_in_is_the_tools(seen, programs, tmp_path, monkeypatch):
    trace, probe = Trace(shown("torchdiag", programs.trace(epochs=1), tmp_path / "t")), None
    (trace.folder / "error.txt").write_text("Traceback …\n  File program.py\nFileNotFoundError: no file /a/b/c.csv\n")

    def run(error):
        nonlocal probe
        probe = Following(trace)
        probe.seen, probe.watched = seen, [(None, None)]
        monkeypatch.setattr(trace, "rerun", Mock(side_effect=error))
        follow(trace, probe)

    for error in (ValueError("no file /a/b/c.csv"), FileNotFoundError("another file"), RuntimeError("the tool's")):
        with pytest.raises(type(error), match=str(error)):
            run(error)
    if seen:
        run(FileNotFoundError("no file /another/place/c.csv"))
    else:
        with pytest.raises(NotApplicable, match="before it has trained"):
            run(FileNotFoundError("no file /another/place/c.csv"))


def test_anomaly_mode_reads_names_with_colons(ask):
    view = ("return F", "y = outputs * 1\n    y[:1].mul_(0).sqrt_()\n    return 0 * y.sum() + F")
    (found,) = ask("anomaly_mode", view)
    assert found.fault == "numerics" or found.fault == "sqrt_grad_at_zero"
    said = "Function 'torch::autograd::CopySlices' returned nan values in its 0th output."
    trace = SimpleNamespace(rerun=Mock(side_effect=RuntimeError(said)), train_steps=list)
    assert faults(detector("anomaly_mode").diagnose(trace).suspects) == ["numerics"]


def test_anomaly_mode_knows_functions_that_there_are():
    x = torch.ones(3, requires_grad=True)
    made = [x.log(), x.log2(), x.log10(), torch.xlogy(x, x), x.exp(), x.sqrt(), x.std(), x / x, x.norm()]
    made += [torch.linalg.vector_norm(x), torch.ops.aten.norm(x)]
    there = {y.grad_fn.name().rstrip("0123456789") for y in made}
    assert set(module_of("anomaly_mode").FAULTS) - {"other"} <= there


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        ("NormBackward1", "numerics"),
        ("LinalgVectorNormBackward0", "numerics"),
        ("StdBackward0", "numerics"),
        ("DivBackward0", "numerics"),
        ("SqrtBackward0", "sqrt_grad_at_zero"),
        ("LogBackward0", "log_of_zero"),
    ],
)
def test_anomaly_mode_takes_a_norm_and_a_division_for_no_known_fault(function, fault):
    said = f"Function '{function}' returned nan values in its 0th output."
    trace = SimpleNamespace(rerun=Mock(side_effect=RuntimeError(said)), train_steps=list)
    assert faults(detector("anomaly_mode").diagnose(trace).suspects) == [fault]


@pytest.mark.parametrize("of", ["norm()", "std()"])
def test_torch_has_a_gradient_of_zero_where_a_norm_or_a_deviation_is_zero(of):
    x = torch.zeros(3, requires_grad=True)
    (x.norm() if of == "norm()" else x.std()).backward()
    assert x.grad.eq(0).all()


def test_a_program_that_watches_no_model_was_not_looked_at(ask):
    with pytest.raises(NotApplicable, match="watches no model"):
        ask("anomaly_mode", *UNWATCHED)


# -- with the tools --------------------------------------------------------------------------------------------------


def texts(name):
    """Return the texts in a tool's source; those written in several parts, or with values in between, as one."""
    found = set()
    for path in Path(importlib.util.find_spec(MODULES[name]).origin).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
                found.add("".join(map(str, parts)))
    return found


@pytest.mark.tools
@pytest.mark.parametrize("name", [name for name in RERUNNING if name != "anomaly_mode"])
def test_what_the_table_waits_for_is_said_by_the_tool(name):
    said = texts(name)
    for key in module_of(name).FAULTS:
        rule, _, words = key.partition(": ")
        own = (name, rule) in {("torchdiag", "issue"), ("torchtest2", "raised")}  # the adapter's names
        assert own or rule in said, key
        assert any(words in text for text in said), key
        if (name, rule) == ("torchtest2", "raised"):
            assert any(text.startswith("raised ") for text in said)


@pytest.mark.tools
@pytest.mark.parametrize("name", [name for name in RERUNNING if name != "anomaly_mode"])
def test_nothing_is_said_of_a_program_that_watches_no_model(name, ask):
    with pytest.raises(NotApplicable, match="watches no model"):
        ask(name, *UNWATCHED)


@pytest.mark.tools
@pytest.mark.parametrize(
    ("name", "changes", "fault", "words"),
    [
        ("torchtest2", (LEAF,), "detached_features", "a leaf tensor"),
        ("torchdiag", (LEAF,), "detached_features", "None gradients"),
        ("lightning_overfit_batches", (LEAF,), "loss", "the loss of one batch"),
        ("torchtest2", (CLAMPED,), "model_too_small", "did not reach"),
        ("lightning_overfit_batches", (CLAMPED,), "loss", "to 1 at best"),
    ],
)
def test_the_tool_gets_the_programs_own_loss(name, changes, fault, words, ask):
    assert words in {s.fault: s.evidence for s in ask(name, *changes)}[fault]


@pytest.mark.tools
def test_torchtest2_knows_cross_entropy_by_another_name(ask):
    spelled = (LOSS, "F.nll_loss(outputs.log_softmax(dim=1), targets)")
    assert ask("torchtest2", spelled) == ()
    found = ask("torchtest2", spelled, ("[order] / 16", "[order] * 256"))
    assert any("initial_loss" in s.evidence for s in found)


@pytest.mark.tools
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *(("torchtest2", MAPPING), ("torchtest2", NAMED), ("torchtest2", PAIR), ("torchdiag", CLEARED)),
        *(("torch_audit", ZERO), ("torch_audit", DECAY)),
    ],
)
def test_variants_of_the_healthy_program_stay_silent(name, changes, ask):
    assert [(s.fault, s.evidence) for s in ask(name, *changes)] == []


@pytest.mark.tools
@pytest.mark.parametrize(
    ("changes", "reason"), [(NAMED, "one tensor"), (PAIR, "one tensor"), (UNLOGGED, "no training")]
)
def test_torchdiag_says_what_it_cannot_check(changes, reason, ask):
    with pytest.raises(NotApplicable, match=reason):
        ask("torchdiag", *changes)


@pytest.mark.tools
def test_torchdiag_looks_at_the_gradients_before_the_step(ask):
    cut = ("self.head(self.features(x))", "self.head(self.features(x).detach())")
    assert any("disconnected" in s.evidence or "None" in s.evidence for s in ask("torchdiag", cut, *CLEARED))


@pytest.mark.tools
def test_torchtest2_tells_what_fails_from_what_warns():
    module = module_of("torchtest2")

    def meant(check, status, said):
        result = SimpleNamespace(name=check, status=SimpleNamespace(value=status), message=said)
        return faults(translate([module._message(result)], module.FAULTS).suspects)

    assert meant("params_change", "FAIL", "raised RuntimeError: an optimizer step") == ["crash"]
    assert meant("batch_independence", "WARN", "changed slightly: a weak coupling between samples") == ["model"]
    assert "softmax_dim" in meant("batch_independence", "FAIL", "the model mixes information across the batch")
    assert "sqrt_grad_at_zero" in meant("gradient_magnitude", "FAIL", "NaN/inf gradients in 1 parameter(s)")
    with pytest.raises(KeyError, match="4th dimension"):
        meant("output_shape", "FAIL", "a 4th dimension")


@pytest.mark.tools
def test_torch_audits_own_error_is_one(ask, monkeypatch):
    from torch_audit.validators.builtin.stability import StabilityValidator

    monkeypatch.setattr(StabilityValidator, "check", Mock(side_effect=ZeroDivisionError("in the tool")))
    with pytest.raises(RuntimeError, match=r"TA000: .*in the tool"):
        ask("torch_audit")


@pytest.mark.tools
def test_torchmortems_own_error_is_one(ask, monkeypatch):
    from torchmortem.detectors.dead_units import DeadUnitDetector

    monkeypatch.setattr(DeadUnitDetector, "analyze", Mock(side_effect=ZeroDivisionError("in the tool")))
    with pytest.raises(RuntimeError, match="failed: ZeroDivisionError: in the tool"):
        ask("torchmortem")


@pytest.mark.tools
def test_torchmortem_does_not_bear_layers_in_place_and_is_detached(ask, monkeypatch):
    from torchmortem import Autopsy

    made, attach = [], Autopsy.attach
    monkeypatch.setattr(Autopsy, "attach", lambda self: (made.append(self), attach(self)))
    with pytest.raises(RuntimeError, match="BackwardHookFunction is a view"):  # not the program's late error
        ask("torchmortem", *IN_PLACE)
    assert made
    for autopsy in made:
        autopsy._atexit_handler()
    assert not Path("autopsy_crash_report.html").exists()


@pytest.mark.tools
def test_weightwatcher_counts_no_fit_that_failed(ask, monkeypatch):
    from weightwatcher import WeightWatcher

    layers = pd.DataFrame({"longname": ["a", "b"], "alpha": [-1.0, 7.0], "warning": ["over-trained", "under-trained"]})
    answer = layers.assign(status=["failed", "success"])
    monkeypatch.setattr(WeightWatcher, "analyze", lambda self, **_: answer)
    before = logging.root.manager.disable
    assert faults(ask("weightwatcher")) == ["too_few_epochs", "lr_too_low"]
    answer = layers.assign(status="failed")
    with pytest.raises(NotApplicable, match="no layer"):
        ask("weightwatcher")
    assert logging.root.manager.disable == before


@pytest.mark.tools
def test_weightwatcher_says_of_one_model_what_it_says_beside_another_without_layers(ask, monkeypatch):
    from weightwatcher import WeightWatcher

    some = pd.DataFrame({"longname": ["a"], "alpha": [7.0], "warning": ["under-trained"], "status": ["success"]})
    answers = []
    monkeypatch.setattr(WeightWatcher, "analyze", lambda self, **_: answers.pop())
    two = ("run.watch(model, optimizer)", "run.watch(model, optimizer); run.watch(nn.Linear(2, 2), name='b')")
    for order in ([some, some[:0]], [some[:0], some]):
        answers[:] = order
        assert faults(ask("weightwatcher", two)) == ["too_few_epochs", "lr_too_low"]
    answers[:] = [some[:0], some[:0]]
    with pytest.raises(NotApplicable, match="there is none"):
        ask("weightwatcher", two)
