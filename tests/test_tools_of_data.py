"""Tools that check data, where a check of theirs fails or lacks samples: that is no health, and hides nothing.

All need the tools themselves: ``pytest -m tools``.
"""

import sys
from pathlib import Path

import pytest
from bugbench.detector import NotApplicable, Trace
from recorded_program import OVERLAP, detector, faults_of, module_of, shown

SPLIT = "    x, y, u, v = x[:1200], y[:1200], x[1200:], y[1200:]\n"
FEW = (SPLIT, "    x, y, u, v = x[:8], y[:8], x[1200:], y[1200:]\n")
INFINITE = (SPLIT, f"{SPLIT}    x[5, 3] = float('inf')\n")


@pytest.mark.tools
@pytest.mark.skipif(not (Path(sys.prefix) / "envs" / "deepchecks").exists(), reason="no environment for deepchecks")
@pytest.mark.parametrize("broken", ["run = lambda *_: 1 / 0", "add_condition('odd', lambda _: 1 / 0)"])
def test_a_check_of_deepchecks_that_raises_hides_no_other_and_is_no_health(broken, programs, tmp_path, monkeypatch):
    module = module_of("deepchecks")
    lines = f"for check, _ in run[:1]:\n    check.{broken}\nfailed, raised ="
    assert module.SCRIPT.count("failed, raised =") == 1
    monkeypatch.setattr(module, "SCRIPT", module.SCRIPT.replace("failed, raised =", lines))
    with pytest.raises(RuntimeError, match=r"PercentOfNulls: .*ZeroDivisionError: division by zero"):
        faults_of("deepchecks", programs.trace(), tmp_path / "a")
    assert faults_of("deepchecks", programs.trace(OVERLAP), tmp_path / "o")[:1] == ["train_in_validation"]


@pytest.mark.tools
@pytest.mark.skipif(not (Path(sys.prefix) / "envs" / "deepchecks").exists(), reason="no environment for deepchecks")
def test_what_deepchecks_has_too_few_samples_for_is_no_error(programs, tmp_path):
    few = (SPLIT, "    x, y, u, v = x[:500], y[:500], x[500:508], y[500:508]\n")  # LabelDrift wants ten
    assert faults_of("deepchecks", programs.trace(few), tmp_path / "f") == []


@pytest.mark.tools
def test_cleanlabs_failed_checks_are_no_health(programs, tmp_path, monkeypatch):
    with pytest.raises(NotApplicable, match=r"there are 8 samples: Error in near_duplicate: .*; Error in non_iid"):
        faults_of("cleanlab_datalab", programs.trace(FEW), tmp_path / "f")
    with pytest.raises(NotApplicable, match=r"not finite: Error in near_duplicate: .*infinity"):
        faults_of("cleanlab_datalab", programs.trace(INFINITE), tmp_path / "i")
    held_out = (SPLIT, f"{SPLIT}    u[5, 3] = float('nan')\n")
    with pytest.raises(NotApplicable, match=r"not finite: Error in near_duplicate: .*NaN"):
        faults_of("cleanlab_datalab", programs.trace(held_out), tmp_path / "h")
    from cleanlab.datalab.internal.issue_manager.noniid import NonIIDIssueManager

    monkeypatch.setattr(NonIIDIssueManager, "find_issues", lambda self, **_: 1 / 0)
    with pytest.raises(RuntimeError, match=r"^cleanlab: Error in non_iid: division by zero$"):
        faults_of("cleanlab_datalab", programs.trace(), tmp_path / "e")
    overlap = (SPLIT, f"{SPLIT}    u, v = torch.cat([u, x]), torch.cat([v, y])\n")
    assert "train_in_validation" in faults_of("cleanlab_datalab", programs.trace(overlap), tmp_path / "o")


@pytest.mark.tools
def test_cleanlab_is_asked_for_imbalance_by_labels_alone(programs, tmp_path):
    rare = "    y = torch.where(y > 5, y % 5, y)\n    y[7] = 9\n    v = v % 5\n"  # a class of one sample
    assert faults_of("cleanlab_datalab", programs.trace((SPLIT, SPLIT + rare)), tmp_path / "r") == ["class_imbalance"]
    null = (SPLIT, f"{SPLIT}{rare}    x[:9, 3] = float('nan')\n")
    found = detector("cleanlab_datalab").diagnose(
        Trace(shown("cleanlab_datalab", programs.trace(null), tmp_path / "n"))
    )
    assert [(s.fault, s.evidence) for s in found.suspects] == [
        ("nan_inputs", "null: 9 of 1200 rows have a null_score below 1"),
        ("class_imbalance", "class_imbalance: 1 issues in 1200 rows"),
    ]
    infinite = (SPLIT, f"{SPLIT}{rare}    x[:9, 3] = float('inf')\n")
    assert faults_of("cleanlab_datalab", programs.trace(infinite), tmp_path / "i") == ["class_imbalance"]


@pytest.mark.tools
def test_leaklens_of_booleans_that_training_knows_one_value_of(programs, tmp_path):
    booleans = (
        (SPLIT, f"{SPLIT}    x, u = torch.rand_like(x) > 0.5, torch.rand_like(u) > 0.5\n    x[:, 20] = True\n"),
        ("model(inputs)", "model(inputs.float())"),
        ("model(u)", "model(u.float())"),
    )
    assert faults_of("leaklens", programs.trace(*booleans), tmp_path / "b") == []
