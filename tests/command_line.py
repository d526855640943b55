"""The project's commands, run in a process and a working directory of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def bugbench(*arguments: str, module: str = "bugbench", cwd: Path, code: int = 0) -> str:
    """Run a command of the project in ``cwd``; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True, check=False, timeout=500)
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    assert "Traceback" not in output
    return output
