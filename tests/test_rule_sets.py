"""Ports of published rule sets: each rule on numbers worked out by hand, on both sides of its limit."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from bugbench.catalogue import Catalogue
from bugbench.detector import NotApplicable
from bugbench.detectors import neuralint, sagemaker_rules, thedeepchecker
from bugbench.layer_graph import Source
from bugbench.layer_rules import network_rules
from bugbench.rule_table import Finding, answer
from bugbench.trace import Batch

# -- the table ---------------------------------------------------------------------------------------------------------


def test_answer_follows_the_table_and_names_a_fault_once() -> None:
    table = {"nan": ("numerics",), "slow": ("lr_too_low", "missing_step"), "flat": ("missing_step", "model")}
    said = answer(table, [Finding("flat", "b"), Finding("slow", "a", "head", 7), Finding("slow", "later")]).suspects
    assert [s.fault for s in said] == ["lr_too_low", "missing_step", "model"]
    assert [s.confidence for s in said] == sorted((s.confidence for s in said), reverse=True)
    assert (said[1].evidence, said[1].layer, said[1].line) == ("slow: a", "head", 7)
    assert answer(table, []).suspects == ()


def test_answer_refuses_a_rule_that_has_no_row() -> None:
    with pytest.raises(KeyError, match="fast"):
        answer({"slow": ("lr_too_low",)}, [Finding("fast", "")])


@pytest.mark.parametrize("module", [neuralint, sagemaker_rules, thedeepchecker])
def test_tables_speak_the_vocabulary(module: Any, catalogue: Catalogue) -> None:
    families = yaml.safe_load((Path(answer.__code__.co_filename).parent / "faults.yaml").read_text())["families"]
    known = {*families, *(fault for family in families.values() for fault in family["faults"])}
    assert {fault for faults in module.RULES.values() for fault in faults} <= known


# -- SageMaker Debugger ------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """As much of a trace as the rules read."""

    layers: pd.DataFrame
    steps: pd.DataFrame
    meta: dict[str, Any] = field(default_factory=lambda: {"task": "classification", "layers": {}})
    labels: list[int] = field(default_factory=list)
    kept: list[Batch] = field(default_factory=list)

    @property
    def samples(self) -> pd.DataFrame:
        return pd.DataFrame({"split": "train", "label": np.array(self.labels, float)})

    def train_steps(self) -> pd.DataFrame:
        return self.steps[self.steps["split"] == "train"].reset_index(drop=True)

    def batches(self, split: str = "train") -> list[Batch]:
        return [b for b in self.kept if b.split == split]


def layer(step: int, name: str, kind: str, mean: float = 0.0, std: float = 0.1, **more: float) -> dict[str, Any]:
    row = {"step": step, "layer": name, "kind": kind, "mean": mean, "std": std, "min": -1.0, "max": 1.0}
    return {**row, "zero_share": 0.0, "nonfinite": 0, **more}


def losses(train: list[float], held_out: list[float], apart: int = 10) -> pd.DataFrame:
    rows = [("train", apart * i, i, loss) for i, loss in enumerate(train)]
    rows += [("val", apart * (i + 1), i, loss) for i, loss in enumerate(held_out)]
    table = pd.DataFrame(rows, columns=["split", "step", "epoch", "loss"]).sort_values(["epoch", "split"])
    return table.reset_index(drop=True)


def fired(*rows: dict[str, Any], steps: pd.DataFrame | None = None, **more: Any) -> set[str]:
    table = pd.DataFrame(list(rows) or [layer(0, "a.bias", "weight")])
    run = Run(table, losses([1.0], [1.0]) if steps is None else steps, **more)
    said = sagemaker_rules.SagemakerRules().diagnose(run)  # type: ignore[arg-type]
    return {s.evidence.partition(":")[0] for s in said.suspects}


def test_sound_numbers_fire_no_rule() -> None:
    assert fired(layer(0, "a.weight", "gradient"), layer(0, "a.weight", "weight")) == set()


@pytest.mark.parametrize(
    ("rule", "row", "fires"),
    [
        ("VanishingGradient", layer(0, "a.weight", "gradient", 3e-8, 4e-8), True),  # root mean square 5e-8
        ("VanishingGradient", layer(0, "a.weight", "gradient", 9e-8, 12e-8), False),  # 15e-8
        ("VanishingGradient", layer(0, "a.bias", "gradient", 0.0, 1e-9), True),  # biases belong to the collection
        ("ExplodingTensor", layer(0, "a", "activation", nonfinite=1), True),
        ("AllZero", layer(0, "a.weight", "gradient", 1.0, zero_share=1.0), True),
        ("AllZero", layer(0, "a.weight", "gradient", 1.0, zero_share=0.99), False),
        ("TensorVariance", layer(0, "a.weight", "weight", std=1e9), False),  # has no limits by default
    ],
)
def test_rule_on_one_tensor(rule: str, row: dict[str, Any], fires: bool) -> None:
    assert (rule in fired(row)) == fires


@pytest.mark.parametrize(("update", "weight", "size"), [(20.0, 1.0, "large"), (5e-10, 0.1, "small"), (9.0, 1.0, None)])
def test_update_ratio(update: float, weight: float, size: str | None) -> None:
    rows = [layer(3, "a.weight", kind, 0.0, std) for kind, std in (("update", update), ("weight", weight))]
    assert fired(*rows) == ({f"WeightUpdateRatio.{size}"} if size else set())


def test_weight_that_starts_at_zero_is_no_large_update() -> None:
    rows = [layer(0, "a.weight", kind, 0.0, 0.01) for kind in ("update", "weight")]
    assert fired(*rows) == set()


@pytest.mark.parametrize(("values", "fires"), [((0.5, 0.5, 0.5), True), ((0.5, 0.5, 0.501), False)])
def test_tensor_unchanged_over_three_steps(values: tuple[float, ...], fires: bool) -> None:
    rows = [layer(step, "a.weight", "weight", value) for step, value in enumerate(values)]
    assert fired(*rows) == ({"UnchangedTensor"} if fires else set())


@pytest.mark.parametrize(("share", "fires"), [(0.996, True), (0.994, False)])
def test_dead_relu_needs_more_zeros_than_half_the_units_could_leave(share: float, fires: bool) -> None:
    # at most half of the units are dead: then the others are zero in 99 % at most, and all together in 99.5 %
    rows = [layer(20, "a", "activation"), layer(20, "r", "activation", zero_share=share)]
    assert fired(*rows, meta={"task": None, "layers": {"r": "ReLU"}}) == ({"DeadRelu"} if fires else set())


@pytest.mark.parametrize(
    ("kind", "mean", "std", "fires"),
    [
        ("Tanh", 0.0, 20.0, True),  # 2 (1 - Phi(0.475)) = 0.635
        ("Tanh", 0.0, 10.0, False),  # 2 (1 - Phi(0.95)) = 0.342
        ("Sigmoid", 17.5, 0.1, True),
        ("Sigmoid", -22.0, 0.5, False),  # 1 - Phi(2) = 0.02
    ],
)
def test_saturated_activation(kind: str, mean: float, std: float, fires: bool) -> None:
    rows = [layer(20, "a", "activation", mean, std), layer(20, "t", "activation")]
    assert fired(*rows, meta={"task": None, "layers": {"t": kind}}) == ({"SaturatedActivation"} if fires else set())


@pytest.mark.parametrize(("step", "std", "fires"), [(0, 0.3, True), (0, 0.4, False), (10, 0.3, False)])
def test_poor_initialization_is_a_ratio_of_variances_above_ten(step: int, std: float, fires: bool) -> None:
    rows = [layer(step, name, "activation", 0.0, s) for name, s in (("a", 1.0), ("r", 1.0), ("b", std), ("s", 1.0))]
    said = fired(*rows, meta={"task": None, "layers": {"r": "ReLU", "s": "ReLU"}})
    assert said == ({"PoorWeightInitialization"} if fires else set())  # 1 / 0.09 = 11.1, 1 / 0.16 = 6.25


@pytest.mark.parametrize(
    ("train", "held_out", "rule"),
    [
        ([1.0, 1.0], [1.0, 0.9995], "LossNotDecreasing"),  # by 0.05 %
        ([1.0, 1.0], [1.0, 0.998], None),
        ([1.0], [1.11], "Overfit"),
        ([1.0], [1.09], None),
        ([1 - 0.0019 * i for i in range(6)], [0.9 - 0.0019 * i for i in range(6)], "Overtraining"),  # 0.0095 in all
        ([1 - 0.015 * i for i in range(6)], [0.9 - 0.015 * i for i in range(6)], None),
    ],
)
def test_rule_on_curves(train: list[float], held_out: list[float], rule: str | None) -> None:
    assert fired(steps=losses(train, held_out)) == ({rule} if rule else set())


@pytest.mark.parametrize(
    ("train", "fires"), [([1.0, 0.9995], True), ([1.0, 0.998], False), ([1.0], False), ([1.0, 0.9, 0.95], True)]
)
def test_training_losses_stand_in_where_nothing_is_evaluated(train: list[float], fires: bool) -> None:
    assert fired(steps=losses(train, [])) == ({"LossNotDecreasing"} if fires else set())
    evaluated = losses(train, [0.8 - 0.1 * i for i in range(len(train))])
    assert fired(steps=evaluated) == set()  # these fall


@pytest.mark.parametrize(("rare", "fires"), [(49, True), (50, False)])
def test_class_imbalance_is_more_than_ten_to_one(rare: int, fires: bool) -> None:
    assert fired(labels=[0] * 500 + [1] * rare) == ({"ClassImbalance"} if fires else set())


def kept(inputs: np.ndarray, targets: np.ndarray, outputs: np.ndarray, step: int = 0) -> Batch:
    return Batch("train", step, 0, "train", inputs, targets, outputs, 1.0)


@pytest.mark.parametrize(("wrong", "fires"), [(71, True), (70, False)])
def test_class_mistaken_in_more_than_seven_of_ten(wrong: int, fires: bool) -> None:
    targets = np.repeat(np.arange(5), 100)
    predicted = targets.copy()
    predicted[:wrong] = 3
    early = kept(np.zeros((500, 2)), targets, np.eye(5)[(targets + 1) % 5])  # all wrong, and outdated by the later one
    batches = [early, kept(np.zeros((500, 2)), targets, np.eye(5)[predicted], step=9)]
    said = fired(labels=[*targets], kept=batches)
    assert said == ({"ClassImbalance.misprediction"} if fires else set())


@pytest.mark.parametrize(
    ("mean", "images", "fires"), [(0.3, 500, True), (-0.3, 500, True), (0.1, 500, False), (0.3, 499, False)]
)
def test_input_images(mean: float, images: int, fires: bool) -> None:
    steps = losses([1.0], [1.0]).assign(input_mean=mean, batch_size=images)
    batch = kept(np.zeros((4, 1, 8, 8), np.float32), np.zeros(4), np.zeros((4, 1)))
    assert fired(steps=steps, kept=[batch]) == ({"CheckInputImages"} if fires else set())


@pytest.mark.parametrize(("zeros", "fires"), [(6, True), (5, False)])
def test_padding_tokens(zeros: int, fires: bool) -> None:
    tokens = np.array([[0] * zeros + [7] * (10 - zeros)])
    assert fired(kept=[kept(tokens, np.zeros(1), np.zeros((1, 2)))]) == ({"NLPSequenceRatio"} if fires else set())


# -- NeuraLint ---------------------------------------------------------------------------------------------------------

LOOP = """
def train_epoch(model, loader, optimizer):
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = {loss}
        loss.backward()
        {step}
