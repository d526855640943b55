"""Faults injected into the harness itself: killed processes, a full disk, damaged files, broken data sets.

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
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bugbench.atomic import DRAFT
from bugbench.catalogue import Catalogue
from bugbench.job import CaseResult, Plan, run_job
from bugbench.judge import judge_again, judges_of
from bugbench.records import Records
from bugbench.report import leaderboard
from bugbench.runner import prepare
from bugbench.store import Store
from bugbench.worker import Worker, WorkerPool

ROOT = Path(__file__).resolve().parent.parent
FAST = "diabetes_mlp"  # trains in half a second
BUGS = ["none", "nan_inputs", "lr_too_high"]
DETECTORS = ["oracle", "finite_checks", "learning_curves", "always_faulty"]
SWEEP = ["-m", f"bug={','.join(BUGS)}", f"workload={FAST}", f"detector=[{','.join(DETECTORS)}]", "plot=false"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"}
LONG = 500  # seconds that nothing here comes near


def slow(*values: object) -> object:
    """Return parameters of a test that is run with ``-m slow`` alone: the quick ones stand for them."""
    return pytest.param(*values, marks=pytest.mark.slow)


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


def assert_nothing_half_written(results: Path) -> None:
    """Every case can be read and every trace is whole."""
    assert Records(results).read().damaged == []
    pool = WorkerPool([Worker("train")])  # starts nothing
    store = Store(results, pool)
    data = [path.name for path in (results / "runs" / "data").glob("[!.]*")]
    for folder in (results / "runs" / "traces").glob("[!.]*"):
        store.verify(folder.name, data[0])


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
@pytest.mark.parametrize("seed", [1, slow(2), slow(3)])
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
@pytest.mark.parametrize("share", [slow(0.02), 0.3, slow(0.6), slow(0.97)])
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


# -- damaged files ------------------------------------------------------------------------------------------------


def plan(catalogue: Catalogue, results: Path, bug: str = "nan_inputs", workload: str = FAST, **changes) -> Plan:
    judges = judges_of(catalogue, DETECTORS)
    return Plan(catalogue.card(bug), [catalogue.workloads[workload]], [0], judges, results, **changes)


def rows(results: Path) -> pd.DataFrame:
    cases = Records(results).read()
    assert cases.damaged == []
    return cases.verdicts.drop(columns="seconds")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 16
    path.write_bytes(content)


@pytest.fixture(scope="module")
def trained_case(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("trained") / "results"
    run_job(plan(catalogue, results), catalogue)
    return results


TRACE_FILES = [
    *("meta.json", "metrics.parquet", "layers.parquet", "samples.parquet", "config.yaml"),
    *("predictions.safetensors", "batches/train-0000000.safetensors"),
]


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *(("steps.parquet", cut), ("program.py", flip), ("../outcome.json", cut)),
        *(slow(file, damage) for file in TRACE_FILES for damage in (cut, flip)),
    ],
)
def test_damaged_trace_is_told_and_made_again(
    catalogue: Catalogue, trained_case: Path, capsys: pytest.CaptureFixture[str], file: str, damage
) -> None:
    before = rows(trained_case)
    (record,) = Records(trained_case).read().records
    trace = trained_case / "runs" / "traces" / record.trace_key / "trace"
    intact = (trace / file).read_bytes()
    damage(trace / file)
    twin = trained_case / "runs" / "traces" / record.twin_key / "outcome.json"
    stamp = twin.stat()
    capsys.readouterr()
    problems = judge_again(trained_case, catalogue, judges_of(catalogue, DETECTORS), workers=2, again=False)
    assert [p for p in problems if Path(file).name in p and "to make it again: python -m bugbench bug=nan_inputs" in p]
    assert rows(trained_case).equals(before), "what is damaged is not judged"
    run_job(plan(catalogue, trained_case), catalogue)
    told = capsys.readouterr().err
    assert told.count("damaged trace, to be trained again") == 1
    assert Path(file).name in told
    assert rows(trained_case).equals(before)
    assert (trace / file).read_bytes() == intact or file == "../outcome.json"
    assert (twin.stat().st_ino, twin.stat().st_mtime_ns) == (stamp.st_ino, stamp.st_mtime_ns)
    assert_nothing_half_written(trained_case)


@pytest.mark.parametrize("damage", [cut, slow(flip)])
def test_damaged_training_data_are_told_and_made_again(
    catalogue: Catalogue, trained_case: Path, capsys: pytest.CaptureFixture[str], damage
) -> None:
    before = rows(trained_case)
    (file,) = (p for p in (trained_case / "runs" / "data").rglob("*") if p.is_file())
    intact = file.read_bytes()
    damage(file)
    problems = judge_again(trained_case, catalogue, judges_of(catalogue, DETECTORS), workers=2, again=False)
    assert [p for p in problems if f"{file.parent}: the training data do not match their checksum" in p]
    run_job(plan(catalogue, trained_case), catalogue)
    assert f"damaged training data {file.parent}: written again" in capsys.readouterr().err
    assert file.read_bytes() == intact
    assert rows(trained_case).equals(before)


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


# -- what fails within a case -------------------------------------------------------------------------------------


def test_program_that_never_ends_is_a_row_with_the_reason(catalogue: Catalogue, tmp_path: Path) -> None:
    run_job(plan(catalogue, tmp_path, "none", train_seconds=LONG), catalogue)  # the twin has all the time it needs
    fields = {k: v for k, v in catalogue.cards["lr_too_low"].items() if k != "factor"}
    card = catalogue.card("lr_too_low", {**fields, "config": {"epochs": "* 1000000"}})
    (result,) = run_job(replace(plan(catalogue, tmp_path, train_seconds=3), card=card), catalogue)
    assert (result.problem, result.record.crashed_bug) == (None, True)
    assert result.record.error == "TimedOut: no answer within 3 s"
    (found,) = (r for r in Records(tmp_path).read().records if r.bug == "lr_too_low")
    assert found == result.record
    assert set(result.verdicts["detector"]) == set(DETECTORS)
    store = Store(tmp_path, WorkerPool([Worker("train")]))
    assert store.outcome(found.trace_key) is None, "it is tried again"
    assert store.outcome(found.twin_key) is not None


BROKEN = {
    "write_training_data": ("raise RuntimeError('no such host')", "write_training_data: RuntimeError: no such host"),
    "training_sample": ("return None", "training_sample: TypeError: cannot unpack"),
    "hidden_test": ("raise SystemExit('stop')", "hidden_test: SystemExit: stop"),
    "oracle_metric": ("return float('nan')", "oracle_metric returned nan"),
}


def with_broken_data_set(catalogue: Catalogue, folder: Path, function: str) -> Catalogue:
    """Return the catalogue with one function of the fast workload's data set broken."""
    folder.mkdir()
    (folder / "broken.py").write_text(
        f"from bugbench.datasets.diabetes import *\n\n\ndef {function}(*_):\n    {BROKEN[function][0]}\n"
    )
    workload = replace(catalogue.workloads[FAST], dataset=folder / "broken.py")
    return replace(catalogue, workloads={**catalogue.workloads, FAST: workload})


