"""Ruff: a linter of Python in general."""

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import Detector, Diagnosis, Trace
from bugbench.third_party import Message, tool, translate

RAISE = (  # rules of the default set that find what raises, when it is compiled or when the program gets there
    *("invalid-syntax", "F404", "F407", "F621", "F622", "F701", "F702", "F704", "F706", "F707"),  # SyntaxError
    *("PLE0115", "PLE0117", "PLE0118", "PLE1142", "PLE1700"),  # SyntaxError
    *("F501", "F502", "F503", "F505", "F506", "F507", "F508", "F509", "PLE1300", "PLE1307"),  # "%" formatting
    *("F521", "F524", "F525"),  # str.format
    *("F633", "F821", "F823", "TC004", "TC007", "TC010"),  # names that are not there
    *("PLE0100", "PLE0101", "PLE0643", "PLE1132", "PLE1507", "PLR1708", "PLW0245", "PLW0406"),
    *("G101", "PT010", "PTH210", "RUF008", "RUF016", "RUF053"),
)
STYLE = (  # linters whose other rules of the default set are about style, or about what may go wrong some day
    *("ASYNC", "B", "BLE", "C", "D", "DTZ", "E", "EXE", "F", "FA", "FLY", "FURB", "G", "I", "INT", "ISC", "LOG", "N"),
    *("PERF", "PGH", "PIE", "PL", "PT", "PTH", "PYI", "RET", "RUF", "S", "SIM", "T", "TC", "TRY", "UP", "W", "YTT"),
)
FAULTS = {**dict.fromkeys(RAISE, ("crash",)), "B018": ("training_loop",), **dict.fromkeys(STYLE, ())}


@dataclass
class Ruff(Detector):
    """Ruff 0.17.5 with its default rules (docs.astral.sh/ruff).

    No rule of it knows training. What it can find is a program that raises, ``RAISE`` lists the rules that say so, and
    a statement without effect: B018, which an ``optimizer.step`` without its parentheses is. Its message, "Found
    useless expression", does not say which. That the suspect is the family ``training_loop`` is the adapter's reading:
    most calls that a training program makes for their effect alone are of that family (``backward``, ``step``,
    ``zero_grad``, ``train``), though ``model.eval`` and ``scheduler.step`` are not.

    A ``raise`` of what is no exception, an undefined name in ``__all__``, and calls of ``logging`` with the wrong
    number of arguments end no program that would have gone on without them, so they count as style. So do unused names,
    loop variables that a function does not bind, and comparisons without effect or with NaN: "likely a mistake", say
    some of these rules, but none says what becomes of a training.
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
        return translate([Message(_row(f["code"]), f["message"], line=f["location"]["row"]) for f in found], FAULTS)


def _row(code: str) -> str:
    """Return the key of ``FAULTS`` that a rule falls under: itself, or its linter."""
    linter = code.rstrip("0123456789")
    return next((key for key in (code, linter, linter[:2]) if key in FAULTS), code)
