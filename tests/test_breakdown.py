"""Verdicts by fault, answer and time, and detector against detector: expectations worked out by hand."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from bugbench import breakdown
from bugbench.scoring import Truth, leaderboard, verdict, verdict_table, with_harm
from sklearn.metrics import confusion_matrix

FAMILIES = {"softmax_dim": "model", "zero_init": "model", "redundant_softmax": "loss", "nan_inputs": "data"}


def bug(name, fault, workload="digits", seed=0, **details):
    return Truth(name, fault, FAMILIES[fault], False, workload, seed, **{"onset": 0, **details})


def control(name, workload="digits", seed=0):
    return Truth(name, "none", "none", True, workload, seed, onset=0)


def judged(truth, *faults, detector="d", **details):
    return verdict(truth, detector, "curves", FAMILIES, [{"fault": fault} for fault in faults], **details)


def cases_of(rows, **states):
    """Return what the tables are made of; all bugs degrade the model unless a state is given."""
    table = verdict_table(rows)
    pairs = table[["bug", "workload", "control"]].drop_duplicates()
    usual = np.where(pairs["control"], "latent", "degraded")
    state = [states.get(name, other) for name, other in zip(pairs["bug"], usual, strict=True)]
    return with_harm(table, pairs[["bug", "workload"]].assign(state=state))


def test_means_by_fault_and_family():
    rows = [
        judged(bug("softmax_a", "softmax_dim", seed=0), "softmax_dim"),
        judged(bug("softmax_a", "softmax_dim", seed=1), "zero_init"),
        judged(bug("softmax_b", "softmax_dim")),
        judged(bug("softmax_a", "softmax_dim", "wine"), "softmax_dim"),
        judged(bug("zero", "zero_init"), "zero_init"),
        judged(bug("nothing", "nan_inputs"), "nan_inputs"),  # latent
        judged(control("reseeded"), "zero_init"),
        judged(control("reseeded", "wine")),
    ]
    cases = cases_of(rows, nothing="latent")
    by_fault = breakdown.by_fault(cases).set_index("fault")
    assert list(by_fault.index) == ["softmax_dim", "zero_init"]
    row = by_fault.loc["softmax_dim"]
    # right on digits: softmax_a 1/2, softmax_b 0, so 1/4; on wine 1. Detected on digits: 1 and 0. So the family
    assert (row["right"], row["detected"], row["family_right"]) == (5 / 8, 3 / 4, 3 / 4)
    assert (row["workloads"], row["bugs"], row["cases"]) == (2, 2, 4)
    (family,) = breakdown.by_family(cases).to_dict("records")
    # right on digits: softmax_dim 1/4, zero_init 1; on wine softmax_dim alone, 1
    assert family["family"] == "model" and family["right"] == pytest.approx((5 / 8 + 1) / 2)
    (flagged,) = breakdown.by_control(cases).to_dict("records")
    assert flagged == {"detector": "d", "control": "reseeded", "workloads": 2, "bugs": 1, "cases": 2, "flagged": 0.5}


def test_confusion_agrees_with_scikit_learn():
    random = np.random.default_rng(0)
    faults = sorted(FAMILIES)
    rows, truths, said = [], [], []
    for number in range(80):
        fault = faults[number % 4] if number % 5 else "none"
        truth = control(f"c{number}") if fault == "none" else bug(f"b{number}", fault)
        answer = random.choice([*faults, "model", "healthy"])
        rows.append(judged(truth, *([] if answer == "healthy" else [answer])))
        truths.append("healthy" if fault == "none" else fault)
        said.append(answer)
    table = breakdown.confusion(cases_of(rows))
    labels = [*faults, "model", "healthy"]
    expected = confusion_matrix(truths, said, labels=labels)
    found = table.pivot(index="truth", columns="answer", values="cases").reindex(index=labels, columns=labels).fillna(0)
    np.testing.assert_array_equal(found.to_numpy(dtype=int), expected)
    assert (table["cases"] > 0).all() and set(table["detector"]) == {"d"}


def test_answers_keep_causes_and_symptoms_apart():
    said = {
        "a": ["softmax_dim"],  # the cause
        "b": ["model", "softmax_dim"],  # the family by name
        "c": ["zero_init"],  # another fault of the family
        "d": ["loss"],  # another family
        "e": [],
        "f": ["nan_inputs"],  # accepted
        "g": ["data"],  # an accepted family
        "h": ["redundant_softmax"],  # another fault altogether
    }
    accepts = {"f": ["nan_inputs"], "g": ["data"]}
    faults = [f"fault_{name}" for name in said]
    families = FAMILIES | dict.fromkeys(faults, "model")
    rows = []
    for name, fault in zip(said, faults, strict=True):  # a cluster each, so that each counts for an eighth
        truth = Truth(name, fault, "model", False, "digits", 0, 0, accepts=accepts.get(name, []))
        suspects = [{"fault": fault if s == "softmax_dim" else s} for s in said[name]]
        rows.append(verdict(truth, "d", "curves", families, suspects))
    (row,) = breakdown.answers(cases_of(rows), ["model", "loss", "data"]).to_dict("records")
    assert row == {"detector": "d", "cause": 2 / 8, "symptom": 2 / 8, "family": 1 / 8, "wrong": 2 / 8, "silent": 1 / 8}


def test_times_to_alarm():
    late = bug("late", "nan_inputs", onset=10)
    rows = [
        judged(bug("a", "softmax_dim"), "model", alarm_step=3),
        judged(bug("b", "softmax_dim")),
        judged(late, "model", alarm_step=4),  # before the onset: no alarm
        judged(bug("hidden", "zero_init", onset=None), "model", alarm_step=1),  # no onset to count from
        judged(bug("lost", "zero_init")),  # how long it ran is not known, but that nobody noticed
        judged(control("reseeded"), "model", alarm_step=0),
    ]
    lengths = pd.DataFrame(
        {"bug": ["a", "b", "late", "hidden"], "workload": "digits", "seed": 0, "steps": [20.0, 20, 16, 20]}
    )
    times = breakdown.alarm_times(cases_of(rows), lengths)
    # one alarm of four, at 3; a and b go on for 19 steps, late for 15 - 10 = 5: half of them for more than 19
    curve = times.curves["d"]
    np.testing.assert_allclose(curve.shares, [3 / 4])
    assert (curve.end, times.horizon, times.unknown, times.measured) == (19, 19, 1, True)
    (row,) = times.table.to_dict("records")
    assert (row["cases"], row["alarms"]) == (4, 1)
    assert row["restricted_mean"] == pytest.approx(3 + 16 * 3 / 4)
    assert math.isnan(row["median"])


def test_silence_counts_as_an_alarm_does_where_lengths_are_unknown():
    noticed = {"a": None, "b": 3, "c": 3, "d": 3}
    rows = []
    for name, step in noticed.items():
        rows += [judged(bug(name, "softmax_dim"), *["model"] * (step is not None), detector="loud", alarm_step=step)]
        rows += [judged(bug(name, "softmax_dim"), detector="quiet")]
    lengths = pd.DataFrame({"bug": list(noticed), "workload": "digits", "seed": 0, "steps": [100.0] + [math.nan] * 3})
    times = breakdown.alarm_times(cases_of(rows), lengths)
    found = times.table.set_index("detector")
    # the one length that is known goes on for 99 steps; loud is at 3 in three of four cases
    assert (times.horizon, times.unknown, found["cases"].to_dict()) == (99, 0, {"loud": 4, "quiet": 4})
    assert found["restricted_mean"].to_dict() == {"loud": (3 * 3 + 99) / 4, "quiet": 99.0}

    unmeasured = breakdown.alarm_times(cases_of(rows), lengths.assign(steps=math.nan))
    found = unmeasured.table.set_index("detector")
    # then the latest alarm is the horizon: all of the runs count for 3 steps
    assert (unmeasured.horizon, unmeasured.measured, unmeasured.unknown) == (3, False, 0)
    assert found["restricted_mean"].to_dict() == {"loud": 3.0, "quiet": 3.0}
    silent = breakdown.alarm_times(cases_of(rows[1::2]), lengths.assign(steps=math.nan))
    assert math.isnan(silent.horizon) and math.isnan(silent.table["restricted_mean"].iloc[0])


def test_a_short_run_without_an_alarm_is_missed_for_good():
    rows = [judged(bug("short", "softmax_dim")), judged(bug("long", "softmax_dim"), "model", alarm_step=50)]
    lengths = pd.DataFrame({"bug": ["short", "long"], "workload": "digits", "seed": 0, "steps": [11.0, 101.0]})
    curve = breakdown.alarm_times(cases_of(rows), lengths).curves["d"]
    # censored at 10, the first would leave the long one alone at 50, and the curve would fall to 0
    np.testing.assert_allclose((curve.times, curve.shares), [[50], [0.5]])


def test_horizon_is_where_half_of_the_runs_have_ended():
    rows = []
    for detector, step in (("quick", 0), ("slow", 7), ("silent", None)):
        for name in ("a", "b"):
            alarm = step if detector != "slow" or name == "a" else None
            suspects = [] if alarm is None else ["model"]
            rows.append(judged(bug(name, "softmax_dim"), *suspects, detector=detector, alarm_step=alarm))
    lengths = pd.DataFrame({"bug": ["a", "b"], "workload": "digits", "seed": 0, "steps": [20.0, 30.0]})
    times = breakdown.alarm_times(cases_of(rows), lengths)
    # the runs go on for 19 and for 29 steps
    assert times.horizon == 24
    means = times.table.set_index("detector")["restricted_mean"]
    assert means.to_dict() == {"quick": 0.0, "slow": (7 + 24) / 2, "silent": 24.0}


FAULTS = [f"fault_{number}" for number in range(8)]


def compared(rights, flags):
    """Return the comparison of a and b, right on these of eight faults and silent but on these of two controls."""
    families = dict.fromkeys(FAULTS, "model")
    rows = []
    for detector in "ab":
        for number, fault in enumerate(FAULTS):
            truth = Truth(f"bug_{number}", fault, "model", False, "digits", 0, 0)
            suspects = [{"fault": fault}] if number in rights[detector] else []
            rows.append(verdict(truth, detector, "curves", families, suspects))
        for number in range(2):
            suspects = [{"fault": "fault_0"}] if number in flags[detector] else []
            rows.append(verdict(control(f"control_{number}"), detector, "curves", families, suspects))
    (row,) = breakdown.comparisons(cases_of(rows), ["a", "b"]).to_dict("records")
    return row


def test_pairs_are_compared_on_bugs_and_controls():
    row = compared({"a": range(8), "b": []}, {"a": [], "b": []})
    # eight equal differences of one sign: 2 of 2^8 patterns
    assert (row["clusters"], row["difference"], row["p"], row["told_apart"]) == (10, pytest.approx(1.0), 2 / 256, True)
    row = compared({"a": range(4), "b": []}, {"a": [0], "b": []})
    # four parts of 1/8 and one of -1/2: of the 32 sums 0, as seen, is the least
    assert row["difference"] == pytest.approx(0.0) and row["p"] == 1.0 and not row["told_apart"]
    row = compared({"a": range(8), "b": range(8)}, {"a": [0, 1], "b": []})
    # two parts of -1/2: two of four patterns
    assert (row["difference"], row["p"]) == (pytest.approx(-1.0), 0.5)


def test_one_workload_taken_for_faulty_tells_nobody_apart():
    """Twenty controls say the same of it, so that by their signs alone chance is ruled out."""
    workloads, names = [f"workload_{number}" for number in range(10)], [f"control_{number}" for number in range(20)]
    rows = [judged(bug("a", "zero_init", place), "zero_init", detector=d) for place in workloads for d in "ab"]
    for place, name in itertools.product(workloads, names):
        rows += [judged(control(name, place), *["zero_init"] * (place == "workload_0"), detector="a")]
        rows += [judged(control(name, place), detector="b")]
    (pair,) = breakdown.comparisons(cases_of(rows), ["a", "b"]).to_dict("records")
    assert (pair["difference"], pair["p"]) == (pytest.approx(-0.1), 2 / 2**20)
    # 0.9^10 = 0.35 of the draws miss that workload; it is drawn four times or more in 0.013 of them
    assert (pair["low"], pair["high"]) == (pytest.approx(-0.3), pytest.approx(0.0))
    assert not pair["told_apart"]


def test_difference_is_that_of_the_leaderboard():
    random = np.random.default_rng(1)
    truths = [bug(f"{f}_{i}", f, w) for f, i, w in itertools.product(FAMILIES, range(2), ("digits", "wine"))]
    truths += [control(f"control_{i}", w) for i in range(3) for w in ("digits", "wine")]
    rows = [
        judged(truth, *random.choice(sorted(FAMILIES), size=random.integers(3)), detector=detector)
        for detector, truth in itertools.product("abc", truths)
    ]
    table = verdict_table(rows)
    impact = table[["bug", "workload", "control"]].drop_duplicates()
    impact = impact.assign(state=np.where(impact["control"], "latent", "degraded"))
    scores = leaderboard(table, impact).set_index("detector")["diagnosis_j"]
    pairs = breakdown.comparisons(with_harm(table, impact), ["a", "b", "c"])
    assert len(pairs) == 3
    for row in pairs.itertuples():
        assert row.difference == pytest.approx(scores[row.detector] - scores[row.other], abs=1e-8)
        assert row.p <= row.p_holm <= 1


def test_detectors_are_compared_where_both_were_judged():
    rows = [judged(bug(f, f), f, detector="all") for f in FAMILIES] + [judged(control("c"), detector="all")]
    rows += [judged(bug("nan_inputs", "nan_inputs"), detector="one"), judged(control("c"), detector="one")]
    rows += [judged(control("other"), detector="elsewhere")]
    pairs = breakdown.comparisons(cases_of(rows), ["all", "one", "elsewhere"]).set_index(["detector", "other"])
    assert pairs.loc[("all", "one"), ["clusters", "difference", "p"]].tolist() == [2, 1.0, 1.0]
    assert pairs.loc[("all", "elsewhere"), "clusters"] == 0
    assert pairs.loc[("all", "elsewhere"), ["difference", "low", "high", "p"]].isna().all()
    assert not pairs.loc[("all", "elsewhere"), "told_apart"]
    ranking = breakdown.ranking(cases_of(rows), ["all", "one", "elsewhere"])
    assert (ranking.ranks, ranking.detectors, ranking.left_out) == (None, ["all"], ["one", "elsewhere"])


def test_pairs_share_cases_and_not_only_faults():
    rows = [judged(bug("a", "zero_init", seed=s), *["zero_init"] * (s == 0), detector="five") for s in range(5)]
    rows += [judged(bug("a", "zero_init"), "zero_init", detector="one")]
    rows += [judged(control("c"), detector=name) for name in ("five", "one")]
    (pair,) = breakdown.comparisons(cases_of(rows), ["five", "one"]).to_dict("records")
    # right in one of five seeds and in one of one: on the seed that both saw there is no difference
    assert (pair["clusters"], pair["difference"], pair["p"]) == (2, 0.0, 1.0)


def test_a_fault_counts_once_on_however_many_workloads():
    places = [f"workload_{number}" for number in range(10)]
    rows = []
    for place, fault in itertools.product(places, FAMILIES):
        truth = bug(fault, fault, place)
        rows += [judged(truth, *["zero_init"] * (fault == "zero_init"), detector="one"), judged(truth, detector="none")]
    rows += [judged(control("c", place), detector=name) for place in places for name in ("one", "none")]
    (pair,) = breakdown.comparisons(cases_of(rows), ["one", "none"]).to_dict("records")
    # one fault of four is known, on ten workloads: a single difference, which has a sign or the other
    assert (pair["clusters"], pair["difference"], pair["p"]) == (5, pytest.approx(1 / 4), 1.0)
    ranking = breakdown.ranking(cases_of(rows), ["one", "none"])
    assert ranking.ranks.blocks == 4
    np.testing.assert_allclose(ranking.ranks.mean, [(1 + 3 * 1.5) / 4, (2 + 3 * 1.5) / 4])


def test_accepted_answers_are_right_in_the_confusion():
    accepted = bug("a", "softmax_dim", accepts=["nan_inputs"])
    table = breakdown.confusion(cases_of([judged(accepted, "nan_inputs"), judged(bug("b", "zero_init"), "nan_inputs")]))
    assert dict(zip(table["truth"], table["right"], strict=True)) == {"softmax_dim": True, "zero_init": False}


def test_ranking_by_blocks():
    rows = []
    for fault in FAMILIES:
        rows += [judged(bug(fault, fault), fault, detector="good"), judged(bug(fault, fault), detector="silent")]
    ranking = breakdown.ranking(cases_of(rows), ["silent", "good"])
    np.testing.assert_array_equal(ranking.ranks.mean, [2.0, 1.0])
    assert (ranking.ranks.blocks, ranking.detectors, ranking.left_out) == (4, ["silent", "good"], [])


@pytest.mark.parametrize("rows", [[judged(control("c"), "model")], [judged(bug("a", "softmax_dim"), "model")]])
def test_few_cases_give_tables(rows):
    cases = cases_of(rows)
    lengths = pd.DataFrame({"bug": ["a"], "workload": ["digits"], "seed": [0], "steps": [3.0]})
    for table in (breakdown.by_fault, breakdown.by_family, breakdown.by_control, breakdown.confusion):
        assert isinstance(table(cases), pd.DataFrame)
    assert len(breakdown.answers(cases, ["model"])) == int(not cases["control"].any())
    assert breakdown.comparisons(cases, ["d"]).empty
    assert breakdown.ranking(cases, ["d"]).ranks is None
    breakdown.alarm_times(cases, lengths)