"""


def network(*layers: str, forward: str = "self.layers(x)") -> str:
    body = ", ".join(layers)
    init = f"    def __init__(self, width):\n        super().__init__()\n        self.layers = nn.Sequential({body})\n"
    call = f"    def forward(self, x):\n        return {forward}\n"
    return f"class Net(nn.Module):\n{init}\n{call}\nmodel = Net(config.width)\n"


def lint(
    source: str, loss: str = "F.cross_entropy(model(inputs), targets)", step: str = "optimizer.step()"
) -> list[str]:
    trace = SimpleNamespace(source=source + LOOP.format(loss=loss, step=step), config={"width": 8, "batch_size": 32})
    said = neuralint.Neuralint().diagnose(trace)  # type: ignore[arg-type]
    return [s.evidence.partition(" ")[0] for s in said.suspects]


DENSE = ("nn.Linear(64, width)", "nn.ReLU()", "nn.Linear(width, 4)")
CONV = ("nn.Conv2d(1, 8, 3)", "nn.ReLU()", "nn.MaxPool2d(2)", "nn.Flatten()", "nn.Linear(72, 4)")


def test_sound_networks_break_no_rule() -> None:
    assert lint(network(*DENSE)) == lint(network(*CONV)) == []


@pytest.mark.parametrize(
    ("rule", "layers"),
    [
        ("f001", ("nn.Linear(64, 16)", "nn.ReLU()", "nn.Linear(width, 4)")),
        ("f002", ("nn.Conv2d(1, 8, 3)", "nn.ReLU()", "nn.Flatten()", "nn.Linear(72, 4)")),
        ("f003", ("nn.Linear(64, 8)", "nn.ReLU()", "nn.Tanh()", "nn.Linear(8, 4)")),
        ("f005", ("nn.Linear(64, 8)", "nn.BatchNorm1d(8)", "nn.ReLU()", "nn.Linear(8, 4)")),
        ("f006", ("nn.Linear(64, 8, bias=False)", "nn.Dropout()", "nn.ReLU()", "nn.BatchNorm1d(8)", "nn.Linear(8, 4)")),
        ("f009", ("nn.Linear(64, 8)", "nn.Dropout()", "nn.Linear(8, 4)")),
        ("f011", ("nn.Conv2d(1, 8, 3)", "nn.ReLU()", "nn.MaxPool2d(2)", "nn.Linear(72, 4)")),
        ("f015", (*DENSE, "nn.Softmax(dim=1)")),
        ("f016", ("nn.Conv2d(1, 8, 5)", "nn.ReLU()", "nn.Conv2d(8, 8, 3)", "nn.ReLU()", *CONV[2:])),
        ("f018", (*CONV[:2], "nn.Dropout()", *CONV[2:])),
        ("f019", ("nn.Linear(64, 8)", "nn.ReLU()", "nn.Linear(width, 2 * width)", "nn.ReLU()", "nn.Linear(16, 4)")),
        ("f023", ("nn.Conv2d(1, 16, 3)", "nn.ReLU()", "nn.Conv2d(16, 8, 3)", "nn.ReLU()", *CONV[2:])),
    ],
)
def test_rule_on_layers(rule: str, layers: tuple[str, ...]) -> None:
    assert lint(network(*layers)) == [rule]


FORWARD = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.conv = nn.Conv2d({inputs}, 16, 3)
        self.short = nn.Conv2d(8, 16, 1)
        self.hidden = nn.Linear(16, 32)
        self.mean = nn.Linear({width}, 4)
        self.spread = nn.Linear(32, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = self.conv(x)
        short = self.short(x)
        y += short
        y = F.max_pool2d(F.relu(y), 2).mean(dim=(2, 3))
        y = F.relu(self.hidden(y))
        return self.mean(y), self.spread(y)

model = Net()
"""


