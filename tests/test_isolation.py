"""A machine that does not offer the strongest isolation: what the user is told, and what is kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bugbench import landlock, seccomp
from bugbench.isolation import View, judging_view
from bugbench.records import Records

ROOT = Path(__file__).resolve().parent.parent
FAST = "cancer_mlp"  # the workload that trains in about a second
CHOSEN = (f"workload={FAST}", "plot=false", "detector=[always_healthy,finite_checks]")
DETECTORS = ("--detector", "always_healthy", "finite_checks")
CONTAINED = """\
import os, sys
from bugbench import namespaces, seccomp
namespaces.no_new_privileges()
seccomp.deny()  # no namespaces, as in most containers
os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])
"""
NOTICE = "detectors are judged at the level landlock, since this machine offers no stronger one (namespaces: "


def missing() -> str:
    """Return why this machine cannot play a container that offers Landlock only; empty if it can."""
    if sys.platform != "linux":
        return "needs Linux"
    try:
        seccomp.check()
    except OSError as error:
        return str(error)
    return "" if landlock.version() else "needs Landlock"


contained = pytest.mark.skipif(bool(missing()), reason=missing())


def bugbench(*arguments: str, cwd: Path, module: str = "bugbench", code: int = 0, free: bool = False) -> str:
    """Run a command as in a container, or ``free``; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"}
    command = [sys.executable, *(["-m"] if free else ["-c", CONTAINED]), module, *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    assert "Traceback" not in output
    return output


def levels(home: Path, bug: str = "nan_inputs") -> set[str]:
    return set(Records(home / "results").read([f"{FAST}/{bug}/seed-0"]).verdicts["isolation"])


@contained
def test_weaker_isolation_is_told_once_and_kept_with_the_verdicts(tmp_path: Path) -> None:
    output = bugbench("bug=nan_inputs", *CHOSEN, cwd=tmp_path)
    assert output.count(NOTICE) == 1
    assert "SECURITY.md" in output
    assert levels(tmp_path) == {"landlock"}
    assert bugbench("--again", *DETECTORS, module="bugbench.judge", cwd=tmp_path).count(NOTICE) == 1
    board = (tmp_path / "results" / "leaderboard.md").read_text()
    assert "**2 of 2 verdicts without the isolation of namespaces: 2 at the level landlock.**" in board


@pytest.mark.slow
@contained
def test_sweep_tells_it_once(tmp_path: Path) -> None:
    assert bugbench("-m", "bug=none,nan_inputs", *CHOSEN, cwd=tmp_path).count(NOTICE) == 1
    assert levels(tmp_path, "none") == levels(tmp_path) == {"landlock"}


@pytest.mark.slow
@contained
def test_level_that_is_asked_for_is_used_or_nothing_is_judged(tmp_path: Path) -> None:
    problem = "no judging process can be started here: namespaces: PermissionError"
    skipped = bugbench("bug=nan_inputs", *CHOSEN, "isolation=namespaces", cwd=tmp_path, code=1)
    assert f"skipped, NotConfined: {problem}" in skipped
    bugbench("bug=nan_inputs", *CHOSEN, cwd=tmp_path)
    assert problem in bugbench("--isolation", "namespaces", module="bugbench.judge", cwd=tmp_path, code=1)
    assert levels(tmp_path) == {"landlock"}


@pytest.mark.slow
def test_stored_verdict_is_taken_only_at_the_level_asked_for(tmp_path: Path) -> None:
    """Else a run without confinement, to look for a mistake, would leave its verdicts to the next that counts."""

    def judge(*arguments: str) -> set[str]:
        bugbench(*DETECTORS, *arguments, module="bugbench.judge", cwd=tmp_path, free=True)
        return levels(tmp_path)

    output = bugbench("bug=nan_inputs", *CHOSEN, "isolation=process", cwd=tmp_path, free=True)
    assert "detectors are judged at" not in output, "it was asked for"
    assert levels(tmp_path) == {"process"}
    (strongest,) = judge()
    assert (strongest == "process") == bool(missing())
    assert judge("--isolation", "process") == {"process"}
    assert judge("--isolation", strongest) == {strongest}


# -- what a judging process may see -------------------------------------------------------------------------------


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A folder of packages with something secret, reached by a link as well: `lib64` of a virtual environment."""
    for name in ("lib/site/secret/answer.txt", "lib/site/other/code.py", "bin/tool"):
        path = tmp_path / "prefix" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "prefix" / "lib64").symlink_to("lib")
    (tmp_path / "link").symlink_to("prefix")
    return tmp_path / "prefix"


def test_parts_hold_what_is_readable_and_no_way_to_what_is_hidden(prefix: Path) -> None:
    view = View((prefix, prefix.parent / "link"), (prefix / "lib" / "site" / "secret",))
    assert view.parts() == [prefix / "bin", prefix / "lib" / "site" / "other"]
    assert view.split() == [prefix, prefix / "lib", prefix / "lib" / "site"]


def test_installed_copies_search_path_and_results_are_hidden(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = prefix / "lib" / "python3.11" / "site-packages" / "bugbench"
    copy.mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", str(prefix))
    view = judging_view([prefix / "bin"], [prefix / "lib" / "site" / "secret", prefix / "no" / "such", ROOT])
    assert prefix in view.readable
    assert {copy, prefix / "lib" / "site" / "secret", prefix / "no" / "such"} <= set(view.hidden)
    assert not [path for path in view.readable if ROOT.is_relative_to(path)]
