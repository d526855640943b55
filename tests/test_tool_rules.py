"""Adapters of third-party tools that read data, source and curves: what each passes on, what it declines, and its pins.

The second part, marked ``tools``, needs the tools themselves: ``pytest -m tools``.
"""

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from bugbench.detector import NotApplicable, NotInstalled, Trace
from bugbench.third_party import OFFLINE, PINS, tool
from recorded_program import OVERLAP, detector, faults_of, module_of, shown

ROOT = Path(__file__).parents[1]
PACKAGES = {  # adapter: the package that holds its tool's rules
    **{"leakcheck_ml": "leakcheck", "leaklens": "leaklens", "trainproof": "trainproof", "mldoct": "mldoctor"},
    **{"torchfix": "torchfix", "cleanlab_datalab": "cleanlab", "lightning_early_stopping": "lightning"},
}
NO_EVALUATION = ("        run.log_metrics('val', loss=loss.item())\n".replace("'", '"'), "")
WITH_REPLACEMENT = (  # by a data loader
    (
        "torch.randperm(len(x)).split(64)",
        "torch.utils.data.DataLoader(range(len(x)), 64, sampler=torch.utils.data.RandomSampler(x, True))",
    ),
)


def table_of(name: str) -> dict:
    return module_of(name).FAULTS


def rewritten(folder: Path, place: Path, steps: pd.DataFrame, metrics: pd.DataFrame) -> Trace:
    """Return a trace of curves with other curves."""
    trace = shown("trainproof", folder, place)
    steps.to_parquet(trace / "steps.parquet")
    metrics.to_parquet(trace / "metrics.parquet")
    return Trace(trace)


def curves(losses: list[float], evaluated: list[float], split: str = "val") -> tuple[pd.DataFrame, pd.DataFrame]:
    count = range(len(losses))
    steps = pd.DataFrame({"split": "train", "step": count, "epoch": count, "loss": losses, "lr": 0.1})
    count = range(len(evaluated))
    metrics = pd.DataFrame({"split": split, "epoch": count, "step": count, "name": "loss", "value": evaluated})
    return steps, metrics.astype({"value": float, "step": int, "epoch": int})


# -- anywhere --------------------------------------------------------------------------------------------------------


def test_pins_are_those_of_the_extra_and_of_the_constraints():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert sorted(PINS.values()) == sorted(re.sub(r"\[.*]", "", pin) for pin in extras["tools"])
    constraints = {line.lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {pin.lower() for pin in PINS.values()} <= constraints


def test_the_environment_of_deepchecks_is_pinned_and_told_alike():
    packages = module_of("deepchecks").PACKAGES
    assert all(re.fullmatch(r"[a-z-]+==[\d.]+", pin) for pin in packages.split())
    assert f"envs/deepchecks/bin/pip install {packages}\n" in (ROOT / "CONTRIBUTING.md").read_text()


def test_another_version_of_a_tool_is_not_installed(monkeypatch):
    monkeypatch.setitem(PINS, "json", "pytest==0.0.1")
    installed = importlib.metadata.version("pytest")
    with pytest.raises(NotInstalled, match=rf"installed is pytest {re.escape(installed)};.* for 0\.0\.1"):
        tool("json.decoder")
    monkeypatch.setitem(PINS, "json", f"pytest=={installed}")
    assert tool("json") is json
    monkeypatch.setitem(PINS, "json", "no-such-distribution==1.0")
    with pytest.raises(NotInstalled, match="of no known version"):
        tool("json")
    monkeypatch.delitem(PINS, "json")
    assert tool("json") is json  # of somebody's own adapter nothing is known


def test_deepchecks_is_started_without_telemetry(programs, tmp_path, monkeypatch):
    seen = {}

    def run(command, cwd, env, **rest):
        seen.update(env)
        (Path(cwd) / "said.json").write_text('{"other": ["numpy 2.0"]}')
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    trace = Trace(shown("deepchecks", programs.trace(), tmp_path / "t"))
    with pytest.raises(NotInstalled, match=r"has numpy 2\.0: .*pip install deepchecks=="):
        detector("deepchecks", python=sys.executable).diagnose(trace)
    assert {**OFFLINE, "DISABLE_DEEPCHECKS_ANONYMOUS_TELEMETRY": "1"}.items() <= seen.items()


def test_each_check_of_deepchecks_that_draws_has_the_seed_of_its_suites():
    script = module_of("deepchecks").SCRIPT
    assert "FeatureLabelCorrelation(random_state=42)." in script


# -- with the tools --------------------------------------------------------------------------------------------------


@pytest.mark.tools
@pytest.mark.parametrize("name", PACKAGES)
def test_each_row_of_a_table_is_in_the_tools_own_source(name):
    folder = Path(importlib.util.find_spec(PACKAGES[name]).origin).parent
    source = "\n".join(path.read_text(errors="ignore") for path in folder.rglob("*.py"))
    for key in table_of(name):
        rule, _, words = key.partition(": ")
        assert f'"{rule}"' in source or f"\n    {rule} = " in source, key
        assert name == "cleanlab_datalab" or words in re.sub(r'"\s*f?"', "", source), key  # the adapter counts itself


@pytest.mark.tools
@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("leaklens", r'title="([^"]+)",\s*severity=(?:Severity\.(?:CRITICAL|WARNING)|severity)'),
        ("mldoct", r'"type": "(\w+)"'),
        ("torchfix", r'"(TOR[12]\d\d|TOR00\d)"'),
    ],
)
def test_each_message_of_a_tool_has_a_row_or_cannot_come(name, pattern):
    folder = Path(importlib.util.find_spec(PACKAGES[name]).origin).parent
    source = "\n".join(path.read_text(errors="ignore") for path in sorted(folder.rglob("*.py")))
    names = {"Temporal Leakage", "Hidden Missing Values", "Invalid Value"}  # of text, dates, names
    missing = set(re.findall(pattern, source)) - set(table_of(name))
    assert missing == (names if name == "leaklens" else set())