@pytest.mark.parametrize(
    ("inputs", "width", "fires"),
    [(8, 32, False), (4, 32, True), (8, 16, True)],  # of the layer before, or not
)
def test_shapes_are_compared_along_what_the_names_hold(inputs: int, width: int, fires: bool) -> None:
    """A skip by a 1x1 convolution takes what the convolution beside it takes, and so do two heads."""
    assert ("f001" in lint(FORWARD.format(inputs=inputs, width=width), "loss(model)")) == fires


BLOCK = """
class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x):
        return {result}
"""


@pytest.mark.parametrize(
    ("result", "inputs", "fires"),
    [
        ("F.relu(self.conv(x))", 8, False),
        ("F.relu(self.conv(x))", 16, True),
        ("F.relu(self.conv(x)) + self.skip(x)", 8, False),
        ("torch.cat([self.conv(x), self.skip(x)], dim=1)", 16, False),  # twice eight
    ],
)
def test_shapes_are_compared_from_block_to_block(result: str, inputs: int, fires: bool) -> None:
    blocks = network("Block(1, 8)", f"Block({inputs}, 8)", "nn.MaxPool2d(2)", "nn.Flatten()", "nn.Linear(72, 4)")
    assert ("f001" in lint(BLOCK.format(result=result) + blocks)) == fires


