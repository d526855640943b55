"""Diagnoses that are stored: of what they are kept, and what may go better next time."""

import pytest
from bugbench.integrity import read_sealed
from bugbench.judging import Bench, Exhibit
from bugbench.runner import digest


def test_a_stored_diagnosis_is_taken(court, counting, exhibit):
    counted = counting()
    first = counted.judge(exhibit)
    assert counted.judge(exhibit) == first
    assert counted.calls == 1
    assert len(court.stored()) == 1
    Bench(court.folder / "results", court.bench.pool).judge(
        exhibit, court.detector(counted.body, knobs="patience: int = 1")
    )
    assert counted.calls == 1
    counted.judge(exhibit, again=True)
    assert counted.calls == 2


def test_source_knobs_and_trace_decide_whether_it_is_judged_again(court, counting, exhibit):
    counted = counting()
    counted.judge(exhibit)
    counted.judge(exhibit, patience=2)
    assert counted.calls == 2
    counted.judge(exhibit, body=counted.body + "  # changed")
    assert counted.calls == 3
    counted.judge(Exhibit("4567cdef", exhibit.trace, exhibit.data, exhibit.truth))
    assert counted.calls == 4
    counted.judge(Exhibit(exhibit.key, exhibit.trace, exhibit.data, {"fault": "lr_too_high", "lines": []}))
    assert counted.calls == 4, "the truth is nothing to a detector that does not see it"
    assert len(court.stored()) == 4


def test_a_damaged_stored_diagnosis_is_replaced(court, counting, exhibit):
    counted = counting()
    counted.judge(exhibit)
    (path,) = (court.folder / "results").rglob("*.json")
    path.write_text('{"status": "o')
    assert counted.judge(exhibit)["status"] == "ok"
    assert counted.calls == 2
    assert read_sealed(path)["status"] == "ok"


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("raise RuntimeError('no')", True),
        ("return None", True),
        ("raise NotApplicable('never')", True),
        ("raise NotInstalled('tomorrow')", False),
        ("raise MemoryError('today')", False),
        ("os._exit(1)", False),
        ("ctypes.string_at(0)", False),
    ],
)
def test_what_may_go_better_next_time_is_tried_again(court, counting, exhibit, body, kept):
    counted = counting(body)
    for _ in range(2):
        counted.judge(exhibit)
    assert counted.calls == (1 if kept else 2)
    assert bool(court.stored()) == kept


def test_time_outs_are_tried_again(court, counting, exhibit):
    counted = counting("while True: time.sleep(1)")
    court.bench.judge_seconds = 1
    counted.judge(exhibit)
    court.bench.judge_seconds = 60
    assert court.stored() == []
    assert counted.judge(exhibit, body="return HEALTHY")["status"] == "ok"


def test_the_place_of_a_diagnosis_does_not_name_the_case(court, counting, exhibit):
    counting().judge(exhibit)
    (path,) = (court.folder / "results").rglob("*.json")
    relative = path.relative_to(court.folder / "results")
    assert relative.parts[:3] == ("runs", "diagnoses", exhibit.key)


def test_digest_is_of_source_and_knobs(court):
    judge = court.detector("return HEALTHY", patience=1)
    assert judge.digest == court.detector("return HEALTHY", patience=1).digest
    assert judge.digest == court.detector("return HEALTHY", name="renamed", patience=1).digest
    assert judge.digest != court.detector("return HEALTHY", patience=2).digest
    assert len(digest("any")) == 24
