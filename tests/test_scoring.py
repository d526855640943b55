"""Verdicts, with expectations worked out by hand."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from bugbench.scoring import STATUSES, Truth, tier, verdict, verdict_table
from bugbench.suspects import InvalidDiagnosis, check_suspects
from made_verdicts import FAMILIES, judged

BUG = Truth("some_bug", "softmax_dim", "model", False, "digits", 0, onset=4, lines=[12, 13], accepts=["nan_inputs"])
CONTROL = Truth("another_seed", "none", "none", True, "digits", 0, onset=0)


def marks(row):
    return tuple(row[name] for name in ("alarm", "exact", "family_right", "top3"))


def test_columns_of_a_verdict():
    row = verdict(
        BUG,
        "softmax_check",
        {"data", "curves"},
        FAMILIES,
        [{"fault": "softmax_dim", "evidence": "rows sum to 3", "line": 12}],
        alarm_step=6,
        seconds=0.5,
    )
    suspects = json.loads(row.pop("suspects"))
    assert suspects == [
        {"fault": "softmax_dim", "confidence": 1.0, "evidence": "rows sum to 3", "line": 12, "layer": None}
    ]
    assert row == {
        "bug": "some_bug",
        "fault": "softmax_dim",
        "family": "model",
        "control": False,
        "workload": "digits",
        "seed": 0,
        "onset": 4.0,
        "lines": [12, 13],
        "accepts": ["nan_inputs"],
        "detector": "softmax_check",
        "access": "curves+data",
        "status": "ok",
        "reason": "",
        "alarm": True,
        "exact": True,
        "family_right": True,
        "top3": True,
        "line_right": True,
        "alarm_step": 6,
        "delay": 2.0,
        "seconds": 0.5,
    }


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        # alarm, exact, family_right, top3
        ([], (False, False, False, False)),
        (["softmax_dim"], (True, True, True, True)),
        (["nan_inputs"], (True, True, True, True)),  # accepted, though of another family
        (["zero_init"], (True, False, True, False)),  # the family's other fault
        (["model"], (True, False, True, False)),  # the family itself
        (["loss"], (True, False, False, False)),
        (["same_batch", "redundant_softmax", "softmax_dim"], (True, False, False, True)),
        (["same_batch", "redundant_softmax", "zero_init", "softmax_dim"], (True, False, False, False)),
    ],
)
def test_marks_on_a_bug(faults, expected):
    assert marks(judged(BUG, *faults)) == expected


def test_order_ranks_and_confidence_does_not():
    suspects = [{"fault": "softmax_dim", "confidence": 0.1}, {"fault": "same_batch", "confidence": 0.9}]
    assert verdict(BUG, "d", "data", FAMILIES, suspects)["exact"]


def test_silence_is_right_on_a_control():
    assert marks(judged(CONTROL)) == (False, True, True, True)
    assert marks(judged(CONTROL, "softmax_dim")) == (True, False, False, False)
    alarm = judged(CONTROL, "softmax_dim", alarm_step=3)
    assert alarm["alarm_step"] == 3 and math.isnan(alarm["delay"])


def test_lines():
    def line_right(*lines, truth=BUG):
        suspects = [{"fault": "zero_init", "line": line} for line in lines]
        return verdict(truth, "d", "source", FAMILIES, suspects)["line_right"]

    assert line_right(13) is True
    assert line_right(1, None, 12) is True
    assert line_right(1, 2) is False
    assert line_right() is None and line_right(None) is None
    assert line_right(12, truth=replace(BUG, lines=())) is None  # a bug in the config alone has no line


def test_delay():
    assert judged(BUG, "model", alarm_step=4)["delay"] == 0
    assert judged(BUG, "model", alarm_step=9)["delay"] == 5
    # Before the onset, without onset, without alarm, not measured
    early = judged(BUG, "model", alarm_step=3)
    assert math.isnan(early["delay"]) and early["alarm_step"] == 3
    for onset in (None, math.nan):
        assert math.isnan(judged(replace(BUG, onset=onset), "model", alarm_step=3)["delay"])
    silent = judged(BUG, alarm_step=5)
    assert silent["alarm_step"] is None and math.isnan(silent["delay"])
    assert math.isnan(judged(BUG, "model")["delay"])


def test_the_program_shows_its_fault_at_once():
    for access in ("source", "rerun", "curves+truth"):
        assert verdict(BUG, "d", access, FAMILIES, [{"fault": "model"}], alarm_step=0)["delay"] == 0
        assert verdict(BUG, "d", access, FAMILIES, [{"fault": "model"}], alarm_step=6)["delay"] == 2
        assert math.isnan(verdict(BUG, "d", access, FAMILIES)["delay"])
    assert math.isnan(verdict(BUG, "d", "data", FAMILIES, [{"fault": "model"}], alarm_step=0)["delay"])


def test_every_other_status_is_silence():
    for status in set(STATUSES) - {"ok"}:
        row = judged(BUG, status=status, reason="because")
        assert marks(row) == (False, False, False, False) and row["reason"] == "because"
    with pytest.raises(ValueError, match="timed_out has no suspects"):
        judged(BUG, "model", status="timed_out")
    with pytest.raises(ValueError, match="unknown status 'fine': ok, crashed"):
        judged(BUG, status="fine")


@pytest.mark.parametrize(
    ("suspect", "complaint"),
    [
        ({"fault": "softmax_dims"}, "unknown fault 'softmax_dims': did you mean softmax_dim"),
        ({"fault": "none"}, "a healthy run has no suspects"),
        ({"fault": None}, "unknown fault None"),
        ({"fault": ["softmax_dim"]}, "unknown fault"),
        ({}, "unknown fault None"),
        ({"fault": "model", "confidence": math.nan}, "confidence of model is nan"),
        ({"fault": "model", "confidence": 1.5}, "confidence of model is 1.5"),
        ({"fault": "model", "confidence": -0.1}, "confidence"),
        ({"fault": "model", "confidence": "high"}, "confidence"),
        ({"fault": "model", "confidence": True}, "confidence"),
        ({"fault": "model", "confidence": None}, "confidence"),
        ({"fault": "model", "line": 0}, "line of model is 0"),
        ({"fault": "model", "line": 1.5}, "line"),
        ({"fault": "model", "line": True}, "line"),
        ({"fault": "model", "layer": 3}, "must be text"),
        ({"fault": "model", "evidence": None}, "must be text"),
    ],
)
def test_invalid_diagnoses(suspect, complaint):
    with pytest.raises(InvalidDiagnosis, match=re.escape(complaint)):
        verdict(BUG, "d", "curves", FAMILIES, [{"fault": "model"}, suspect])


def test_suspects_become_plain_json():
    suspects = [{"fault": "model", "confidence": np.float32(0.5), "line": np.int64(3), "layer": "conv1"}]
    checked = check_suspects(suspects, FAMILIES)
    assert json.dumps(checked)
    assert checked[0]["line"] == 3 and checked[0]["confidence"] == 0.5


def test_contradictory_truth_is_refused():
    with pytest.raises(ValueError, match="control is True"):
        replace(BUG, control=True)
    with pytest.raises(ValueError, match="no fault 'softmax_dim' in the family 'loss'"):
        judged(replace(BUG, family="loss"))


def test_tier():
    assert tier("curves+data") == "data"
    assert tier({"rerun", "curves"}) == "rerun"
    assert tier(["tensors"]) == "tensors"
    assert tier("source+data") == "source"
    assert tier(set()) == tier("") == "curves"
    assert tier("truth") == "truth"  # above all others
    with pytest.raises(ValueError, match="unknown access 'weights': curves, tensors"):
        tier({"weights"})


def test_column_types_do_not_depend_on_the_rows():
    rows = [judged(BUG), judged(CONTROL, "softmax_dim", alarm_step=1, seconds=1.0)]
    full, silent, empty = verdict_table(rows), verdict_table(rows[:1]), verdict_table([])
    assert list(full.columns) == [*rows[0], "isolation", "version"]
    assert (full.dtypes == silent.dtypes).all() and (full.dtypes == empty.dtypes).all()
    assert full["alarm_step"].isna().tolist() == [True, False]