@pytest.mark.parametrize("ending", [(), ("nn.Flatten()",), ("nn.Linear(8, 4)",)])
def test_a_last_block_of_one_convolution_and_a_pooling_is_no_matter(ending: tuple[str, ...]) -> None:
    pairs = ("nn.Conv2d(8, 8, 3)", "nn.ReLU()", "nn.Conv2d(8, 8, 3)", "nn.ReLU()", "nn.MaxPool2d(2)") * 3
    block = ("nn.Conv2d(8, 8, 3)", "nn.ReLU()", "nn.MaxPool2d(2)")
    for more, fires in (((), False), (("nn.Conv2d(8, 8, 3)",), True)):
        (layers,) = Source(network(*pairs, *block, *more, *ending), {}).networks()
        assert ("f025 too much pooling" in {found.rule for found in network_rules(layers, 10)}) == fires


def test_deep_network_of_single_convolutions() -> None:
    block = ("nn.Conv2d(8, 8, 3)", "nn.ReLU()", "nn.MaxPool2d(2)")
    ending = ("nn.Flatten()", "nn.Linear(72, 4)")
    assert lint(network(*block * 5, *ending)) == ["f025"]  # ten layers that convolve or pool
    assert lint(network(*block * 4, *ending)) == []
    pairs = ("nn.Conv2d(8, 8, 3)", "nn.ReLU()", *block)
    assert lint(network(*pairs * 4, *ending)) == []
    assert lint(network("nn.Conv2d(1, 4, 3)", "nn.ReLU()", *pairs * 4, *ending)) == [
        "f001",  # 4 outputs, then 8 inputs
        "f026",  # and a block of 4 and 8 filters
    ]


