"""The same sweep through each of Hydra's launchers, and what happens when one of its processes dies."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from bugbench.catalogue import Catalogue, launchers
from bugbench.catalogue.hydra_groups import check_arguments, settled
from bugbench.names import UnknownName

ROOT = Path(__file__).resolve().parent.parent
CARDS = ["linear_net", "lr_too_high", "nan_inputs", "none"]
SWEEP = [
    "-m", f"bug={','.join(CARDS)}", "workload=cancer_mlp,diabetes_mlp", "results=out of the way",
    "detector=[finite_checks,learning_curves,flat_loss,always_faulty,oracle]",
]  # fmt: skip


def environment(folder: Path) -> dict[str, str]:
    # the plug-ins are named by BUGBENCH_PATH alone, and relative to a folder that the jobs need not be in
    own = {"PYTHONPATH": str(ROOT), "BUGBENCH_PATH": "mine", "COLUMNS": "160"}
    own["TMPDIR"] = str(folder / "tmp")  # where worker processes live, so that they can be found
    ray = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local", "RAY_TMPDIR": "/tmp"}  # sockets need a short path
    return {**os.environ, **own, **ray}


def sweep(launcher: str, folder: Path) -> str:
    """Run the sweep in ``folder``, with a card and a detector from outside; return what it printed."""
    write_plugins(folder)
    command = [sys.executable, "-m", "bugbench", *SWEEP, f"hydra/launcher={launcher}"]
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), text=True, capture_output=True, check=False, timeout=550
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "Traceback" not in output, output
    assert "did not run" not in output, output
    return output


def write_plugins(folder: Path) -> None:
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    for name in ("bugs", "detectors"):
        (folder / "mine" / name).mkdir(parents=True, exist_ok=True)
    (folder / "mine/bugs/linear_net.yaml").write_text(
        "title: Activations left out\nfault: missing_nonlinearity\n"
        "edits: [{find: nn.ReLU(), replace: nn.Identity()}]\nsources: [own]\nabout: The network is one linear map.\n"
    )
    (folder / "mine/detectors/flat_loss.py").write_text(
        "from dataclasses import dataclass\n"
        "from bugbench.detector import HEALTHY, Detector\n\n\n"
        "@dataclass\n"
        "class FlatLoss(Detector):\n"
        '    """Says nothing."""\n\n'
        '    access = {"curves"}\n'
        "    fall: float = 0.05\n\n"
        "    def diagnose(self, trace):\n"
        "        return HEALTHY\n"
    )


def everything(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return all that a sweep found, measured times left out: its verdicts and its leaderboard."""
    from bugbench.records import Records

    verdicts = Records(folder / "out of the way").read().verdicts.drop(columns="seconds")
    board = pd.read_csv(folder / "out of the way" / "leaderboard.csv").drop(columns="median_seconds")
    return verdicts.sort_values(["workload", "bug", "detector"], ignore_index=True), board


