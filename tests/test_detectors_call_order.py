"""The order of zero_grad, forward, backward and step: usual and unusual ones that are sound, and those that are not."""

import pytest
import torch
import torch.nn.functional as F
from bugbench.detectors.call_order import CallOrder
from bugbench.gradient_sums import adds_up
from bugbench.recorder import Recorder
from bugbench.trace import Trace
from tiny_training import class_batches, classifier, faults, top, train
from torch import nn

pytestmark = pytest.mark.usefixtures("fixed_seed")


@pytest.mark.parametrize(
    ("order", "fault"),
    [
        ("zfbs", None),
        ("fzbs", None),
        ("fbsz", None),
        ("fbslz", None),
        ("zfbls", None),
        ("zflbs", None),
        ("fblsz", None),
        ("fbSZ", None),  # accumulation over four batches
        ("fbs", "missing_zero_grad"),
        ("fbls", "missing_zero_grad"),
        ("fbzs", "zero_grad_after_backward"),
        ("fbzls", "zero_grad_after_backward"),
        ("zfsb", "step_before_backward"),
        ("fszb", "step_before_backward"),
        ("zfb", "missing_step"),
    ],
)
def test_order_of_calls(tmp_path, order, fault):
    # a step between forward and backward raises in deeper models, whose weights the backward pass needs
    model = nn.Linear(8, 5) if order == "fszb" else classifier()
    train(tmp_path, model, class_batches(), F.cross_entropy, task="classification", classes=5, order=order)
    assert top(CallOrder, tmp_path) == fault


@pytest.mark.parametrize(("last", "cleared"), [(nn.Linear(16, 5), True), (nn.Linear(16, 5), False), (nn.ReLU(), True)])
def test_gradients_cleared_without_a_call(tmp_path, last, cleared):
    """Arithmetic on the gradients overrules the calls: of the last bias, or of zeros that come and go."""
    run = Recorder(tmp_path, task="classification", classes=5)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), last if isinstance(last, nn.Linear) else nn.Linear(16, 5), last)
    model = model[:3] if isinstance(last, nn.Linear) else model
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    run.watch(model, optimizer)
    for inputs, targets in class_batches():
        if cleared:
            for parameter in model.parameters():
                parameter.grad = None
        outputs = model(inputs)
        loss = F.cross_entropy(outputs, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
    run.finish()
    assert faults(CallOrder, tmp_path) == ([] if cleared else ["missing_zero_grad"])


def conv(channels):
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, channels, 3, padding=1))


def mlp(*last, bias=True):
    return nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, *last[:1], bias=bias), *last[1:])


def squared(outputs, targets):
    return F.mse_loss(outputs, targets.float().reshape(outputs.shape))


HEADS = {  # model, loss, name; images have a target per pixel
    "one_channel": (lambda: conv(1), lambda o, t: squared(o, t.clamp(max=1)), ""),
    "three_channels": (lambda: conv(3), lambda o, t: F.cross_entropy(o, t[:, 0] % 3), ""),
    "squeezed": (lambda: mlp(1, nn.Flatten(0)), squared, ""),
    "one_output": (lambda: mlp(1), squared, ""),
    "two_classes": (lambda: mlp(2), lambda o, t: F.cross_entropy(o, t % 2), ""),
    "no_bias": (lambda: mlp(5, bias=False), F.cross_entropy, ""),
    "named": (lambda: mlp(5), F.cross_entropy, "student"),
}


@pytest.mark.parametrize("order", ["fbsl", "fbls"])
@pytest.mark.parametrize("cleared", [True, False])
@pytest.mark.parametrize("head", HEADS)
def test_gradients_of_any_head_cleared_without_a_call(tmp_path, head, cleared, order):
    make, loss_function, name = HEADS[head]
    model = make()
    run = Recorder(tmp_path, task="classification", classes=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    run.watch(model, optimizer, name)
    for inputs, targets in class_batches():
        if "channel" in head:
            inputs = torch.randn(8, 1, 6, 6)
            targets = (inputs > 0).long() + (inputs > 1)
        for parameter in model.parameters():
            if cleared:
                parameter.grad = None
        outputs = model(inputs)
        loss = loss_function(outputs, targets)
        loss.backward()
        for act in order[2:]:
            if act == "s":
                optimizer.step()
            else:
                run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
    run.finish()
    assert adds_up(Trace(tmp_path), name, 1e-3) is (None if head == "no_bias" else not cleared)
    assert faults(CallOrder, tmp_path) == ([] if cleared else ["missing_zero_grad"])


def test_rounding_errors_that_cancel_are_no_cleared_gradients(tmp_path):
    """A bias before batch norm has no gradient but rounding errors, and these may add up to exactly zero."""
    run = Recorder(tmp_path, task="generation")
    model = nn.Sequential(nn.Linear(8, 64), nn.BatchNorm1d(64), nn.SiLU(), nn.Linear(64, 5), nn.Tanh())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    run.watch(model, optimizer, "generator")
    for inputs, _ in class_batches():
        outputs = model(inputs)
        loss = (outputs - inputs[:, :5]).square().mean()
        loss.backward()
        with torch.no_grad():
            model[0].bias.grad[torch.randint(64, (8,))] = 0.0
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=inputs[:, :5], outputs=outputs, loss=loss)
    run.finish()
    assert faults(CallOrder, tmp_path) == ["missing_zero_grad"]