@pytest.mark.parametrize(
    ("loss", "rules"),
    [
        ("F.nll_loss(model(inputs), targets)", ["f008"]),
        ("F.nll_loss(F.log_softmax(model(inputs), dim=1), targets)", []),
        ("F.cross_entropy(F.softmax(model(inputs), dim=1), targets)", ["f015"]),
        ("F.cross_entropy(torch.relu(model(inputs)), targets)", ["f015"]),
        ("F.mse_loss(torch.sigmoid(model(inputs)), targets)", ["f015"]),
        ("F.mse_loss(model(inputs), targets)", []),
        ("F.binary_cross_entropy(model(inputs), targets)", []),  # four outputs: the rule asks for one label
        ("F.binary_cross_entropy(torch.tanh(model(inputs)), targets)", ["f020", "f020"]),
        ("F.binary_cross_entropy(torch.sigmoid(model(inputs)), targets)", ["f020"]),  # of four outputs
        ("F.binary_cross_entropy_with_logits(model(inputs), targets)", ["f015"]),  # four outputs
        ("nn.CrossEntropyLoss(weight=weights)(model(inputs), targets)", []),
        ("nn.CrossEntropyLoss()(model(inputs).softmax(dim=1), targets)", ["f015"]),
    ],
)
def test_rule_on_the_loss(loss: str, rules: list[str]) -> None:
    assert lint(network(*DENSE), loss) == rules


@pytest.mark.parametrize(
    ("loss", "rules"),
    [
        ("F.binary_cross_entropy(model(inputs), targets)", ["f012", "f012"]),
        ("F.binary_cross_entropy(torch.sigmoid(model(inputs)), targets)", []),
        ("F.binary_cross_entropy_with_logits(model(inputs), targets)", []),
        ("F.nll_loss(model(inputs), targets)", []),  # f008 asks for several labels
        ("F.nll_loss(F.log_softmax(model(inputs), dim=1), targets)", ["f017", "f017", "f020"]),
    ],
)
def test_rule_on_the_loss_of_one_output(loss: str, rules: list[str]) -> None:
    assert lint(network("nn.Linear(64, 8)", "nn.ReLU()", "nn.Linear(8, 1)"), loss) == rules