def workers(folder: Path) -> list[int]:
    """Return the worker processes of bugbench that live in ``folder``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(entry / "cwd").startswith(str(folder)) and b"bugbench.serving" in _line(entry):
                found.append(int(entry.name))
    return found


def _line(entry: Path) -> bytes:
    return (entry / "cmdline").read_bytes()


def orphans(folder: Path, patience: float = 60) -> list[int]:
    """Return the worker processes that are still there after ``patience`` seconds at most."""
    deadline = time.monotonic() + patience
    while (left := workers(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("basic")
    sweep("basic", folder)
    return everything(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "package"),
    [("joblib", "joblib"), ("submitit_local", "submitit"), ("ray", "ray")],
)
def test_every_launcher_finds_the_same(
    launcher: str, package: str, basic: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    try:
        launchers.check_launcher(launcher)
    except UnknownName as missing:
        pytest.skip(str(missing))
    output = sweep(launcher, tmp_path)
    verdicts, board = everything(tmp_path)
    assert len(verdicts) == 2 * len(CARDS) * 5
    pd.testing.assert_frame_equal(verdicts, basic[0])
    pd.testing.assert_frame_equal(board, basic[1])
    jobs = tmp_path / "out of the way" / "runs" / "jobs"
    assert len(list(jobs.glob("*/*/cases.json"))) == 2 * len(CARDS), "each job left what it did, all below one folder"
    assert len(list(jobs.iterdir())) == 1
    figures = json.loads(next(jobs.glob("*/throughput.json")).read_text())
    assert figures["cases"] == 2 * len(CARDS)
    assert figures["trained_runs"] == 2 * len(CARDS), "the twins are the runs of the card `none`"
    if launcher != "submitit_local":  # whose jobs write to files of their own, as on Slurm
        assert output.count("hidden test") == 2 * len(CARDS), "a line for each case"
    assert not orphans(tmp_path), "no worker outlives the sweep"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_process_of_the_launcher_costs_its_own_jobs_only(tmp_path: Path) -> None:
    write_plugins(tmp_path)
    command = [sys.executable, "-m", "bugbench", *SWEEP, "hydra.launcher.n_jobs=2"]
    running = subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    jobs = tmp_path / "out of the way" / "runs" / "jobs"
    while not list(jobs.glob("*/*/cases.json")) and running.poll() is None:
        time.sleep(0.05)
    assert workers(tmp_path), "there is something that could be left behind"
    os.kill(launcher_process(running.pid), signal.SIGKILL)
    output, errors = running.communicate(timeout=300)
    assert running.returncode == 1, output + errors
    assert "Leaderboard" in output, "what was finished is shown"
    assert "the sweep was cut short (TerminatedWorkerError" in errors
    assert "the same command again does the rest" in errors
    assert "Traceback" not in output + errors
    assert not orphans(tmp_path)
    sweep("joblib", tmp_path)
    verdicts, _ = everything(tmp_path)
    assert len(verdicts) == 2 * len(CARDS) * 5


def launcher_process(parent: int) -> int:
    """Return the process in which joblib runs its jobs."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            status, line = (entry / "status").read_text(), _line(entry)
            if f"PPid:\t{parent}\n" in status and b"loky" in line and b"resource_tracker" not in line:
                return int(entry.name)
    raise AssertionError("joblib has no process")


def test_unknown_launcher_gets_the_nearest(catalogue: Catalogue) -> None:
    with pytest.raises(UnknownName, match="unknown launcher 'joblb': did you mean joblib"):
        check_arguments(["suite=quick", "hydra/launcher=joblb"], catalogue)


@pytest.mark.parametrize(
    ("launcher", "install"),
    [("ray", "pip install 'bugbench[ray]'"), ("submitit_slurm", "pip install 'bugbench[slurm]'")],
)
def test_launcher_that_is_not_installed_names_its_extra(
    launcher: str, install: str, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(launchers, "find_spec", lambda name: None)
    with pytest.raises(UnknownName) as error:
        check_arguments([f"hydra/launcher={launcher}"], catalogue)
    assert str(error.value) == f"hydra/launcher={launcher} is not installed: {install}"


def test_jobs_elsewhere_get_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert settled(["-m", "bug=none"], []) == ["-m", f"results='{tmp_path}/results'", "bug=none"]
    assert settled(["bug=none", 'results="it\'s"', "search_path=[mine]"], ["mine"]) == [
        f"search_path=['{tmp_path}/mine']", f"results='{tmp_path}/it\\'s'", "bug=none",
    ]  # fmt: skip
    assert settled(["results=${oc.env:HOME}/x"], []) == ["results=${oc.env:HOME}/x"]
    assert settled(["bug=none", "-m", "seeds=2"], [])[0] == "-m", "a flag may stand between settings"
    assert settled(["--cfg", "job"], []) == ["--cfg", "job", f"results='{tmp_path}/results'"]


def test_launcher_without_a_limit_gets_one(tmp_path: Path) -> None:
    limit = f"hydra.sweeper.max_batch_size={os.cpu_count()}"
    assert limit in settled(["suite=quick", "hydra/launcher=submitit_local"], [])
    own = settled(["suite=quick", "hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=7"], [])
    assert [word for word in own if "max_batch_size" in word] == ["hydra.sweeper.max_batch_size=7"]
    assert limit not in settled(["suite=quick", "hydra/launcher=submitit_slurm"], [])
