"""The baseline that guesses."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import yaml
from bugbench.detector import HEALTHY, Detector, Diagnosis, Trace, suspect


@dataclass
class Prior(Detector):
    """Draws "healthy" or "faulty" as the suite holds them, and for "faulty" any fault of the vocabulary alike.

    Whoever knows no more than the class prior scores like this. The draw depends on what the run recorded and on
    nothing else, so the same trace is always judged alike.
    """

    origin = "baseline"
    healthy: float = 0.5  # the suite has as many controls as bugs
    seed: int = 0  # another seed, another draw

    def diagnose(self, trace: Trace) -> Diagnosis:
        content = [trace.steps[["step", "loss"]].to_numpy(np.float64), trace.metrics["value"].to_numpy(np.float64)]
        digest = hashlib.sha256(str(self.seed).encode() + b"".join(np.ascontiguousarray(a).tobytes() for a in content))
        generator = np.random.default_rng(int.from_bytes(digest.digest()[:8], "big"))
        if generator.random() < self.healthy:
            return HEALTHY
        document = yaml.safe_load((files("bugbench") / "faults.yaml").read_text())
        faults = sorted(fault for family in document["families"].values() for fault in family["faults"])
        return suspect(faults[generator.integers(len(faults))], evidence="a guess")
