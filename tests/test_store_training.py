"""Runs that are trained once and stored: their outcomes, their data, and what one program leaves to the next."""

from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
from bugbench.runner import prepare
from bugbench.store import Store
from bugbench.trace import Trace
from tiny_workload import DATASET, LONG, PROGRAM, card, run_of


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def accuracy_on_hidden_test(run, data_dir):
    """Return what the program reaches when it is run here, without harness and recorder."""
    program, data = {}, {}
    exec(PROGRAM, program)
    exec(DATASET, data)
    predict = program["main"](SimpleNamespace(**run.config, data_dir=data_dir), MagicMock())
    inputs, targets = data["hidden_test"]()
    return data["oracle_metric"](predict(inputs).numpy(), targets)


def test_a_run_is_trained_once_and_stored(store, workload, pool):
    run = run_of(workload)
    seen = []
    outcome = store.train(run, seen.append)
    assert seen[0] == {"step": 1, "epoch": 0, "epochs": 3}
    assert (outcome.crashed, outcome.error, outcome.steps, outcome.transient) == (False, None, 3, False)
    assert outcome.oracle == accuracy_on_hidden_test(run, store.data_folder(workload))
    trace = Trace(store.trace(outcome.key))
    assert outcome.reported == trace.metric("val", "accuracy").iloc[-1]
    assert trace.source == PROGRAM
    assert trace.config == run.config
    assert trace.meta["task"] == "classification"
    assert trace.predictions["targets"].tolist() == [0, 0]
    assert trace.predictions["outputs"].shape == (2, 2)
    before = stamps(store.root)
    assert store.train(run) == outcome
    assert Store(store.root.parent, pool, LONG).train(run) == outcome
    assert stamps(store.root) == before
    assert sorted(path.name for path in (store.root / "traces").iterdir()) == [outcome.key], "no drafts are left"


def test_training_data_lie_once_in_a_folder_named_by_their_content(store, workload, tmp_path):
    folder = store.data_folder(workload)
    assert folder.name.startswith("numbers-")
    assert np.load(folder / "inputs.npy").tolist() == [[-2], [-1], [1], [2]]
    assert (folder / "more" / "targets.txt").read_text() == "0 0 1 1"
    again = Store(store.root.parent, store.pool, LONG).data_folder(workload)
    assert again == folder
    other = tmp_path / "numbers.py"
    other.write_text(DATASET.replace("-2.0", "-3.0"))
    assert store.data_folder(replace(workload, dataset=other)) != folder
    assert len(list((store.root / "data").iterdir())) == 2


def test_twins_are_trained_once_for_all_their_bugs(store, workload):
    cases = [prepare(card("slow", config={"lr": f"/ {n}"}), workload, 0) for n in (2, 4)]
    calls = []
    train = store.train
    store.train = lambda run, on_progress=None: calls.append(run) or train(run, on_progress)
    outcomes = store.train_all([run for case in cases for run in (case.run, case.twin)], workers=2)
    assert len(calls) == len(outcomes) == 3
    assert {store.key(run) for case in cases for run in (case.run, case.twin)} == set(outcomes)


@pytest.mark.parametrize(
    ("mode", "error", "steps"),
    [
        ("raise", "ValueError: two is enough", 2),
        ("raise_in_predict", "ValueError: no predictions", 3),
        ("no_predict", "TypeError: 'NoneType' object is not callable", 3),
    ],
)
def test_program_that_raises_is_an_outcome(store, workload, mode, error, steps):
    outcome = store.train(run_of(workload, mode=mode))
    assert (outcome.crashed, outcome.error, outcome.oracle, outcome.transient) == (True, error, None, False)
    assert outcome.steps == steps
    trace = Trace(store.trace(outcome.key))
    assert trace.error.splitlines()[-1] == error
    assert trace.predictions is None
    assert store.outcome(outcome.key) == outcome, "a crash of the program is a result and is kept"


def test_outputs_that_cannot_be_scored_are_no_crash(store, workload):
    outcome = store.train(run_of(workload, mode="odd_shape"))
    assert (outcome.crashed, outcome.oracle, outcome.steps) == (False, None, 3)
    assert outcome.error.startswith("the hidden test cannot be scored: AxisError")
    assert outcome.reported is not None
    assert Trace(store.trace(outcome.key)).error is None


def test_a_program_does_not_reach_the_next_one_in_its_process(pool, workload, tmp_path):
    stores = [Store(tmp_path / name, pool, LONG) for name in ("before", "after")]
    run = run_of(workload, seed=9)
    before = stores[0].train(run)
    assert not stores[0].train(run_of(workload, mode="switch")).crashed
    after = stores[1].train(run)
    assert replace(after, seconds=0) == replace(before, seconds=0)
    folders = [store.trace(before.key) for store in stores]
    names = sorted(str(path.relative_to(folders[0])) for path in folders[0].rglob("*") if path.is_file())
    assert len(names) == 11
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
