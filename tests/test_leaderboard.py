"""The leaderboard's rates, intervals and order, with expectations worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from bugbench.scoring import UNJUDGED, Truth, leaderboard, verdict, verdict_table
from made_verdicts import FAMILIES, judged


def impact_of(table, **states):
    """Every bug is degraded and every control latent, unless said otherwise."""
    pairs = table[["bug", "workload", "control"]].drop_duplicates()
    state = [
        states.get(bug, "latent" if control else "degraded")
        for bug, control in zip(pairs.bug, pairs.control, strict=True)
    ]
    return pairs[["bug", "workload"]].assign(state=state)


def bug(name, fault, workload="digits", seed=0):
    return Truth(name, fault, FAMILIES[fault], False, workload, seed, onset=0, lines=[5])


def control(name, workload="digits", seed=0):
    return Truth(name, "none", "none", True, workload, seed)


CASES = [
    *(bug("softmax_a", "softmax_dim", "digits", seed) for seed in (0, 1)),
    bug("softmax_b", "softmax_dim", "digits"),
    bug("nan_a", "nan_inputs", "digits"),
    bug("softmax_a", "softmax_dim", "wine"),
    *(control("reseeded", "digits", seed) for seed in (0, 1)),
    control("warm_up", "digits"),
    control("reseeded", "wine"),
]


def board_of(rows, **states):
    table = verdict_table(rows)
    return leaderboard(table, impact_of(table, **states)).set_index("detector")


def test_the_table_begins_as_promised():
    table = verdict_table([judged(truth) for truth in CASES])
    board = leaderboard(table, impact_of(table))
    assert list(board.columns[:8]) == [
        *("detector", "access", "diagnosis_j", "detection_j"),
        *("false_alarm_rate", "exact_rate", "family_rate", "top3_rate"),
    ]
    assert board["access"].tolist() == ["curves"]


def test_trivial_detectors():
    rows = []
    for truth in CASES:
        rows.append(judged(truth, detector="always_healthy"))
        rows.append(judged(truth, "softmax_dim", detector="always_faulty"))
        rows.append(judged(truth, *([] if truth.control else [truth.fault]), detector="oracle"))
    board = board_of(rows)
    assert list(board.index) == ["oracle", "always_healthy", "always_faulty"]
    scores = board[["diagnosis_j", "diagnosis_j_low", "diagnosis_j_high", "detection_j", "family_j"]]
    assert (scores.loc["oracle"] == 1).all()
    assert (scores.loc["always_healthy"] == 0).all()
    assert np.isnan(board.loc["always_healthy", "precision"])
    assert board.loc["oracle", "precision"] == 1
    assert board.loc["always_faulty", "precision"] == 0.75 / 2
    # Half of the faults on digits and all on wine are softmax_dim: 0.75 - 1
    assert board.loc["always_faulty", "diagnosis_j"] == -0.25
    assert board.loc["always_faulty", "detection_j"] == 0
    assert board.loc["always_faulty", "diagnosis_j_high"] <= 0


def test_rates_are_averaged_level_by_level():
    suspects = {
        ("softmax_a", "digits", 0): ["softmax_dim"],
        ("softmax_a", "digits", 1): ["same_batch", "softmax_dim"],
        ("softmax_b", "digits", 0): ["zero_init"],
        ("nan_a", "digits", 0): [],
        ("softmax_a", "wine", 0): ["softmax_dim"],
        ("reseeded", "digits", 0): ["zero_init"],
    }
    rows = [judged(truth, *suspects.get((truth.bug, truth.workload, truth.seed), [])) for truth in CASES]
    row = board_of(rows).loc["d"]
    # exact on digits: softmax_a 1/2, softmax_b 0, so softmax_dim 1/4; nan_inputs 0; digits 1/8. On wine 1
    assert row.exact_rate == pytest.approx((1 / 8 + 1) / 2)
    # family on digits: softmax_a 1/2, softmax_b 1: 3/4; nan_inputs 0; digits 3/8
    assert row.family_rate == pytest.approx((3 / 8 + 1) / 2)
    # top 3 on digits: softmax_a 1, softmax_b 0: 1/2; nan_inputs 0; digits 1/4
    assert row.top3_rate == pytest.approx((1 / 4 + 1) / 2)
    # alarms on digits: softmax_dim 1, nan_inputs 0
    assert row.detection_rate == pytest.approx((1 / 2 + 1) / 2)
    # false alarms on digits: reseeded 1/2, warm_up 0: 1/4. On wine 0
    assert row.false_alarm_rate == pytest.approx(1 / 8)
    assert row.diagnosis_j == pytest.approx(9 / 16 - 1 / 8)
    # of 3/4 of the bugs and 1/8 of the controls that raise an alarm, 9/16 are named
    assert row.precision == pytest.approx((9 / 16) / (3 / 4 + 1 / 8))
    assert row.detection_j == pytest.approx(3 / 4 - 1 / 8)
    assert row.family_j == pytest.approx(11 / 16 - 1 / 8)
    assert row.diagnosis_j_low <= row.diagnosis_j <= row.diagnosis_j_high
    assert (row.cases, row.controls, row.latent, row.harmful_controls, row.ok) == (5, 4, 0, 0, 9)


def test_latent_bugs_are_left_out_and_harmful_controls_show():
    rows = [judged(truth, *([] if truth.bug == "nan_a" else ["softmax_dim"])) for truth in CASES]
    row = board_of(rows, nan_a="latent", warm_up="inflated").loc["d"]
    assert row.exact_rate == 1.0
    assert (row.cases, row.latent, row.controls, row.harmful_controls) == (4, 1, 4, 1)
    assert row.false_alarm_rate == 1.0  # the harmful control is still among them


def test_other_statuses_are_misses_and_are_counted():
    failed = dict(zip(("softmax_b", "nan_a", "warm_up"), ("crashed", "timed_out", "invalid"), strict=True))
    rows = []
    for truth in CASES:
        faults = [] if truth.bug in failed else ["softmax_dim"]
        rows.append(judged(truth, *faults, status=failed.get(truth.bug, "ok"), seconds=float(truth.seed)))
    row = board_of(rows).loc["d"]
    # digits: softmax_dim (1 + 0) / 2, nan_inputs 0: 1/4. wine 1
    assert row.detection_rate == pytest.approx((1 / 4 + 1) / 2)
    # digits: reseeded 1, warm_up 0
    assert row.false_alarm_rate == pytest.approx((1 / 2 + 1) / 2)
    assert (row.ok, row.crashed, row.timed_out, row.invalid, row.skipped) == (6, 1, 1, 1, 0)
    assert row.median_seconds == 0.0


@pytest.mark.parametrize("status", UNJUDGED)
def test_cases_that_say_nothing_of_a_detector_are_counted_and_in_no_rate(status):
    rows = [judged(truth, *([] if truth.control else ["softmax_dim"])) for truth in CASES]
    expected = board_of(rows).loc["d"]
    lost = [replace(truth, seed=truth.seed + 100) for truth in CASES[:2]] + [replace(CASES[0], bug="unmeasured")]
    unjudged = [judged(truth, status=status, reason="no data") for truth in lost]
    row = board_of(rows + unjudged).loc["d"]
    assert row[status] == 3
    pd.testing.assert_series_equal(row.drop(status), expected.drop(status))


@pytest.mark.parametrize("status", UNJUDGED)
def test_detector_that_judged_no_case_is_the_last_of_the_table(status):
    rows = [judged(truth, detector="z") for truth in CASES]
    rows += [judged(truth, detector="e", status=status, reason="no data") for truth in CASES]
    board = board_of(rows)
    row = board.loc["e"]
    assert list(board.index) == ["z", "e"]
    assert math.isnan(row.diagnosis_j)
    assert (row.access, row.cases, row.controls, row.latent, row[status]) == ("curves", 0, 0, 0, len(CASES))


def test_delays_and_lines():
    steps = [3, 5, None, None, 10, 1, None, None, None]
    lines = [5, 6, None, 5, None, 5, 5, 5, 5]
    rows = []
    for truth, step, line in zip(CASES, steps, lines, strict=True):
        suspects = [{"fault": "softmax_dim", "line": line}]
        rows.append(verdict(truth, "d", "source", FAMILIES, suspects, alarm_step=step))
    row = board_of(rows).loc["d"]
    assert row.median_delay == 5  # of 3, 5 and 10: the control's alarm is no delay
    # softmax_a on digits names lines 5 and 6, of which 5 is to blame: 1/2; softmax_b none; nan_a 5: 1; wine none
    assert row.line_rate == pytest.approx((1 / 2 + 1) / 2)
    assert row.lines_named == 3


def test_sorted_by_diagnosis_then_detection_then_name():
    rows = []
    for truth in CASES:
        silent = truth.control
        rows.append(judged(truth, detector="b_silent"))
        rows.append(judged(truth, detector="a_silent"))
        rows.append(judged(truth, *([] if silent else ["same_batch"]), detector="z_detects"))
        rows.append(judged(truth, *([] if silent else [truth.fault]), detector="z_diagnoses"))
    rows.reverse()
    assert list(board_of(rows).index) == ["z_diagnoses", "z_detects", "a_silent", "b_silent"]


def test_neither_order_nor_company_changes_a_row():
    random = np.random.default_rng(0)
    rows = []
    for detector in "abc":
        for truth in CASES:
            faults = random.choice(sorted(FAMILIES), size=random.integers(3)).tolist()
            rows.append(judged(truth, *faults, detector=detector))
    table = verdict_table(rows)
    impact = impact_of(table)
    board = leaderboard(table, impact)
    pd.testing.assert_frame_equal(board, leaderboard(table, impact))
    shuffled = table.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(board, leaderboard(shuffled, impact.sample(frac=1, random_state=2)))
    alone = leaderboard(table[table["detector"] == "b"], impact)
    together = board[board["detector"] == "b"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, together)


def test_interval_of_independent_cases_is_the_textbook_one():
    # One workload, 100 faults of one bug and seed each, half of them right; 100 controls, one in five flagged.
    # Standard error of the difference of two shares: sqrt(0.5 * 0.5 / 100 + 0.2 * 0.8 / 100) = 0.064
    families = {f"fault_{i}": "data" for i in range(100)}
    rows = []
    for i in range(100):
        truth = Truth(f"bug_{i}", f"fault_{i}", "data", False, "digits", 0)
        rows.append(verdict(truth, "d", "data", families, [{"fault": f"fault_{i}"}] if i < 50 else []))
        truth = Truth(f"control_{i}", "none", "none", True, "digits", 0)
        rows.append(verdict(truth, "d", "data", families, [{"fault": "fault_0"}] if i < 20 else []))
    row = board_of(rows).loc["d"]
    assert row.diagnosis_j == pytest.approx(0.3)
    assert row.diagnosis_j_low == pytest.approx(0.3 - 1.96 * 0.064, abs=0.02)
    assert row.diagnosis_j_high == pytest.approx(0.3 + 1.96 * 0.064, abs=0.02)


def test_more_seeds_of_a_cluster_do_not_narrow_the_interval():
    few = [bug("softmax_a", "softmax_dim"), bug("nan_a", "nan_inputs"), control("reseeded")]
    many = [replace(truth, seed=seed) for truth in few for seed in range(20)]
    few_row = board_of([judged(truth, "softmax_dim") for truth in few]).loc["d"]
    many_row = board_of([judged(truth, "softmax_dim") for truth in many]).loc["d"]
    for end in ("diagnosis_j_low", "diagnosis_j", "diagnosis_j_high"):
        assert few_row[end] == many_row[end]
    assert many_row.cases == 40


def test_rates_over_nothing_are_nan():
    only_bugs = board_of([judged(truth, "softmax_dim") for truth in CASES if not truth.control]).loc["d"]
    assert only_bugs.exact_rate == 0.75 and only_bugs.controls == 0
    assert math.isnan(only_bugs.false_alarm_rate) and math.isnan(only_bugs.diagnosis_j)
    assert math.isnan(only_bugs.diagnosis_j_low)
    only_controls = board_of([judged(truth) for truth in CASES if truth.control]).loc["d"]
    assert only_controls.false_alarm_rate == 0 and math.isnan(only_controls.diagnosis_j)
    empty = verdict_table([])
    assert len(leaderboard(empty, impact_of(empty))) == 0


def test_detector_that_declares_another_access_than_it_did_has_the_widest():
    table = verdict_table([judged(truth) for truth in CASES])
    stored = ["source+data", "curves+data", *["data"] * (len(CASES) - 2)]
    assert leaderboard(table.assign(access=stored), impact_of(table))["access"].tolist() == ["curves+data+source"]


def test_defective_tables_are_refused():
    table = verdict_table([judged(truth) for truth in CASES])
    impact = impact_of(table)
    with pytest.raises(ValueError, match="no impact was measured for 1 pairs: nan_a on digits"):
        leaderboard(table, impact[impact["bug"] != "nan_a"])
    with pytest.raises(ValueError, match="no impact was measured for 1 pairs: warm_up on digits"):
        leaderboard(table, impact[impact["bug"] != "warm_up"])
    with pytest.raises(ValueError, match=r"given twice.*nan_a"):
        leaderboard(pd.concat([table, table[table["bug"] == "nan_a"]]), impact)
    with pytest.raises(ValueError, match="given twice"):
        leaderboard(table, pd.concat([impact, impact]))
    with pytest.raises(ValueError, match="unknown status 'fine'"):
        leaderboard(table.assign(status="fine"), impact)
    with pytest.raises(ValueError, match="unknown state 'good'"):
        leaderboard(table, impact.assign(state="good"))


def test_a_large_table():
    # 20 detectors on 5000 cases: 10 workloads x (50 faults x 2 bugs) x 4 seeds, and 10 x 25 controls x 4
    random = np.random.default_rng(0)
    numbers = np.arange(5000)
    is_control = numbers >= 4000
    index = np.where(is_control, (numbers - 4000) // 40, numbers // 40)
    cases = pd.DataFrame(
        {
            "bug": [f"{'control' if c else 'bug'}_{i}" for c, i in zip(is_control, index, strict=True)],
            "fault": ["none" if c else f"fault_{i // 2}" for c, i in zip(is_control, index, strict=True)],
            "workload": [f"workload_{n % 10}" for n in numbers],
            "seed": numbers // 10 % 4,
            "control": is_control,
            "access": "curves",
            "status": "ok",
            "line_right": pd.array([None] * 5000, dtype="boolean"),
            "delay": random.integers(0, 50, 5000).astype(float),
            "seconds": 0.1,
        }
    )
    table = cases.merge(pd.DataFrame({"detector": [f"detector_{i:02}" for i in range(20)]}), how="cross")
    for mark in ("alarm", "exact", "family_right", "top3"):
        table[mark] = random.random(len(table)) < 0.5
    impact = impact_of(table)
    board = leaderboard(table, impact)
    assert len(board) == 20 and (board["cases"] == 4000).all() and (board["controls"] == 1000).all()
