"""What earlier diagnoses left in the memory of its own process."""

import gc
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace

TRUTH = rb'"fault": "([a-z_]+)", "lines"'


@dataclass
class OwnMemory(Detector):
    """The oracle was told the truth just before: its modules, its frames, its objects, or pages that it gave back."""

    access = {"curves"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        frame = sys._getframe()
        while frame := frame.f_back:
            self.look(frame.f_locals)
        for module in list(sys.modules.values()):
            self.look(getattr(module, "__dict__", None))
        for found in gc.get_objects():
            self.look(found)
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            for line in Path("/proc/self/maps").read_text().splitlines():
                span, rights, *_ = line.split()
                first, last = (int(part, 16) for part in span.split("-"))
                if rights.startswith("rw") and last - first < 2**28 and "[v" not in line:
                    memory.seek(first)
                    if said := re.search(TRUTH, memory.read(last - first)):
                        raise NotApplicable(f"learned {said[1].decode()} from memory")
        return HEALTHY

    def look(self, found: object) -> None:
        if type(found) is dict and {"fault", "lines"} <= set(found):
            raise NotApplicable(f"learned {found['fault']} from an object")