@pytest.mark.tools
def test_each_rule_of_ruffs_default_set_has_a_row():
    binary = tool("ruff").find_ruff_bin()
    shows = [binary, "check", "--isolated", "--show-settings", str(ROOT / "bugbench" / "names.py")]
    settings = subprocess.run(shows, capture_output=True, text=True, check=True).stdout
    enabled = re.search(r"linter\.rules\.enabled = \[(.*?)\n\]", settings, re.DOTALL).group(1)
    codes = set(re.findall(r"\(([A-Z]+\d+)\)", enabled))
    detector("ruff")
    module = module_of("ruff")
    assert set(module.RAISE) - {"invalid-syntax"} <= codes
    rows = {code: module._row(code) for code in codes}
    assert {code for code, row in rows.items() if row not in module.FAULTS} == set()
    assert set(module.STYLE) <= set(rows.values())
    assert {code for code, row in rows.items() if module.FAULTS[row]} == {*module.RAISE, "B018"} - {"invalid-syntax"}
    assert {code for code, row in rows.items() if module.FAULTS[row] == ("training_loop",)} == {"B018"}


@pytest.mark.tools
@pytest.mark.parametrize(
    ("name", "line", "fault"),
    [
        ("ruff", "print('%s %s' % (1,))", ["crash"]),
        ("ruff", "print('{}{}'.format(1))", ["crash"]),
        ("ruff", "break", ["crash"]),
        ("ruff", "__all__ = ['nothing']", []),
        ("ruff", "import os, sys", []),
        ("ruff", "torch.optim.SGD.step", ["training_loop"]),
        ("ruff", "torch.optim.SGD.zero_grad", ["training_loop"]),
        ("ruff", "torch.pi == 3", []),  # B015, also of linter B
        ("torchfix", "from torch import solve", ["crash"]),
        ("torchfix", "torch.symeig(torch.eye(2))", ["crash"]),
        ("torchfix", "torch.nn.Linear(1, 1).weight.require_grad = True", ["model"]),
        ("torchfix", "torch.nn.Linear(1, 1).weight.require_grad = False", ["model"]),
        ("torchfix", "torch.qr(torch.eye(2))", []),
        ("torchfix", "torch.utils.data.DataLoader([0])", []),  # TOR401, which is off by default
        ("mldoct", "loader = DataLoader([])", []),
    ],
)
def test_a_linter_names_what_raises_and_leaves_style(name, line, fault, programs, tmp_path):
    trace = shown(name, programs.trace(), tmp_path / "t")
    program = trace / "program.py"
    program.write_text(program.read_text() + f"\n\n{line}\n")
    assert [s.fault for s in detector(name).diagnose(Trace(trace)).suspects] == fault


@pytest.mark.tools
def test_trainproof_declines_a_run_without_training(programs, tmp_path):
    folder = programs.trace()
    empty, some = curves([], []), curves([], [1.0])
    for number, (steps, metrics) in enumerate((empty, some)):
        with pytest.raises(NotApplicable, match="no training batch"):
            detector("trainproof").diagnose(rewritten(folder, tmp_path / str(number), steps, metrics))
    losses = [2 - i / 100 for i in range(100)]
    rising = [1.0] * 5 + [3.0] * 5
    for split in ("val", "test"):
        trace = rewritten(folder, tmp_path / split, *curves(losses, rising, split))
        assert [s.fault for s in detector("trainproof").diagnose(trace).suspects] == ["overfit_capacity"]
    trace = rewritten(folder, tmp_path / "healthy", *curves(losses, [1.0] * 10))
    assert not detector("trainproof").diagnose(trace).suspects


