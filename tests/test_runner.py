"""Runs and what is kept of them: reports, onsets, keys, stored and repeated training, and deaths."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bugbench.card import make_card
from bugbench.catalogue import Workload
from bugbench.judging import Bench, Exhibit, Judge
from bugbench.judging_worker import JudgingWorker
from bugbench.runner import Outcome, Run, onset, prepare, reported_value
from bugbench.store import HarnessFailure, Store, remove_stale_drafts
from bugbench.trace import Trace
from bugbench.worker import Worker, WorkerPool

# -- the program's own claim --------------------------------------------------------------------------------------

METRICS = pd.DataFrame(
    [
        ("train", 0, 4, "accuracy", 1.0),
        ("val", 0, 4, "accuracy", 0.7),
        ("val", 0, 4, "loss", 0.9),
        ("val", 1, 8, "accuracy", 0.9),
        ("val", 2, 12, "accuracy", 0.8),
    ],
    columns=["split", "epoch", "step", "name", "value"],
)


@pytest.mark.parametrize(
    ("moment", "direction", "expected"),
    [
        ("last", "maximize", 0.8),
        ("last", "minimize", 0.8),
        ("best", "maximize", 0.9),
        ("best", "minimize", 0.7),
    ],
)
def test_reported_value(moment, direction, expected):
    report = {"split": "val", "metric": "accuracy", "moment": moment}
    assert reported_value(METRICS, report, {"direction": direction}) == expected


def test_nothing_reported():
    report = {"split": "test", "metric": "accuracy", "moment": "best"}
    assert reported_value(METRICS, report, {"direction": "maximize"}) is None


def test_report_of_nan():
    report = {"split": "val", "metric": "accuracy", "moment": "last"}
    metrics = METRICS.assign(value=[1.0, 0.7, 0.9, 0.9, np.nan])
    assert np.isnan(reported_value(metrics, report, {"direction": "maximize"}))
    assert reported_value(metrics, {**report, "moment": "best"}, {"direction": "maximize"}) == 0.9


# -- the onset ----------------------------------------------------------------------------------------------------


def tables():
    """Four training steps, an evaluation after the second and the fourth; norms of the first two steps alone."""
    steps = pd.DataFrame(
        {
            "split": ["train", "train", "val", "train", "train", "val"],
            "step": [0, 1, 2, 2, 3, 4],
            "loss": [4.0, 3.0, 3.5, 2.0, 1.0, 1.5],
            "grad_norm": [1.0, 0.5, np.nan, np.nan, np.nan, np.nan],
            "labels": [[1, 1], [0, 2], None, None, None, None],
        }
    )
    metrics = pd.DataFrame({"split": ["val", "val"], "step": [2, 4], "name": "loss", "value": [3.5, 1.5]})
    return steps, metrics


def trace_of(folder: Path, steps: pd.DataFrame, metrics: pd.DataFrame, predictions: bytes | None = b"same") -> Path:
    folder.mkdir()
    steps.to_parquet(folder / "steps.parquet", index=False)
    metrics.to_parquet(folder / "metrics.parquet", index=False)
    if predictions is not None:
        (folder / "predictions.safetensors").write_bytes(predictions)
    return folder


@pytest.fixture
def onset_of(tmp_path):
    """Return a function: the onset of a trace against the trace of `tables()`."""

    def measure(steps=None, metrics=None, predictions=b"same"):
        twin = trace_of(tmp_path / "twin", *tables())
        ours = trace_of(
            tmp_path / "ours",
            tables()[0] if steps is None else steps,
            tables()[1] if metrics is None else metrics,
            predictions,
        )
        found = onset(ours, twin)
        assert onset(twin, ours) == found, "it does not matter which is the twin"
        return found

    return measure


def changed(table, row, column, value):
    steps_or_metrics = tables()[table]
    steps_or_metrics.at[row, column] = value
    return steps_or_metrics


def test_equal_traces_have_no_onset_in_spite_of_their_nans(onset_of):
    assert onset_of() is None


@pytest.mark.parametrize(
    ("row", "column", "value", "expected"),
    [
        (0, "loss", 4.5, 0),
        (1, "grad_norm", 0.75, 1),
        (1, "labels", [2, 0], 1),
        (3, "loss", np.nextafter(2.0, 3), 2),
        (4, "loss", np.nan, 3),
        (2, "loss", 3.0, 1),  # an evaluation belongs to the step before it
        (5, "loss", np.nan, 3),
        (3, "grad_norm", 0.1, 2),
    ],
)
def test_first_difference_in_the_steps(onset_of, row, column, value, expected):
    assert onset_of(changed(0, row, column, value)) == expected


@pytest.mark.parametrize(("row", "expected"), [(0, 1), (1, 3)])
def test_difference_in_what_is_reported_alone(onset_of, row, expected):
    assert onset_of(metrics=changed(1, row, "value", 9.0)) == expected


def test_the_earlier_of_two_differences_counts(onset_of):
    assert onset_of(changed(0, 4, "loss", 9.0), changed(1, 0, "value", 9.0)) == 1


@pytest.mark.parametrize(("length", "expected"), [(5, 3), (4, 3), (3, 2), (1, 1), (0, 0)])
def test_run_that_ended_early(onset_of, length, expected):
    """The first step that is missing; a missing evaluation belongs to the step before it."""
    steps, metrics = tables()
    assert onset_of(steps.iloc[:length], metrics) == expected


def test_run_that_failed_before_its_first_step(onset_of):
    none = pd.DataFrame({name: [] for name in ("split", "step", "epoch", "loss", "lr")})
    assert onset_of(none, tables()[1].iloc[:0], None) == 0


def test_evaluation_before_training_belongs_to_step_0(onset_of):
    first = pd.DataFrame({"split": ["val"], "step": [0], "loss": [9.0]})
    assert onset_of(pd.concat([first, tables()[0]], ignore_index=True)) == 0


@pytest.mark.parametrize("predictions", [b"other", None])
def test_difference_in_the_predictions_alone_is_one_at_the_last_step(onset_of, predictions):
    assert onset_of(predictions=predictions) == 3


def test_columns_of_one_trace_alone_do_not_count(onset_of):
    steps, _ = tables()
    assert onset_of(steps.assign(update_norm=1.0)) is None


# -- keys ---------------------------------------------------------------------------------------------------------

SETTINGS = {
    "name": "tiny",
    "dataset": "numbers",
    "task": "classification",
    "classes": 2,
    "traits": ["classification"],
    "roles": {"main": "main"},
    "oracle": {"metric": "accuracy", "direction": "maximize", "bounds": [0.0, 1.0], "floor": 0.02},
    "report": {"split": "val", "metric": "accuracy", "moment": "last"},
    "config": {"lr": 0.5, "epochs": 3, "mode": "train", "marker": ""},
}
DATASET = """\
import numpy as np

