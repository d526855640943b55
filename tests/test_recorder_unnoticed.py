"""That the program never notices the recorder: same weights, same random stream, free copies, no hooks left."""

import copy
import pickle
import random

import numpy as np
import torch
import torch.nn.functional as F
from bugbench.recorder import Recorder
from bugbench.rerun import Probe, seed_everything
from recorded_loop import INPUTS, orders
from torch import nn


def train(run, steps=25):
    """A program with every kind of randomness; returns its weights and what the generators would give next."""
    seed_everything(3)
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    run.watch(model, optimizer)
    data, classes = torch.randn(60, 4), torch.randint(0, 3, (60,))
    for step in range(steps):
        rows = torch.randperm(60)[:20]
        inputs, targets = data[rows] + 0.1 * torch.randn(20, 4), classes[rows]
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = F.cross_entropy(outputs, targets)
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss, samples=data[rows])
        if step % 5 == 4:
            model.eval()
            with torch.no_grad():
                outputs = model(data)
            run.log_batch("val", inputs=data, targets=classes, outputs=outputs, loss=F.cross_entropy(outputs, classes))
            run.log_metrics("val", loss=1.0)
            model.train()
    return model, optimizer, [torch.rand(3).tolist(), random.random(), np.random.rand()]


def test_weights_and_random_stream_are_bit_identical_without_the_recorder(tmp_path):
    bare, bare_optimizer, bare_stream = train(Probe())
    recorded, optimizer, stream = train(Recorder(tmp_path / "trace", classes=3))
    assert stream == bare_stream
    for name, value in bare.state_dict().items():
        assert torch.equal(value, recorded.state_dict()[name]), name
    for name, state in bare_optimizer.state_dict()["state"].items():
        for key, value in state.items():
            assert torch.equal(value, optimizer.state_dict()["state"][name][key])


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_runs_with_one_seed_leave_byte_identical_folders(tmp_path):
    for name in ("one", "two"):
        run = Recorder(tmp_path / name, task="classification", classes=3)
        model, _, _ = train(run)
        run.finish(predictions={"outputs": model(torch.ones(2, 4)), "targets": torch.tensor([0, 1])})
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert len(one) > 15
    assert one == two


def test_copies_of_a_watched_model_are_free_of_the_recorder(loop):
    loop.step()
    twin = copy.deepcopy(loop.model)
    saved = pickle.loads(pickle.dumps(loop.model))
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    loop.optimizer.zero_grad()
    loop.forward()
    loop.backward()
    for model in (twin, saved):
        assert torch.equal(model(INPUTS), loop.model(INPUTS))
        model.zero_grad()
    optimizer.step()
    assert loop.model.out.weight.grad is not None, "a copy clears its own gradients only"
    loop.optimizer.step()
    loop.log()
    assert orders(loop.trace())[1] == "zero_grad forward backward forward step"  # the forward is the comparison's
    assert "zero_grad" not in vars(loop.model)


def test_hooks_are_gone_at_the_end(loop):
    loop.step()
    loop.run.finish()
    for module in loop.model.modules():
        assert not module._forward_hooks
        assert "zero_grad" not in vars(module)
    assert "zero_grad" not in vars(loop.optimizer)
    assert not loop.optimizer._optimizer_step_pre_hooks
    assert not loop.optimizer._optimizer_step_post_hooks
