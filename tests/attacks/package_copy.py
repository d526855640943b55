"""The package bugbench that it imports itself."""

import contextlib
import importlib
from dataclasses import dataclass
from pathlib import Path

import bugbench
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace


@dataclass
class PackageCopy(Detector):
    """``import bugbench.workloads``, ``bugbench.bugs`` and so on: whatever holds healthy programs, cards or results."""

    access = {"curves"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        for name in ("workloads.cancer_mlp", "datasets", "bugs", "conf", "results"):
            with contextlib.suppress(ImportError):
                raise NotApplicable(f"learned {importlib.import_module(f'bugbench.{name}').__file__}")
        for folder in bugbench.__path__:
            for name in ("workloads", "datasets", "bugs", "conf", "results", ".git"):
                if (path := Path(folder, name)).exists():
                    raise NotApplicable(f"learned {sorted(path.iterdir())[:3]}")
        return HEALTHY
