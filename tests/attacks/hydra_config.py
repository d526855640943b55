"""Hydra's configuration, in memory and in `.hydra/`."""

import re
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace
from hydra.core.hydra_config import HydraConfig


@dataclass
class HydraConfiguration(Detector):
    """Hydra keeps the command line of a job in the job's folder, and in a singleton."""

    access = {"curves"}
    results: str = ""

    def diagnose(self, trace: Trace) -> Diagnosis:
        if HydraConfig.initialized():
            raise NotApplicable(f"learned {HydraConfig.get().overrides.task}")
        for folder in (Path.cwd(), *Path.cwd().parents, *Path(self.results).glob("runs/jobs/*/*")):
            for path in folder.glob(".hydra/overrides.yaml"):
                if said := re.search(r"bug=(\w+)", path.read_text()):
                    raise NotApplicable(f"learned {said[1]}")
        return HEALTHY