@pytest.mark.parametrize("order", ["zfblsm", "fblszm", "zfbmsl", "fbmlsz", "zfbsml"])
@pytest.mark.parametrize("wrong", [None, "s"])
def test_metrics_after_each_batch_hide_calls(tmp_path, order, wrong):
    """What comes before metrics is not recorded; whether weights were changed is."""
    run = Recorder(tmp_path, task="classification", classes=5)
    model = classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)  # so slow that the loss does not tell
    run.watch(model, optimizer)
    for inputs, targets in class_batches(60):
        for act in order.replace(wrong or "-", ""):
            if act == "z":
                optimizer.zero_grad()
            elif act == "f":
                outputs = model(inputs)
                loss = F.cross_entropy(outputs, targets)
            elif act == "b":
                loss.backward()
            elif act == "s":
                optimizer.step()
            elif act == "l":
                run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
            else:
                run.log_metrics("train", loss=loss.item())
    run.finish()
    backward_is_seen = order.index("m") > order.index("l")
    assert faults(CallOrder, tmp_path) == (["missing_step"] if wrong and backward_is_seen else [])


def test_zero_grad_on_another_optimizer(tmp_path):
    """All calls are there, but those of zero_grad go to parameters that are not the model's."""
    run = Recorder(tmp_path, task="classification", classes=5)
    model, other = classifier(), classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    run.watch(other, torch.optim.SGD(other.parameters(), lr=0.01), name="teacher")
    run.watch(model, optimizer)
    for inputs, targets in class_batches():
        other.zero_grad()
        outputs = model(inputs)
        loss = F.cross_entropy(outputs, targets)
        loss.backward()
        optimizer.step()
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=loss)
    run.finish()
    assert top(CallOrder, tmp_path) == "missing_zero_grad"


def test_closures_and_two_models(tmp_path):
    run = Recorder(tmp_path / "closure", task="classification", classes=5)
    model = classifier()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    run.watch(model, optimizer)
    for inputs, targets in class_batches(12):

        def closure(inputs=inputs, targets=targets):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            return loss

        with torch.no_grad():
            outputs = model(inputs)
        run.log_batch("train", inputs=inputs, targets=targets, outputs=outputs, loss=optimizer.step(closure))
    run.finish()

    run = Recorder(tmp_path / "gan", task="generation")
    generator, discriminator = nn.Linear(2, 3), nn.Linear(3, 1)
    for_g, for_d = (torch.optim.Adam(m.parameters(), lr=0.01) for m in (generator, discriminator))
    run.watch(generator, for_g, name="generator")
    run.watch(discriminator, for_d, name="discriminator")
    for _ in range(12):
        real, fake = torch.randn(8, 3), generator(torch.randn(8, 2))
        discriminator.zero_grad()
        ones, zeros = torch.ones(8, 1), torch.zeros(8, 1)
        F.binary_cross_entropy_with_logits(discriminator(real), ones).backward()
        F.binary_cross_entropy_with_logits(discriminator(fake.detach()), zeros).backward()
        for_d.step()
        generator.zero_grad()
        outputs = discriminator(fake)
        loss = F.binary_cross_entropy_with_logits(outputs, ones)
        loss.backward()
        for_g.step()
        run.log_batch("train", inputs=real, targets=ones, outputs=outputs, loss=loss)
    run.finish()
    assert faults(CallOrder, tmp_path / "closure") == []
    assert faults(CallOrder, tmp_path / "gan") == []