@pytest.mark.tools
@pytest.mark.parametrize(
    ("losses", "evaluated", "said"),
    [
        ([2.0] * 20, [1.0], {"lr_too_low": "TP-FLAT: FAIL"}),
        ([2.0, 2.1] * 10, [1.0], {"lr_too_low": "TP-DEAD-RUN: FAIL"}),  # one fault, whichever rule calls the run dead
        ([2 - i / 100 for i in range(99)] + [1.7], [1.0], {"lr_too_high": "TP-DIVERGE: FAIL"}),  # one batch, the last
        ([2 - i / 100 for i in range(99)] + [1.5], [1.0], {}),
        ([2 - i / 100 for i in range(99)], [1.0] * 5 + [3.0] * 5, {"overfit_capacity": "TP-OVERFIT: WARN"}),
    ],
)
def test_trainproofs_warnings_are_alarms_and_its_dead_runs_those_of_its_gallery(
    losses, evaluated, said, programs, tmp_path
):
    trace = rewritten(programs.trace(), tmp_path / "t", *curves(losses, evaluated))
    found = {s.fault: s.evidence for s in detector("trainproof").diagnose(trace).suspects}
    assert found.keys() == said.keys()
    assert all(found[fault].startswith(words) for fault, words in said.items())


@pytest.mark.tools
@pytest.mark.parametrize(
    ("losses", "evaluated", "found"),
    [
        ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, float("nan")], ["numerics"]),
        ([1, 2, 3, 4, 5, float("inf")], [1, 1, 1, 1, 1, 1], ["numerics"]),
        ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], []),
    ],
)
def test_early_stopping_looks_at_the_whole_run(losses, evaluated, found, programs, tmp_path):
    for split in ("val", "held_out"):
        trace = rewritten(programs.trace(), tmp_path / split, *curves(losses, evaluated, split))
        assert [s.fault for s in detector("lightning_early_stopping").diagnose(trace).suspects] == found


@pytest.mark.tools
@pytest.mark.parametrize("name", ["cleanlab_datalab", "leaklens", "leakcheck_ml"])
def test_tool_is_silent_where_nothing_separates_the_epochs_or_samples_come_back(name, programs, tmp_path):
    assert faults_of(name, programs.trace(NO_EVALUATION), tmp_path / "t") == []
    assert faults_of(name, programs.trace(*WITH_REPLACEMENT), tmp_path / "r") == []


@pytest.mark.tools
def test_leaklens_reads_the_program_and_the_classes(programs, tmp_path):
    fitted = (
        "    x, y, u, v =",
        "    from sklearn.model_selection import train_test_split\n"
        "    from sklearn.preprocessing import StandardScaler\n"
        "    scaler = StandardScaler()\n    scaler.fit(images)\n    train_test_split(images)\n    x, y, u, v =",
    )
    assert faults_of("leaklens", programs.trace(fitted), tmp_path / "f") == ["fit_on_all"]
    rare = (
        "    model = Model()\n",
        "    keep = (y < 9) | (y.cumsum(0) % 40 == 0)\n    x, y = x[keep], y[keep]\n    model = Model()\n",
    )
    assert "class_imbalance" in faults_of("leaklens", programs.trace(rare), tmp_path / "i")


@pytest.mark.tools
@pytest.mark.skipif(not (Path(sys.prefix) / "envs" / "deepchecks").exists(), reason="no environment for deepchecks")
def test_deepchecks_of_repeated_draws_and_of_tables_that_differ(programs, tmp_path):
    assert faults_of("deepchecks", programs.trace(*WITH_REPLACEMENT), tmp_path / "r") == []
    one_hot = ("inputs, targets = x[index], y[index]", "inputs, targets = x[index], torch.eye(10)[y[index]]")
    assert faults_of("deepchecks", programs.trace(one_hot), tmp_path / "o") == []  # one table lacks the target
    wider = ("inputs=u,", "inputs=torch.cat([u, u], 1),")
    assert faults_of("deepchecks", programs.trace(wider, OVERLAP), tmp_path / "w") == []
    noisy = ("    x, y, u, v =", "    x[:300] = x[300:600]\n    x, y, u, v =")
    assert "label_noise" in faults_of("deepchecks", programs.trace(noisy), tmp_path / "n")
