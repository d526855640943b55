"""Faults injected into sweeps: killed processes, a full disk, a damaged case, a broken data set.

Whatever happens, no case is lost, nothing half-written is visible, and a rerun ends with the tables of a run that
nothing disturbed, without training again what was trained. Where chance picks the moment, the seed is in the message.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from bugbench.atomic import DRAFT
from bugbench.records import Records
from injected_faults import DETECTORS, FAST, LONG, assert_nothing_half_written, cut, flip, slow

ROOT = Path(__file__).resolve().parent.parent
BUGS = ["none", "nan_inputs", "lr_too_high"]
SWEEP = ["-m", f"bug={','.join(BUGS)}", f"workload={FAST}", f"detector=[{','.join(DETECTORS)}]", "plot=false"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"}


def start(home: Path, *arguments: str, module: str = "bugbench") -> subprocess.Popen[str]:
    """Start a command of the project in ``home``, in a session of its own."""
    home.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=home,
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for a command; return what it printed."""
    output, _ = process.communicate(timeout=LONG)
    assert process.returncode == code, output
    assert "Traceback" not in output, output
    return output


def tables(home: Path) -> dict[str, pd.DataFrame]:
    """Return all that a run is to end with; seconds, which are measured, left out."""
    cases = Records(home / "results").read()
    assert cases.damaged == []
    return {
        "records": pd.DataFrame([vars(r) for r in cases.records]).drop(columns=["seconds_bug", "seconds_twin"]),
        "verdicts": cases.verdicts.drop(columns="seconds"),
        "leaderboard": pd.read_csv(home / "results" / "leaderboard.csv").drop(columns="median_seconds"),
        "impact": pd.read_csv(home / "results" / "impact.csv"),
    }


def assert_same(found: dict[str, pd.DataFrame], expected: dict[str, pd.DataFrame], message: str = "") -> None:
    for name, table in expected.items():
        pd.testing.assert_frame_equal(found[name], table, check_exact=True, obj=f"{name} {message}")


