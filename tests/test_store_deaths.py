"""Training processes that hang, die or are given up, each of which costs the pool its process."""

import pytest
from bugbench.judging import Bench, Exhibit, Judge
from bugbench.judging_worker import JudgingWorker
from bugbench.runner import Outcome
from bugbench.trace import Trace
from bugbench.worker import WorkerPool
from tiny_workload import LONG, PROGRAM, run_of

COUNTS = """\
from dataclasses import dataclass
from bugbench.detector import *


@dataclass
class Counts(Detector):
    access = {"tensors", "data", "source"}

    def diagnose(self, trace):
        parts = (trace.steps, trace.layers, trace.samples, trace.metrics, trace.batches())
        return suspect("any", f"{[len(part) for part in parts]} {trace.error}")
"""


def diagnose(folder, key, trace):
    """Return what a detector counts in a trace, or what it once did: the bench keeps it."""
    path = folder / "counts.py"
    path.write_text(COUNTS)
    pool = WorkerPool([JudgingWorker()])
    try:
        judge = Judge("counts", path, frozenset({"tensors", "data", "source"}), {})
        answer = Bench(folder / "results", pool).judge(Exhibit(key, trace, folder, {}), judge)
    finally:
        pool.close()
    return answer["suspects"][0]["evidence"]


@pytest.mark.parametrize(
    ("mode", "seconds", "error"),
    [("hang", 1, "TimedOut: no answer within 1 s"), ("die", LONG, "WorkerDied: the process ended with exit code 7")],
)
def test_post_mortem_is_transient_and_trained_again(store, workload, tmp_path, mode, seconds, error):
    marker = tmp_path / "not_today"
    marker.touch()
    run = run_of(workload, mode=mode, marker=str(marker))
    key = store.key(run)
    store.train_seconds = seconds
    dead = store.train(run)
    assert dead == Outcome(key, True, error, None, None, seconds, 0, transient=True)
    assert store.outcome(key) is None
    trace = Trace(store.trace(key))
    assert trace.error == error
    assert (len(trace.steps), trace.source, trace.config) == (0, PROGRAM, run.config)
    assert trace.meta["classes"] == 2

    seen = diagnose(tmp_path, key, store.trace(key))
    assert seen == f"[0, 0, 0, 0, 0] {error}"
    marker.unlink()
    store.train_seconds = LONG
    alive = store.train(run)
    assert (alive.crashed, alive.steps, alive.transient) == (False, 3, False)
    assert store.outcome(key) == alive
    assert Trace(store.trace(key)).error is None
    seen = diagnose(tmp_path, key, store.trace(key))
    assert seen == "[3, 21, 12, 3, 3] None", "what was stored was of another trace"


def test_error_while_progress_is_reported_does_not_mix_up_the_answers(store, workload):
    class Broken(Exception):
        pass

    def broken(state):
        raise Broken

    with pytest.raises(Broken):
        store.train(run_of(workload, seed=11), broken)
    outcome = store.train(run_of(workload, seed=12, epochs=2))
    assert outcome.steps == 2
    assert Trace(store.trace(outcome.key)).config["seed"] == 12
