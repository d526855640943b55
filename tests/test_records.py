"""What is known of the cases, kept and merged."""

import errno
import math
import os
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest
from bugbench.impact import IMPACT_COLUMNS
from bugbench.integrity import write_sealed
from bugbench.records import Record, Records, impact_of, merge_impact, read_impact, results_folder
from bugbench.scoring import Truth, verdict, verdict_table

ORACLE = {"metric": "accuracy", "direction": "maximize", "bounds": [0.0, 1.0], "floor": 0.02}


FAMILIES = {"softmax_dim": "loss", "lr_too_high": "optimizer"}


def record(bug="softmax_dim", workload="digits", seed=0, **changes) -> Record:
    fields = {
        **dict(bug=bug, fault="softmax_dim", family="loss", control=False, workload=workload, seed=seed, onset=0),
        **dict(lines=[3, 4], accepts=["lr_too_high"], trace_key="a", twin_key="b", program_key="p", data="digits-0"),
        **dict(oracle_bug=0.5, oracle_twin=0.9, reported_bug=0.5, reported_twin=0.9, crashed_bug=False, error=None),
        **dict(seconds_bug=1.0, seconds_twin=2.0, oracle=ORACLE),
    }
    return Record(**{**fields, **changes})


def verdicts(*detectors):
    return verdict_table(verdict(record().truth, name, "curves", FAMILIES) for name in detectors)


def test_cases_are_read_back_in_order(tmp_path):
    records = Records(tmp_path)
    cases = [record(seed=10), record(seed=2), record("lr_too_low(factor=0.1)"), record(workload="char_lm", onset=None)]
    for case in cases:
        records.write(case, verdicts("one"))
    assert records.read().records == [cases[3], cases[2], cases[1], cases[0]]
    folder = tmp_path / "runs" / "cases" / "digits" / "lr_too_low(factor=0.1)" / "seed-0"
    assert [path.name for path in folder.iterdir()] == ["case.json"]


def test_some_cases_are_read(tmp_path):
    records = Records(tmp_path)
    cases = [record(seed=seed) for seed in range(3)]
    for case in cases:
        records.write(case, verdicts(f"of_{case.seed}"))
    chosen = records.read(["digits/softmax_dim/seed-2", "digits/softmax_dim/seed-0", "digits/no_such/seed-0"])
    assert chosen.records == [cases[0], cases[2]]
    assert list(chosen.verdicts["detector"]) == ["of_0", "of_2"]
    nothing = Records(tmp_path / "elsewhere").read()
    assert (nothing.records, nothing.damaged) == ([], [])
    assert nothing.verdicts.empty


def test_a_case_is_replaced(tmp_path):
    records = Records(tmp_path)
    records.write(record(), verdicts("one", "two"))
    again = record(oracle_bug=None, crashed_bug=True, error="ValueError: no")
    records.write(again, verdicts("three"))
    assert records.read().records == [again]
    assert list(records.read().verdicts["detector"]) == ["three"]


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, ["two"]),
        ({"seconds_bug": 9.0}, ["two"]),
        ({"steps": 9}, ["two"]),
        ({"trace_key": "another"}, []),
        ({"accepts": ["lr_too_low"]}, []),
        ({"transient": True, "steps": 0}, []),
    ],
)
def test_verdicts_of_others_stand_for_the_same_run_and_truth(tmp_path, changes, kept):
    records = Records(tmp_path)
    records.write(record(steps=7), verdicts("one", "two"))
    records.join(record(**{"steps": 7, **changes}), verdicts("one", "three"))
    assert list(records.read().verdicts["detector"]) == [*kept, "one", "three"]


def test_verdicts_on_failed_attempts_stand_for_attempts_that_failed_alike(tmp_path):
    records, late = Records(tmp_path), record(transient=True, steps=0)
    records.write(late, verdicts("one"))
    records.join(late, verdicts("two"))
    assert list(records.read().verdicts["detector"]) == ["one", "two"]
    records.join(replace(late, steps=5), verdicts("three"))
    assert list(records.read().verdicts["detector"]) == ["three"]


