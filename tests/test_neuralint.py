"""NeuraLint's rules on small networks, on both sides of their limits."""

from types import SimpleNamespace

import pytest
from bugbench.detector import NotApplicable
from bugbench.detectors import neuralint
from bugbench.layer_graph import Source
from bugbench.layer_rules import network_rules

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


def rules(*layers: str) -> set[str]:
    (found,) = Source(network(*layers), {"width": 8}).networks()
    return {finding.rule.partition(" ")[0] for finding in network_rules(found, 10)}


@pytest.mark.parametrize(("between", "node"), [((), False), (("nn.Flatten()",), True), (("nn.LayerNorm(8)",), False)])
def test_what_is_a_node(between: tuple[str, ...], node: bool) -> None:
    ending = ("nn.ReLU()", "nn.Linear(8, 4)")
    bias = rules("nn.Linear(64, 8)", "nn.ReLU()", "nn.Tanh()", *between, "nn.BatchNorm1d(8)", "nn.Linear(8, 4)")
    assert ("f005" in bias) == (not node)
    silent = rules("nn.Linear(64, 8)", "nn.Dropout()", "nn.Dropout()", *between, *ending)
    assert ("f009" in silent) == node
    for after in (("nn.BatchNorm1d(8)",), ("nn.ReLU()", "nn.BatchNorm1d(8)")):
        assert ("f006" in rules("nn.Linear(64, 8)", "nn.Dropout()", *between, *after, *ending)) == (not node)
    for after in (("nn.MaxPool2d(2)",), ("nn.ReLU()", "nn.MaxPool2d(2)")):
        assert ("f018" in rules("nn.Conv2d(1, 8, 3)", "nn.Dropout()", *between, *after)) == (not node)


@pytest.mark.parametrize(
    ("layers", "flagged"),
    [
        (("nn.Conv2d(1, 8, 3)", "nn.ReLU()", "nn.MaxPool2d(2)", "nn.Linear(8, 4)"), ["layers.0", "layers.2"]),
        (("nn.Conv2d(1, 8, 3)", "nn.ReLU()", "nn.AdaptiveAvgPool2d(1)", "nn.Linear(8, 4)"), ["layers.0", "layers.2"]),
        (("nn.AvgPool1d(2)", "nn.ReLU()", "nn.Dropout()", "nn.Dropout()", "nn.Linear(8, 4)"), []),  # the fourth
        (("nn.AvgPool1d(2)", "nn.ReLU()", "nn.Dropout()", "nn.LayerNorm(8)", "nn.Linear(8, 4)"), ["layers.0"]),  # third
        (("nn.Conv2d(1, 8, 3)", "nn.AdaptiveAvgPool2d(1)", "nn.Flatten()", "nn.Linear(8, 4)"), []),
    ],
)
def test_flatten_is_missed_after_all_that_convolves_or_pools(layers: tuple[str, ...], flagged: list[str]) -> None:
    (found,) = Source(network(*layers), {}).networks()
    assert [x.layer for x in network_rules(found, 10) if x.rule.startswith("f011")] == flagged


@pytest.mark.parametrize(
    ("pooling", "fires"),
    [
        ("x.mean(dim=(2, 3))", False),
        ("F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1)", False),
        ("x.permute(0, 2, 3, 1)", False),
        ("F.adaptive_avg_pool2d(x, 1)", True),
        ("F.interpolate(x, 7)", True),
    ],
)
def test_what_flattens_in_forward(pooling: str, fires: bool) -> None:
    source = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.conv(x))
        return self.head({pooling})
"""
    (layers,) = Source(source.format(pooling=pooling), {}).networks()
    assert any(x.rule.startswith("f011") for x in network_rules(layers, 10)) == fires


@pytest.mark.parametrize(
    ("first", "later", "fires"),
    [
        ("Conv2d(1, 8, (3, 5))", "Conv2d(8, 8, (3, 3))", True),  # the second axis alone
        ("Conv2d(1, 8, (3, 5))", "Conv2d(8, 8, 3)", True),
        ("Conv2d(1, 8, 3)", "Conv2d(8, 8, (3, 5))", False),
        ("Conv3d(1, 8, (3, 3, 5))", "Conv3d(8, 8, (3, 3, 4))", True),
        ("Conv2d(1, 8, 5)", "Conv1d(8, 8, 3)", False),  # another kind of window
    ],
)
def test_windows_are_compared_along_each_axis(first: str, later: str, fires: bool) -> None:
    assert ("f016" in rules(f"nn.{first}", "nn.ReLU()", f"nn.{later}", "nn.ReLU()", "nn.MaxPool2d(2)")) == fires


def test_rule_on_two_layers_names_the_first() -> None:
    (layers,) = Source(network("nn.Linear(64, 8)", "nn.ReLU()", "nn.Tanh()", "nn.Linear(8, 16)"), {}).networks()
    found = {x.rule[:4]: x.layer for x in network_rules(layers, 10)}
    assert found == {"f003": "layers.0", "f019": "layers.0"}


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
    assert lint(network("nn.Conv2d(1, 4, 3)", "nn.ReLU()", *pairs * 4, *ending)) == []  # filters of a block may differ
    two = ("nn.Conv2d(8, 8, 3)", "nn.ReLU()", "nn.MaxPool2d(2)", "nn.AvgPool2d(2)")
    assert "f025" in rules(*two * 4, *ending)  # twelve; what comes after the pooling is neither dense nor flatten
    bare = ("nn.Conv2d(8, 8, 3)", "nn.MaxPool2d(2)", "nn.ReLU()")
    assert rules(*bare * 5, *ending) == set()  # nothing between the convolution and its pooling


def test_ineffective_pooling_is_said_where_pooling_is_not_lacking() -> None:
    convolution = ("nn.Conv2d(8, 8, 3)", "nn.ReLU()")
    average = ("nn.AvgPool2d(2)",)
    assert rules(*convolution * 9, *average) == {"f027"}  # ten layers that convolve or pool
    assert rules(*convolution * 8, *average) == set()
    assert rules(*convolution * 9, *average, *convolution) == {"f002"}  # the last one has no pooling after it
    assert rules(*convolution * 9, "nn.AdaptiveMaxPool2d(1)") == set()


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
        ("F.nll_loss(torch.tanh(model(inputs)), targets)", ["f008", "f020"]),  # not softmax
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
        ("F.binary_cross_entropy(torch.tanh(model(inputs)), targets)", ["f012", "f012", "f020"]),  # not sigmoid
        ("F.binary_cross_entropy_with_logits(model(inputs), targets)", []),
        ("F.nll_loss(model(inputs), targets)", []),  # f008 asks for several labels
        ("F.nll_loss(F.log_softmax(model(inputs), dim=1), targets)", ["f017", "f017", "f020"]),
    ],
)
def test_rule_on_the_loss_of_one_output(loss: str, rules: list[str]) -> None:
    assert lint(network("nn.Linear(64, 8)", "nn.ReLU()", "nn.Linear(8, 1)"), loss) == rules


def test_softmax_of_one_output_is_first_of_all_a_wrong_last_activation() -> None:
    assert neuralint.RULES["f017 softmax of one output"][0] == "activation_on_logits"


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
    assert (layers[0].name, layers[0].outputs, layers[0].kernel) == ("block.conv", 16, (3, 3))
    assert not layers[0].bias and layers[-1].bias


def test_network_outside_the_meta_model_is_not_judged() -> None:
    with pytest.raises(NotApplicable):
        lint(network("nn.Embedding(100, 8)", "nn.Linear(8, 8)", "nn.Linear(8, 4)"))
