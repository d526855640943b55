"""The two tables in which all that is known of cases is published, and taking them over elsewhere."""

import json
import math
from dataclasses import replace

import pandas as pd
import pyarrow.parquet as pq
import pytest
from bugbench import published
from bugbench.integrity import Damaged, read_sealed
from bugbench.merge import Merged, main, merge
from bugbench.records import Cases, Records
from bugbench.scoring import verdict, verdict_table
from stored_cases import FAMILIES, record

SUSPECTS = [{"fault": "softmax_dim", "line": 3, "evidence": "ü \t \n", "confidence": 0.5}, {"fault": "lr_too_high"}]
ODD = record(seed=4, oracle_bug=math.nan, reported_bug=math.inf, onset=None, lines=[], accepts=["lr_too_low"], steps=7)
HEALTHY = record("none", "none", lines=[], workload="wine")
SKIPPED = record(seed=9, oracle_bug=None, oracle_twin=None, trace_key="", skipped="no data")
RECORDS = (record(), ODD, HEALTHY, SKIPPED)


def said(case, detector, suspects=(), version="1f-2e", status="ok"):
    row = verdict(case.truth, detector, {"data"}, FAMILIES, suspects, alarm_step=4, seconds=0.1 + 0.2, status=status)
    return row | {"isolation": "namespaces", "version": version}


def cases(*rows, records=RECORDS):
    return Cases(list(records), verdict_table(rows), [])


FULL = cases(
    said(record(), "a", SUSPECTS), said(record(), "b", status="crashed"), said(ODD, "a"), said(HEALTHY, "a", SUSPECTS)
)