def test_a_twin_that_trains_no_step_has_no_result_to_compare_with(catalogue: Catalogue, tmp_path: Path) -> None:
    card = catalogue.card("lr_too_low", {**catalogue.cards["lr_too_low"], "setting": {"epochs": 0}})
    (result,) = run_job(replace(plan(catalogue, tmp_path), card=card), catalogue)
    assert_skipped(result, tmp_path, "healthy twin: there is no result to compare with: after 0 steps")


def assert_skipped(result: CaseResult, results: Path, reason: str) -> None:
    assert reason in result.record.skipped
    assert set(result.verdicts["detector"]) == set(DETECTORS)
    assert set(result.verdicts["status"]) == {"skipped"}
    assert all(reason in said for said in result.verdicts["reason"])
    assert not result.record.crashed_bug
    log = results / "runs" / "failures" / f"{result.record.folder}.txt"
    assert reason in log.read_text()
    assert reason in result.problem
    assert str(log) in result.problem


@pytest.mark.parametrize(
    "function", [slow("write_training_data"), slow("training_sample"), "hidden_test", slow("oracle_metric")]
)
def test_broken_data_set_skips_its_cases_and_the_job_goes_on(
    catalogue: Catalogue, tmp_path: Path, function: str
) -> None:
    broken = with_broken_data_set(catalogue, tmp_path / "mine", function)
    results = tmp_path / "results"
    both = replace(
        plan(broken, results), workloads=[broken.workloads[FAST], broken.workloads["cancer_mlp"]], seeds=[0, 1]
    )
    found = run_job(both, broken)
    assert [(r.record.workload, r.record.seed) for r in found] == [
        *((FAST, 0), (FAST, 1), ("cancer_mlp", 0), ("cancer_mlp", 1))
    ]
    for result in found[:2]:
        assert_skipped(result, results, BROKEN[function][1])
    for result in found[2:]:
        assert (result.problem, result.record.skipped) == (None, None)
        assert not result.verdicts["status"].eq("skipped").any()
    cases = Records(results).read()
    board, impact = leaderboard.build(results, cases)
    assert set(impact["workload"]) == {"cancer_mlp"}
    assert set(board["cases"]) == {2}
    assert set(board["skipped"]) == {2}
    assert "**2 cases skipped, because the harness failed.**" in (results / "leaderboard.md").read_text()
    assert judge_again(results, broken, judges_of(broken, DETECTORS), workers=2, again=False) == []

    (result,) = run_job(plan(catalogue, results), catalogue)
    assert (result.problem, result.record.skipped) == (None, None)
    assert [p.name for p in (results / "runs" / "failures").rglob("*.txt")] == ["seed-1.txt"]


def test_failing_trace_or_detector_bench_costs_its_case_only(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_once(self, key):
        folder = trace(self, key)
        if key == prepare(catalogue.card("nan_inputs"), catalogue.workloads[FAST], 0).run.key(data.name):
            return folder / "nowhere"
        return folder

    trace = Store.trace
    data = Store(tmp_path, WorkerPool([Worker("train")])).data_folder(catalogue.workloads[FAST])
    monkeypatch.setattr(Store, "trace", fails_once)
    found = run_job(replace(plan(catalogue, tmp_path), seeds=[0, 1]), catalogue)
    assert_skipped(found[0], tmp_path, "FileNotFoundError")
    assert found[1].problem is None
    monkeypatch.undo()
    assert run_job(plan(catalogue, tmp_path), catalogue)[0].problem is None


def test_row_that_cannot_be_written_is_told_and_the_others_are(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self, record, verdicts):
        if record.seed == 0:
            raise OSError(28, "No space left on device")
        write(self, record, verdicts)

    write = Records.write
    monkeypatch.setattr(Records, "write", full)
    found = run_job(replace(plan(catalogue, tmp_path), seeds=[0, 1]), catalogue)
    why = "its verdicts cannot be written: OSError: [Errno 28] No space left on device"
    expected = f"nan_inputs on {FAST}, seed 0: {why}"
    assert [(r.stored, r.problem) for r in found] == [(False, expected), (True, None)]
    assert [r.seed for r in Records(tmp_path).read().records] == [1]


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