def trained(home: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of the stored outcomes: they change when a trace is trained again."""
    paths = (home / "results" / "runs" / "traces").glob("[!.]*/outcome.json")
    return {path.parent.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("undisturbed") / "home"
    finish(start(home, *SWEEP))
    assert_nothing_half_written(home / "results")
    return home


# -- killed processes ---------------------------------------------------------------------------------------------


def count(folder: Path) -> int:
    """Return the number of files, however fast some of them come and go."""
    return sum(len(names) for _, _, names in os.walk(folder))


def kill_at_random(process: subprocess.Popen[str], home: Path, files: int, chance: random.Random) -> str:
    """Kill a harness when about so many files are there as chance wants; return a line that says when."""
    wanted, delay = chance.randint(0, files), chance.uniform(0, 0.5)
    runs = home / "results" / "runs"
    while process.poll() is None and count(runs) < wanted:
        time.sleep(0.01)
    time.sleep(delay)
    process.kill()
    process.communicate(timeout=LONG)
    return f"killed when {wanted} of {files} files were there, {delay:.3f} s later, exit {process.returncode}"


def assert_survives(home: Path, arguments: list[str], expected: Path, kills: int, seed: int) -> None:
    """Kill a sweep at random moments and restart it: it ends as the undisturbed one and trains nothing twice."""
    chance = random.Random(seed)
    files = count(expected / "results" / "runs")
    message = f"seed {seed}"
    kept: dict[str, tuple[int, int]] = {}
    for _ in range(kills):
        message += "; " + kill_at_random(start(home, *arguments), home, files, chance)
        assert kept.items() <= trained(home).items(), f"trained again: {message}"
        kept = trained(home)
    finish(start(home, *arguments))
    assert kept.items() <= trained(home).items(), f"trained again: {message}"
    assert_same(tables(home), tables(expected), message)
    assert_nothing_half_written(home / "results")


@pytest.mark.parametrize("seed", [1, slow(2), slow(3)])
def test_killed_harness_goes_on_where_it_was(undisturbed: Path, tmp_path: Path, seed: int) -> None:
    assert_survives(tmp_path / "home", SWEEP, undisturbed, kills=2, seed=seed)


@pytest.mark.slow
def test_sweep_killed_three_times_ends_with_the_same_leaderboard(tmp_path: Path) -> None:
    bugs = ["none", "other_seed", "tanh_activations", "nan_inputs", "lr_too_high", "frozen_layers", "missing_zero_grad"]
    arguments = ["suite=quick", f"bug={','.join(bugs)}", f"workload={FAST}"]
    finish(start(tmp_path / "undisturbed", *arguments))
    seed = random.SystemRandom().randrange(10**6)
    assert_survives(tmp_path / "home", arguments, tmp_path / "undisturbed", kills=3, seed=seed)


def test_interrupted_run_ends_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    arguments = ["bug=lr_too_high", "workload=char_lm", "workload.config.epochs=1000", "plot=false"]
    process = start(tmp_path, *arguments, f"results={tmp_path / 'results'}")
    traces = tmp_path / "results" / "runs" / "traces"
    while not list(traces.glob(".*")):  # a draft: it trains, and would for ten minutes
        time.sleep(0.1)
        assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGTERM)  # does what Ctrl-C does, which may be ignored in what a script starts
    output = finish(process, 130)
    assert "bugbench: interrupted. What was trained is kept: the same command goes on." in output
    assert [path for path in traces.iterdir() if not DRAFT.fullmatch(path.name)] == []


def training_workers(harness: int) -> list[int]:
    """Return the training workers that are children of a process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except (OSError, IndexError):  # ended meanwhile
            continue
        if parent == harness and words[-2:-1] == [b"train"]:  # the last argument tells the kinds of worker apart
            found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers by /proc")
@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_workers_cost_their_cases_only_and_the_next_run_repairs_these(
    undisturbed: Path, tmp_path: Path, seed: int
) -> None:
    chance, home = random.Random(seed), tmp_path / "home"
    process = start(home, *SWEEP)
    killed: list[str] = []
    last = time.monotonic()
    pause = 0.0
    while process.poll() is None and len(killed) < 4:
        workers = training_workers(process.pid)
        if workers and time.monotonic() - last > pause:
            victim = chance.choice(workers)
            os.kill(victim, signal.SIGKILL)
            killed.append(f"{victim} after {pause:.3f} s")
            last, pause = time.monotonic(), chance.uniform(0, 2)
        time.sleep(0.01)
    message = f"seed {seed}, killed {killed}"
    output = finish(process)
    cases = Records(home / "results").read()
    assert {r.bug for r in cases.records} == set(BUGS), message
    assert cases.verdicts.groupby("bug")["detector"].apply(set).map(len).eq(len(DETECTORS)).all(), message
    assert all("WorkerDied" in r.skipped for r in cases.records if r.skipped), message
    assert all(f"{r.bug} on {FAST}" in output for r in cases.records if r.skipped), message
    whole = {r.trace_key for r in cases.records if not r.skipped and "WorkerDied" not in (r.error or "")}
    before = trained(home)
    finish(start(home, *SWEEP))
    assert_same(tables(home), tables(undisturbed), message)
    after = trained(home)
    assert {key: after[key] for key in whole} == {key: before[key] for key in whole}, message


# -- a full disk --------------------------------------------------------------------------------------------------

NAMESPACE = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
SMALL_DISK = """
mount -t tmpfs -o size={size} tmpfs results || exit 9
"$@" > first.txt 2>&1
echo $? > first.code
cp -a results copy
mount -o remount,size=256m results || exit 9
"$@" > second.txt 2>&1
echo $? > second.code
rm -rf copy2 && cp -a results copy2
"""


def can_mount() -> bool:
    probe = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(probe, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs root or user namespaces to mount a small tmpfs")
@pytest.mark.slow
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
def test_full_disk_is_told_and_a_rerun_with_room_completes(undisturbed: Path, tmp_path: Path, share: float) -> None:
    """The results lie on a disk with room for a share of them."""
    needed = sum(path.stat().st_blocks * 512 for path in (undisturbed / "results").rglob("*") if path.is_file())
    home = tmp_path / "home"
    (home / "results").mkdir(parents=True)
    script = SMALL_DISK.format(size=int(share * needed) // 4096 * 4096)
    command = [sys.executable, "-m", "bugbench", *SWEEP]
    subprocess.run([*NAMESPACE, "bash", "-c", script, "bash", *command], cwd=home, env=ENVIRONMENT, check=True)
    output = (home / "first.txt").read_text()
    assert (home / "first.code").read_text() == "0\n", output
    assert "Traceback" not in output, output
    assert re.search("No space left on device|StorageFull", output), output
    assert "did not run:" in output
    first = home / "copy"
    assert_nothing_half_written(first)
    assert [path for path in first.rglob("*") if DRAFT.fullmatch(path.name)] == []
    cases = Records(first).read()
    assert (cases.verdicts.groupby("bug")["detector"].nunique() == len(DETECTORS)).all()
    assert all("No space left" in r.skipped or "StorageFull" in r.skipped for r in cases.records if r.skipped)
    assert not any(r.crashed_bug for r in cases.records if r.bug == "none")

    assert (home / "second.code").read_text() == "0\n", (home / "second.txt").read_text()
    assert "did not run:" not in (home / "second.txt").read_text()
    (home / "copy").rename(home / "first")
    (home / "results").rmdir()
    (home / "copy2").rename(home / "results")
    assert_same(tables(home), tables(undisturbed))
    assert_nothing_half_written(home / "results")


# -- a damaged case -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [slow(cut), flip])
def test_damaged_case_is_left_out_by_name_until_it_is_made_again(undisturbed: Path, tmp_path: Path, damage) -> None:
    home = tmp_path / "home"
    shutil.copytree(undisturbed, home)
    path = home / "results" / "runs" / "cases" / FAST / "nan_inputs" / "seed-0" / "case.json"
    damage(path)
    for module, asked in (("bugbench.report", []), ("bugbench.judge", ["--detector", *DETECTORS])):
        output = finish(start(home, *asked, module=module), code=1)
        assert f"{path}: " in output.replace("\n", "")
        assert f"python -m bugbench bug=nan_inputs workload={FAST} 'seeds=[0]'" in output
        assert "Leaderboard: 1 harmful bug case, 1 control case" in output
    assert "**1 case damaged on disk and left out.**" in (home / "results" / "leaderboard.md").read_text()
    before = trained(home)
    finish(start(home, *SWEEP))
    assert trained(home) == before
    assert_same(tables(home), tables(undisturbed))


# -- a broken data set --------------------------------------------------------------------------------------------


def test_command_line_tells_of_a_broken_data_set(tmp_path: Path) -> None:
    """A single run ends with a message and a status, a sweep goes on and lists it at its end."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for name, content in re.findall(r"\*\*`(mine/[\w/.]+)`\*\*\n\n```\w+\n(.*?)```", text, re.DOTALL):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    dataset = tmp_path / "mine" / "datasets" / "iris.py"
    dataset.write_text(dataset.read_text().replace("    test = _parts()[1]\n", "    test = [][0]\n"))
    choice = ["search_path=[mine]", f"detector=[{','.join(DETECTORS)}]", "plot=false"]
    output = finish(start(tmp_path, "bug=linear_net", "workload=iris_mlp", *choice), code=1)
    assert f"skipped, healthy twin: data set {dataset}: hidden_test: IndexError: list index out of range" in (
        output.replace("skipped, data set", "skipped, healthy twin: data set")
    )
    log = tmp_path / "results" / "runs" / "failures" / "iris_mlp" / "linear_net" / "seed-0.txt"
    assert f"(traceback: {log})" in output
    assert "test = [][0]" in log.read_text()
    output = finish(start(tmp_path, "-m", "bug=linear_net", f"workload=iris_mlp,{FAST}", *choice))
    assert "Leaderboard" in output
    assert re.search(r"did not run: linear_net on iris_mlp, seed 0: skipped, .*IndexError", output)
    (job,) = (tmp_path / "results" / "runs" / "jobs").glob("*/0/cases.json")
    assert json.loads(job.read_text())["cases"] == ["iris_mlp/linear_net/seed-0"]
