"""The order of zero_grad, forward, backward and step: usual and unusual ones that are sound, and those that are not."""

import pytest
import torch
import torch.nn.functional as F
from bugbench.detectors.call_order import CallOrder
from bugbench.recorder import Recorder
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
