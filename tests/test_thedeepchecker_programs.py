"""TheDeepChecker on whole small programs, sound and with the fault that a rule is about."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from bugbench.detector import HEALTHY, Diagnosis, NotApplicable
from bugbench.detectors import thedeepchecker
from bugbench.recorder import Recorder
from bugbench.rule_table import Finding, answer
from bugbench.trace import Trace

PROGRAM = """
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.act, self.head = nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)

    def forward(self, x):
        x = self.act(self.hidden(x))
        return self.head({features})


def loss_function(outputs, targets):
    return {loss}


def main(config, run):
    torch.manual_seed(0)
    targets = torch.arange(64) % 2
    inputs = torch.randn(64, 8) + 2 * targets[:, None]
    inputs = {scaled}
    model = Net()
    {init}
    optimizer = torch.optim.{optimizer}
    run.watch(model, optimizer)
    for epoch in range(8):
        for rows in torch.arange(64).split({batch}):
            optimizer.zero_grad()
            outputs = model(inputs[rows])
            loss = loss_function(outputs, targets[rows])
            loss.backward()
            optimizer.step()
            run.log_batch("train", inputs=inputs[rows], targets=targets[rows], outputs=outputs, loss=loss)
        run.log_batch("val", inputs=inputs, targets=targets, outputs=model(inputs), loss=1.0)
        run.log_metrics("val", loss=1.0)
"""
SOUND = {
    "features": "x",
    "loss": "F.cross_entropy(outputs, targets)",
    "scaled": "(inputs - inputs.mean(dim=0)) / inputs.std(dim=0, unbiased=False)",
    "init": "",
    "optimizer": "SGD(model.parameters(), lr=0.05)",
    "batch": "16",
}
NEVER_LEARNT = "F.cross_entropy(outputs, 1 - targets)"  # what is learnt at once is not watched for long


def check(folder: Path, gradient_check: bool = False, **changes: str) -> set[str]:
    """Return the rules that fire, also those whose faults others have named."""
    recorder = Recorder(folder, task="classification", classes=2)
    recorder.finish()
    (folder / "program.py").write_text(PROGRAM.format(**SOUND | changes))
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "data").mkdir()
    found: list[Finding] = []

    def collect(table: Any, findings: Iterable[Finding]) -> Diagnosis:
        found.extend(findings)
        return answer(table, found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thedeepchecker, "answer", collect)
        said = thedeepchecker.Thedeepchecker(gradient_check=gradient_check).diagnose(Trace(folder))
    assert bool(found) == (said != HEALTHY)
    return {f.rule for f in found}


def test_sound_program_passes_but_for_its_narrow_activations(tmp_path: Path) -> None:
    assert check(tmp_path) <= {"unstable activation", "stagnating loss"}


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("features unnormalized", {"scaled": "100 * inputs"}),
        ("summed loss", {"loss": "F.cross_entropy(outputs, targets, reduction='sum')"}),
        ("constant weights", {"init": "[nn.init.zeros_(p) for p in model.parameters()]"}),
        ("large initial weights", {"init": "nn.init.normal_(model.hidden.weight)"}),
        ("dead layer", {"init": "nn.init.constant_(model.hidden.bias, -50.0)"}),
        ("weights untrained", {"optimizer": "SGD(model.head.parameters(), lr=0.05)"}),
        ("updates too large", {"optimizer": "Adam(model.parameters(), lr=1.0)", "loss": NEVER_LEARNT}),
        ("updates too small", {"optimizer": "SGD(model.parameters(), lr=1e-7)"}),
        ("penalty outweighs the loss", {"optimizer": "SGD(model.parameters(), lr=0.05, weight_decay=10.0)"}),
        ("penalty outweighs the loss", {"optimizer": "Adam(model.parameters(), lr=0.05, weight_decay=10.0)"}),
        ("inputs not used", {"features": "0 * x"}),
        ("loss goes to zero", {"loss": "0 * F.cross_entropy(outputs, targets)"}),  # though the batch is not learnt
        ("batch not learnt", {"loss": NEVER_LEARNT}),
        ("poor initial loss", {"loss": "10 * F.cross_entropy(outputs, targets)"}),
        ("loss not finite", {"loss": "F.cross_entropy(outputs, targets) + torch.log(-outputs.var())"}),
    ],
)
def test_broken_program_fails_the_check_of_its_fault(tmp_path: Path, rule: str, changes: dict[str, str]) -> None:
    assert rule in check(tmp_path, **changes)


def test_decoupled_weight_decay_is_no_penalty(tmp_path: Path) -> None:
    assert "penalty outweighs the loss" not in check(
        tmp_path, optimizer="AdamW(model.parameters(), lr=0.05, weight_decay=10.0)"
    )


def test_gradients_are_checked_on_demand(tmp_path: Path) -> None:
    cut = {"features": "x.detach()"}
    for name in ("off", "on", "sound"):
        (tmp_path / name).mkdir()
    assert "wrong gradient" not in check(tmp_path / "off", **cut)
    assert "wrong gradient" in check(tmp_path / "on", gradient_check=True, **cut)
    assert "wrong gradient" not in check(tmp_path / "sound", gradient_check=True)


def test_batch_size_in_the_model_costs_only_the_fit(tmp_path: Path) -> None:
    for name in ("sound", "unnormalized"):
        (tmp_path / name).mkdir()
    fixed = {"features": "x.reshape(32, -1)", "batch": "32"}
    assert check(tmp_path / "sound", **fixed) == set()
    assert check(tmp_path / "unnormalized", **fixed, scaled="100 * inputs") >= {"features unnormalized"}


def test_loss_that_refuses_later_ends_the_fit(tmp_path: Path) -> None:
    picky = "F.binary_cross_entropy(outputs.softmax(dim=1)[:, 1], targets.float())"  # raises where it is NaN
    found = check(tmp_path, loss=picky, optimizer="SGD(model.parameters(), lr=1e38)", scaled="100 * inputs")
    assert found >= {"features unnormalized", "batch not learnt"}


def test_symptoms_have_ranked_families() -> None:
    def suspects(*rules: str) -> list[str]:
        return [s.fault for s in answer(thedeepchecker.RULES, [Finding(rule, "") for rule in rules]).suspects]

    assert suspects("batch not learnt") == ["loss", "optimizer", "model"]
    assert suspects("inputs not used") == ["model", "optimizer", "loss"]
    assert suspects("wrong gradient") == ["detached_features", "model", "loss"]
    assert suspects("wrong gradient", "targets unnormalized", "unbalanced labels")[0] == "class_imbalance"


def test_outputs_may_be_one_number_a_sample(tmp_path: Path) -> None:
    vector = {"features": "x)[:, 0].mul(1", "loss": "F.binary_cross_entropy_with_logits(outputs, targets.float())"}
    assert check(tmp_path, **vector) <= {"unstable activation", "stagnating loss"}


def test_program_without_a_loss_function_is_not_judged(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="loss_function"):
        source = PROGRAM.replace("loss_function", "criterion")
        Recorder(tmp_path, task="classification", classes=2).finish()
        (tmp_path / "program.py").write_text(source.format(**SOUND))
        (tmp_path / "config.yaml").write_text("seed: 0\n")
        (tmp_path / "data").mkdir()
        thedeepchecker.Thedeepchecker().diagnose(Trace(tmp_path))