@pytest.mark.parametrize(
    ("made", "loss", "rules"),
    [
        ("criterion = nn.NLLLoss(weights)", "criterion(F.log_softmax(model(inputs), dim=1), targets)", []),
        ("criterion = nn.NLLLoss(weights)", "criterion(model(inputs), targets)", ["f008"]),
        ("criterion = nn.CrossEntropyLoss()", "criterion(model(inputs), targets)", []),
        ("criterion = nn.CrossEntropyLoss()", "criterion(model(inputs).softmax(1), targets)", ["f015"]),
        ("criterion = nn.BCELoss() if binary else nn.NLLLoss()", "criterion(model(inputs), targets)", []),  # who knows
        ("criterion = nn.NLLLoss()\ncriterion = nn.CrossEntropyLoss()", "criterion(model(inputs), targets)", []),
    ],
)
def test_rule_on_a_loss_that_has_a_name(made: str, loss: str, rules: list[str]) -> None:
    assert lint(network(*DENSE) + made + "\n", loss) == rules
    trainer = "class Trainer:\n    def __init__(self):\n"
    trainer += "".join(f"        self.{line}\n" for line in made.split("\n"))
    trainer += f"    def step(self, model, inputs, targets):\n        return self.{loss}\n"
    assert lint(network(*DENSE) + trainer, "step(model, inputs, targets)") == rules


def test_softmax_that_the_loss_does_not_get_is_no_matter() -> None:
    metrics = "def accuracy(outputs, targets):\n    return outputs.softmax(dim=1).argmax(dim=1) == targets\n"
    assert lint(network(*DENSE) + metrics) == []


@pytest.mark.parametrize(
    ("line", "rules"),
    [
        ("nn.init.zeros_(model.layers[0].weight)", ["f004"]),
        ("nn.init.constant_(model.head.bias, -2.0)", ["f024"]),
        ("nn.init.constant_(model.head.bias, 0.0)", []),
        ("nn.init.zeros_(model.head.bias)", []),
        ("nn.init.kaiming_normal_(model.head.weight)", []),
    ],
)
def test_rule_on_initializers(line: str, rules: list[str]) -> None:
    assert lint(network(*DENSE) + line + "\n") == rules


def test_loop_that_never_steps_or_starts_anew() -> None:
    assert lint(network(*DENSE), step="scheduler.step()") == ["f022", "f022"]  # a fault and its family
    anew = "optimizer.step()\n        model.reset_parameters()"
    assert lint(network(*DENSE), step=anew) == ["f007"]
    for noise in ("torch.empty_like(inputs).normal_()", "inputs.uniform_(0, 1)"):
        assert lint(network(*DENSE), step=f"optimizer.step()\n        noise = {noise}") == []
    for anew in ("nn.init.normal_(p)", "xavier_uniform_(p)", "model.head.weight.data.normal_()", "model.apply(init_w)"):
        assert lint(network(*DENSE), step=f"optimizer.step()\n        {anew}") == ["f007"]
    job = (
        "def job():\n    model = Net(8)\n    nn.init.orthogonal_(model.head.weight)\n    train_epoch(model, [], None)\n"
    )
    assert lint(network(*DENSE) + job + "for _ in range(3):\n    job()\n") == []  # each job builds its model


@pytest.mark.parametrize(
    ("size", "rules"), [("config.batch_size", ["f014"]), ("32", ["f014"]), ("-1", []), ("len(x)", [])]
)
def test_batch_size_written_into_a_reshape(size: str, rules: list[str]) -> None:
    assert lint(network(*DENSE, forward=f"self.layers(x.view({size}, 64))")) == rules


def test_functions_and_inner_modules_are_called_in_the_order_of_forward() -> None:
    source = """
class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size=3, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)))

class Net(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.head = nn.Linear(8, 4)
        self.block = Block(1, 2 * channels)

    def forward(self, x):
        x = F.max_pool2d(self.block(x), 2)
        return self.head(torch.flatten(x, 1))

def build_model(config):
    return Net(config.width)
"""
    (layers,) = Source(source, {"width": 8}).networks()
    assert [x.kind for x in layers] == ["conv", "batchnorm", "activation", "maxpool", "reshape", "dense"]
    assert (layers[0].name, layers[0].inputs, layers[0].outputs, layers[0].kernel) == ("block.conv", 1, 16, 3)
    assert not layers[0].bias and layers[-1].bias


def test_network_outside_the_meta_model_is_not_judged() -> None:
    with pytest.raises(NotApplicable):
        lint(network("nn.Embedding(100, 8)", "nn.Linear(8, 8)", "nn.Linear(8, 4)"))
