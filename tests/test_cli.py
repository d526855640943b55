"""End to end through the command line, in a working directory of its own."""

import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from bugbench.recorder import Recorder
from bugbench.records import Records
from command_line import ROOT, bugbench

FAST = "cancer_mlp"  # the workload that trains in about a second
RULE_SETS = ["deepdiagnosis", "deeplocalize", "sagemaker_rules", "thedeepchecker", "umlaut"]  # kept as published
LEADERBOARD = [
    *("detector", "access", "origin", "diagnosis_j", "detection_j", "false_alarm_rate"),
    *("exact_rate", "family_rate", "top3_rate"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which two cards ran on the fast workload."""
    folder = tmp_path_factory.mktemp("home")
    output = bugbench("-m", "bug=none,nan_inputs", f"workload={FAST}", "plot=false", cwd=folder)
    assert "Leaderboard" in output
    return folder


def verdicts(home: Path, bug: str, seed: int = 0, workload: str = FAST) -> pd.DataFrame:
    return Records(home / "results").read([f"{workload}/{bug}/seed-{seed}"]).verdicts.set_index("detector")


def test_one_bug_shows_diff_twin_and_verdicts(home: Path) -> None:
    output = bugbench("bug=nan_inputs", f"workload={FAST}", cwd=home)
    assert "fault: nan_inputs" in output
    assert re.search(r"^-.*isnan", output, re.MULTILINE), "the diff shows what was taken away"
    assert "healthy twin" in output
    assert "hidden test accuracy" in output
    assert re.search(r"right.*finite_checks.*nan_inputs", output)
    curves = home / "results" / "runs" / "cases" / FAST / "nan_inputs" / "seed-0" / "curves.png"
    assert curves.read_bytes().startswith(b"\x89PNG")
    assert not (home / "outputs").exists(), "Hydra leaves nothing outside results/"


def test_sweep_writes_verdicts_and_tables(home: Path) -> None:
    board = pd.read_csv(home / "results" / "leaderboard.csv")
    assert list(board.columns[: len(LEADERBOARD)]) == LEADERBOARD
    scores = board.set_index("detector")["diagnosis_j"]
    assert scores["oracle"] == 1
    assert scores["always_faulty"] <= 0
    assert scores["always_healthy"] <= 0
    assert scores["finite_checks"] == 1
    assert (home / "results" / "leaderboard.md").read_text().startswith("# Leaderboard")
    rows = verdicts(home, "nan_inputs")
    adapters = [p.stem for p in (ROOT / "detectors").glob("*.py") if "bugbench.third_party" in p.read_text()]
    own = rows[~rows.index.isin(adapters)]
    assert own["status"].isin(["ok", "not_applicable"]).all(), own[["status", "reason"]]
    others = rows[rows.index.isin(adapters)]
    assert others["status"].isin(["ok", "not_applicable", "not_installed"]).all(), others[["status", "reason"]]
    assert others.loc[others["status"] == "not_installed", "reason"].str.contains("pip install").all()
    assert rows.loc["finite_checks", "exact"]
    assert rows.loc["oracle", "line_right"]
    healthy = verdicts(home, "none")
    alarms = healthy.index[healthy["alarm"]].difference(["prior", *RULE_SETS])
    assert list(alarms) == ["always_faulty"]


def test_impact_of_a_sweep_is_measured_and_merged(home: Path) -> None:
    impact = pd.read_csv(home / "results" / "impact.csv").set_index(["bug", "workload"])
    assert (
        "degraded" in impact.loc[("nan_inputs", FAST), "state"]
        or "crashed" in impact.loc[("nan_inputs", FAST), "state"]
    )
    assert impact.loc[("none", FAST), "effect"] == 0


def test_second_run_trains_nothing_again(home: Path) -> None:
    traces = sorted((home / "results" / "runs" / "traces").glob("*/outcome.json"))
    before = {path: path.stat().st_mtime_ns for path in traces}
    bugbench("bug=nan_inputs", f"workload={FAST}", "plot=false", cwd=home)
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_sweep_goes_on_elsewhere_from_published_verdicts(home: Path, tmp_path: Path) -> None:
    """Nothing is trained of which all verdicts are there; a detector with another knob needs the traces."""
    assert "2 cases added" in bugbench(str(home / "results"), module="bugbench.merge", cwd=tmp_path)
    sweep = ["-m", "bug=none,nan_inputs", f"workload={FAST}", "detector=[finite_checks,oracle]", "plot=false"]
    assert "named by finite_checks" in bugbench(*sweep, cwd=tmp_path)
    assert not (tmp_path / "results" / "runs" / "traces").exists()
    pd.testing.assert_frame_equal(verdicts(tmp_path, "none").sort_index(), verdicts(home, "none").sort_index())
    bugbench(*sweep, "detector.finite_checks.growth=7.5", cwd=tmp_path)
    assert len(list((tmp_path / "results" / "runs" / "traces").iterdir())) == 2
    before, after = (verdicts(folder, "none")["version"].sort_index() for folder in (home, tmp_path))
    assert list(before.index[before != after]) == ["finite_checks"]


def test_judge_again_gives_the_same_verdicts_without_training(home: Path) -> None:
    before = verdicts(home, "nan_inputs")[["alarm", "exact", "suspects", "alarm_step"]]
    bugbench("--again", module="bugbench.judge", cwd=home)
    after = verdicts(home, "nan_inputs")[["alarm", "exact", "suspects", "alarm_step"]]
    pd.testing.assert_frame_equal(before.sort_index(), after.sort_index())


def test_report_rebuilds_the_same_leaderboard(home: Path) -> None:
    names = ["leaderboard.csv", "leaderboard.md", "leaderboard.html", "by_fault.csv", "comparisons.csv"]
    paths = [home / "results" / name for name in names]
    bugbench(module="bugbench.report", cwd=home)
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    bugbench(module="bugbench.report", cwd=home)
    assert [path.read_bytes() for path in paths] == before
    page = paths[2].read_text()
    assert 'id="bug-nan_inputs"' in page and 'class="line twin"' in page, "the bug's section has its curves"


def test_knobs_reach_card_and_detector(home: Path) -> None:
    output = bugbench(
        "bug=lr_too_high", "bug.factor=500", f"workload={FAST}", "detector=[finite_checks,always_faulty]",
        "detector.always_faulty.fault=lr_too_high", "plot=false", cwd=home,
    )  # fmt: skip
    rows = verdicts(home, "lr_too_high(factor=500)")
    assert set(rows.index) == {"finite_checks", "always_faulty"}
    assert rows.loc["always_faulty", "exact"]
    assert "config lr" in output


def test_sweep_marks_bugs_that_do_no_harm(tmp_path: Path) -> None:
    cards = "bug=fit_on_all,nan_inputs,double_precision"
    choice = ["detector=[baseline,finite_checks]", "plot=false"]
    output = bugbench("-m", cards, f"workload={FAST}", *choice, cwd=tmp_path)
    assert set(verdicts(tmp_path, "nan_inputs").index) == {
        *("always_faulty", "always_healthy", "finite_checks", "oracle", "prior")
    }
    lines = {line.split()[1]: line for line in output.splitlines() if line.startswith(FAST)}
    assert lines["fit_on_all"].endswith("latent, does not count: named by nobody")
    assert lines["nan_inputs"].endswith(")  named by finite_checks")
    assert ")  false alarm: always_faulty" in lines["double_precision"]


def example_files() -> dict[str, str]:
    """Return the files that CONTRIBUTING.md tells a newcomer to write."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return dict(re.findall(r"\*\*`(mine/[\w/.]+)`\*\*\n\n```\w+\n(.*?)```", text, re.DOTALL))


def test_newcomer_adds_card_detector_and_workload_from_outside(tmp_path: Path) -> None:
    files = example_files()
    assert len(files) == 6
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    output = bugbench("bug=linear_net", "workload=iris_mlp", "search_path=[mine]", "plot=false", cwd=tmp_path)
    assert "+    return nn.Sequential(nn.Linear(4, config.width), nn.Identity()" in output
    rows = verdicts(tmp_path, "linear_net", workload="iris_mlp")
    assert rows.loc["flat_loss", "status"] == "ok"
    assert not rows.loc["flat_loss", "alarm"]
    assert rows.loc["oracle", "exact"]
    assert rows.loc["usual_fall", "status"] == "not_applicable"
    assert "no case of another workload than iris_mlp, on other data, is stored" in rows.loc["usual_fall", "reason"]
    choice = ["workload=iris_mlp", "search_path=[mine]", "detector=[flat_loss]", "plot=false"]
    project_card = bugbench("bug=lr_too_low", "bug.factor=1e-9", *choice, cwd=tmp_path)
    assert re.search(r"right.*flat_loss.*lr_too_low", project_card)
    assert "linear_net" in bugbench("--search-path", "mine", module="bugbench.catalogue", cwd=tmp_path)
    mine = {"bug": "linear_net", "workload": "iris_mlp", "search_path": "[mine]", "plot": "false"}
    bugbench(*(f"{key}={value}" for key, value in mine.items()), "detector=[oracle]", cwd=tmp_path)
    assert "flat_loss" in verdicts(tmp_path, "linear_net", workload="iris_mlp").index, "it took no part, and stays"


@pytest.mark.slow
def test_detectors_that_learn_judge_at_the_end_of_a_sweep(tmp_path: Path) -> None:
    """From the cases of all jobs, each workload by a model of the others; `bugbench.judge` finds the same."""
    for name, text in example_files().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    settings = ["search_path=[mine]", "detector=[usual_fall,oracle]"]
    cards = "bug=none,lr_too_low"
    bugbench("-m", cards, f"workload=iris_mlp,{FAST}", *settings, cwd=tmp_path)
    board = pd.read_csv(tmp_path / "results" / "leaderboard.csv").set_index("detector")
    assert board.loc["usual_fall", ["cases", "controls", "not_applicable"]].tolist() == [2, 2, 0]
    rows = {w: verdicts(tmp_path, "lr_too_low", workload=w).loc["usual_fall"] for w in ("iris_mlp", FAST)}
    assert all("in 1 healthy runs at most" in row["suspects"] for row in rows.values() if row["alarm"])
    models = {path.parent.name for path in (tmp_path / "results" / "runs" / "models").glob("*/usual_fall-*.json")}
    assert models == {"iris_mlp", FAST}
    bugbench("--search-path", "mine", "--detector", "usual_fall", module="bugbench.judge", cwd=tmp_path)
    for workload, row in rows.items():
        pd.testing.assert_series_equal(verdicts(tmp_path, "lr_too_low", workload=workload).loc["usual_fall"], row)


def test_detectors_judge_a_trace_of_ones_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    run = Recorder(tmp_path / "mine", task="classification", classes=3)
    model = torch.nn.Linear(4, 3)
    run.watch(model, optimizer := torch.optim.SGD(model.parameters(), lr=0.1))
    for _ in range(30):
        inputs, targets = torch.randn(16, 4), torch.randint(3, (16,))
        outputs = model(inputs)
        loss = torch.nn.functional.cross_entropy(outputs.softmax(dim=1), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
    run.finish()
    asked = ["loss_recomputation", "finite_checks", "mode_check", "batch_independence", "deepfd"]
    output = bugbench("--trace", "mine", "--detector", *asked, module="bugbench.judge", cwd=tmp_path)
    assert re.search(r"loss_recomputation.*redundant_softmax · step \d", output)
    assert "said healthy: finite_checks, mode_check" in output
    assert "the trace must hold program.py, config.yaml, data: batch_independence" in " ".join(output.split())
    assert "nobody has taught it: deepfd" in output
    assert not (tmp_path / "results").exists()
    (tmp_path / "mine" / "meta.json").unlink()
    output = bugbench("--trace", "mine", module="bugbench.judge", cwd=tmp_path, code=1)
    assert "mine is no trace: meta.json is missing" in output


def test_suite_of_a_family_and_controls_with_seeds_of_their_own(tmp_path: Path) -> None:
    settings = [f"workload={FAST}", "detector=[oracle]", "seeds=1", "controls.seeds=2"]
    output = bugbench("suite=data", "bug=nan_inputs,other_seed", *settings, cwd=tmp_path)
    cases = tmp_path / "results" / "runs" / "cases" / FAST
    assert sorted(str(path.parent.relative_to(cases)) for path in cases.glob("*/*/case.json")) == [
        "nan_inputs/seed-0",
        "other_seed/seed-0",
        "other_seed/seed-1",
    ]
    assert "Leaderboard" in output
    assert "unknown suite 'dat': did you mean data" in bugbench("suite=dat", cwd=tmp_path, code=1)