def test_verdicts_come_back_as_they_were(tmp_path):
    """None, NaN and missing stay apart, and every column keeps its type."""
    suspects = [{"fault": "softmax_dim", "line": 3, "evidence": "ü \t \n"}, {"fault": "lr_too_high"}]
    truth = record(onset=7).truth
    rows = [
        verdict(truth, "a", "curves", FAMILIES, suspects, alarm_step=9, seconds=0.1 + 0.2),
        verdict(truth, "b", {"data", "curves"}, FAMILIES, suspects[1:], seconds=math.inf),
        verdict(record(onset=None).truth, "c", "curves", FAMILIES, status="crashed", reason='it, "crashed"'),
        verdict(replace(truth, fault="none", control=True), "d", "curves", FAMILIES, suspects, alarm_step=2**40),
    ]
    table = verdict_table(rows)
    Records(tmp_path).write(record(oracle_bug=math.nan, reported_bug=math.inf, oracle_twin=None), table)
    (found,) = (cases := Records(tmp_path).read()).records
    pd.testing.assert_frame_equal(cases.verdicts, table, check_exact=True)
    assert cases.verdicts["alarm_step"].dtype == "Int64"
    assert cases.verdicts["alarm_step"].isna().tolist() == [False, True, True, False]
    assert cases.verdicts["line_right"].isna().tolist() == [False, True, True, False]
    assert cases.verdicts.loc[0, "lines"] == [3, 4]
    assert math.isnan(found.oracle_bug)
    assert (found.reported_bug, found.oracle_twin, found.error) == (math.inf, None, None)


@pytest.mark.parametrize("position", ["first", "middle", "last"])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_case_is_named_with_the_command_that_mends_it(tmp_path, damage, position):
    records = Records(tmp_path)
    records.write(record("lr_too_low(factor=0.1)", seed=3), verdicts("one"))
    records.write(record(), verdicts("one"))
    path = records.root / "digits" / "lr_too_low(factor=0.1)" / "seed-3" / "case.json"
    content = bytearray(path.read_bytes())
    place = {"first": 0, "middle": len(content) // 2, "last": len(content) - 1}[position]
    if damage == "cut":
        del content[place:]
    else:
        content[place] ^= 4
    path.write_bytes(content)
    cases = records.read()
    assert cases.records == [record()]
    assert set(cases.verdicts["bug"]) == {"softmax_dim"}
    (line,) = records.damage(cases)
    assert line.startswith(f"case digits/lr_too_low(factor=0.1)/seed-3: left out: {path}: ")
    command = f"python -m bugbench bug=lr_too_low bug.factor=0.1 workload=digits results={tmp_path} 'seeds=[3]'"
    assert line.endswith(command)
    assert "\n" not in line


def test_case_of_another_version_is_named(tmp_path):
    records = Records(tmp_path)
    path = records.root / record().folder / "case.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"bug": "softmax_dim"}\n')
    assert "or by an older version" in records.damage(records.read())[0]
    write_sealed(path, {"record": {"bug": "softmax_dim"}, "verdicts": []})
    assert "not what this version writes" in records.damage(records.read())[0]
    write_sealed(path, {"record": asdict(record()), "verdicts": [{"bug": "softmax_dim"}]})
    assert "not what this version writes" in records.damage(records.read())[0]


def test_full_disk_leaves_no_half_of_a_case(tmp_path, monkeypatch):
    records = Records(tmp_path)
    records.write(record(), verdicts("one"))

    def full(path, content):
        with open(path, "wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        records.write(record(onset=7), verdicts("two"))
    monkeypatch.undo()
    assert records.read().records == [record()]
    assert [path.name for path in (records.root / record().folder).iterdir()] == ["case.json"]


def test_skipped_case_is_in_no_impact(tmp_path):
    skipped = record(seed=9, oracle_bug=None, oracle_twin=None, skipped="no data")
    assert impact_of([record(), skipped]).equals(impact_of([record()]))


def test_truth_of_a_case():
    assert record(onset=7).truth == Truth(
        "softmax_dim", "softmax_dim", "loss", False, "digits", 0, 7, [3, 4], ["lr_too_high"]
    )


def test_impact_of_cases():
    cases = [record(seed=seed) for seed in range(5)] + [record("crash", seed=0, oracle_bug=None, crashed_bug=True)]
    table = impact_of(cases).set_index("bug")
    assert list(table.reset_index().columns) == IMPACT_COLUMNS
    assert table.loc["softmax_dim", ["seeds", "state"]].tolist() == [5, "degraded"]
    assert table.loc["softmax_dim", "effect"] == pytest.approx(0.4)
    assert table.loc["softmax_dim", "key"] == "p"
    assert table.loc["crash", ["seeds", "state"]].tolist() == [1, "crashed"]


def test_a_bug_is_read_with_the_settings_under_which_it_was_measured():
    strict = {**record().oracle, "floor": 0.5}
    before = [record(seed=seed) for seed in range(5)]
    after = [record("later", seed=seed, oracle=strict) for seed in range(5)]
    for cases in (before + after, after + before):
        table = impact_of(cases).set_index("bug")
        assert table.loc[["later", "softmax_dim"], "state"].tolist() == ["latent", "degraded"]
        assert table.index.tolist() == ["later", "softmax_dim"]
    with pytest.raises(ValueError, match=r"digits/softmax_dim/seed-0 and seed 4 were measured under different .*0\.5"):
        impact_of([*before[:4], record(seed=4, oracle=strict)])


# -- merging ------------------------------------------------------------------------------------------------------


def impact(*rows):
    """Rows of (bug, workload, key, seeds, effect)."""
    return pd.DataFrame(list(rows), columns=["bug", "workload", "key", "seeds", "effect"])


def merged(known, *rows):
    return merge_impact(known, impact(*rows)).to_numpy().tolist()


KNOWN = impact(("a", "digits", "k", 5, 0.5), ("b", "digits", "k", 5, 0.25), ("b", "wine", "k", 3, 0.1))
REST = [["b", "digits", "k", 5, 0.25], ["b", "wine", "k", 3, 0.1]]


def test_nothing_known():
    new = impact(("b", "wine", "k", 1, 0.5), ("a", "wine", "k", 1, 0.5))
    assert merge_impact(None, new).equals(new)
    assert merge_impact(KNOWN.iloc[:0], new).equals(new)


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        (("a", "digits", "k", 4, 0.9), False),  # the same programs with fewer seeds
        (("a", "digits", "k", 1, 0.9), False),
        (("a", "digits", "k", 5, 0.9), True),  # as many: the newer counts
        (("a", "digits", "k", 6, 0.9), True),
        (("a", "digits", "other", 1, 0.9), True),  # other programs: what was known is of the past
    ],
)
def test_longer_measurements_of_the_same_programs_stay(row, kept):
    first = list(row) if kept else ["a", "digits", "k", 5, 0.5]
    assert merged(KNOWN, row) == [first, *REST]