INPUTS = np.array([[-2.0], [-1.0], [1.0], [2.0]], dtype=np.float32)
TARGETS = np.array([0, 0, 1, 1])


def write_training_data(folder):
    (folder / "more").mkdir()
    np.save(folder / "inputs.npy", INPUTS)
    (folder / "more" / "targets.txt").write_text(" ".join(map(str, TARGETS)))


def training_sample():
    return INPUTS[:2], TARGETS[:2]


def hidden_test():
    return 10 * INPUTS, TARGETS


def oracle_metric(outputs, targets):
    return (outputs.argmax(axis=1) == targets).mean()
"""
PROGRAM = """\
import os
import time

import numpy as np
import torch
import torch.nn.functional as F


def main(config, run):
    torch.manual_seed(config.seed)
    inputs = torch.as_tensor(np.load(config.data_dir / "inputs.npy"))
    targets = torch.tensor([int(x) for x in (config.data_dir / "more" / "targets.txt").read_text().split()])
    model = torch.nn.Sequential(torch.nn.Linear(1, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
    run.watch(model, optimizer)
    if os.path.exists(config.marker):
        if config.mode == "hang":
            time.sleep(3600)
        if config.mode == "die":
            os._exit(7)
    for epoch in range(config.epochs):
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = F.cross_entropy(outputs, targets)
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
        accuracy = (outputs.argmax(dim=1) == targets).float().mean().item()
        run.log_metrics("val", accuracy=accuracy)
        if config.mode == "raise" and epoch == 1:
            raise ValueError("two is enough")
    if config.mode == "switch":
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)

    def predict(raw):
        if config.mode == "odd_shape":
            return torch.zeros(3)
        if config.mode == "raise_in_predict":
            raise ValueError("no predictions")
        with torch.no_grad():
            return model(torch.as_tensor(raw))

    return None if config.mode == "no_predict" else predict
"""
LONG = 300


@pytest.fixture(scope="module")
def workload(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "tiny.py").write_text(PROGRAM)
    (folder / "numbers.py").write_text(DATASET)
    return Workload("tiny", folder / "tiny.py", folder / "numbers.py", SETTINGS)


def card(id="slow", **fields):
    fields = {"title": "t", "fault": "lr_too_low", "sources": ["own"], "about": "a", **fields}
    if not {"edits", "config"} & set(fields):
        fields["edits"] = [{"find": "optimizer.step()", "delete": True}]
    return make_card(id, fields, {"lr_too_low": {}})


def test_key_is_of_all_a_trace_depends_on(workload, tmp_path):
    run = Run(workload, workload.source, {"seed": 0, "lr": 0.5})
    key = run.key("numbers-0123")
    assert key == Run(workload, workload.source, {"lr": 0.5, "seed": 0}).key("numbers-0123")
    dataset = tmp_path / "numbers.py"
    dataset.write_text(DATASET.replace("10 *", "20 *"))
    others = {
        "source": replace(run, source=run.source + "\n").key("numbers-0123"),
        "config": replace(run, config={"seed": 0, "lr": 0.25}).key("numbers-0123"),
        "seed": replace(run, config={"seed": 1, "lr": 0.5}).key("numbers-0123"),
        "data": run.key("numbers-4567"),
        "hidden test": replace(run, workload=replace(workload, dataset=dataset)).key("numbers-0123"),
        "report": replace(run, workload=replace(workload, settings={**SETTINGS, "report": {}})).key("numbers-0123"),
    }
    assert len({key, *others.values()}) == 1 + len(others)
    assert "tiny" not in key


def test_key_is_not_of_the_bugs_or_the_workloads_name(workload):
    one, two = (prepare(card(id), workload, 0) for id in ("slow", "sluggish"))
    assert one.card.id != two.card.id
    assert one.run.key("d") == two.run.key("d")
    renamed = replace(workload, name="other", settings={**SETTINGS, "name": "other"})
    assert prepare(card(), renamed, 0).run.key("d") == one.run.key("d")


def test_prepared_case(workload):
    edits = [{"find": "optimizer.step()", "delete": True}]
    case = prepare(card(config={"lr": "/ 2"}, setting={"epochs": "+ 1"}, edits=edits), workload, 5)
    assert case.run.config == {"lr": 0.25, "epochs": 4, "mode": "train", "marker": "", "seed": 5}
    assert case.twin.config == {"lr": 0.5, "epochs": 4, "mode": "train", "marker": "", "seed": 5}
    assert case.twin.source == PROGRAM
    assert case.run.source == PROGRAM.replace("        optimizer.step()\n", "")
    assert case.config_changes == {"lr": (0.5, 0.25)}
    assert case.folder == "tiny/slow/seed-5"
    assert "-        optimizer.step()" in case.diff.splitlines()


def test_program_key_leaves_the_seed_out(workload):
    keys = [prepare(card(), workload, seed).program_key for seed in range(2)]
    assert keys[0] == keys[1]
    other = prepare(card(config={"lr": "* 2"}), workload, 0)
    assert other.program_key != keys[0]


def test_card_that_shifts_the_seed_shifts_it_from_the_twins(workload):
    case = prepare(card("other_seed", config={"seed": "+ 1000"}), workload, 3)
    assert (case.run.config["seed"], case.twin.config["seed"]) == (1003, 3)
    assert case.run.source == case.twin.source


# -- training and storing -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool():
    pool = WorkerPool([Worker("train")])
    yield pool
    pool.close()


@pytest.fixture
def store(tmp_path, pool):
    return Store(tmp_path / "results", pool, LONG)


def run_of(workload, **config):
    return Run(workload, workload.source, {"seed": 0, **SETTINGS["config"], **config})


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_trained_once_and_stored(store, workload, pool):
    run = run_of(workload)
    seen = []
    outcome = store.train(run, seen.append)
    assert seen[0] == {"step": 1, "epoch": 0, "epochs": 3}
    assert (outcome.crashed, outcome.error, outcome.steps, outcome.transient) == (False, None, 3, False)
    assert outcome.oracle in (0.0, 0.25, 0.5, 0.75, 1.0)
    trace = Trace(store.trace(outcome.key))
    assert outcome.reported == trace.metric("val", "accuracy").iloc[-1]
    assert trace.source == PROGRAM
    assert trace.config == run.config
    assert trace.meta["task"] == "classification"
    assert trace.predictions["targets"].tolist() == [0, 0]
    # The hidden test is the same line, farther out
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


def test_broken_data_set_is_an_error_that_names_it(store, workload, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def write_training_data(folder):\n    raise OSError('no network')\n")
    for _ in range(2):
        with pytest.raises(HarnessFailure, match=r"broken\.py: write_training_data: OSError: no network") as caught:
            store.data_folder(replace(workload, dataset=broken))
        assert "line 2, in write_training_data" in caught.value.traceback
    assert list((store.root / "data").iterdir()) == []


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
    assert file in told or damage is rename
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


def test_a_store_removes_stale_drafts_when_it_is_opened(pool, tmp_path):
    draft = tmp_path / "runs" / "traces" / f".key-{'0123456789abcdef' * 2}"
    draft.mkdir(parents=True)
    os.utime(draft, (0, 0))
    Store(tmp_path, pool)
    assert not draft.exists()


def broken(name):
    return DATASET.replace(f"def {name}(", f"def {name}(*_):\n    [][0]\n\n\ndef _(")


@pytest.mark.parametrize("function", ["hidden_test", "training_sample"])
def test_failing_data_set_is_no_result(store, workload, tmp_path, function):
    dataset = tmp_path / "numbers.py"
    dataset.write_text(broken(function))
    run = run_of(replace(workload, dataset=dataset))
    with pytest.raises(HarnessFailure) as caught:
        store.train(run)
    assert str(caught.value) == f"data set {dataset}: {function}: IndexError: list index out of range"
    assert f"in {function}" in caught.value.traceback
    assert store.outcome(store.key(run)) is None
    assert list((store.root / "traces").iterdir()) == [], "nothing half-written is left"
    (failure,) = store.train_all([run], 1).values()
    assert str(failure) == str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("raise OSError(28, 'No space left on device')", "recorder or disk: OSError: [Errno 28] No space left"),
        ("run.writer = None", "recorder or disk: AttributeError: 'NoneType' object has no attribute"),
        ("run.writer.add_calls = None", "recorder or disk: TypeError"),
        ("run.writer.write = lambda *_: [][0]", "the trace cannot be written: IndexError"),
        ("run.writer.folder = run.writer.folder / 'program.py'", "the trace cannot be written: FileExistsError"),
    ],
)
def test_failure_of_recorder_or_disk_is_no_result(store, workload, line, message):
    source = PROGRAM.replace("    run.watch(model, optimizer)\n", f"    run.watch(model, optimizer)\n    {line}\n")
    with pytest.raises(HarnessFailure) as caught:
        store.train(replace(run_of(workload), source=source))
    assert message in str(caught.value)
    assert list((store.root / "traces").iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("loss=loss)", "loss=None)", "TypeError: float() argument must be a string or a real number, not 'NoneType'"),
        ("loss=loss)", "loss=outputs)", "ValueError: log_batch: the loss is a torch.float32 of shape (4, 2)"),
        ("outputs=outputs,", "outputs=[1],", "TypeError: log_batch: outputs is a list, not a tensor"),
        ("inputs=inputs,", "inputs=loss,", "ValueError: log_batch: inputs has no batch dimension"),
        ("inputs=inputs,", "input=inputs,", "TypeError: Recorder.log_batch() got an unexpected keyword argument"),
        ("accuracy=accuracy)", "accuracy=model)", "TypeError: float() argument must be"),
        ("run.watch(model,", "run.watch(loss_function,", "NameError: name 'loss_function' is not defined"),
        ("run.watch(model,", "run.watch(F,", "TypeError: watch: the model is a module, not a torch.nn.Module"),
        ("optimizer.zero_grad()", "optimizer.zero_grad(1, 2)", "TypeError: Optimizer.zero_grad() takes"),
        ("model = torch", "model = torch.nn.Linear(2, 2) or torch", "RuntimeError: mat1 and mat2 shapes"),
    ],
)
def test_what_the_program_hands_to_the_recorder_is_its_own_affair(store, workload, old, new, error):
    assert old in PROGRAM
    outcome = store.train(replace(run_of(workload), source=PROGRAM.replace(old, new)))
    assert outcome.crashed
    assert not outcome.transient
    assert outcome.error.startswith(error)


# -- deaths (last, for each costs the pool its process) --------------------------------------------------------------

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
