"""Third-party tools as detectors: each names what it is known to name on a small broken program, or says what it lacks.

The first part runs anywhere. The second, marked ``tools``, needs the tools themselves: ``pytest -m tools``.
"""

import re
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from bugbench.detector import Diagnosis, NotApplicable, NotInstalled, Trace
from bugbench.third_party import Following, Message, follow, translate
from recorded_program import CATALOGUE, MODULES, OVERLAP, PROGRAM, RAW, detector, shown

OWN_ENVIRONMENTS = ("deepchecks",)


# -- anywhere --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_a_missing_tool_is_a_reason(name, programs, tmp_path, monkeypatch):
    for module in [m for m in sys.modules if m.split(".")[0] == MODULES[name]]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, MODULES[name], None)  # an import of it fails as if it were not there
    with pytest.raises(NotInstalled, match=re.escape("pip install -c constraints.txt -e '.[tools]'")):
        detector(name).diagnose(Trace(shown(name, programs.trace(), tmp_path / "trace")))


@pytest.mark.parametrize("name", OWN_ENVIRONMENTS)
def test_a_missing_environment_is_a_reason(name, programs, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(NotInstalled, match=rf"-m venv {tmp_path}/envs/{name} && .*pip install .*{name}=="):
        detector(name).diagnose(Trace(shown(name, programs.trace(), tmp_path / "trace")))


@pytest.mark.parametrize("name", [*MODULES, "anomaly_mode", *OWN_ENVIRONMENTS])
def test_tables_hold_faults_of_the_vocabulary(name):
    module = sys.modules[type(detector(name)).__module__]
    known = {*CATALOGUE.faults, *(fault["family"] for fault in CATALOGUE.faults.values())}
    assert {fault for faults in module.FAULTS.values() for fault in faults} <= known


def test_messages_become_suspects_in_their_order():
    faults = {"a: very bad": ["nan_inputs"], "a": ["data", "nan_inputs"], "b": ["lr_too_high"], "c": []}
    said = [
        Message("c", "no fault"),
        Message("a", "bad", layer="head"),
        Message("a", "very bad"),
        Message("b", "worse"),
    ]
    found = translate(said, faults).suspects
    assert [s.fault for s in found] == ["data", "nan_inputs", "lr_too_high"]
    assert [s.evidence for s in found] == ["a: bad", "a: bad", "b: worse"]
    assert [s.layer for s in found] == ["head", "head", None]
    assert [s.confidence for s in found] == pytest.approx([0.9, 0.45, 0.3])
    with pytest.raises(KeyError, match="d: unheard of"):
        translate([*said, Message("d", "unheard of")], faults)


def test_an_error_of_a_rerun_belongs_to_whoever_made_it(programs, tmp_path, monkeypatch):
    trace = Trace(shown("torchtest2", programs.trace(), tmp_path / "t"))
    broken = type("ProcessRaisedException", (Exception,), {})("\n-- Process 0 terminated\nRuntimeError: no socket")
    monkeypatch.setattr(trace, "rerun", Mock(side_effect=broken))
    with pytest.raises(NotApplicable, match="ProcessRaisedException: RuntimeError: no socket"):
        follow(trace, Following(trace))
    monkeypatch.setattr(trace, "rerun", Mock(side_effect=KeyError("tool")))
    with pytest.raises(KeyError):  # the recorded run had no error
        follow(trace, Following(trace))
    (trace.folder / "error.txt").write_text("KeyError: 'tool'")
    with pytest.raises(NotApplicable, match="before it has trained"):
        follow(trace, Following(trace))


def test_anomaly_mode_names_function_and_line(programs, tmp_path):
    broken = ("F.cross_entropy(outputs, targets)", "(outputs.sum() * 0).sqrt() + F.cross_entropy(outputs, targets)")
    folder = programs.trace(broken)
    (found,) = detector("anomaly_mode").diagnose(Trace(shown("anomaly_mode", folder, tmp_path / "t"))).suspects
    assert found.fault == "sqrt_grad_at_zero" or found.fault == "numerics"
    assert "SqrtBackward0" in found.evidence or "MulBackward0" in found.evidence
    assert PROGRAM.splitlines()[found.line - 1].strip() == "return F.cross_entropy(outputs, targets)"
    healthy = shown("anomaly_mode", programs.trace(), tmp_path / "h")
    assert detector("anomaly_mode").diagnose(Trace(healthy)) == Diagnosis()


# -- with the tools --------------------------------------------------------------------------------------------------

SOFTMAX = ("return self.head(self.features(x))", "return self.head(self.features(x)).softmax(dim=0)")
PARTIAL = ("Adam(model.parameters()", "Adam(model.head.parameters()")
NAN = ("    x, y, u, v =", "    x[5::50, 3] = float('nan')\n    x, y, u, v =")
DEAD = ("    optimizer =", "    nn.init.constant_(model.features[0].bias, -100)\n    optimizer =")
SORTED = ("torch.randperm(len(x)).split", "y.argsort().split")
NOISE = ("    x, y, u, v =", "    y[::5] = torch.randint(10, (len(y[::5]),))\n    x, y, u, v =")
LEAK = ("    x, y, u, v =", "    x[:, 0] = y\n    x, y, u, v =")
NO_ZERO_GRAD = ("            optimizer.zero_grad()\n", "")
NO_EVAL = ("        model.eval()\n", "")
UNKNOWN = ("outputs = model(inputs)", "outputs = model(input_batch)")
SILENT = (
    *("torchtest2", "cleanlab_datalab", "leakcheck_ml", "leaklens", "torch_audit", "torchdiag", "mldoct", "ruff"),
    *("torchfix", "lightning_early_stopping", "lightning_overfit_batches"),
)
KNOWN = [
    ("torchtest2", SOFTMAX, "softmax_dim"),
    ("torchtest2", PARTIAL, "optimizer_partial_params"),
    ("torchtest2", RAW, "missing_normalization"),
    ("torchtest2", DEAD, "dead_relu"),
    ("cleanlab_datalab", NOISE, "label_noise"),
    ("cleanlab_datalab", SORTED, "unshuffled_loader"),
    ("cleanlab_datalab", OVERLAP, "train_in_validation"),
    ("cleanlab_datalab", NAN, "nan_inputs"),
    ("leakcheck_ml", OVERLAP, "train_in_validation"),
    ("leakcheck_ml", LEAK, "label_leakage"),
    ("leaklens", OVERLAP, "train_in_validation"),
    ("leaklens", LEAK, "label_leakage"),
    ("torch_audit", RAW, "missing_normalization"),
    ("torch_audit", DEAD, "dead_relu"),
    ("torchdiag", DEAD, "dead_relu"),
    ("torchmortem", DEAD, "dead_relu"),
    ("trainproof", NAN, "numerics"),
    ("lightning_early_stopping", NAN, "numerics"),
    ("lightning_overfit_batches", NAN, "model"),
    ("mldoct", NO_ZERO_GRAD, "missing_zero_grad"),
    ("mldoct", NO_EVAL, "train_mode_in_eval"),
    ("ruff", UNKNOWN, "crash"),
]


@pytest.mark.tools
@pytest.mark.parametrize(("name", "change", "fault"), KNOWN)
def test_tool_names_what_it_is_known_to_name(name, change, fault, programs, tmp_path):
    found = detector(name).diagnose(Trace(shown(name, programs.trace(change), tmp_path / "t"))).suspects
    assert fault in [s.fault for s in found]
    assert all(s.evidence for s in found)


@pytest.mark.tools
@pytest.mark.parametrize("name", SILENT)
def test_tool_is_silent_on_the_healthy_program(name, programs, tmp_path):
    found = detector(name).diagnose(Trace(shown(name, programs.trace(), tmp_path / "t"))).suspects
    assert [(s.fault, s.evidence) for s in found] == []


@pytest.mark.tools
def test_torchtest2_takes_inputs_that_are_part_of_a_graph(programs, tmp_path):
    scaled = ("outputs = model(inputs)", "outputs = model(inputs * torch.ones(1, requires_grad=True))")
    found = detector("torchtest2").diagnose(Trace(shown("torchtest2", programs.trace(scaled), tmp_path / "t"))).suspects
    assert [(s.fault, s.evidence) for s in found] == []


@pytest.mark.tools
def test_weights_that_a_tool_raises_on_are_a_reason(programs, tmp_path):
    said = detector("weightwatcher").diagnose(Trace(shown("weightwatcher", programs.trace(), tmp_path / "h"))).suspects
    assert {s.fault for s in said} <= {"overfit_capacity", "too_few_epochs", "lr_too_low"}
    assert all("alpha" in s.evidence and s.layer for s in said)
    with pytest.raises(NotApplicable, match="not finite"):
        detector("weightwatcher").diagnose(Trace(shown("weightwatcher", programs.trace(NAN), tmp_path / "t")))


@pytest.mark.tools
def test_cleanlab_knows_repeated_rows_and_says_the_same_twice(programs, tmp_path):
    folder = programs.trace(("    x, y, u, v =", "    x[:600] = x[600:1200]; y[:600] = y[600:1200]\n    x, y, u, v ="))
    trace = Trace(shown("cleanlab_datalab", folder, tmp_path / "t"))
    first, second = (detector("cleanlab_datalab").diagnose(trace).suspects for _ in range(2))
    assert [s.fault for s in first] == [s.fault for s in second]  # Datalab writes into the options it is given
    assert "duplicate_rows" in [s.fault for s in first]
    assert [s.evidence for s in first if s.fault == "duplicate_rows"] == ["near_duplicate: 1200 issues in 1200 rows"]


@pytest.mark.tools
@pytest.mark.skipif(not (Path(sys.prefix) / "envs" / "deepchecks").exists(), reason="no environment for deepchecks")
@pytest.mark.parametrize(("change", "fault"), [(OVERLAP, "train_in_validation"), (LEAK, "label_leakage"), (None, None)])
def test_deepchecks_in_its_own_environment(change, fault, programs, tmp_path):
    folder = programs.trace(change) if change else programs.trace()
    found = detector("deepchecks").diagnose(Trace(shown("deepchecks", folder, tmp_path / "t"))).suspects
    assert [s.fault for s in found][:1] == ([fault] if fault else [])
