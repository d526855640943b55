"""Failures of data set, recorder or disk are no results; what the program itself does wrong is one."""

from dataclasses import replace

import pytest
from bugbench.store import HarnessFailure
from tiny_workload import DATASET, PROGRAM, run_of


def test_broken_data_set_is_an_error_that_names_it(store, workload, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def write_training_data(folder):\n    raise OSError('no network')\n")
    for _ in range(2):
        with pytest.raises(HarnessFailure, match=r"broken\.py: write_training_data: OSError: no network") as caught:
            store.data_folder(replace(workload, dataset=broken))
        assert "line 2, in write_training_data" in caught.value.traceback
    assert list((store.root / "data").iterdir()) == []


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
