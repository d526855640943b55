"""mldoct: a linter for PyTorch training scripts."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import Detector, Diagnosis, Trace
from bugbench.third_party import Message, tool, translate

FAULTS = {
    "missing_zero_grad": ["missing_zero_grad"],
    "missing_eval": ["train_mode_in_eval"],
    "double_softmax": ["redundant_softmax"],
    "oom_leak": ["memory_growth"],
    "syntax_error": ["crash"],
    "missing_clip": (),  # a hint, which every training without clipping gets
    "cpu_bottleneck": (),  # a warning, but of speed alone
}


@dataclass
class Mldoct(Detector):
    """mldoct 1.0.0 (PyPI, mldoct): the findings of ``mldoctor check``, critical ones before warnings.

    Two are no faults: its hint that gradients are not clipped, and its warning that a ``DataLoader`` has no worker
    processes, which is about speed. Only its linter is imported: the part that judges curves unpickles a model from the
    package.
    """

    access = {"source"}
    origin = "tool"

    def diagnose(self, trace: Trace) -> Diagnosis:
        lint_script = tool("mldoctor.linter").lint_script
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "program.py"
            path.write_text(trace.source)
            findings, _ = lint_script(str(path))
        findings.sort(key=lambda f: f["severity"])  # CRITICAL, ERROR, INFO, WARNING; stable
        return translate(
            [Message(f["type"], f"{f['severity']} {f['message']}", line=f["line"]) for f in findings], FAULTS
        )
