"""The measurement of what recording costs: its numbers by hand, its rows, its command."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bugbench.catalogue import catalogue_of
from bugbench.overhead import Overhead, measure, paired_ratio, read_rows, write_rows
from bugbench.overhead.__main__ import main
from bugbench.overhead.recorders import CONTENDERS, Bare
from bugbench.overhead.sweep import measure_sweep, sampled_runs
from bugbench.runner import prepare

ROOT = Path(__file__).resolve().parent.parent
FASTEST = "diabetes_mlp"


def test_ratio_of_a_single_pair_has_no_spread():
    assert paired_ratio([3.0], [2.0]) == (1.5, 1.5, 1.5)


def test_median_of_ratios_is_not_the_ratio_of_medians():
    """Ratios 1, 3 and 2: of three drawn again, two are the least in 7 of 27 cases, so the interval spans them all."""
    assert paired_ratio([10.0, 3.0, 4.0], [10.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)


def test_interval_leaves_the_rare_medians_out():
    """Of nine draws from nine, five or more are the least in one case of 600: not within 95 %."""
    ratio, low, high = paired_ratio([float(i) for i in range(1, 10)], [1.0] * 9)
    assert ratio == 5
    assert 1 < low < 5 < high < 9
    assert paired_ratio([2.0] * 9, [1.0] * 9) == (2, 2, 2)


class Absent(Bare):
    def __init__(self, folder, settings):
        raise ImportError("No module named 'absent'")


class Broken(Bare):
    def log_batch(self, split, **tensors):
        raise RuntimeError("it broke")


@pytest.fixture
def short():
    """A workload that is over in a moment."""
    workload = catalogue_of().workload(FASTEST)
    return type(workload)(workload.name, workload.program, workload.dataset, workload.settings, {"epochs": 1})


def test_what_is_missing_or_fails_is_a_row(short, tmp_path, monkeypatch):
    monkeypatch.setitem(CONTENDERS, "absent", Absent)
    monkeypatch.setitem(CONTENDERS, "broken", Broken)
    pairs = []
    rows = list(measure(short, ["absent", "recorder", "broken"], 2, tmp_path, lambda: pairs.append(1)))
    assert [row.recorder for row in rows] == ["absent", "recorder", "broken"]
    assert [row.status for row in rows] == ["not_installed", "measured", "failed"]
    assert rows[0].reason == "No module named 'absent'"
    assert rows[2].reason == "RuntimeError: it broke"
    assert [row.repeats for row in rows] == [0, 2, 0]
    assert rows[0].ratio is None
    assert rows[1].low <= rows[1].ratio <= rows[1].high
    assert len(pairs) == 3, "one is the warm-up"


@pytest.mark.parametrize("name", ["anomaly_mode", "tensorboard_every_10", "torch_audit_every_10", "torchmortem"])
def test_other_tools_are_measured_or_not_installed(short, tmp_path, name):
    (row,) = measure(short, [name], 1, tmp_path)
    assert row.status in ("measured", "not_installed"), row.reason
    assert (row.ratio is None) == bool(row.reason)


def test_rows_of_other_measurements_are_kept(tmp_path):
    path = tmp_path / "results" / "overhead.csv"
    first = [Overhead("b", "recorder", "measured", 1.5, 1.0, 2.0, 1.25, 0.5, 3), Overhead("a", "torchmortem", "failed")]
    write_rows(first, path)
    write_rows([Overhead("b", "torchmortem", "not_installed", reason="a, b"), Overhead("a", "recorder", "x")], path)
    write_rows([Overhead("b", "torchmortem", "failed", reason="c")], path)
    table = read_rows(path)
    assert table[["workload", "recorder", "status", "reason"]].to_numpy().tolist() == [
        ["a", "recorder", "x", ""],
        ["a", "torchmortem", "failed", ""],
        ["b", "recorder", "measured", ""],
        ["b", "torchmortem", "failed", "c"],
    ]
    assert table.loc[2, ["ratio", "low", "high", "training_ratio", "bare_seconds", "repeats"]].tolist() == [
        *("1.5", "1.0", "2.0", "1.25", "0.5", "3")
    ]
    assert list(path.parent.iterdir()) == [path]


def test_command_from_end_to_end(tmp_path, capsys):
    arguments = ["--workload", FASTEST, "--recorder", "recorder", "recorder_curves", "--repeats", "1"]
    main([*arguments, "--results", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "recorder_curves" in printed
    assert "overhead.csv" in printed.replace("\n", "")
    table = pd.read_csv(tmp_path / "overhead.csv")
    assert table["recorder"].tolist() == ["recorder", "recorder_curves"]
    assert table["status"].tolist() == ["measured"] * 2
    assert (table[["ratio", "low", "high", "training_ratio", "bare_seconds"]] > 0).all(axis=None)
    assert table["repeats"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workload", "diabets_mlp"], "unknown workload 'diabets_mlp': did you mean diabetes_mlp"),
        (["--recorder", "torchmorten"], "unknown recorder 'torchmorten': did you mean torchmortem"),
        (["--repeats", "0"], "--repeats must be at least 1, not 0"),
    ],
)
def test_wrong_names_and_numbers(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        main([*arguments, "--results", str(tmp_path)])
    assert not (tmp_path / "overhead.csv").exists()


def test_sweep_compares_the_harness_with_plain_processes(short, tmp_path):
    run = prepare(catalogue_of().card("lr_too_high"), short, 0).run
    crashing = replace(run, source=run.source.replace("def main(config, run):", "def main(config, run):\n    [][0]"))
    assert crashing != run
    rows = measure_sweep([run, crashing], tmp_path)
    assert [row.recorder for row in rows] == ["harness", "harness_around"]
    for row in rows:
        assert (row.workload, row.status, row.repeats) == ("sweep of 2 cases", "measured", 2)
        assert 0 < row.low <= row.ratio <= row.high
    assert rows[0].bare_seconds > 2 * 0.1, "two processes that load torch"
    assert rows[1].ratio > 1, "the program is a part of what the harness does"


def test_sampled_cases_are_different_and_the_same_each_time():
    catalogue = catalogue_of()
    runs = sampled_runs(catalogue, 8)
    assert len({(run.source, run.workload.name, str(run.config)) for run in runs}) == 8
    assert sampled_runs(catalogue, 8) == runs
    with pytest.raises(ValueError, match="must be between 1 and"):
        sampled_runs(catalogue, 0)


def test_readme_gives_the_figures_that_were_measured():
    text = (ROOT / "README.md").read_text()
    rows = pd.read_csv(ROOT / "results" / "overhead.csv").set_index(["workload", "recorder"])["ratio"]
    table = text[text.index("### What recording costs") : text.index("## Running the suites")]
    header = next(line for line in table.splitlines() if line.startswith("| | `"))
    workloads = [cell.strip(" `") for cell in header.split("|")[2:-1]]
    for label, recorder in (("everything on", "recorder"), ("curves only", "recorder_curves")):
        cells = " | ".join(f"{rows[workload, recorder]:.2f}" for workload in workloads)
        assert f"| {label} | {cells} |" in table
    for recorder in ("harness", "harness_around"):
        assert f"{rows['sweep of 50 cases', recorder]:.2f} of" in table
