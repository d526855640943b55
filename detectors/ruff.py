"""Ruff: a linter of Python in general."""

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import Detector, Diagnosis, Trace
from bugbench.third_party import Message, tool, translate

FAULTS = {rule: ["crash"] for rule in ("invalid-syntax", "F704", "F706", "F821", "F822", "F823")}  # these raise


@dataclass
class Ruff(Detector):
    """Ruff 0.17.5 with its default rules (docs.astral.sh/ruff).

    No rule of it knows training. What it can find is a program that raises: undefined names and syntax errors. Unused
    names and the like are style.
    """

    access = {"source"}
    origin = "tool"

    def diagnose(self, trace: Trace) -> Diagnosis:
        command = [tool("ruff").find_ruff_bin(), "check", "--isolated", "--no-cache", "--exit-zero"]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "program.py"
            path.write_text(trace.source)
            done = subprocess.run(
                [*command, "--output-format=json", str(path)], check=True, capture_output=True, text=True
            )
        found = json.loads(done.stdout)
        return translate([Message(f["code"], f["message"], line=f["location"]["row"]) for f in found], FAULTS)
