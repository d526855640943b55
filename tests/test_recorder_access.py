"""A recorder that writes only what some accesses grant."""

import pytest
import torch
from bugbench.recorder import Recorder
from bugbench.trace import CURVE_COLUMNS, MissingAccess, Trace, export
from recorded_loop import USUAL, Loop, orders


def test_curves_only_leave_just_the_curves(tmp_path):
    """The same rows as of a whole trace; nothing hangs on the model, and a rest of an earlier run is gone."""
    parts = {}
    for name, settings in (("whole", {}), ("curves", {}), ("curves", {"access": ("curves",)})):
        loop = Loop(tmp_path / name, task="regression", **settings)
        for _ in range(12):
            loop.step()
        hooks = [*loop.model._forward_hooks, *loop.optimizer._optimizer_step_pre_hooks]
        assert bool(hooks or "zero_grad" in vars(loop.optimizer)) == (not settings)
        loop.evaluate()
        parts[name] = loop.trace(predictions={"outputs": torch.zeros(1)})
    whole, curves = parts["whole"], parts["curves"]
    assert sorted(path.name for path in curves.folder.iterdir()) == ["meta.json", "metrics.parquet", "steps.parquet"]
    assert list(curves.steps.columns) == CURVE_COLUMNS
    assert curves.steps.equals(whole.steps[CURVE_COLUMNS])
    assert curves.metrics.equals(whole.metrics)
    assert curves.meta == whole.meta
    with pytest.raises(MissingAccess, match=r"declare access .'tensors'."):
        _ = curves.layers
    with pytest.raises(MissingAccess, match="recorded without access 'data'"):
        export(curves.folder, tmp_path / "exported", {"data"})
    export(curves.folder, tmp_path / "granted", {"curves"})
    assert Trace(tmp_path / "granted").steps.equals(curves.steps)


def test_tensors_or_data_alone(tmp_path):
    traces = {}
    for access in ("tensors", "data"):
        loop = Loop(tmp_path / access, access=access)
        for _ in range(3):
            loop.step()
        loop.evaluate()
        traces[access] = loop.trace()
    tensors, data = traces["tensors"], traces["data"]
    assert orders(tensors) == [USUAL] * 3
    assert tensors.steps["grad_norm"][0] == 26
    assert not (tensors.folder / "samples.parquet").exists()
    assert not (data.folder / "layers.parquet").exists()
    assert list(data.steps.columns) == CURVE_COLUMNS
    assert [batch.mode for batch in data.batches()] == ["train"] * 3
    assert data.batches()[0].output_gradients.tolist() == [[3], [7]]
    assert len(data.samples) == 2 * 4


@pytest.mark.parametrize(
    ("access", "message"),
    [
        (("curve",), "unknown access 'curve': did you mean curves"),
        (("curves", "source"), "access 'source' is not recorded but stored beside a trace"),
    ],
)
def test_access_that_cannot_be_recorded(tmp_path, access, message):
    with pytest.raises(ValueError, match=message):
        Recorder(tmp_path, access=access)
