"""Cheating detectors against the judging pool, held to the table of SECURITY.md, which is the expectation.

Every file in `attacks/` is a detector that tries to learn the truth or to disturb others, with all the knowledge of the
machine that an attacker could have. Each is run at every level through the real bench; one that is prevented everywhere
is also run inside a harness, where it must succeed, so that no attack passes for prevented because it is broken.
"""

import ast
import compileall
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bugbench import landlock
from bugbench.catalogue import Catalogue
from bugbench.isolation import LEVELS
from bugbench.job import Plan, run_job
from bugbench.judging_worker import JudgingWorker, NotConfined
from bugbench.pools import train_pool

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
BUG, WORKLOAD, SEED = "softmax_dim", "cancer_mlp", 3
PREVENTED, POSSIBLE = "prevented", "possible"
ROW = re.compile(r"\| `(\w+)` \| (.+?) \| (\w+) \| (\w+) \| (\w+) \|")
ROWS = ROW.findall((ROOT / "SECURITY.md").read_text())
WHAT = {name: what for name, what, *_ in ROWS}
TABLE = {name: dict(zip(LEVELS, cells, strict=True)) for name, _, *cells in ROWS}
NOWHERE_POSSIBLE = [name for name, cells in TABLE.items() if POSSIBLE not in cells.values()]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, catalogue: Catalogue) -> Path:
    """A machine on which one case was run: with results, an installed copy of the workloads, and a run folder."""
    home = tmp_path_factory.mktemp("machine")
    workload = catalogue.workloads[WORKLOAD]
    (case,) = run_job(Plan(catalogue.card(BUG), [workload], [SEED], [], home / "results", workers=1), catalogue)
    train_pool(1).close()
    assert case.problem is None
    hydra = home / "results" / "runs" / "jobs" / "today" / "0" / ".hydra"
    hydra.mkdir(parents=True)
    (hydra / "overrides.yaml").write_text(f"- bug={BUG}\n")
    models = home / "results" / "runs" / "models" / "char_lm"
    models.mkdir(parents=True)
    (models / "deepfd-0123.json").write_text(f'{{"rows": [[0.5, {{"fault": "{BUG}"}}]]}}')
    shutil.copytree(TESTS / "attacks", home / "attacks", ignore=shutil.ignore_patterns("__pycache__"))
    (home / "attacks" / "healthy.txt").write_text(workload.source)
    installed = home / "packages" / "bugbench" / "workloads"
    installed.mkdir(parents=True)
    shutil.copyfile(workload.program, installed / workload.program.name)
    assert compileall.compile_dir(installed, quiet=1)
    (home / "link").symlink_to("packages")  # as clusters do: what is hidden in one must not show in the other
    (home / "tmp").mkdir()
    return home


def attacked(home: Path, level: str, names: list[str]) -> dict[str, dict[str, str]]:
    """Run the harness under attack; return outcome and words of each."""
    done = subprocess.run(
        [sys.executable, str(TESTS / "attacked_harness.py"), level, str(home), *names, f"bug={BUG}"],
        cwd=home / "results" / "runs" / "jobs" / "today" / "0",
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{home / 'link'}", "TMPDIR": str(home / "tmp")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def offered(level: str) -> str:
    """Return why this machine does not offer a level; empty if it does."""
    worker = JudgingWorker(level)
    try:
        worker.start()
    except NotConfined as error:
        return str(error)
    finally:
        worker.close()
    return ""


def particular(level: str) -> dict[str, str]:
    """Return what ends otherwise on this machine than the table says, for reasons that SECURITY.md gives."""
    other = {}
    if level == "process" and not os.access("/proc/sys/vm/overcommit_ratio", os.W_OK):
        other = {"machine_settings": PREVENTED}
    yama = Path("/proc/sys/kernel/yama/ptrace_scope")
    if level == "process" and os.geteuid() and yama.exists() and int(yama.read_text()):
        other |= {"harness_memory": PREVENTED, "tracing": PREVENTED}  # no process may read its parents there
    if level == "landlock" and landlock.version() < 6:
        other = {"killing": POSSIBLE}
    return other


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is the level process only, without own processes")
@pytest.mark.parametrize("level", LEVELS)
def test_attacks_end_as_the_table_says(home: Path, level: str) -> None:
    if reason := offered(level):
        pytest.skip(reason)
    expected = {name: cells[level] for name, cells in TABLE.items()} | particular(level)
    found = attacked(home, level, list(TABLE))
    wrong = {name: said for name, said in found.items() if said["outcome"] != expected[name]}
    assert set(found) == set(TABLE)
    assert not wrong, json.dumps(wrong, indent=1)


def docstring(name: str) -> str:
    return ast.get_docstring(ast.parse((TESTS / "attacks" / f"{name}.py").read_text())).removesuffix(".")


def test_table_lists_the_attacks_that_there_are() -> None:
    names = {path.stem for path in (TESTS / "attacks").glob("*.py")} - {"honest"}
    assert set(TABLE) == names
    assert {name: docstring(name) for name in names} == WHAT
    assert {cell for cells in TABLE.values() for cell in cells.values()} == {PREVENTED, POSSIBLE}


@pytest.mark.skipif(sys.platform != "linux", reason="the attacks are made for Linux")
def test_what_is_prevented_everywhere_succeeds_inside_a_harness(home: Path) -> None:
    found = attacked(home, "none", NOWHERE_POSSIBLE)
    assert {name: said["outcome"] for name, said in found.items()} == dict.fromkeys(NOWHERE_POSSIBLE, POSSIBLE), found