def test_what_is_published_comes_back_as_it_was(tmp_path):
    published.write(tmp_path, FULL)
    found = published.read(tmp_path)
    assert repr(found.records) == repr(FULL.records), "NaN, infinity and None stay apart"
    pd.testing.assert_frame_equal(found.verdicts, FULL.verdicts, check_exact=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cases.parquet", "verdicts.parquet"]


def test_the_tables_stand_alone(tmp_path):
    """Who loads one with pandas alone finds truth, verdict and suspects in it."""
    published.write(tmp_path, FULL)
    table = pd.read_parquet(tmp_path / "verdicts.parquet")
    row = table[(table["bug"] == "softmax_dim") & (table["detector"] == "a")].iloc[0]
    assert (row["fault"], list(row["lines"]), row["alarm"], row["version"]) == ("softmax_dim", [3], True, "1f-2e")
    assert [suspect["fault"] for suspect in json.loads(row["suspects"])] == ["softmax_dim", "lr_too_high"]


def test_nothing_to_publish(tmp_path):
    published.write(tmp_path, cases(records=()))
    found = published.read(tmp_path)
    assert found.records == [] and found.verdicts.empty


@pytest.mark.parametrize("file", ["cases.parquet", "verdicts.parquet"])
def test_damaged_or_missing_table_is_named(tmp_path, file):
    published.write(tmp_path, FULL)
    path = tmp_path / file
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", content[:40] + bytes([content[40] ^ 4]) + content[41:]):
        path.write_bytes(damaged)
        with pytest.raises(Damaged, match=f"{file}: no readable table"):
            published.read(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{file}.*bugbench.report"):
        published.read(tmp_path)


def test_tables_of_another_version_are_named(tmp_path):
    published.write(tmp_path, FULL)
    path = tmp_path / "cases.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["onset"]), path)
    with pytest.raises(Damaged, match=r"cases\.parquet: not what this version writes.*onset"):
        published.read(tmp_path)


def test_verdicts_without_their_case_are_refused(tmp_path):
    published.write(tmp_path, FULL)
    published.write(tmp_path / "fewer", replace(FULL, records=FULL.records[1:]))
    (tmp_path / "cases.parquet").write_bytes((tmp_path / "fewer" / "cases.parquet").read_bytes())
    with pytest.raises(Damaged, match="digits/softmax_dim/seed-0, which cases"):
        published.read(tmp_path)


@pytest.mark.parametrize(
    "case",
    [
        record(workload="../up"),
        record("/etc/bug"),
        record(trace_key=".."),
        record(bug=".hidden"),
        record(data="../data"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path, case):
    published.write(tmp_path, cases(records=[case]))
    with pytest.raises(Damaged, match="cannot be the name of a file"):
        published.read(tmp_path)


# -- merging ------------------------------------------------------------------------------------------------------


def test_cases_are_added(tmp_path):
    assert merge(FULL, tmp_path) == Merged(added=3, verdicts=4)
    found = Records(tmp_path).read()
    assert [r.folder for r in found.records] == [
        "digits/softmax_dim/seed-0",
        "digits/softmax_dim/seed-4",
        "wine/none/seed-0",
    ]
    assert sorted(found.verdicts["detector"]) == ["a", "a", "a", "b"], "and nothing of what was skipped"
    assert merge(FULL, tmp_path) == Merged(), "a second time there is nothing to do"


def test_diagnoses_are_stored_where_judging_looks_for_them(tmp_path):
    merge(FULL, tmp_path)
    folder = tmp_path / "runs" / "diagnoses" / record().trace_key
    assert [path.name for path in folder.iterdir()] == ["a-1f-2e.json"], "who crashed may do better next time"
    stored = read_sealed(folder / "a-1f-2e.json")
    assert (stored["status"], stored["isolation"], stored["alarm_step"]) == ("ok", "namespaces", 4)
    assert [suspect["fault"] for suspect in stored["suspects"]] == ["softmax_dim", "lr_too_high"]


def test_diagnoses_of_runs_to_be_trained_again_are_not(tmp_path):
    late = record(transient=True, crashed_bug=True, error="TimedOut: 300 s")
    merge(cases(said(late, "a"), records=[late]), tmp_path)
    assert not (tmp_path / "runs" / "diagnoses").exists()


def test_verdicts_join_those_that_are_there(tmp_path):
    mine = [said(record(), "a", version="mine"), said(record(), "b", status="not_installed"), said(record(), "own")]
    Records(tmp_path).write(record(), verdict_table(mine))
    theirs = [*(said(record(), name, SUSPECTS) for name in "ab"), said(record(), "c", status="not_installed")]
    theirs += [said(record(), "own", status="not_installed")]
    assert merge(cases(*theirs, records=[record()]), tmp_path) == Merged(joined=1, verdicts=1)
    found = Records(tmp_path).read().verdicts.set_index("detector")
    assert found["version"].to_dict() == {"a": "mine", "own": "1f-2e", "b": "1f-2e"}
    assert found["status"].eq("ok").all()


@pytest.mark.parametrize("changes", [{"trace_key": "another"}, {"accepts": ["lr_too_low"]}, {"onset": 3}])
def test_another_run_or_truth_is_left_alone(tmp_path, changes):
    Records(tmp_path).write(record(**changes), verdict_table([said(record(**changes), "own")]))
    assert merge(cases(said(record(), "a"), records=[record()]), tmp_path) == Merged(different=1)
    assert list(Records(tmp_path).read().verdicts["detector"]) == ["own"]


def test_a_run_that_went_well_takes_the_place_of_an_attempt_that_failed(tmp_path):
    late = record(transient=True, crashed_bug=True, error="TimedOut: 300 s", oracle_bug=None, steps=0)
    Records(tmp_path).write(late, verdict_table([said(late, "a")]))
    good = cases(said(record(), "a", SUSPECTS), said(record(), "b"), records=[record()])
    assert merge(good, tmp_path) == Merged(added=1, verdicts=2)
    assert merge(cases(said(late, "c"), records=[late]), tmp_path) == Merged(), "and keeps it"
    found = Records(tmp_path).read()
    assert found.records == [record()]
    assert found.verdicts.set_index("detector")["alarm"].to_dict() == {"a": True, "b": False}


def test_a_merge_that_was_cut_short_is_done_again(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Records, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merge(FULL, tmp_path)
    monkeypatch.undo()
    assert merge(FULL, tmp_path) == Merged(added=3, verdicts=4)
    assert len(list((tmp_path / "runs" / "diagnoses").rglob("*.json"))) == 3, "of four, one crashed"


def test_a_diagnosis_of_the_present_version_is_kept_beside_the_verdict_of_another(tmp_path):
    Records(tmp_path).write(record(), verdict_table([said(record(), "a", version="old")]))
    assert merge(cases(said(record(), "a", SUSPECTS), records=[record()]), tmp_path) == Merged()
    assert [path.name for path in (tmp_path / "runs" / "diagnoses").rglob("*.json")] == ["a-1f-2e.json"]


def test_skipped_case_gives_way(tmp_path):
    Records(tmp_path).write(replace(SKIPPED, seed=0), verdict_table([said(record(), "own", status="skipped")]))
    assert merge(cases(said(record(), "a"), records=[record()]), tmp_path) == Merged(added=1, verdicts=1)
    assert list(Records(tmp_path).read().verdicts["detector"]) == ["a"]


def test_command_says_what_it_did_or_what_is_wrong(tmp_path, capsys):
    published.write(tmp_path / "theirs", FULL)
    main([str(tmp_path / "theirs"), "--results", str(tmp_path / "mine")])
    assert "theirs: 3 cases added, 0 got further verdicts; 4 verdicts." in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"nowhere/cases\.parquet: there is no such file"):
        main([str(tmp_path / "nowhere"), "--results", str(tmp_path / "mine")])
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="file is a file; give a folder"):
        main([str(tmp_path / "theirs"), "--results", str(tmp_path / "file")])
