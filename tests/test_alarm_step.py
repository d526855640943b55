"""The step at which a detector first raises its alarm, found on growing prefixes of the trace."""

import pytest
from bugbench.judging import Exhibit, prefixes
from bugbench.recorder import Recorder
from court import ALARM, STEPS


def test_prefixes_end_after_each_kept_batch(exhibit):
    assert prefixes(exhibit.trace, STEPS) == [1, 2, 3, 4, 6, 11, 21]
    assert prefixes(exhibit.trace, 11) == [1, 2, 3, 4, 6]


@pytest.mark.parametrize(
    ("condition", "step"),
    [
        ("len(trace.train_steps()) >= 1", 0),
        ("len(trace.train_steps()) >= 4", 3),
        ("len(trace.train_steps()) >= 5", 5),  # batch 5 is the first kept one by which five had been
        ("len(trace.train_steps()) >= 6", 5),
        ("len(trace.train_steps()) >= 7", 10),
        ("len(trace.train_steps()) >= 21", 20),
        ("len(trace.train_steps()) >= 22", 24),
        ("len(trace.metric('val', 'loss')) >= 1", 10),
        ("trace.error", 24),
    ],
)
def test_alarm_step_is_measured_on_growing_prefixes(court, exhibit, condition, step):
    judge = court.detector(f"return suspect('softmax_dim') if {condition} else HEALTHY")
    assert court.bench.judge(exhibit, judge)["alarm_step"] == step


def test_a_crash_on_a_prefix_is_no_alarm(court, exhibit):
    judge = court.detector(f"trace.train_steps()['loss'][9]\n{ALARM}")
    assert court.bench.judge(exhibit, judge)["alarm_step"] == 10


def test_no_alarm_is_judged_once(court, counting, exhibit):
    counted = counting()
    assert counted.judge(exhibit)["alarm_step"] is None
    assert counted.calls == 1


@pytest.mark.parametrize(
    ("access", "asked", "step"), [({"rerun"}, 1, 0), ({"rerun", "source"}, 1, 0), ({"rerun", "tensors"}, 6, 5)]
)
def test_who_only_runs_the_program_again_is_asked_once_and_in_time(court, exhibit, monkeypatch, access, asked, step):
    """Whatever it reads of the curves besides; who asks for the record as well is timed by growing prefixes."""
    judge = court.detector("return suspect('softmax_dim') if len(trace.train_steps()) >= 6 else HEALTHY", access)
    asks = []
    ask = court.bench._ask
    monkeypatch.setattr(court.bench, "_ask", lambda *arguments: asks.append(arguments) or ask(*arguments))
    assert court.bench.judge(exhibit, judge)["alarm_step"] == step
    assert len(asks) == asked


def test_alarm_in_a_run_without_steps(court, tmp_path):
    Recorder(tmp_path / "trace").finish(error="SyntaxError")
    empty = Exhibit("empty", tmp_path / "trace", tmp_path, {})
    assert court.bench.judge(empty, court.detector(ALARM))["alarm_step"] == 0
