"""Bytecode that Python keeps of the healthy workloads (`__pycache__`)."""

import marshal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace


def names_in(code: CodeType) -> set[str]:
    return set(code.co_names).union(*(names_in(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


@dataclass
class Bytecode(Detector):
    """Without the source, its compiled form still says which functions the healthy program calls."""

    access = {"source"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        own = names_in(compile(trace.source, "program.py", "exec"))
        for path in (path for entry in sys.path for path in Path(entry).glob("bugbench/workloads/__pycache__/*.pyc")):
            healthy = names_in(marshal.loads(path.read_bytes()[16:]))
            if 0 < len(own ^ healthy) < 6:
                raise NotApplicable(f"learned {sorted(own - healthy)} for {sorted(healthy - own)}")
        return HEALTHY