def test_new_rows_join_in_order():
    assert merged(KNOWN, ("b", "cancer", "k", 1, 0.9), ("0", "wine", "k", 1, 0.8)) == [
        ["0", "wine", "k", 1, 0.8],
        ["a", "digits", "k", 5, 0.5],
        ["b", "cancer", "k", 1, 0.9],
        *REST,
    ]


def test_each_row_is_decided_by_itself():
    rows = (("b", "wine", "k", 1, 0.9), ("a", "digits", "k", 9, 0.9))
    assert merged(KNOWN, *rows) == [["a", "digits", "k", 9, 0.9], *REST]


def test_nothing_measured():
    assert merge_impact(KNOWN, KNOWN.iloc[:0]).equals(KNOWN)


def test_merging_leaves_its_tables_alone():
    known, new = KNOWN.copy(), impact(("a", "digits", "k", 9, 0.9))
    before = new.copy()
    merge_impact(known, new)
    assert known.equals(KNOWN)
    assert new.equals(before)


def test_stored_table_comes_back_with_keys_as_text(tmp_path):
    assert read_impact(tmp_path / "impact.csv") is None
    table = impact_of([replace(record(seed=seed), program_key="0012e4567890") for seed in range(2)])
    table.to_csv(tmp_path / "impact.csv", index=False)
    stored = read_impact(tmp_path / "impact.csv")
    assert stored.loc[0, "key"] == "0012e4567890"
    assert merge_impact(stored, impact_of([replace(record(), program_key="0012e4567890")])).loc[0, "seeds"] == 2


def test_results_folder_that_cannot_be_written_is_told_before_anything_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(PermissionError, match=f"^results: {tmp_path} cannot be written by this user; give a folder"):
        results_folder(tmp_path / "new" / "results")
    (tmp_path / "mine").mkdir()
    assert results_folder(tmp_path / "mine" / "results") == tmp_path / "mine" / "results"
