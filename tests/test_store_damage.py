"""Stored traces and training data that are damaged or half-written: told, mended or removed."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from bugbench.store import Store, remove_stale_drafts
from tiny_workload import LONG, run_of

FILES = ["outcome.json", "trace/meta.json", "trace/steps.parquet", "trace/batches/train-0000000.safetensors"]
FILES += ["trace/program.py", "trace/config.yaml", "trace/predictions.safetensors", "trace/samples.parquet"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def rename(path):
    path.rename(path.with_name("other"))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [cut, flip, empty, rename, Path.unlink])
def test_damaged_trace_is_told_and_trained_again(store, workload, capsys, file, damage):
    run = run_of(workload)
    outcome = store.train(run)
    folder = store.root / "traces" / outcome.key
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    diagnosis = store.root / "diagnoses" / outcome.key / "one.json"
    diagnosis.parent.mkdir(parents=True)
    diagnosis.touch()
    assert store.train(run) == outcome
    assert diagnosis.exists()
    damage(folder / file)
    assert store.outcome(outcome.key) is None
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith(f"bugbench: damaged trace, to be trained again: {folder}")
    assert file in told
    again = store.train(run)
    assert replace(again, seconds=0) == replace(outcome, seconds=0)
    after = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    del before[Path("outcome.json")], after[Path("outcome.json")]  # it holds the seconds
    assert after == before
    assert not diagnosis.exists(), "it may be of the damaged trace"
    assert [path.name for path in (store.root / "traces").iterdir()] == [outcome.key]


def test_damaged_training_data_are_told_and_written_again(store, workload, capfd):
    folder = store.data_folder(workload)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for damage in (cut, flip, empty, rename, Path.unlink):
        damage(folder / "inputs.npy")
        assert Store(store.root.parent, store.pool, LONG).data_folder(workload) == folder
        assert f"damaged training data {folder}: written again" in capfd.readouterr().err
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert list((store.root / "data").iterdir()) == [folder]


def test_two_harnesses_that_mend_the_same_trace_do_not_disturb_each_other(store, workload):
    run = run_of(workload)
    outcome = store.train(run)
    flip(store.trace(outcome.key) / "steps.parquet")
    other = Store(store.root.parent, store.pool, LONG)
    with ThreadPoolExecutor(2) as executor:
        outcomes = list(executor.map(lambda s: s.train(run), [store, other]))
    assert {replace(found, seconds=0) for found in outcomes} == {replace(outcome, seconds=0)}
    assert store.outcome(outcome.key) is not None
    assert [path.name for path in (store.root / "traces").iterdir()] == [outcome.key]


def test_drafts_of_a_dead_harness_are_removed_when_they_are_old(store, workload):
    outcome = store.train(run_of(workload))
    case = store.root / "cases" / "tiny" / "slow" / "seed-0"
    name = "0123456789abcdef" * 2
    drafts = [store.root / "traces" / f".{outcome.key}-{name}" / "trace", store.root / "data" / f".numbers-{name}"]
    for folder in [*drafts, case]:
        folder.mkdir(parents=True)
        (folder / "file").touch()
    drafts.append(case / f".case.json-{name}")
    drafts[-1].touch()
    (store.root / "traces" / ".not-a-draft").touch()
    assert remove_stale_drafts(store.root, 3600) == [], "they may be a living harness's"
    yesterday = time.time() - 2 * 24 * 3600
    for path in sorted(store.root.rglob("*"), reverse=True):
        os.utime(path, (yesterday, yesterday))
    os.utime(drafts[1] / "file")
    assert sorted(remove_stale_drafts(store.root)) == sorted([drafts[0].parent, drafts[2]])
    assert drafts[1].exists(), "something was written there just now"
    assert store.outcome(outcome.key) is not None
    assert (case / "file").exists()
    assert (store.root / "traces" / ".not-a-draft").exists()


@pytest.mark.parametrize("place", ["traces", "diagnoses/key", "extracts/key", "models/wine", "failures/wine/none"])
def test_a_store_removes_stale_drafts_when_it_is_opened(pool, tmp_path, place):
    draft = tmp_path / "runs" / place / f".key-{'0123456789abcdef' * 2}"
    draft.mkdir(parents=True)
    os.utime(draft, (0, 0))
    Store(tmp_path, pool)
    assert not draft.exists()
