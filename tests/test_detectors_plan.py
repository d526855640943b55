"""The debugging plan: its order, what it needs, and the detectors that it asks."""

import pytest
import torch
from bugbench.detector import NotApplicable
from bugbench.detectors.debugging_plan import PLAN, DebuggingPlan
from bugbench.judging import Judge
from bugbench.plugins import load_detector, project_folder, sources_of
from bugbench.trace import Trace
from tiny_training import faults


@pytest.fixture(autouse=True)
def one_thread():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def test_the_plan_stops_where_it_finds_something(tmp_path, monkeypatch):
    asked = []

    def ask(detector, found):
        def diagnose(self, trace):
            asked.append(detector.__name__)
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(detector, "diagnose", diagnose)

    from bugbench.detector import HEALTHY, suspect

    order = [detector for _, detectors in PLAN for detector in detectors]
    for detector in order:
        ask(detector, HEALTHY)
    assert faults(DebuggingPlan(), tmp_path) == []
    assert asked == [detector.__name__ for detector in order]
    asked.clear()
    ask(order[1], NotApplicable("no"))
    ask(order[2], suspect("nan_inputs", "three"))
    (found,) = DebuggingPlan().diagnose(Trace(tmp_path)).suspects
    assert (found.fault, found.evidence) == ("nan_inputs", "step 3, inspect the inputs: three")
    assert len(asked) == 3
    for detector in order:
        ask(detector, NotApplicable("no"))
    with pytest.raises(NotApplicable):
        faults(DebuggingPlan(), tmp_path)


def test_the_plan_declares_what_its_parts_need():
    needed = set().union(*(detector.access for _, detectors in PLAN for detector in detectors))
    assert needed - {"curves"} <= DebuggingPlan.access


def test_a_detectors_sources_hold_those_of_the_detectors_it_asks(tmp_path):
    folder = project_folder("detectors")
    texts = sources_of(folder / "debugging_plan.py")
    for name in ("overfit_batch", "traceback_reader", "epoch_pattern"):
        assert (folder / f"{name}.py").read_text() in texts
    own = tmp_path / "own.py"
    own.write_text("from bugbench.detectors import mode_check\nimport bugbench.detectors.causality\n")
    texts = sources_of(own)
    assert (folder / "mode_check.py").read_text() in texts
    assert (folder / "causality.py").read_text() in texts
    assert (folder / "call_order.py").read_text() not in texts


def test_a_changed_part_makes_a_new_diagnosis(tmp_path, monkeypatch):
    monkeypatch.setattr("bugbench.plugins.project_folder", lambda name: tmp_path / name)
    (tmp_path / "detectors").mkdir()
    part, whole = tmp_path / "detectors" / "part.py", tmp_path / "whole.py"
    part.write_text("limit = 1\n")
    whole.write_text("from bugbench.detectors.part import limit\n")
    judges = [Judge("whole", whole, frozenset({"curves"}), {}) for _ in range(3)]  # a digest is taken once a judge
    assert judges[0].digest == judges[1].digest
    part.write_text("limit = 2\n")
    assert judges[2].digest != judges[0].digest


def test_a_file_that_imports_detectors_defines_one():
    assert load_detector(project_folder("detectors") / "debugging_plan.py").__name__ == "DebuggingPlan"
